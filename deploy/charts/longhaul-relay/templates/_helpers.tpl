{{- define "longhaul-relay.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "longhaul-relay.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "longhaul-relay.labels" -}}
{{ include "longhaul-relay.selectorLabels" . }}
app.kubernetes.io/part-of: longhaul
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "longhaul-relay.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "longhaul-relay.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "longhaul-relay.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{- /* What is wrong with the values beyond what the schema can say. */ -}}
{{- define "longhaul-relay.check" -}}
{{- if not .Values.backends.lokiUrl -}}
{{- fail "backends.lokiUrl is required: where Loki is, for example --set backends.lokiUrl=http://loki:3100" -}}
{{- end -}}
{{- if not .Values.backends.prometheusUrl -}}
{{- fail "backends.prometheusUrl is required: where Prometheus is, for example --set backends.prometheusUrl=http://prometheus:9090" -}}
{{- end -}}
{{- if not .Values.backends.jaegerOtlp -}}
{{- fail "backends.jaegerOtlp is required: where Jaeger takes OTLP over gRPC, for example --set backends.jaegerOtlp=jaeger:4317" -}}
{{- end -}}
{{- if gt (int .Values.replicaCount) (int .Values.hub.partitions) -}}
{{- fail "replicaCount: more relays than hub.partitions would have nothing to do: give more partitions or fewer relays" -}}
{{- end -}}
{{- with .Values.nats.tls -}}
{{- if ne (empty .certKey) (empty .keyKey) -}}
{{- fail "nats.tls.certKey and nats.tls.keyKey belong together: set both, or neither" -}}
{{- end -}}
{{- if and (not .existingSecret) .certKey -}}
{{- fail "nats.tls.certKey names a key of a secret: set nats.tls.existingSecret to that secret" -}}
{{- end -}}
{{- end -}}
{{- if .Values.nats.url -}}
{{- if .Values.hub.websocket.enabled -}}
{{- fail "hub.websocket belongs to the embedded hub: unset it, or nats.url" -}}
{{- end -}}
{{- if or .Values.hub.tls.existingSecret .Values.hub.config.existingSecret -}}
{{- fail "hub.tls and hub.config belong to the embedded hub: unset them, or nats.url" -}}
{{- end -}}
{{- else -}}
{{- if gt (int .Values.replicaCount) 1 -}}
{{- fail "replicaCount: more than one relay needs a NATS cluster of yours to share: set nats.url. The embedded hub is one pod and its volume" -}}
{{- end -}}
{{- if gt (int .Values.hub.replicas) 1 -}}
{{- fail "hub.replicas: the embedded hub is one server and keeps a message once: set nats.url to a NATS cluster of yours, or hub.replicas=1" -}}
{{- end -}}
{{- if .Values.nats.tls.existingSecret -}}
{{- fail "nats.tls belongs to a NATS cluster of yours: set nats.url too. The embedded hub has hub.tls" -}}
{{- end -}}
{{- if and .Values.nats.credentials.existingSecret (not .Values.hub.config.existingSecret) -}}
{{- fail "nats.credentials are for a NATS that asks for them: set nats.url, or hub.config with the accounts of the embedded hub" -}}
{{- end -}}
{{- end -}}
{{- end -}}
