{{/*
A component of Windfall as a pod template.

  root        the chart's context
  name        the component; its service account, nkey and labels
  image       of which image; the component's name unless it says otherwise
  command     instead of the image's own
  env         name → value
  secret      a Secret whose keys become variables too
  ports       name → number
  kubernetes  true where it speaks with the API server
  grace       seconds from SIGTERM to SIGKILL
  resources   as the values have them
  placement   nodeSelector, tolerations, runtimeClass of the values
  stateless   true where its folder goes with the pod
  stateClaim  the claim of its folder, where pods share one
  claims      claims that are there already: name, claim, path; mounted read-only
  secrets     Secrets likewise: name, secret, path
  readiness   false where a pod that stands by is not ready, and nobody may wait for it
*/}}
{{- define "windfall.pod" -}}
{{- $root := .root }}
{{- $values := .root.Values }}
{{- $secure := eq (include "windfall.secure" $root) "true" }}
{{- $placement := .placement | default dict }}
metadata:
  labels:
    {{- include "windfall.labels" . | nindent 4 }}
  {{- with $values.pods.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "windfall.fullname" . }}
  automountServiceAccountToken: {{ .kubernetes | default false }}
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .grace | default 30 }}
  {{- with $values.pods.priorityClass }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $placement.runtimeClass }}
  runtimeClassName: {{ . }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: {{ $values.pods.user }}
    runAsGroup: {{ $values.pods.user }}
    fsGroup: {{ $values.pods.user }}
    fsGroupChangePolicy: OnRootMismatch
    {{- with $placement.groups }}
    supplementalGroups: {{ toJson . }}
    {{- end }}
    seccompProfile:
      type: RuntimeDefault
  {{- include "windfall.pull-secrets" $root | nindent 2 }}
  {{- with merge (dict) ($placement.nodeSelector | default dict) ($values.pods.nodeSelector | default dict) }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with concat ($values.pods.tolerations | default list) ($placement.tolerations | default list) }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if gt (int (.replicas | default 1)) 1 }}
  {{- include "windfall.spread" . | nindent 2 }}
  {{- end }}
  containers:
  - name: {{ .name }}
    image: {{ include "windfall.image" (dict "root" $root "image" (.image | default .name)) | quote }}
    imagePullPolicy: {{ $values.images.pullPolicy }}
    {{- with .command }}
    command: {{ toJson . }}
    {{- end }}
    env:
    {{- range $name, $value := .env }}
    - name: {{ $name }}
      value: {{ $value | quote }}
    {{- end }}
    {{- include "windfall.telemetry" . | nindent 4 }}
    {{- include "windfall.metrics" . | nindent 4 }}
    {{- with .secret }}
    envFrom:
    - secretRef:
        name: {{ . }}
    {{- end }}
    {{- $metrics := $values.metrics.prometheus }}
    {{- with merge (dict) (.ports | default dict) (ternary (dict "metrics" $metrics.port) (dict) $metrics.enabled) }}
    ports:
    {{- range $name, $port := . }}
    - name: {{ $name }}
      containerPort: {{ $port }}
      protocol: TCP
    {{- end }}
    {{- end }}
    # Health is answered on loopback alone, where the kubelet cannot ask: it is asked from inside.
    startupProbe:
      {{- include "windfall.probe" "livez" | nindent 6 }}
      periodSeconds: 2
      failureThreshold: 150
    livenessProbe:
      {{- include "windfall.probe" "livez" | nindent 6 }}
      periodSeconds: 20
      failureThreshold: 3
    {{- if ne (toString .readiness) "false" }}
    readinessProbe:
      {{- include "windfall.probe" "readyz" | nindent 6 }}
      periodSeconds: 10
    {{- end }}
    resources:
      {{- toYaml .resources | nindent 6 }}
    securityContext:
      {{- include "windfall.restricted" $root | nindent 6 }}
    volumeMounts:
    - name: state
      mountPath: /var/lib/windfall
    - name: tmp
      mountPath: /tmp
    {{- if $secure }}
    - name: tls
      mountPath: /etc/windfall/tls
      readOnly: true
    {{- end }}
    {{- if $values.nats.nkeySecret }}
    - name: nkey
      mountPath: /etc/windfall/nkey
      readOnly: true
    {{- end }}
    {{- range concat (.claims | default list) (.secrets | default list) }}
    - name: {{ .name }}
      mountPath: {{ .path }}
      readOnly: true
    {{- end }}
  volumes:
  {{- if .stateless }}
  - name: state
    emptyDir: {}
  {{- end }}
  {{- with .stateClaim }}
  - name: state
    persistentVolumeClaim:
      claimName: {{ . }}
  {{- end }}
  - name: tmp
    emptyDir: {}
  {{- if $secure }}
  - name: tls
    secret:
      secretName: {{ $values.tls.secret }}
      defaultMode: 0440
  {{- end }}
  {{- with $values.nats.nkeySecret }}
  - name: nkey
    secret:
      secretName: {{ . }}
      defaultMode: 0440
      # This seed alone of those that lie there.
      items:
      - key: {{ $.name }}.nk
        path: {{ $.name }}.nk
  {{- end }}
  {{- range .secrets }}
  - name: {{ .name }}
    secret:
      secretName: {{ .secret }}
      defaultMode: 0440
  {{- end }}
  {{- range .claims }}
  - name: {{ .name }}
    persistentVolumeClaim:
      claimName: {{ .claim }}
      readOnly: true
  {{- end }}
{{- end }}

