{{/* The name of a template: its chart's key and version, dots as dashes, as k0rdent's own are called. */}}
{{- define "fleet.template" -}}
{{- printf "windfall-%s-%s" .name (.version | replace "." "-" | replace "+" "-" | lower) | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{/* The template of a service that is used now. */}}
{{- define "fleet.current" -}}
{{- $chart := get .root.Values.serviceCharts .name }}
{{- if not $chart }}{{ fail (printf "serviceCharts.%s: missing, and a service needs it" .name) }}{{ end }}
{{- include "fleet.template" (dict "name" .name "version" (first $chart.versions)) -}}
{{- end }}

{{- define "fleet.labels" -}}
app.kubernetes.io/part-of: windfall
app.kubernetes.io/managed-by: windfall
windfall.dev/fleet: {{ .Values.fleet }}
{{- end }}

{{/* What a cluster is chosen by. */}}
{{- define "fleet.site-labels" -}}
{{ include "fleet.labels" .root }}
windfall.dev/site: {{ .site.name }}
windfall.dev/role: {{ .site.role }}
windfall.dev/gpu: {{ .site.gpu }}
windfall.dev/jurisdiction: {{ .site.jurisdiction }}
{{- with .site.region }}
windfall.dev/region: {{ . }}
{{- end }}
{{- range .site.workloads }}
windfall.dev/workload-{{ . }}: "true"
{{- end }}
{{- with .site.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* One service of a set: key, namespace, and values of the fleet laid over those that the set gives it. */}}
{{- define "fleet.service" -}}
- name: {{ .release | default .name }}
  namespace: {{ .namespace }}
  template: {{ include "fleet.current" . }}
  {{- with .after }}
  dependsOn:
  {{- range . }}
  - name: {{ .name }}
    namespace: {{ .namespace }}
  {{- end }}
  {{- end }}
  {{- $given := (get .root.Values.values .name) | default dict }}
  {{- $values := mustMergeOverwrite (deepCopy (.values | default dict)) (deepCopy $given) }}
  {{- with $values }}
  values: |
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
