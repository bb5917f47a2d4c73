{{/* Whose an object is. `root` is the chart's context, `name` the component. */}}
{{- define "windfall.fullname" -}}
{{ .root.Release.Name }}-{{ .name }}
{{- end }}

{{/* What a component's pods are found by: for good, because selectors cannot be changed. */}}
{{- define "windfall.selector" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end }}

{{- define "windfall.labels" -}}
{{ include "windfall.selector" . }}
app.kubernetes.io/part-of: windfall
{{- with .root.Values.site }}
windfall.dev/site: {{ . }}
{{- end }}
{{- end }}

{{- define "windfall.metadata" -}}
name: {{ .as | default (include "windfall.fullname" .) }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "windfall.labels" . | nindent 2 }}
  app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ .root.Release.Service }}
  helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* An image by its digest where there is one, else by its tag. */}}
{{- define "windfall.image" -}}
{{- $images := .root.Values.images }}
{{- $digest := get ($images.digests | default dict) .image }}
{{- if $digest }}{{ printf "%s/%s@%s" $images.registry .image $digest }}{{ else }}{{ printf "%s/%s:%s" $images.registry .image $images.tag }}{{ end }}
{{- end }}

{{- define "windfall.nats-image" -}}
{{- $image := .Values.nats.image }}
{{- if $image.digest }}{{ printf "%s@%s" $image.repository $image.digest }}{{ else }}{{ printf "%s:%s" $image.repository $image.tag }}{{ end }}
{{- end }}

{{/* "true" where nothing travels in plain text. */}}
{{- define "windfall.secure" -}}
{{- if ne .Values.tls.mode "insecure" }}true{{ end }}
{{- end }}

{{- define "windfall.nats-url" -}}
{{- if .Values.nats.enabled -}}
{{ ternary "tls" "nats" (eq (include "windfall.secure" .) "true") }}://{{ .Release.Name }}-nats.{{ .Release.Namespace }}.svc:4222
{{- else -}}
{{ .Values.nats.url }}
{{- end }}
{{- end }}
