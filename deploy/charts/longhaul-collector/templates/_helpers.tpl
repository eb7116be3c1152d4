{{- define "longhaul-collector.fullname" -}}
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

{{- define "longhaul-collector.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "longhaul-collector.labels" -}}
{{ include "longhaul-collector.selectorLabels" . }}
app.kubernetes.io/part-of: longhaul
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "longhaul-collector.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "longhaul-collector.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "longhaul-collector.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{- /* User and group the collector runs as. */ -}}
{{- define "longhaul-collector.uid" -}}
{{- if eq .Values.access "root" -}}0{{- else -}}10001{{- end -}}
{{- end -}}

{{- /* What is wrong with the values beyond what the schema can say. */ -}}
{{- define "longhaul-collector.check" -}}
{{- if not .Values.cluster -}}
{{- fail "cluster is required: the name under which this cluster's telemetry will be found, for example --set cluster=store-0421" -}}
{{- end -}}
{{- if not .Values.nats.url -}}
{{- fail "nats.url is required: where the hub listens, for example --set nats.url=tls://hub.example.com:4222" -}}
{{- end -}}
{{- with .Values.nats.tls -}}
{{- if ne (empty .certKey) (empty .keyKey) -}}
{{- fail "nats.tls.certKey and nats.tls.keyKey belong together: set both, or neither" -}}
{{- end -}}
{{- if and (not .existingSecret) .certKey -}}
{{- fail "nats.tls.certKey names a key of a secret: set nats.tls.existingSecret to that secret" -}}
{{- end -}}
{{- end -}}
{{- end -}}
