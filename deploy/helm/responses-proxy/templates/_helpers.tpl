{{- define "rp.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* The prefix of all names. 40 characters leave room for suffixes and pod hashes. */}}
{{- define "rp.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "rp.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "rp.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels of a Service's selector. They can never change. Takes root and service. */}}
{{- define "rp.selector" -}}
app.kubernetes.io/name: {{ include "rp.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .service }}
{{- end -}}

{{/* Labels of pods: without versions, so that a new chart alone restarts nothing. */}}
{{- define "rp.podLabels" -}}
{{ include "rp.selector" . }}
app.kubernetes.io/part-of: responses-proxy
{{- end -}}

{{- define "rp.labels" -}}
{{ include "rp.podLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "rp.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "rp.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "rp.image" -}}
{{- $tag := default (default .root.Chart.AppVersion .root.Values.image.tag) .values.image.tag -}}
{{- if and .root.Values.image.digest (not .values.image.tag) -}}
{{- printf "%s@%s" .root.Values.image.repository .root.Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .root.Values.image.repository $tag -}}
{{- end -}}
{{- end -}}

{{/* A value as a variable. Helm reads numbers as floats: 67108864 must not become
6.7108864e+07. */}}
{{- define "rp.string" -}}
{{- if and (kindIs "float64" .) (eq . (floor .)) -}}{{ int64 . }}{{- else -}}{{ . }}{{- end -}}
{{- end -}}

{{/* The variables of a service that are no secrets, as JSON. Takes root and service. */}}
{{- define "rp.config" -}}
{{- $name := include "rp.fullname" .root -}}
{{- $config := dict "PROXY_HOST" "0.0.0.0" "PROXY_DATA_DIR" "/data" -}}
{{- if eq .service "gateway" -}}
{{- $_ := set $config "PROXY_DRAIN_SECONDS" "120" -}}
{{- end -}}
{{- range $given := list .root.Values.config (index .root.Values .service).config -}}
{{- range $key, $value := $given -}}
{{- $_ := set $config $key (include "rp.string" $value) -}}
{{- end -}}
{{- end -}}
{{- if .root.Values.redis.bundled.enabled -}}
{{- $_ := set $config "PROXY_REDIS_URL" (printf "redis://%s-redis:6379/0" $name) -}}
{{- end -}}
{{- if not (hasKey $config "PROXY_ROUTER_URL") -}}
{{- $_ := set $config "PROXY_ROUTER_URL" (printf "http://%s-router:%s" $name (default "8001" $config.PROXY_ROUTER_PORT)) -}}
{{- end -}}
{{- if and .root.Values.ingress.enabled (not (hasKey $config "PROXY_ALLOWED_HOSTS")) -}}
{{- $_ := set $config "PROXY_ALLOWED_HOSTS" (join "," .root.Values.ingress.hosts) -}}
{{- end -}}
{{- toJson $config -}}
{{- end -}}

{{/* The port on which a service listens. Takes root and service. */}}
{{- define "rp.port" -}}
{{- $config := include "rp.config" . | fromJson -}}
{{- $variables := dict "gateway" "PROXY_PORT" "router" "PROXY_ROUTER_PORT" "health" "PROXY_HEALTH_PORT" "ingest" "PROXY_INGEST_PORT" -}}
{{- $defaults := dict "gateway" "8000" "router" "8001" "health" "8002" "ingest" "8003" -}}
{{- default (index $defaults .service) (index $config (index $variables .service)) -}}
{{- end -}}

{{/* Seconds from the start of preStop to SIGKILL. Takes root and service. */}}
{{- define "rp.graceSeconds" -}}
{{- $values := index .root.Values .service -}}
{{- $config := include "rp.config" . | fromJson -}}
{{- $drain := default "10" $config.PROXY_DRAIN_SECONDS | float64 | ceil | int -}}
{{- add (int $values.preStopSeconds) $drain (int $values.stopMarginSeconds) -}}
{{- end -}}

{{/* Whether the chart creates a Secret: "true" or nothing. */}}
{{- define "rp.ownSecret" -}}
{{- if or .Values.secrets .Values.database.bundled.enabled -}}true{{- end -}}
{{- end -}}

{{/* The variables in the chart's own Secret, as JSON. */}}
{{- define "rp.secretData" -}}
{{- $data := dict -}}
{{- range $key, $value := .Values.secrets -}}
{{- $_ := set $data $key (include "rp.string" $value) -}}
{{- end -}}
{{- with .Values.database.bundled -}}
{{- if .enabled -}}
{{- $_ := set $data "PROXY_DATABASE_URL" (printf "postgresql://proxy:%s@%s-postgres:5432/proxy" .password (include "rp.fullname" $)) -}}
{{- end -}}
{{- end -}}
{{- toJson $data -}}
{{- end -}}

{{/* A quantity of Kubernetes, such as 2Gi, in bytes. Takes the quantity. */}}
{{- define "rp.bytes" -}}
{{- $text := include "rp.string" . -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $unit := regexFind "[A-Za-z]*$" $text -}}
{{- mulf (trimSuffix $unit $text | float64) (index $units $unit | float64) | int64 -}}
{{- end -}}

{{/* The replicas that a service has at least. Takes root and service. */}}
{{- define "rp.fewest" -}}
{{- $values := index .root.Values .service -}}
{{- if and (eq .service "gateway") $values.autoscaling.enabled -}}
{{- int $values.autoscaling.minReplicas -}}
{{- else -}}
{{- int $values.replicas -}}
{{- end -}}
{{- end -}}

{{/* Where a URL comes from: "bundled", "urlFrom", "given" (its name is in `config`,
`secrets` or `externalSecrets.data`), "assumed" (a Secret that the chart cannot see), or
nothing; several are separated by spaces. Takes root, part and names. */}}
{{- define "rp.sources" -}}
{{- $part := index .root.Values .part -}}
{{- $sources := list -}}
{{- if $part.bundled.enabled -}}{{- $sources = append $sources "bundled" -}}{{- end -}}
{{- if $part.urlFrom.name -}}{{- $sources = append $sources "urlFrom" -}}{{- end -}}
{{- $values := .root.Values -}}
{{- $given := false -}}
{{- range $name := .names -}}
{{- if or (hasKey $values.config $name) (hasKey $values.config (printf "%s_FILE" $name)) (hasKey $values.secrets $name) (and $values.externalSecrets.enabled (hasKey $values.externalSecrets.data $name)) -}}
{{- $given = true -}}
{{- end -}}
{{- end -}}
{{- if $given -}}{{- $sources = append $sources "given" -}}{{- end -}}
{{- if and (not $sources) (or $values.existingSecret (and $values.externalSecrets.enabled $values.externalSecrets.extract)) -}}
{{- $sources = append $sources "assumed" -}}
{{- end -}}
{{- join " " $sources -}}
{{- end -}}

{{- define "rp.redisSources" -}}
{{- include "rp.sources" (dict "root" . "part" "redis" "names" (list "PROXY_REDIS_URL")) -}}
{{- end -}}

{{- define "rp.databaseSources" -}}
{{- include "rp.sources" (dict "root" . "part" "database" "names" (list "PROXY_DATABASE_URL" "SERVICE_DATABASE_URL" "DATABASE_URL")) -}}
{{- end -}}

{{/* Ports of upstreams and HTTP proxies, as a JSON list of integers. */}}
{{- define "rp.upstreamPorts" -}}
{{- $ports := list -}}
{{- range .Values.networkPolicy.upstream.ports -}}{{- $ports = append $ports (int .) -}}{{- end -}}
{{- range $service := list "gateway" "health" -}}
{{- $config := include "rp.config" (dict "root" $ "service" $service) | fromJson -}}
{{- range $name := list "PROXY_UPSTREAM_BASE_URL" "HTTPS_PROXY" "HTTP_PROXY" "ALL_PROXY" "https_proxy" "http_proxy" "all_proxy" -}}
{{- with index $config $name -}}
{{- $url := urlParse . -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- if $port -}}
{{- $ports = append $ports (int $port) -}}
{{- else -}}
{{- $ports = append $ports (ternary 80 443 (eq $url.scheme "http")) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson (uniq $ports) -}}
{{- end -}}
