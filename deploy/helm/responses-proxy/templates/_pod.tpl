{{/* The pod template of a service. Takes root and service. */}}
{{- define "rp.pod" -}}
{{- $root := .root -}}
{{- $values := index .root.Values .service -}}
{{- $name := include "rp.fullname" .root -}}
{{- $config := include "rp.config" . | fromJson -}}
metadata:
  labels:
    {{- with $values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- include "rp.podLabels" . | nindent 4 }}
  annotations:
    checksum/config: {{ include "rp.config" . | sha256sum }}
    {{- if include "rp.ownSecret" .root }}
    checksum/secret: {{ include "rp.secretData" .root | sha256sum }}
    {{- end }}
    {{- with $values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "rp.serviceAccount" .root }}
  automountServiceAccountToken: false
  # A Service called `proxy` would otherwise set PROXY_PORT=tcp://...
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "rp.graceSeconds" . }}
  {{- with .root.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  {{- with $values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 10001
    runAsGroup: 10001
    fsGroup: 10001
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: {type: RuntimeDefault}
  topologySpreadConstraints:
    {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - maxSkew: 1
      topologyKey: {{ . }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "rp.selector" $ | nindent 10 }}
    {{- end }}
  containers:
    - name: {{ .service }}
      image: {{ include "rp.image" (dict "root" .root "values" $values) | quote }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      args: [{{ .service }}]
      # The last one has priority: probes and ports depend on the ConfigMap.
      envFrom:
        {{- with .root.Values.existingSecret }}
        - secretRef: {name: {{ . }}}
        {{- end }}
        {{- if .root.Values.externalSecrets.enabled }}
        - secretRef: {name: {{ $name }}-external}
        {{- end }}
        {{- if include "rp.ownSecret" .root }}
        - secretRef: {name: {{ $name }}}
        {{- end }}
        - configMapRef: {name: {{ $name }}-{{ .service }}}
        {{- with $values.extraEnvFrom }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- $urls := include "rp.urls" .root }}
      {{- with $urls }}
      env:
        {{- . | nindent 8 }}
      {{- end }}
      ports:
        - name: http
          containerPort: {{ include "rp.port" . }}
      # /healthz: the process answers. A long start is no reason to kill it.
      startupProbe:
        httpGet: {path: /healthz, port: http}
        periodSeconds: 2
        timeoutSeconds: 3
        failureThreshold: 60
      livenessProbe:
        httpGet: {path: /healthz, port: http}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /readyz, port: http}
        periodSeconds: 5
        timeoutSeconds: 3
        failureThreshold: 3
      {{- if gt (int $values.preStopSeconds) 0 }}
      lifecycle:
        preStop:
          sleep: {seconds: {{ int $values.preStopSeconds }}}
      {{- end }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      resources:
        {{- toYaml $values.resources | nindent 8 }}
      volumeMounts:
        - {name: data, mountPath: {{ $config.PROXY_DATA_DIR }}}
        - {name: tmp, mountPath: /tmp}
        {{- with $values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    {{- if ne .service "gateway" }}
    - {name: data, emptyDir: {sizeLimit: 64Mi}}
    {{- else if not $values.journal.persistent }}
    - {name: data, emptyDir: {sizeLimit: {{ include "rp.journalLimit" .root }}}}
    {{- end }}
    - {name: tmp, emptyDir: {sizeLimit: 64Mi}}
    {{- with $values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* Room for the journals of all workers, and as much again: while the journal of a
killed predecessor is recovered, both exist. */}}
{{- define "rp.journalLimit" -}}
{{- $config := include "rp.config" (dict "root" . "service" "gateway") | fromJson -}}
{{- $each := default "1073741824" $config.PROXY_JOURNAL_MAX_BYTES | int64 -}}
{{- $workers := default "1" $config.PROXY_GATEWAY_WORKERS | int64 -}}
{{- printf "%dMi" (add 64 (mul 2 $workers (div (add $each 1048575) 1048576))) -}}
{{- end -}}

{{/* URLs in Secrets that the chart cannot read. Named one by one, so that a pod does not
start without them: with the defaults it would use a Redis and an SQLite of its own. */}}
{{- define "rp.urls" -}}
{{- $assumed := default (printf "%s-external" (include "rp.fullname" .)) .Values.existingSecret -}}
{{- range $part, $variable := dict "redis" "PROXY_REDIS_URL" "database" "PROXY_DATABASE_URL" -}}
{{- $urlFrom := (index $.Values $part).urlFrom -}}
{{- $sources := include (printf "rp.%sSources" $part) $ -}}
{{- if $urlFrom.name }}
- name: {{ $variable }}
  valueFrom: {secretKeyRef: {name: {{ $urlFrom.name }}, key: {{ $urlFrom.key }}}}
{{- else if eq $sources "assumed" }}
- name: {{ $variable }}
  valueFrom: {secretKeyRef: {name: {{ $assumed }}, key: {{ $variable }}}}
{{- end -}}
{{- end -}}
{{- end -}}
