{{/*
Tells a NATS server to read its files again when they change, so that new keys and certificates count without a restart.
A kubelet puts what a ConfigMap or Secret holds into a folder and lets `..data` point there, at once for all its files.
A server that has not said where it listens is not told: while it starts JetStream, a reload ends it (2.15.1).

  root    the chart's context
  secure  "true" where the server has certificates
*/}}
{{- define "windfall.nats-reload" -}}
- name: reload
  image: {{ include "windfall.nats-image" .root | quote }}
  imagePullPolicy: {{ .root.Values.images.pullPolicy }}
  command:
  - sh
  - -c
  - |
    told=
    while :; do
      now=$(for folder in "$@"; do readlink "$folder/..data"; done)
      if [ "$now" != "$told" ] && [ -s /run/nats/nats.pid ]; then
        pid=$(cat /run/nats/nats.pid)
        if [ -e "/run/nats/nats-server_$pid.ports" ] && kill -HUP "$pid"; then told=$now; fi
      fi
      sleep 5
    done
  - reload
  - /etc/nats
  {{- if eq .secure "true" }}
  - /etc/nats-tls
  {{- end }}
  resources:
    requests: {cpu: 5m, memory: 16Mi}
    limits: {memory: 64Mi}
  securityContext:
    {{- include "windfall.restricted" .root | nindent 4 }}
  volumeMounts:
  - {name: config, mountPath: /etc/nats, readOnly: true}
  - {name: run, mountPath: /run/nats, readOnly: true}
  {{- if eq .secure "true" }}
  - {name: tls, mountPath: /etc/nats-tls, readOnly: true}
  {{- end }}
{{- end }}

{{/* What of nats.conf only a restart brings: all but who may speak, where servers are told to read it again. */}}
{{- define "windfall.nats-restart" -}}
{{- ternary (regexReplaceAll "(?s)\naccounts \\{\n.*?\n\\}" .config "") .config .root.Values.nats.reload }}
{{- end }}