{{- define "windfall.probe" -}}
exec:
  command: [windfall-health, {{ . }}]
timeoutSeconds: 5
{{- end }}

{{- define "windfall.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "windfall.pull-secrets" -}}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* Not two of a kind on one node, where nodes allow, and spread over zones. */}}
{{- define "windfall.spread" -}}
topologySpreadConstraints:
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- maxSkew: 1
  topologyKey: {{ . }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "windfall.selector" $ | nindent 6 }}
{{- end }}
{{- end }}

{{/* What every service is told; a dictionary as JSON. */}}
{{- define "windfall.settings" -}}
{{- $values := .root.Values }}
{{- $secure := eq (include "windfall.secure" .root) "true" }}
{{- $told := dict
      "WINDFALL_NATS_URL" (include "windfall.nats-url" .root)
      "WINDFALL_STATE_DIR" "/var/lib/windfall"
      "WINDFALL_HEALTH_PORT" "8081"
      "WINDFALL_LOG_FORMAT" $values.logs.format
      "WINDFALL_LOG_LEVEL" $values.logs.level
      "WINDFALL_NATS_REPLICAS" (ternary $values.nats.replicas $values.nats.streamReplicas $values.nats.enabled | toString) }}
{{- if $secure }}
{{- range $name, $file := dict "CERTIFICATE" "tls.crt" "KEY" "tls.key" "AUTHORITY" "ca.crt" }}
{{- $_ := set $told (printf "WINDFALL_NATS_%s" $name) (printf "/etc/windfall/tls/%s" $file) }}
{{- end }}
{{- if or $values.nats.enabled $values.nats.handshakeFirst }}{{ $_ := set $told "WINDFALL_NATS_TLS_FIRST" "true" }}{{ end }}
{{- end }}
{{- if $values.nats.nkeySecret }}{{ $_ := set $told "WINDFALL_NATS_NKEY_FILE" (printf "/etc/windfall/nkey/%s.nk" .name) }}{{ end }}
{{- toJson $told }}
{{- end }}

{{/* What serves or calls over gRPC is told its three files, or that it goes without; a dictionary as JSON. */}}
{{- define "windfall.tls-settings" -}}
{{- if eq (include "windfall.secure" .) "true" }}
{{- dict "WINDFALL_TLS_CERTIFICATE" "/etc/windfall/tls/tls.crt" "WINDFALL_TLS_KEY" "/etc/windfall/tls/tls.key" "WINDFALL_TLS_AUTHORITY" "/etc/windfall/tls/ca.crt" | toJson }}
{{- else }}
{{- dict | toJson }}
{{- end }}
{{- end }}

{{- define "windfall.telemetry" -}}
{{- $telemetry := .root.Values.telemetry }}
{{- if $telemetry.endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ $telemetry.endpoint | quote }}
{{- if and $telemetry.ourAuthority (eq (include "windfall.secure" .root) "true") }}
- name: OTEL_EXPORTER_OTLP_CERTIFICATE
  value: /etc/windfall/tls/ca.crt
{{- end }}
{{- with $telemetry.headersSecret }}
- name: OTEL_EXPORTER_OTLP_HEADERS
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: headers
      # Without it nothing is seen, and training goes on.
      optional: true
{{- end }}
{{- end }}
{{- if or $telemetry.endpoint .root.Values.metrics.prometheus.enabled }}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: OTEL_RESOURCE_ATTRIBUTES
  value: k8s.namespace.name={{ .root.Release.Namespace }},k8s.pod.name=$(POD_NAME)
{{- end }}
{{- end }}
