{{- /* Names. Whatever an operator calls something is quoted where it is all that is written: YAML reads `n` as no, `12` as a
     number, and `1e3` as one, too. */}}
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

{{- /* The account of a part that has no business at the cluster's API, dict "root" "part" "values": its name, which is empty
     where it is the namespace's own, and the object. It is for what a cloud gives to accounts, by their annotations. */}}
{{- define "astrocloud.accountName" -}}
{{- $account := .values.serviceAccount | default dict -}}
{{- if $account.name }}{{ $account.name }}{{ else if $account.create }}{{ include "astrocloud.fullname" .root }}-{{ .part }}{{ end -}}
{{- end -}}

{{- define "astrocloud.account" -}}
{{- with .values.serviceAccount }}
{{- if .create }}
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "astrocloud.accountName" $ | quote }}
  namespace: {{ $.root.Release.Namespace | quote }}
  labels:
    {{- include "astrocloud.labels" $ | nindent 4 }}
  {{- with .annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end }}
{{- end }}
{{- end -}}

{{- define "astrocloud.tree" -}}
{{- $claim := .Values.storage.tree.claim.existingClaim -}}
{{- if and (eq .Values.storage.tree.kind "claim") $claim }}{{ $claim }}{{ else }}{{ include "astrocloud.fullname" . }}-tree{{ end -}}
{{- end -}}

