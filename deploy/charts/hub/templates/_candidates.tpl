{{/* A service of which one works by a lease and the others stand by, over one folder. As windfall.service, and

  replicas  how many
  claim     of the folder, where it is there already
*/}}
{{- define "windfall.candidates" -}}
{{- $claim := .claim | default (printf "%s-state" (include "windfall.fullname" .)) }}
{{- $env := include "windfall.told" . | fromJson }}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "windfall.metadata" . | nindent 2 }}
automountServiceAccountToken: false
{{- if not .claim }}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  {{- include "windfall.metadata" (merge (dict "as" $claim) .) | nindent 2 }}
  annotations:
    # As with the claims of a StatefulSet, what was trained outlives the release.
    helm.sh/resource-policy: keep
spec:
  accessModes: [ReadWriteMany]
  {{- with .storage.className }}
  storageClassName: {{ . }}
  {{- end }}
  resources:
    requests:
      storage: {{ .storage.size }}
{{- end }}
---
# Who stands by is not ready, so that the Service leads to the one that works. A rollout therefore waits for nobody and
# replaces them all; it takes as long as one start, as it does without a standby.
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "windfall.metadata" . | nindent 2 }}
spec:
  replicas: {{ .replicas }}
  revisionHistoryLimit: 5
  progressDeadlineSeconds: 2147483647
  strategy:
    rollingUpdate:
      maxSurge: 0
      maxUnavailable: 100%
  selector:
    matchLabels:
      {{- include "windfall.selector" . | nindent 6 }}
  template:
    {{- include "windfall.pod" (mustMerge (dict "env" $env "stateClaim" $claim) .) | nindent 4 }}
{{- end }}
