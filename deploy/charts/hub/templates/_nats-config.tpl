{{/* nats.conf of the hub. Sites join as leaves, each by its own nkey, and may say and hear no more than sourcing takes. */}}
{{- define "hub.nats-config" -}}
{{- $nats := .Values.nats }}
{{- $secure := eq (include "windfall.secure" .) "true" }}
{{- $rules := include "windfall.nats-permissions" . | fromJson }}
{{- include "windfall.nats-common" (dict "root" . "domain" "hub") }}
leafnodes {
  listen: 0.0.0.0:7422
  no_advertise: true
  {{- if $secure }}
  tls {
    {{- include "windfall.nats-tls" . | nindent 4 }}
    verify: true
    handshake_first: true
  }
  {{- end }}
}
{{- if $nats.nkeySecret }}
accounts {
  WINDFALL {
    jetstream: enabled
    users: [
      {{- range $name, $key := $nats.users }}
      # {{ $name }}
      {{- if eq $name "admin" }}
      { nkey: {{ $key }} }
      {{- else }}
      {{- include "windfall.nats-user" (dict "name" $name "key" $key "rules" $rules.hub) | nindent 6 }}
      {{- end }}
      {{- end }}
      {{- range $site, $key := $nats.leaves }}
      # the server of {{ $site }}
      {{- $rights := $rules.leaf | toRawJson | replace "<site>" $site | fromJson }}
      {{- include "windfall.nats-user" (dict "name" "leaf" "key" $key "as" (list "LEAFNODE") "rules" (dict "leaf" $rights)) | nindent 6 }}
      {{- end }}
    ]
  }
  SYS {}
}
system_account: SYS
{{- end }}
{{- end }}
