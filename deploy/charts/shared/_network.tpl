{{/* Policies: all of a release is shut, and each component has its own door. Peers are of this release unless said. */}}
{{- define "windfall.policy" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "windfall.metadata" . | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- toYaml (.pods | default (include "windfall.selector" . | fromYaml)) | nindent 6 }}
  policyTypes: [Ingress, Egress]
  {{- with .ingress | default "" | trim }}
  ingress: {{ . | nindent 2 }}
  {{- end }}
  {{- with .egress }}
  egress: {{ . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "windfall.default-deny" -}}
{{- $pods := dict "app.kubernetes.io/instance" .Release.Name "app.kubernetes.io/part-of" "windfall" }}
{{- include "windfall.policy" (dict "root" . "name" "default-deny" "pods" $pods) }}
{{- end }}

{{/* One way: `to` or `from` a component, or anywhere, to a port. */}}
{{- define "windfall.way" -}}
{{- $peers := .peers | default list }}
{{- range .components }}{{ $peers = append $peers (dict "podSelector" (dict "matchLabels" (include "windfall.selector" (dict "root" $.root "name" .) | fromYaml))) }}{{ end }}
{{- range .cidrs }}{{ $peers = append $peers (dict "ipBlock" (dict "cidr" .)) }}{{ end }}
{{- $ports := list }}
{{- range .ports }}{{ $ports = append $ports (dict "protocol" "TCP" "port" (int .)) }}{{ end }}
{{- $way := dict }}
{{- if $ports }}{{ $_ := set $way "ports" $ports }}{{ end }}
{{- if $peers }}{{ $_ := set $way .direction $peers }}{{ end }}
{{- toYaml (list $way) }}
{{- end }}

{{/* What every component may: names, telemetry, and what the values add. */}}
{{- define "windfall.common-egress" -}}
{{- $network := .Values.networkPolicy }}
- to:
  - namespaceSelector:
      matchLabels:
        kubernetes.io/metadata.name: {{ $network.dns.namespace }}
    podSelector:
      matchLabels:
        {{- toYaml $network.dns.labels | nindent 8 }}
  ports:
  - {protocol: UDP, port: 53}
  - {protocol: TCP, port: 53}
{{- with .Values.telemetry.endpoint }}
{{- $url := urlParse . }}
- ports:
  - protocol: TCP
    port: {{ regexFind "[0-9]+$" $url.host | default (ternary "443" "4317" (eq $url.scheme "https")) }}
{{- end }}
{{- with $network.extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "windfall.api-server-egress" -}}
{{- include "windfall.way" (dict "root" . "direction" "to" "cidrs" .Values.networkPolicy.apiServer "ports" (list 443 6443)) }}
{{- end }}

{{/* Where the release's services find NATS: its own server, or one of somebody else's. */}}
{{- define "windfall.nats-egress" -}}
{{- if .Values.nats.enabled }}
{{- include "windfall.way" (dict "root" . "direction" "to" "components" (list "nats") "ports" (list 4222)) }}
{{- else }}
{{- include "windfall.way" (dict "root" . "direction" "to" "ports" (list (regexFind "[0-9]+$" (urlParse .Values.nats.url).host | default "4222"))) }}
{{- end }}
{{- end }}
