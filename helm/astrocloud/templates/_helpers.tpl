{{- /* Names. */}}
{{- define "astrocloud.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* What the names of the whole cluster's objects begin with. */}}
{{- define "astrocloud.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "astrocloud.fullname" .) -}}
{{- end -}}

{{- define "astrocloud.secret" -}}
{{- .Values.secrets.existingSecret | default (printf "%s-secrets" (include "astrocloud.fullname" .)) -}}
{{- end -}}

{{- define "astrocloud.hubAccount" -}}
{{- .Values.hub.serviceAccount.name | default (printf "%s-hub" (include "astrocloud.fullname" .)) -}}
{{- end -}}

{{- define "astrocloud.tree" -}}
{{- $claim := .Values.storage.tree.claim.existingClaim -}}
{{- if and (eq .Values.storage.tree.kind "claim") $claim }}{{ $claim }}{{ else }}{{ include "astrocloud.fullname" . }}-tree{{ end -}}
{{- end -}}

{{- /* Labels of one part: dict "root" "part". */}}
{{- define "astrocloud.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end -}}

{{- define "astrocloud.labels" -}}
{{ include "astrocloud.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: astrocloud
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- /* An image's reference: dict "root" "image". By its digest where there is one. */}}
{{- define "astrocloud.image" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" .image.repository (.image.tag | default .root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- /* The database's address, without the password: a part reads that from its own file. */}}
{{- define "astrocloud.database" -}}
{{- $db := .Values.database -}}
{{- if eq $db.kind "bundled" -}}
host: {{ include "astrocloud.fullname" . }}-database
port: 5432
user: astrocloud
sslmode: disable
{{- else -}}
host: {{ required "database.external.host: the name or address of your PostgreSQL" $db.external.host | quote }}
port: {{ $db.external.port }}
user: {{ $db.external.user | quote }}
sslmode: {{ $db.external.sslmode }}
{{- end -}}
{{- end -}}

{{- define "astrocloud.databaseSecret" -}}
{{- if and (eq .Values.database.kind "external") .Values.database.external.passwordSecret -}}
{{- .Values.database.external.passwordSecret -}}
{{- else -}}
{{- include "astrocloud.secret" . -}}
{{- end -}}
{{- end -}}

{{- /* Pod Security "restricted", for the pod and for a container. The one exception is what owns files as people. */}}
{{- define "astrocloud.podSecurity" -}}
{{- if eq .part "vospace" -}}
runAsNonRoot: false
runAsUser: 0
runAsGroup: 0
# No fsGroup: Kubernetes would give the whole tree to it.
seccompProfile: {type: RuntimeDefault}
{{- else -}}
runAsNonRoot: true
runAsUser: {{ .uid | default 1000 }}
runAsGroup: {{ .uid | default 1000 }}
fsGroup: {{ .uid | default 1000 }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}
{{- end -}}

{{- /* VOSpace acts as the person who asks (SETUID, SETGID), makes homes and gives them away (CHOWN, FOWNER, FSETID) and
     counts what is in them (DAC_OVERRIDE). It is all within Pod Security "baseline". */}}
{{- define "astrocloud.treeSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL], add: [CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETGID, SETUID]}
{{- end -}}

{{- define "astrocloud.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* What every pod of ours takes from its values: dict "root" "part" "values" "priority" "uid". */}}
{{- define "astrocloud.podMetadata" -}}
labels:
  {{- include "astrocloud.labels" . | nindent 2 }}
  {{- with .values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  {{- /* A part reads these at its start, so a change of them restarts it. */}}
  astrocloud.org/settings: {{ include (print $.root.Template.BasePath "/settings.yaml") .root | sha256sum }}
  {{- with .values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "astrocloud.placement" -}}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .values.priorityClassName }}
priorityClassName: {{ .values.priorityClassName }}
{{- else if .root.Values.priorityClasses.create }}
priorityClassName: {{ include "astrocloud.clusterName" .root }}-platform
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "astrocloud.podSecurity" . | nindent 2 }}
{{- end -}}

{{- /* The data folder as the platform's own programs know it from one machine. */}}
{{- define "astrocloud.dataEnv" -}}
- {name: ASTROCLOUD_DATA, value: /srv/astrocloud}
# A pod each: no page has to say that people are not kept apart.
- {name: ASTROCLOUD_KEPT_APART, value: "1"}
{{- end -}}

{{- define "astrocloud.dataMounts" -}}
- {name: data, mountPath: /srv/astrocloud}
- {name: settings, mountPath: /srv/astrocloud/astrocloud.yaml, subPath: astrocloud.yaml, readOnly: true}
- {name: settings, mountPath: /srv/astrocloud/cluster.yaml, subPath: cluster.yaml, readOnly: true}
- {name: secrets, mountPath: /srv/astrocloud/secrets, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- end -}}

{{- define "astrocloud.dataVolumes" -}}
- name: data
  emptyDir: {}
- name: tmp
  emptyDir: {}
- name: settings
  configMap: {name: {{ include "astrocloud.fullname" . }}-settings}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      - secret: {name: {{ include "astrocloud.secret" . }}}
      {{- if ne (include "astrocloud.secret" .) (include "astrocloud.databaseSecret" .) }}
      - secret:
          name: {{ include "astrocloud.databaseSecret" . }}
          items: [{key: database-password, path: database-password}]
      - secret:
          name: {{ include "astrocloud.databaseSecret" . }}
          # The authority that the server's certificate is checked by, if it is not one that everybody knows.
          items: [{key: database-ca, path: database-ca}]
          optional: true
      {{- end }}
{{- end -}}

{{- /* The services there are: every key of `services` but the image. */}}
{{- define "astrocloud.serviceNames" -}}
{{- omit .Values.services "image" | keys | sortAlpha | toJson -}}
{{- end -}}

{{- /* One of our parts, and people's servers, as a network policy names them. */}}
{{- define "astrocloud.peer" -}}
podSelector:
  matchLabels:
    {{- include "astrocloud.selector" . | nindent 4 }}
{{- end -}}

{{- define "astrocloud.people" -}}
namespaceSelector:
  matchLabels:
    astrocloud.org/release: {{ .Release.Name }}
    astrocloud.org/release-namespace: {{ .Release.Namespace }}
{{- end -}}
