{{/* One service: a StatefulSet of one pod, because its journal is a file that one process writes. */}}
{{- define "windfall-site.service" -}}
{{- $root := .root }}
{{- $labels := dict "app.kubernetes.io/name" .name "app.kubernetes.io/instance" $root.Release.Name }}
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ $root.Release.Name }}-{{ .name }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- toYaml $labels | nindent 4 }}
    app.kubernetes.io/part-of: windfall
    windfall.dev/site: {{ $root.Values.site }}
spec:
  serviceName: {{ $root.Release.Name }}
  replicas: 1
  selector:
    matchLabels:
      {{- toYaml $labels | nindent 6 }}
  template:
    metadata:
      labels:
        {{- toYaml $labels | nindent 8 }}
        app.kubernetes.io/part-of: windfall
        windfall.dev/site: {{ $root.Values.site }}
    spec:
      automountServiceAccountToken: {{ .kubernetes | default false }}
      serviceAccountName: {{ ternary (printf "%s-%s" $root.Release.Name .name) "default" (.kubernetes | default false) }}
      terminationGracePeriodSeconds: 30
      securityContext:
        runAsNonRoot: true
        runAsUser: 10001
        runAsGroup: 10001
        fsGroup: 10001
        seccompProfile:
          type: RuntimeDefault
      {{- with $root.Values.images.pullSecret }}
      imagePullSecrets:
      - name: {{ . }}
      {{- end }}
      containers:
      - name: {{ .name }}
        image: {{ printf "%s/%s:%s" $root.Values.images.registry .name $root.Values.images.tag | quote }}
        env:
        - name: WINDFALL_SITE
          value: {{ $root.Values.site | quote }}
        - name: WINDFALL_NATS_URL
          value: {{ $root.Values.nats.url | quote }}
        - name: WINDFALL_STATE_DIR
          value: /var/lib/windfall
        - name: WINDFALL_HEALTH_PORT
          value: "8081"
        {{- range $name, $value := .settings }}
        - name: {{ $name }}
          value: {{ $value | quote }}
        {{- end }}
        {{- with .secret }}
        envFrom:
        - secretRef:
            name: {{ . }}
        {{- end }}
        # The endpoint listens on loopback: it is asked from inside.
        livenessProbe:
          exec:
            command: [python, -c, "from urllib.request import urlopen; urlopen('http://127.0.0.1:8081/livez', timeout=2)"]
          initialDelaySeconds: 10
          periodSeconds: 20
          timeoutSeconds: 5
        readinessProbe:
          exec:
            command: [python, -c, "from urllib.request import urlopen; urlopen('http://127.0.0.1:8081/readyz', timeout=2)"]
          periodSeconds: 10
          timeoutSeconds: 5
        resources:
          requests:
            cpu: 50m
            memory: 128Mi
          limits:
            memory: 512Mi
        securityContext:
          allowPrivilegeEscalation: false
          readOnlyRootFilesystem: true
          capabilities:
            drop: [ALL]
        volumeMounts:
        - name: state
          mountPath: /var/lib/windfall
        - name: tls
          mountPath: /etc/windfall/tls
          readOnly: true
        - name: scratch
          mountPath: /tmp
      volumes:
      - name: tls
        secret:
          secretName: {{ $root.Values.tlsSecret }}
          defaultMode: 0440
      - name: scratch
        emptyDir: {}
  volumeClaimTemplates:
  - apiVersion: v1
    kind: PersistentVolumeClaim
    metadata:
      name: state
    spec:
      accessModes: [ReadWriteOnce]
      {{- with $root.Values.storage.className }}
      storageClassName: {{ . }}
      {{- end }}
      resources:
        requests:
          storage: {{ $root.Values.storage.size }}
{{- end }}
