{{/* nats.conf of a site: a leaf of the hub's server with a JetStream of its own, closed to the hub but for its facts. */}}
{{- define "site.nats-config" -}}
{{- $nats := .Values.nats }}
{{- $site := .Values.site }}
{{- $secure := eq (include "windfall.secure" .) "true" }}
{{- $api := printf "$JS.%s.API" $site }}
{{- $own := list "windfall.>" "$JS.ACK.>" }}
{{- $closed := list "$SYS.>" }}
{{- range list "STREAM" "DIRECT" "META" "SERVER" "ACCOUNT" "$KV" "$OBJ" }}{{ $closed = append $closed (printf "%s.%s.>" $api .) }}{{ end }}
{{- range $stream := list "COMMANDS" "DEAD" }}
{{- range list "*" "*.*" }}
{{- $closed = append $closed (printf "%s.CONSUMER.%s.%s" $api . $stream) }}
{{- $closed = append $closed (printf "%s.CONSUMER.%s.%s.>" $api . $stream) }}
{{- end }}
{{- end }}
{{- include "windfall.nats-common" (dict "root" . "domain" $site) }}
leafnodes {
  reconnect: "1s"
  remotes: [
    {
      url: {{ $nats.hub | quote }}
      {{- if $nats.nkeySecret }}
      nkey: $LEAF_SEED
      account: WINDFALL
      {{- end }}
      {{- if $secure }}
      tls {
        {{- include "windfall.nats-tls" . | nindent 8 }}
        handshake_first: true
      }
      {{- end }}
      # Facts cross by sourcing alone, and an acknowledgement, which names no domain, stays at home.
      deny_imports: {{ concat $own $closed | toRawJson }}
      deny_exports: {{ $own | toRawJson }}
    }
  ]
}
{{- if $nats.nkeySecret }}
{{- $rules := include "windfall.nats-permissions" . | replace "<site>" .Values.site | fromJson }}
accounts {
  WINDFALL {
    jetstream: enabled
    users: [
      {{- range $name, $key := $nats.users }}
      # {{ $name }}
      {{- if eq $name "admin" }}
      { nkey: {{ $key }} }
      {{- else }}
      {{- include "windfall.nats-user" (dict "name" $name "key" $key "rules" $rules.site) | nindent 6 }}
      {{- end }}
      {{- end }}
    ]
  }
  SYS {}
}
system_account: SYS
{{- end }}
{{- end }}
