{{/* A service: a StatefulSet of one pod, because its journal is a file that one process writes. As windfall.pod, and

  storage   size and className of its volume
  settings  what its values add, name → value
*/}}
{{- define "windfall.service" -}}
{{- $root := .root }}
{{- $env := include "windfall.told" . | fromJson }}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "windfall.metadata" . | nindent 2 }}
automountServiceAccountToken: false
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  {{- include "windfall.metadata" . | nindent 2 }}
spec:
  serviceName: {{ $root.Release.Name }}
  replicas: 1
  revisionHistoryLimit: 5
  selector:
    matchLabels:
      {{- include "windfall.selector" . | nindent 6 }}
  template:
    {{- include "windfall.pod" (mustMerge (dict "env" $env) .) | nindent 4 }}
  volumeClaimTemplates:
  {{- include "windfall.claim" (dict "name" "state" "storage" .storage) | nindent 2 }}
{{- end }}

{{/* What it is told, name → value, with what its values add. */}}
{{- define "windfall.told" -}}
{{- $told := mustMerge (.env | default dict) (include "windfall.settings" . | fromJson) }}
{{- range $name, $_ := .settings }}
{{- if hasKey $told $name }}{{ fail (printf "%s.settings.%s: the chart says it itself; leave it out" $.values $name) }}{{ end }}
{{- end }}
{{- mustMerge (dict) $told (.settings | default dict) | toJson }}
{{- end }}

{{- define "windfall.claim" -}}
- apiVersion: v1
  kind: PersistentVolumeClaim
  metadata:
    name: {{ .name }}
  spec:
    accessModes: [ReadWriteOnce]
    {{- with .storage.className }}
    storageClassName: {{ . }}
    {{- end }}
    resources:
      requests:
        storage: {{ .storage.size }}
{{- end }}
