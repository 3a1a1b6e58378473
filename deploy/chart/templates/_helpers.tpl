{{- define "container-agent.fullname" -}}
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

{{- define "container-agent.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "container-agent.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "container-agent.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* registry/repository@digest or registry/repository:tag; the version of the chart where no tag is named. */}}
{{- define "container-agent.image" -}}
{{- $image := .image -}}
{{- $name := $image.repository -}}
{{- if $image.registry }}{{- $name = printf "%s/%s" $image.registry $image.repository -}}{{- end -}}
{{- if $image.digest -}}
{{- printf "%s@sha256:%s" $name (trimPrefix "sha256:" $image.digest) -}}
{{- else -}}
{{- printf "%s:%s" $name (default .version $image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "container-agent.proxy" -}}
{{- $login := "" -}}
{{- if .auth.enabled }}{{- $login = printf "%s:%s@" (.auth.username | urlquery) (.auth.password | urlquery) -}}{{- end -}}
{{- printf "http://%s%s:%v" $login .host .port -}}
{{- end -}}
