{{/*
The NATS server of a domain. The chart that includes it gives

  root    the chart's context
  config  nats.conf
  domain  of its JetStream
  leaves  true where other servers join as leaves
  seed    true where it joins another server as a leaf, by the seed leaf.nk
*/}}
{{- define "windfall.nats" -}}
{{- $root := .root }}
{{- $nats := .root.Values.nats }}
{{- $secure := eq (include "windfall.secure" $root) "true" }}
{{- $me := dict "root" $root "name" "nats" "replicas" $nats.replicas }}
{{- $clustered := gt (int $nats.replicas) 1 }}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "windfall.metadata" $me | nindent 2 }}
automountServiceAccountToken: false
---
apiVersion: v1
kind: ConfigMap
metadata:
  {{- include "windfall.metadata" $me | nindent 2 }}
data:
  nats.conf: |
    {{- .config | nindent 4 }}
---
apiVersion: v1
kind: Service
metadata:
  {{- include "windfall.metadata" $me | nindent 2 }}
spec:
  selector:
    {{- include "windfall.selector" $me | nindent 4 }}
  ports:
  - {name: client, port: 4222, targetPort: client, protocol: TCP}
---
# Names the servers to each other before they are ready.
apiVersion: v1
kind: Service
metadata:
  {{- include "windfall.metadata" (merge (dict "as" (printf "%s-nats-pods" $root.Release.Name)) $me) | nindent 2 }}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector:
    {{- include "windfall.selector" $me | nindent 4 }}
  ports:
  - {name: client, port: 4222, targetPort: client, protocol: TCP}
  {{- if $clustered }}
  - {name: cluster, port: 6222, targetPort: cluster, protocol: TCP}
  {{- end }}
  - {name: monitor, port: 8222, targetPort: monitor, protocol: TCP}
{{- if .leaves }}
---
apiVersion: v1
kind: Service
metadata:
  {{- include "windfall.metadata" (merge (dict "as" (printf "%s-nats-leaf" $root.Release.Name)) $me) | nindent 2 }}
  {{- with $nats.leafService.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  type: {{ $nats.leafService.type }}
  selector:
    {{- include "windfall.selector" $me | nindent 4 }}
  ports:
  - {name: leaf, port: {{ $nats.leafService.port }}, targetPort: leaf, protocol: TCP}
{{- end }}
{{- if $clustered }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "windfall.metadata" $me | nindent 2 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels:
      {{- include "windfall.selector" $me | nindent 6 }}
{{- end }}
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  {{- include "windfall.metadata" $me | nindent 2 }}
spec:
  serviceName: {{ $root.Release.Name }}-nats-pods
  replicas: {{ $nats.replicas }}
  # They find each other only when all of them come up.
  podManagementPolicy: Parallel
  revisionHistoryLimit: 5
  selector:
    matchLabels:
      {{- include "windfall.selector" $me | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "windfall.labels" $me | nindent 8 }}
      annotations:
        # Another configuration is another pod; other users are not.
        windfall.dev/config: {{ include "windfall.nats-restart" . | sha256sum }}
        {{- with $root.Values.pods.annotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ include "windfall.fullname" $me }}
      automountServiceAccountToken: false
      enableServiceLinks: false
      {{- if $nats.reload }}
      # One of its containers sends the other one a signal.
      shareProcessNamespace: true
      {{- end }}
      # Lame duck first: clients go to another server one after the other.
      terminationGracePeriodSeconds: 60
      {{- with $root.Values.pods.priorityClass }}
      priorityClassName: {{ . }}
      {{- end }}
      securityContext:
        runAsNonRoot: true
        runAsUser: {{ $root.Values.pods.user }}
        runAsGroup: {{ $root.Values.pods.user }}
        fsGroup: {{ $root.Values.pods.user }}
        fsGroupChangePolicy: OnRootMismatch
        seccompProfile:
          type: RuntimeDefault
      {{- include "windfall.pull-secrets" $root | nindent 6 }}
      {{- with merge (dict) ($nats.nodeSelector | default dict) ($root.Values.pods.nodeSelector | default dict) }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $root.Values.pods.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- if $clustered }}
      {{- include "windfall.spread" $me | nindent 6 }}
      {{- end }}
      containers:
      - name: nats
        image: {{ include "windfall.nats-image" $root | quote }}
        imagePullPolicy: {{ $root.Values.images.pullPolicy }}
        command: [nats-server, -c, /etc/nats/nats.conf]
        env:
        - name: POD_NAME
          valueFrom:
            fieldRef:
              fieldPath: metadata.name
        # One name for each server of the fleet: two leaves of one name would put each other out.
        - name: SERVER_NAME
          value: {{ .domain }}-$(POD_NAME)
        {{- if .seed }}
        - name: LEAF_SEED
          valueFrom:
            secretKeyRef:
              name: {{ $nats.nkeySecret }}
              key: leaf.nk
        {{- end }}
        ports:
        - {name: client, containerPort: 4222, protocol: TCP}
        {{- if $clustered }}
        - {name: cluster, containerPort: 6222, protocol: TCP}
        {{- end }}
        {{- if .leaves }}
        - {name: leaf, containerPort: 7422, protocol: TCP}
        {{- end }}
        - {name: monitor, containerPort: 8222, protocol: TCP}
        {{- $scheme := ternary "HTTPS" "HTTP" $secure }}
        startupProbe:
          httpGet: {path: "/healthz?js-server-only=true", port: monitor, scheme: {{ $scheme }}}
          periodSeconds: 2
          timeoutSeconds: 5
          # A large store takes a while to be read.
          failureThreshold: 300
        livenessProbe:
          httpGet: {path: "/healthz?js-enabled-only=true", port: monitor, scheme: {{ $scheme }}}
          periodSeconds: 30
          timeoutSeconds: 5
        readinessProbe:
          httpGet: {path: "/healthz?js-server-only=true", port: monitor, scheme: {{ $scheme }}}
          periodSeconds: 10
          timeoutSeconds: 5
        lifecycle:
          preStop:
            exec:
              command: [nats-server, "-sl=ldm=/run/nats/nats.pid"]
        resources:
          {{- toYaml $nats.resources | nindent 10 }}
        securityContext:
          {{- include "windfall.restricted" $root | nindent 10 }}
        volumeMounts:
        - {name: config, mountPath: /etc/nats, readOnly: true}
        - {name: store, mountPath: /data}
        - {name: run, mountPath: /run/nats}
        {{- if $secure }}
        - {name: tls, mountPath: /etc/nats-tls, readOnly: true}
        {{- end }}
      {{- if $nats.reload }}
      {{- include "windfall.nats-reload" (dict "root" $root "secure" (toString $secure)) | nindent 6 }}
      {{- end }}
      volumes:
      - name: config
        configMap:
          name: {{ include "windfall.fullname" $me }}
      - name: run
        emptyDir: {}
      {{- if $secure }}
      - name: tls
        secret:
          secretName: {{ $nats.secret }}
          defaultMode: 0440
      {{- end }}
  volumeClaimTemplates:
  {{- include "windfall.claim" (dict "name" "store" "storage" $nats.storage) | nindent 2 }}
{{- end }}

{{/* What nats.conf of the hub and of a site have in common. `root`, `domain`. */}}
{{- define "windfall.nats-common" -}}
{{- $nats := .root.Values.nats }}
{{- $secure := eq (include "windfall.secure" .root) "true" -}}
server_name: $SERVER_NAME
listen: 0.0.0.0:4222
{{ ternary "https" "http" $secure }}: 0.0.0.0:8222
pid_file: /run/nats/nats.pid
ports_file_dir: /run/nats
lame_duck_grace_period: 5s
lame_duck_duration: 30s
{{- if $secure }}
tls {
  {{- include "windfall.nats-tls" . | nindent 2 }}
  verify: true
  handshake_first: true
}
{{- end }}
jetstream {
  store_dir: /data
  domain: {{ .domain | quote }}
  # Acknowledged is on disk.
  sync_interval: always
  max_memory_store: 64MB
  max_file_store: {{ $nats.storage.maxBytes }}
}
{{- if gt (int $nats.replicas) 1 }}
cluster {
  name: {{ .domain | quote }}
  listen: 0.0.0.0:6222
  no_advertise: true
  routes: [
    {{- range $i := until (int $nats.replicas) }}
    nats-route://{{ $.root.Release.Name }}-nats-{{ $i }}.{{ $.root.Release.Name }}-nats-pods.{{ $.root.Release.Namespace }}.svc:6222
    {{- end }}
  ]
  {{- if $secure }}
  tls {
    {{- include "windfall.nats-tls" . | nindent 4 }}
    verify: true
  }
  {{- end }}
}
{{- end }}
{{- end }}

{{- define "windfall.nats-tls" -}}
cert_file: /etc/nats-tls/tls.crt
key_file: /etc/nats-tls/tls.key
ca_file: /etc/nats-tls/ca.crt
{{- end }}

{{/* A user of the account by its nkey: `name`, `key`, `rules` (of each name), `as` (kinds of connection). */}}
{{- define "windfall.nats-user" -}}
{{- if not (hasKey .rules .name) }}{{ fail (printf "nats.users: %s is no service that speaks here; there are admin, %s" .name (keys .rules | sortAlpha | join ", ")) }}{{ end }}
{{- $rights := get .rules .name }}
{
  nkey: {{ .key }}
  {{- with .as }}
  allowed_connection_types: {{ toJson . }}
  {{- end }}
  permissions: {{ toRawJson $rights }}
}
{{- end }}
