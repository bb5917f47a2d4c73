{{/* For Prometheus: what pods are told, who may ask them, and by which objects Prometheus' operator finds them. */}}
{{- define "windfall.metrics" -}}
{{- $prometheus := .root.Values.metrics.prometheus }}
{{- if $prometheus.enabled }}
- name: OTEL_METRICS_EXPORTER
  value: {{ ternary "otlp,prometheus" "prometheus" (ne .root.Values.telemetry.endpoint "") | quote }}
- name: OTEL_EXPORTER_PROMETHEUS_HOST
  value: "0.0.0.0"
- name: OTEL_EXPORTER_PROMETHEUS_PORT
  value: {{ $prometheus.port | quote }}
{{- if not $prometheus.clientSecret }}
- name: WINDFALL_METRICS_INSECURE
  value: "true"
{{- else if not (hasKey .env "WINDFALL_TLS_CERTIFICATE") }}
{{- range $name, $value := include "windfall.tls-settings" .root | fromJson }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* From whom Prometheus may come, to a port; nothing where it may not. `root`, `port`. */}}
{{- define "windfall.from-prometheus" -}}
{{- $prometheus := .root.Values.metrics.prometheus }}
- from:
  - namespaceSelector:
      matchLabels:
        kubernetes.io/metadata.name: {{ $prometheus.namespace }}
    podSelector:
      matchLabels:
        {{- toYaml $prometheus.labels | nindent 8 }}
  ports:
  - {protocol: TCP, port: {{ .port }}}
{{- end }}

{{- define "windfall.scrape-ingress" -}}
{{- if .Values.metrics.prometheus.enabled }}{{ include "windfall.from-prometheus" (dict "root" . "port" .Values.metrics.prometheus.port) }}{{ end }}
{{- end }}

{{- define "windfall.nats-scrape-ingress" -}}
{{- if .Values.metrics.nats }}{{ include "windfall.from-prometheus" (dict "root" . "port" 8222) }}{{ end }}
{{- end }}

{{/*
A monitor for each component. Series are of the same `job` as by way of a collector.

  root        the chart's context
  components  name → labels of its pods
  serverName  for which the pods' certificate holds, where it is cert-manager's
*/}}
{{- define "windfall.monitors" -}}
{{- $metrics := .root.Values.metrics }}
{{- $endpoint := dict "port" "metrics" "interval" $metrics.interval "scheme" "http" }}
{{- with $metrics.prometheus.clientSecret }}
{{- $ca := dict "secret" (dict "name" . "key" "ca.crt") }}
{{- $cert := dict "secret" (dict "name" . "key" "tls.crt") }}
{{- $key := dict "name" . "key" "tls.key" }}
{{- $_ := set $endpoint "scheme" "https" }}
{{- $_ := set $endpoint "tlsConfig" (dict
      "ca" $ca "cert" $cert "keySecret" $key "serverName" ($metrics.prometheus.serverName | default $.serverName)) }}
{{- end }}
{{- range $name, $pods := .components }}
{{- $me := dict "root" $.root "name" $name }}
{{- $relabelings := list (dict "targetLabel" "job" "replacement" (printf "windfall/%s" $name)) }}
{{- $here := mustMerge (dict "relabelings" $relabelings) $endpoint }}
{{- if $metrics.podMonitor.enabled }}
---
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata:
  {{- include "windfall.metadata" $me | nindent 2 }}
  {{- with $metrics.labels }}
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  selector:
    matchLabels:
      {{- toYaml $pods | nindent 6 }}
  podMetricsEndpoints:
  - {{- toYaml $here | nindent 4 }}
{{- end }}
{{- if $metrics.serviceMonitor.enabled }}
---
apiVersion: v1
kind: Service
metadata:
  {{- include "windfall.metadata" (merge (dict "as" (printf "%s-%s-metrics" $.root.Release.Name $name)) $me) | nindent 2 }}
spec:
  clusterIP: None
  # Who stands by, or goes, is measured too.
  publishNotReadyAddresses: true
  selector:
    {{- toYaml $pods | nindent 4 }}
  ports:
  - {name: metrics, port: {{ $metrics.prometheus.port }}, targetPort: metrics, protocol: TCP}
---
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  {{- include "windfall.metadata" $me | nindent 2 }}
  {{- with $metrics.labels }}
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  selector:
    matchLabels:
      {{- include "windfall.selector" $me | nindent 6 }}
  endpoints:
  - {{- toYaml $here | nindent 4 }}
{{- end }}
{{- end }}
{{- end }}
