{{- /* Secret that holds the TLS files: the hub's, or those for a NATS of yours. */ -}}
{{- define "longhaul-relay.tlsSecret" -}}
{{- if .Values.nats.url -}}{{ .Values.nats.tls.existingSecret }}{{- else -}}{{ .Values.hub.tls.existingSecret }}{{- end -}}
{{- end -}}

{{- define "longhaul-relay.mounts" -}}
{{- if not .Values.nats.url }}
- {name: hub, mountPath: /var/lib/longhaul/hub}
{{- if .Values.hub.config.existingSecret }}
- {name: hub-config, mountPath: /etc/longhaul/hub, readOnly: true}
{{- end }}
{{- end }}
{{- if .Values.nats.credentials.existingSecret }}
- {name: credentials, mountPath: /etc/longhaul/credentials, readOnly: true}
{{- end }}
{{- if include "longhaul-relay.tlsSecret" . }}
- {name: tls, mountPath: /etc/longhaul/tls, readOnly: true}
{{- end }}
{{- if .Values.config }}
- {name: config, mountPath: /etc/longhaul/config.yaml, subPath: config.yaml, readOnly: true}
{{- end }}
{{- end -}}

{{- define "longhaul-relay.volumes" -}}
{{- if not .Values.nats.url }}
{{- if not .Values.persistence.enabled }}
- name: hub
  emptyDir: {sizeLimit: {{ .Values.persistence.size }}}
{{- end }}
{{- with .Values.hub.config }}
{{- if .existingSecret }}
- name: hub-config
  secret: {secretName: {{ .existingSecret }}, defaultMode: 0440}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.nats.credentials }}
{{- if .existingSecret }}
- name: credentials
  secret:
    secretName: {{ .existingSecret }}
    defaultMode: 0440
    items: [{key: {{ .key | quote }}, path: {{ .key | quote }}}]
{{- end }}
{{- end }}
{{- with include "longhaul-relay.tlsSecret" . }}
- name: tls
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- if .Values.config }}
- name: config
  configMap:
    name: {{ include "longhaul-relay.fullname" . }}
    items: [{key: config.yaml, path: config.yaml}]
{{- end }}
{{- end -}}
