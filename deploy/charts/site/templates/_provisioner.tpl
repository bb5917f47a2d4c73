{{/* What the provisioner is told, and of its trainers by it; a dictionary as JSON. */}}
{{- define "site.provisioner-settings" -}}
{{- $values := .Values }}
{{- $provisioner := .Values.provisioner }}
{{- $trainer := .Values.trainer }}
{{- $secure := eq (include "windfall.secure" .) "true" }}
{{- $told := dict
      "WINDFALL_SITE" $values.site
      "WINDFALL_BACKEND" $provisioner.backend
      "WINDFALL_GRACE" (printf "PT%dS" (int $provisioner.graceSeconds))
      "WINDFALL_KUBE_NAMESPACE" ($provisioner.kubeNamespace | default .Release.Namespace)
      "WINDFALL_TRAINER_COORDINATOR" $values.coordinator
      "WINDFALL_TRAINER_FEDERATION" $values.federation }}
{{- with $values.jurisdiction }}{{ $_ := set $told "WINDFALL_JURISDICTION" . }}{{ end }}
{{- with $provisioner.need }}{{ $_ := set $told "WINDFALL_KUBE_NEED" (toJson .) }}{{ end }}
{{- with $provisioner.kubeOwner }}{{ $_ := set $told "WINDFALL_KUBE_OWNER" . }}{{ end }}
{{- if $provisioner.kubeconfigSecret }}{{ $_ := set $told "WINDFALL_KUBECONFIG" "/etc/windfall/kube/kubeconfig" }}{{ end }}
{{- if eq $provisioner.backend "kubernetes" }}
{{- $_ := set $told "WINDFALL_KUBE_IMAGE" ($trainer.image | default (include "windfall.image" (dict "root" . "image" "site-trainer"))) }}
{{- $_ := set $told "WINDFALL_KUBE_USER" (toString $values.pods.user) }}
{{- $_ := set $told "WINDFALL_KUBE_WORKERS" (toString $trainer.workers) }}
{{- $_ := set $told "WINDFALL_KUBE_ACCELERATORS" (toString $trainer.gpus) }}
{{- $_ := set $told "WINDFALL_KUBE_VENDOR" $trainer.vendor }}
{{- $_ := set $told "WINDFALL_KUBE_DEDICATED" (toString $trainer.dedicated) }}
{{- $_ := set $told "WINDFALL_KUBE_SHARED_MEMORY" $trainer.sharedMemory }}
{{- $_ := set $told "WINDFALL_KUBE_STORAGE" $trainer.storage.size }}
{{- $_ := set $told "WINDFALL_KUBE_DATA_CLAIM" $trainer.dataClaim }}
{{- $_ := set $told "WINDFALL_KUBE_DATA_DIR" $trainer.dataDir }}
{{- with $trainer.storage.className }}{{ $_ := set $told "WINDFALL_KUBE_STORAGE_CLASS" . }}{{ end }}
{{- with $trainer.runtimeClass }}{{ $_ := set $told "WINDFALL_KUBE_RUNTIME_CLASS" . }}{{ end }}
{{- with $trainer.cpu }}{{ $_ := set $told "WINDFALL_KUBE_CPU" . }}{{ end }}
{{- with $trainer.memory }}{{ $_ := set $told "WINDFALL_KUBE_MEMORY" . }}{{ end }}
{{- with $trainer.secrets }}{{ $_ := set $told "WINDFALL_KUBE_SECRETS" (join "," .) }}{{ end }}
{{- with $values.images.pullSecrets }}{{ $_ := set $told "WINDFALL_KUBE_PULL_SECRETS" (join "," .) }}{{ end }}
{{- with $trainer.tolerations }}{{ $_ := set $told "WINDFALL_KUBE_TOLERATIONS" (toJson .) }}{{ end }}
{{- with $trainer.nodeSelector }}
{{- $pairs := list }}
{{- range $name, $value := . }}{{ $pairs = append $pairs (printf "%s=%s" $name $value) }}{{ end }}
{{- $_ := set $told "WINDFALL_KUBE_NODE_SELECTOR" (join "," $pairs) }}
{{- end }}
{{- if $values.metrics.prometheus.enabled }}{{ $_ := set $told "WINDFALL_KUBE_METRICS_PORT" (toString $values.metrics.prometheus.port) }}{{ end }}
{{- if $secure }}
{{- $_ := set $told "WINDFALL_KUBE_TLS_SECRET" $values.tls.secret }}
{{- $_ := set $told "WINDFALL_KUBE_NATS_TLS_SECRET" $values.tls.secret }}
{{- end }}
{{- with $values.nats.nkeySecret }}{{ $_ := set $told "WINDFALL_KUBE_NKEY_SECRET" . }}{{ end }}
{{- end }}
{{- range $name, $value := $trainer.settings }}
{{- $own := printf "WINDFALL_TRAINER_%s" (trimPrefix "WINDFALL_" $name) }}
{{- if hasKey $told $own }}{{ fail (printf "trainer.settings.%s: the chart says it itself; leave it out" $name) }}{{ end }}
{{- $_ := set $told $own $value }}
{{- end }}
{{- toJson $told }}
{{- end }}