{{- /* The claim with the archive; empty where it is a folder of the tree. */}}
{{- define "astrocloud.archiveClaim" -}}
{{- with .Values.storage.archive -}}
{{- if eq .kind "claim" -}}
{{- required "storage.archive.claim.existingClaim: the claim that your archive is on" .claim.existingClaim -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* The port of the archive's S3 server. */}}
{{- define "astrocloud.archivePort" -}}
{{- $url := urlParse (.Values.storage.archive.s3.endpoint | default "https://s3.amazonaws.com") -}}
{{- regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) | default (eq $url.scheme "http" | ternary "80" "443") -}}
{{- end -}}

{{- /* The platform's configuration: as it was given, and where the archive's bucket is. */}}
{{- define "astrocloud.config" -}}
{{- $archive := .Values.storage.archive -}}
{{- $config := .Values.config -}}
{{- if eq $archive.kind "s3" -}}
{{- $s3 := $archive.s3 -}}
{{- $made := dict "bucket" (required "storage.archive.s3.bucket: the bucket with your archive" $s3.bucket) -}}
{{- with $s3.endpoint }}{{ $_ := set $made "endpoint" . }}{{ end -}}
{{- with $s3.region }}{{ $_ := set $made "region" . }}{{ end -}}
{{- if $s3.secret -}}
{{- $_ := set $made "key" (dict "file" "/srv/astrocloud/archive-key/key") -}}
{{- $_ := set $made "secret" (dict "file" "/srv/astrocloud/archive-key/secret") -}}
{{- end -}}
{{- $config = merge (dict "archive" $made) $config -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{- /* Where on the nodes a GlusterFS volume is mounted, and the namespace of what mounts it. */}}
{{- define "astrocloud.mountFolder" -}}
{{- printf "%s/%s" (trimSuffix "/" .Values.storage.tree.glusterfs.hostPath) (include "astrocloud.clusterName" .) -}}
{{- end -}}

{{- /* Below the mount: where that is missing there is no such folder, and nothing is written to the node's own disk. */}}
{{- define "astrocloud.treeFolder" -}}
{{- printf "%s/volume/%s" (include "astrocloud.mountFolder" .) .Values.storage.tree.glusterfs.folder -}}
{{- end -}}

{{- /* A quantity as a number: Kubernetes writes 1024Gi as 1Ti. */}}
{{- define "astrocloud.bytes" -}}
{{- $factors := dict "" 1.0 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18
  "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 "Pi" 1125899906842624.0 "Ei" 1152921504606846976.0 -}}
{{- mulf (regexFind "^[0-9.]+" (toString .) | float64) (get $factors (regexFind "[A-Za-z]*$" (toString .))) -}}
{{- end -}}

{{- define "astrocloud.storageNamespace" -}}
{{- printf "%s-storage" (.Release.Namespace | trunc 55 | trimSuffix "-") -}}
{{- end -}}

{{- /* Labels of nodes that have the file tree, besides those that are asked for: dict "root" "labels" "name". */}}
{{- define "astrocloud.treeNodes" -}}
{{- $labels := deepCopy (.labels | default dict) -}}
{{- $tree := .root.Values.storage.tree -}}
{{- range $key, $value := eq $tree.kind "glusterfs" | ternary $tree.glusterfs.nodeSelector dict -}}
{{- if ne (get $labels $key | default $value) $value }}{{ fail (printf "%s: %s=%s is where nothing mounts the file tree; storage.tree.glusterfs.nodeSelector has %s=%s" $.name $key (get $labels $key) $key $value) }}{{ end -}}
{{- $_ := set $labels $key $value -}}
{{- end -}}
{{- toJson $labels -}}
{{- end -}}

{{- define "astrocloud.serverNodes" -}}
{{- include "astrocloud.treeNodes" (dict "root" . "labels" .Values.servers.nodeSelector "name" "servers.nodeSelector") -}}
{{- end -}}

{{- /* Labels of one part: dict "root" "part". */}}
{{- define "astrocloud.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .part }}
{{- end -}}

{{- define "astrocloud.labels" -}}
{{ include "astrocloud.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: astrocloud
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- /* The same for what Prometheus' operator is to find. */}}
{{- define "astrocloud.monitorLabels" -}}
{{ include "astrocloud.labels" . }}
{{- with .root.Values.monitoring.labels }}
{{ toYaml . }}
{{- end }}
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
sslmode: {{ $db.bundled.tls | ternary "verify-full" "disable" }}
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
runAsUser: {{ .uid | default 1000 | int64 }}
runAsGroup: {{ .uid | default 1000 | int64 }}
fsGroup: {{ .uid | default 1000 | int64 }}
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
  {{- /* Not the chart's version: a new one would restart parts in which nothing has changed. */}}
  {{- include "astrocloud.selector" . | nindent 2 }}
  {{- with .values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  {{- /* A part reads these at its start, so a change of them restarts it. */}}
  astrocloud.org/settings: {{ (include (print $.root.Template.BasePath "/settings.yaml") .root | fromYaml).data | toJson | sha256sum }}
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
priorityClassName: {{ .values.priorityClassName | quote }}
{{- else if and .root.Values.priorityClasses.create (not (has .part (list "secrets" "waiting"))) }}
{{- /* Jobs before an installation or an upgrade run before there is such a class. */}}
priorityClassName: {{ include "astrocloud.clusterName" .root }}-platform
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
tolerations:
  {{- with .values.tolerations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- /* Off a node that is lost after half a minute, where Kubernetes would wait for five. */}}
  {{- range $lost := list "node.kubernetes.io/not-ready" "node.kubernetes.io/unreachable" }}
  {{- if not (has $lost (include "astrocloud.keys" ($.values.tolerations | default list) | fromJsonArray)) }}
  - {key: {{ $lost }}, operator: Exists, effect: NoExecute, tolerationSeconds: 30}
  {{- end }}
  {{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "astrocloud.podSecurity" . | nindent 2 }}
{{- end -}}

{{- /* The values of a pod that is a hook, dict "root" "values": where nothing is said it may run where the passport may. */}}
{{- define "astrocloud.hookValues" -}}
{{- $values := deepCopy .values -}}
{{- range $key := list "nodeSelector" "tolerations" -}}
{{- if not (get $values $key) }}{{ $_ := set $values $key (get $.root.Values.services.passport $key) }}{{ end -}}
{{- end -}}
{{- toJson $values -}}
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

{{- /* How the hub and the services answer each other: the scheme, which is also the name of the port; the port, dict "root"
     "part"; and the name that is called and certified. */}}
{{- define "astrocloud.scheme" -}}
{{- .Values.tls.internal | ternary "https" "http" -}}
{{- end -}}

{{- define "astrocloud.port" -}}
{{- if .root.Values.tls.internal }}8443{{ else }}{{ include "astrocloud.plainPort" . }}{{ end -}}
{{- end -}}

{{- define "astrocloud.plainPort" -}}
{{- eq .part "hub" | ternary "8081" "8080" -}}
{{- end -}}

{{- define "astrocloud.host" -}}
{{ include "astrocloud.fullname" .root }}-{{ .part }}.{{ .root.Release.Namespace }}.svc
{{- end -}}

{{- /* Whether a part answers without TLS besides: what servers call that were started without. Empty: no. */}}
{{- define "astrocloud.alsoPlain" -}}
{{- if and .root.Values.tls.internal .root.Values.tls.alsoPlain (has .part (list "hub" "vospace")) }}true{{ end -}}
{{- end -}}

{{- define "astrocloud.containerPorts" -}}
- {name: {{ include "astrocloud.scheme" .root }}, containerPort: {{ include "astrocloud.port" . }}}
{{- if include "astrocloud.alsoPlain" . }}
- {name: http, containerPort: {{ include "astrocloud.plainPort" . }}}
{{- end }}
{{- end -}}

{{- define "astrocloud.servicePorts" -}}
- {name: {{ include "astrocloud.scheme" .root }}, port: {{ include "astrocloud.port" . }}, targetPort: {{ include "astrocloud.scheme" .root }}}
{{- if include "astrocloud.alsoPlain" . }}
- {name: http, port: {{ include "astrocloud.plainPort" . }}, targetPort: http}
{{- end }}
{{- end -}}

{{- /* A probe of a part: dict "root" "path". The kubelet checks no certificate. */}}
{{- define "astrocloud.httpGet" -}}
{path: {{ .path }}, port: {{ include "astrocloud.scheme" .root }}{{ if .root.Values.tls.internal }}, scheme: HTTPS{{ end }}}
{{- end -}}

{{- /* How the proxy, and VOSpace for bytes, answer what is in front of them. */}}
{{- define "astrocloud.frontScheme" -}}
{{- if and .Values.tls.front (not .Values.tls.internal) }}{{ fail "tls.front takes tls.internal: the certificates are the same" }}{{ end -}}
{{- .Values.tls.front | ternary "https" "http" -}}
{{- end -}}

{{- /* The platform's own secrets that a part reads: dict "root" "part". The hub knows every service by its token, and the
     passport's pod is where an operator gives commands; a service has no other's. */}}
{{- define "astrocloud.secretsOf" -}}
{{- $tokens := list -}}
{{- range include "astrocloud.serviceNames" .root | fromJsonArray }}{{ $tokens = append $tokens (printf "service-%s" .) }}{{ end -}}
{{- $own := dict
  "hub" (concat (list "hub-cookie" "hub-crypt" "proxy-token" "internal" "passport-client" "service-operator" "service-monitoring") $tokens)
  "passport" (list "internal" "passport-client" "passport-keys" "proxy-token" "canary" "service-operator" "service-passport")
  "portal" (list "canary" "service-portal")
  "test" (list "canary" "service-operator")
  "vospace" (list "internal" "service-vospace") -}}
{{- $found := get $own .part | default (list "internal" (printf "service-%s" .part)) -}}
{{- if .root.Values.tls.internal -}}
{{- $found = append $found "platform-ca" -}}
{{- if ne .part "test" }}{{ $found = concat $found (list (printf "%s-certificate" .part) (printf "%s-key" .part)) }}{{ end -}}
{{- if eq .part "hub" }}{{ $found = concat $found (list "servers-ca" "servers-ca-key") }}{{ end -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{- /* Files beside them that the configuration names, such as another passport's client secret. */}}
{{- define "astrocloud.secretsNamed" -}}
{{- $named := list -}}
{{- range regexFindAll "/srv/astrocloud/secrets/[A-Za-z0-9._-]+" (toJson .Values.config) -1 }}{{ $named = append $named (base .) }}{{ end -}}
{{- toJson (uniq $named) -}}
{{- end -}}

{{- /* dict "root" "part". */}}
{{- define "astrocloud.dataVolumes" -}}
{{- $secret := include "astrocloud.secret" .root -}}
{{- $database := include "astrocloud.databaseSecret" .root -}}
{{- $read := include "astrocloud.secretsOf" . | fromJsonArray -}}
{{- if eq $secret $database }}{{ $read = append $read "database-password" }}{{ end -}}
{{- if and (eq .root.Values.database.kind "bundled") .root.Values.database.bundled.tls }}{{ $read = append $read "database-ca" }}{{ end -}}
{{- if has .part (list "hub" "passport") }}{{ $read = concat $read (include "astrocloud.secretsNamed" .root | fromJsonArray) | uniq }}{{ end -}}
- name: data
  emptyDir: {}
- name: tmp
  emptyDir: {}
- name: settings
  configMap: {name: {{ include "astrocloud.fullname" .root }}-settings}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ $secret | quote }}
          items:
            {{- range sortAlpha $read }}
            - {key: {{ . | quote }}, path: {{ . | quote }}}
            {{- end }}
      {{- if ne $secret $database }}
      - secret:
          name: {{ $database | quote }}
          items: [{key: database-password, path: database-password}]
      {{- end }}
      {{- if and (eq .root.Values.database.kind "external") (or .root.Values.database.external.passwordSecret .root.Values.secrets.existingSecret) }}
      - secret:
          name: {{ $database | quote }}
          # The authority that the server's certificate is checked by, if it is not one that everybody knows.
          items: [{key: database-ca, path: database-ca}]
          optional: true
      {{- end }}
{{- end -}}

{{- /* The taints that tolerations name. */}}
{{- define "astrocloud.keys" -}}
{{- $keys := list -}}
{{- range . }}{{ $keys = append $keys .key }}{{ end -}}
{{- toJson $keys -}}
{{- end -}}

{{- /* The services there are: every key of `services` but the image. */}}
{{- define "astrocloud.serviceNames" -}}
{{- omit .Values.services "image" | keys | sortAlpha | toJson -}}
{{- end -}}

{{- /* The internet, as peers of a network policy: no private network, not where a cloud tells a machine its secrets, and not
     what the operator keeps out of it. */}}
{{- define "astrocloud.internet" -}}
{{- $four := list "10.0.0.0/8" "100.64.0.0/10" "169.254.0.0/16" "172.16.0.0/12" "192.168.0.0/16" -}}
{{- $six := list "fc00::/7" "fe80::/10" -}}
{{- range .Values.networkPolicies.except }}
{{- if contains ":" . }}{{ $six = append $six . }}{{ else }}{{ $four = append $four . }}{{ end -}}
{{- end -}}
- ipBlock: {cidr: 0.0.0.0/0, except: {{ toJson $four }}}
- ipBlock: {cidr: "::/0", except: {{ toJson $six }}}
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
    astrocloud.org/release: {{ .Release.Name | quote }}
    astrocloud.org/release-namespace: {{ .Release.Namespace | quote }}
{{- end -}}
