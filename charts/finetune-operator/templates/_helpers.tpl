{{- define "finetune-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" }}
{{- end }}

{{/* The prefix of every name. 52 characters leave room for the suffixes. */}}
{{- define "finetune-operator.fullname" -}}
{{- $name := include "finetune-operator.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "finetune-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "finetune-operator.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name must name an existing ServiceAccount when serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* Of the operator's own pods: fixed for the life of the Deployment. */}}
{{- define "finetune-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "finetune-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "finetune-operator.labels" -}}
{{ include "finetune-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The reference of an image; takes a dictionary of image (its values), value (their name) and root (the context). */}}
{{- define "finetune-operator.image" -}}
{{- with .image.registry }}
{{- if contains "://" . }}
{{- fail (printf "%s.registry is %s, a URL; write it as in an image's name, without the scheme: %s" $.value . (regexReplaceAll "^.*://" . "")) }}
{{- end }}
{{- trimSuffix "/" . }}/
{{- end }}
{{- .image.repository }}
{{- if .image.digest }}@{{ .image.digest }}{{ else }}:{{ default .root.Chart.AppVersion .image.tag }}{{ end }}
{{- end }}

{{/* What jobs may leave out, as the operator's --defaults takes it. */}}
{{- define "finetune-operator.defaults" -}}
{{- $defaults := dict "allowCPU" .Values.trainer.allowCPU "s3" .Values.s3 "policy" .Values.policy }}
{{- with .Values.huggingFace.endpoint }}{{ $_ := set $defaults "huggingFaceEndpoint" . }}{{ end }}
{{- toJson $defaults }}
{{- end }}

{{/* The rights in every namespace whose FineTuneJobs are served. Of Secrets there are none. */}}
{{- define "finetune-operator.rules" -}}
- apiGroups: [finetune.dev]
  resources: [finetunejobs]
  verbs: [delete, get, list, watch]
- apiGroups: [finetune.dev]
  resources: [finetunejobs/status]
  verbs: [get, patch]
# Where OwnerReferencesPermissionEnforcement is on (OpenShift), an owner that blocks its own deletion needs this.
- apiGroups: [finetune.dev]
  resources: [finetunejobs/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [create, delete, get, list, watch]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [create, delete, get, list, update]
# By it the pods of a training on several nodes find each other. One that exists is looked at, to see whose it is.
- apiGroups: [""]
  resources: [services]
  verbs: [create, get]
- apiGroups: [""]
  resources: [events]
  verbs: [create, list]
# What Kueue says of a Job that waits in a queue; nothing where there is no Kueue.
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads]
  verbs: [list]
{{- end }}

{{/* Servers that jobs lead to by the chart's own values, or by the values that it leaves out, but that policy.endpoints
does not list: one sentence a line. As in finetune_api/endpoints.py, address ranges may hold a name that is not listed. */}}
{{- define "finetune-operator.notAllowed" -}}
{{- $entries := .Values.policy.endpoints }}
{{- $ranges := false }}
{{- range $entries }}{{ if contains "/" . }}{{ $ranges = true }}{{ end }}{{ end }}
{{- $servers := list
  (list "s3.endpoint" (default "https://amazonaws.com" .Values.s3.endpoint) (not .Values.s3.endpoint))
  (list "huggingFace.endpoint" (default "https://huggingface.co" .Values.huggingFace.endpoint) (not .Values.huggingFace.endpoint)) }}
{{- range $servers }}
{{- $url := urlParse (index . 1) }}
{{- $address := lower $url.host }}
{{- if not (regexMatch ":[0-9]+$" $address) }}
{{- $address = printf "%s:%s" $address (ternary "80" "443" (eq $url.scheme "http")) }}
{{- end }}
{{- $host := regexReplaceAll ":[0-9]+$" $address "" }}
{{- $listed := false }}
{{- range $entries }}
{{- $entry := lower . }}
{{- if not (regexMatch ":[0-9]+$" $entry) }}{{ $entry = printf "%s%s" $entry (regexFind ":[0-9]+$" $address) }}{{ end }}
{{- $name := regexReplaceAll ":[0-9]+$" $entry "" }}
{{- if eq (regexFind ":[0-9]+$" $entry) (regexFind ":[0-9]+$" $address) }}
{{- if hasPrefix "*." $name }}
{{- if hasSuffix (trimPrefix "*" $name) (printf ".%s" $host) }}{{ $listed = true }}{{ end }}
{{- else if eq $name $host }}{{ $listed = true }}
{{- end }}
{{- end }}
{{- end }}
{{- if not $listed }}
{{ $host }} ({{ index . 0 }}{{ if index . 2 }} left out{{ end }}){{ if $ranges }}, unless its address is in one of the ranges{{ end }}
{{- end }}
{{- end }}
{{- end }}
