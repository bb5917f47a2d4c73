{{/* What a schema cannot say, or says without a cure: `root`; a list of mistakes as JSON, each "where: cause; cure". */}}
{{- define "windfall.mistakes" -}}
{{- $values := .Values }}
{{- $wrong := list }}
{{- if eq $values.images.tag "latest" }}
{{- $wrong = append $wrong "images.tag: latest moves under a running release; name a version, or digests" }}
{{- end }}
{{- if and (eq $values.tls.mode "cert-manager") (not $values.tls.issuer.name) }}
{{- $wrong = append $wrong "tls.issuer.name: missing, and cert-manager needs it; name an Issuer or ClusterIssuer" }}
{{- end }}
{{- if ne $values.tls.mode "insecure" }}
{{- if not $values.tls.secret }}
{{- $wrong = append $wrong "tls.secret: empty; name a Secret with tls.crt, tls.key and ca.crt, or say tls.mode: insecure on a network that is yours alone" }}
{{- end }}
{{- if and $values.nats.enabled (not $values.nats.secret) }}
{{- $wrong = append $wrong "nats.secret: empty; name a Secret with tls.crt, tls.key and ca.crt, or say tls.mode: insecure on a network that is yours alone" }}
{{- end }}
{{- end }}
{{- if $values.nats.enabled }}
{{- if $values.nats.url }}
{{- $wrong = append $wrong "nats.url: given, and this chart brings a server of its own; leave it out, or say nats.enabled: false" }}
{{- end }}
{{- if not (has (int $values.nats.replicas) (list 1 3 5)) }}
{{- $wrong = append $wrong (printf "nats.replicas: %d servers lose their quorum no later than one less; say 1, 3 or 5" (int $values.nats.replicas)) }}
{{- end }}
{{- if not $values.nats.nkeySecret }}
{{- range $part := list "users" "leaves" }}
{{- if get $values.nats $part }}
{{- $wrong = append $wrong (printf "nats.%s: given, and nobody is asked for a key; name the Secret with the seeds in nats.nkeySecret" $part) }}
{{- end }}
{{- end }}
{{- end }}
{{- else }}
{{- if not $values.nats.url }}
{{- $wrong = append $wrong "nats.url: missing, and nats.enabled is false; name your server, like tls://nats.nats.svc:4222" }}
{{- else }}
{{- $url := urlParse $values.nats.url }}
{{- if $url.userinfo }}
{{- $wrong = append $wrong "nats.url: it holds a credential, which everybody could read; put an nkey's seed into nats.nkeySecret" }}
{{- else if and (ne $values.tls.mode "insecure") (not (has $url.scheme (list "tls" "wss"))) }}
{{- $wrong = append $wrong (printf "nats.url: %s:// is plain text; say tls://, or tls.mode: insecure on a network that is yours alone" $url.scheme) }}
{{- end }}
{{- end }}
{{- end }}
{{- with $values.telemetry.endpoint }}
{{- if (urlParse .).userinfo }}
{{- $wrong = append $wrong "telemetry.endpoint: it holds a credential, which everybody could read; put it into telemetry.headersSecret" }}
{{- end }}
{{- end }}
{{- $prometheus := $values.metrics.prometheus }}
{{- if $prometheus.enabled }}
{{- if and $prometheus.clientSecret $prometheus.insecure }}
{{- $wrong = append $wrong "metrics.prometheus: clientSecret and insecure; one says TLS and the other none, leave one out" }}
{{- else if and $prometheus.clientSecret (eq $values.tls.mode "insecure") }}
{{- $wrong = append $wrong "metrics.prometheus.clientSecret: given, and with tls.mode: insecure pods have no certificate to answer with; say metrics.prometheus.insecure: true" }}
{{- else if not (or $prometheus.clientSecret $prometheus.insecure) }}
{{- $wrong = append $wrong "metrics.prometheus.clientSecret: missing; name a Secret with tls.crt, tls.key and ca.crt that Prometheus shows, or say metrics.prometheus.insecure: true for plain text to its pods alone" }}
{{- else if and $prometheus.clientSecret (eq $values.tls.mode "secret") (not $prometheus.serverName) }}
{{- $wrong = append $wrong "metrics.prometheus.serverName: missing; say a name that the certificate in tls.secret holds for" }}
{{- end }}
{{- end }}
{{- range $part := list "podMonitor" "serviceMonitor" }}
{{- if and (get $values.metrics $part).enabled (not $prometheus.enabled) }}
{{- $wrong = append $wrong (printf "metrics.%s.enabled: true, and no pod would answer; say metrics.prometheus.enabled: true" $part) }}
{{- end }}
{{- end }}
{{- if and $values.metrics.podMonitor.enabled $values.metrics.serviceMonitor.enabled }}
{{- $wrong = append $wrong "metrics: podMonitor and serviceMonitor; every pod would be scraped twice, leave one out" }}
{{- end }}
{{- toJson $wrong }}
{{- end }}

{{/* Every mistake in one line. */}}
{{- define "windfall.refuse" -}}
{{- if . }}{{ fail (join " | " .) }}{{ end }}
{{- end }}
