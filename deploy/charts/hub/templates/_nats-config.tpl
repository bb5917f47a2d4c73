{{/* nats.conf of the hub. Sites join as leaves, each by its own nkey, and may say and hear no more than sourcing takes. */}}
{{- define "hub.nats-config" -}}
{{- $nats := .Values.nats }}
{{- $secure := eq (include "windfall.secure" .) "true" }}
{{- $forbidden := include "windfall.nats-forbidden" . | fromJsonArray }}
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
      {{- $says := list "windfall.v1.>" "windfall.dead.>" "$JS.API.>" "$JS.*.API.INFO" "$JS.ACK.>" "$KV.WINDFALL_LEASES.>" }}
      {{- include "windfall.nats-user" (dict "key" $key "publish" $says "deny" $forbidden "subscribe" (list "_INBOX.hub.>")) | nindent 6 }}
      {{- end }}
      {{- end }}
      {{- range $site, $key := $nats.leaves }}
      # the server of {{ $site }}
      {{- $says := list
            "$JS.hub.API.INFO"
            (printf "$JS.hub.API.CONSUMER.CREATE.ORDERS.*.windfall.v1.command.*.*.%s" $site)
            (printf "_DELIVERED.hub.%s.>" $site)
            "_INBOX.hub.>" "$JSC.>" "$JS.FC.ORDERS.>" }}
      {{- $hears := list
            (printf "$JS.%s.API.INFO" $site)
            (printf "$JS.%s.API.CONSUMER.CREATE.EVENTS" $site)
            (printf "$JS.%s.API.CONSUMER.CREATE.EVENTS.>" $site)
            (printf "_DELIVERED.%s.hub.>" $site)
            (printf "_INBOX.%s.>" $site) "$JSC.>" "$JS.FC.EVENTS.>" }}
      {{- include "windfall.nats-user" (dict "key" $key "as" (list "LEAFNODE") "publish" $says "subscribe" $hears) | nindent 6 }}
      {{- end }}
    ]
  }
  SYS {}
}
system_account: SYS
{{- end }}
{{- end }}
