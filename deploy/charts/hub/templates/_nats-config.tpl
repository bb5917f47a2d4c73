{{/* nats.conf of the hub. Sites join as leaves, each by its own nkey, and may say and hear no more than sourcing takes. */}}
{{- define "hub.nats-config" -}}
{{- $nats := .Values.nats }}
{{- $secure := eq (include "windfall.secure" .) "true" }}
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
  {{- include "hub.nats-account" (dict "root" . "account" "WINDFALL" "tenant" "default" "users" $nats.users "leaves" $nats.leaves "jetstream" "enabled") | nindent 2 }}
  {{- range $name, $tenant := $nats.tenants }}
  {{- $limits := printf "{ max_memory: 0, max_file: %s, max_streams: 16, max_consumers: 1024, max_bytes_required: true }" ($tenant.maxBytes | default "2GB") }}
  {{- include "hub.nats-account" (dict "root" $ "account" $name "tenant" $name "users" $tenant.users "leaves" $tenant.leaves "jetstream" $limits) | nindent 2 }}
  {{- end }}
  SYS {}
}
system_account: SYS
{{- end }}
{{- end }}

{{/* One tenant's account: `account`, `tenant`, `users`, `leaves`, `jetstream`. */}}
{{- define "hub.nats-account" -}}
{{- $rules := include "windfall.nats-permissions" .root | fromJson }}
{{- $exports := dict }}
{{- $imports := list }}
{{- $speaks := list }}
{{- range $loan := .root.Values.nats.loans }}
{{- $subject := include "hub.lent" (dict "loan" $loan "text" $rules.loan.subject) }}
{{- $lent := include "hub.lent" (dict "loan" $loan "text" $rules.loan.lent) }}
{{- $lender := ternary "WINDFALL" $loan.lender (eq $loan.lender "default") }}
{{- $borrower := ternary "WINDFALL" $loan.borrower (eq $loan.borrower "default") }}
{{- if eq $loan.borrower $.tenant }}
{{- $_ := set $exports $subject (append (get $exports $subject | default list) $lender) }}
{{- end }}
{{- if eq $loan.lender $.tenant }}
{{- $imports = append $imports (dict "service" (dict "account" $borrower "subject" $subject) "to" $lent) }}
{{- range $rules.loan.publish }}{{ $speaks = append $speaks (include "hub.lent" (dict "loan" $loan "text" .)) }}{{ end }}
{{- end }}
{{- end }}
{{- $hub := deepCopy $rules.hub }}
{{- with $speaks }}
{{- $publish := (get $hub "federation-coordinator").publish }}
{{- $_ := set $publish "allow" (concat $publish.allow (uniq .)) }}
{{- end -}}
{{ .account }} {
  jetstream: {{ .jetstream }}
  users: [
    {{- range $name, $key := .users }}
    # {{ $name }}
    {{- if eq $name "admin" }}
    { nkey: {{ $key }} }
    {{- else }}
    {{- include "windfall.nats-user" (dict "name" $name "key" $key "rules" $hub) | nindent 4 }}
    {{- end }}
    {{- end }}
    {{- range $site, $key := .leaves }}
    # the server of {{ $site }}
    {{- $rights := $rules.leaf | toRawJson | replace "<site>" $site | fromJson }}
    {{- include "windfall.nats-user" (dict "name" "leaf" "key" $key "as" (list "LEAFNODE") "rules" (dict "leaf" $rights)) | nindent 4 }}
    {{- end }}
  ]
  {{- with $exports }}
  exports: [
    {{- range $subject, $accounts := . }}
    {{ toRawJson (dict "service" $subject "accounts" (uniq $accounts | sortAlpha)) }}
    {{- end }}
  ]
  {{- end }}
  {{- with $imports }}
  imports: {{ uniq . | toRawJson }}
  {{- end }}
}
{{- end }}

{{/* A subject of a loan. */}}
{{- define "hub.lent" -}}
{{- .text | replace "<borrower>" .loan.borrower | replace "<fact>" .loan.fact | replace "<whom>" .loan.whom }}
{{- end }}

{{/* 512MB, 2GB or 1TB in MB. */}}
{{- define "hub.megabytes" -}}
{{- $number := trimSuffix "B" . | trimSuffix "M" | trimSuffix "G" | trimSuffix "T" | int }}
{{- mul $number (ternary 1048576 (ternary 1024 1 (hasSuffix "GB" .)) (hasSuffix "TB" .)) }}
{{- end }}
