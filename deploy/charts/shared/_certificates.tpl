{{/* A certificate that cert-manager keeps: `root`, `as` its name, `secret`, `hosts`, `uris` of whom it
     names. Both ends of mutual TLS show one. */}}
{{- define "windfall.certificate" -}}
{{- $tls := .root.Values.tls }}
apiVersion: cert-manager.io/v1
kind: Certificate
metadata:
  {{- include "windfall.metadata" (merge (dict "name" "certificate") .) | nindent 2 }}
spec:
  secretName: {{ .secret }}
  commonName: {{ first .hosts | trunc 63 }}
  dnsNames: {{ toJson .hosts }}
  {{- with .uris }}
  uris: {{ toJson . }}
  {{- end }}
  duration: {{ $tls.duration }}
  renewBefore: {{ $tls.renewBefore }}
  usages: [digital signature, server auth, client auth]
  privateKey:
    algorithm: ECDSA
    size: 256
    encoding: PKCS8
    rotationPolicy: Always
  issuerRef:
    name: {{ $tls.issuer.name }}
    kind: {{ $tls.issuer.kind }}
    group: {{ $tls.issuer.group }}
{{- end }}

{{/* The names of the NATS servers, as JSON: what their certificate must hold for. */}}
{{- define "windfall.nats-hosts" -}}
{{- $name := printf "%s-nats" .Release.Name }}
{{- $pods := printf "*.%s-pods.%s.svc" $name .Release.Namespace }}
{{- toJson (concat (list (printf "%s.%s.svc" $name .Release.Namespace) $pods) (.Values.tls.natsNames | default list)) }}
{{- end }}
