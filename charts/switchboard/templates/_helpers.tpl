{{/* Name in labels. */}}
{{- define "switchboard.name" -}}
{{- default "switchboard-operator" .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Name of what the release makes: a release named `switchboard` makes `switchboard-operator`. 52 characters leave room
for the suffixes of what is derived from it. */}}
{{- define "switchboard.fullname" -}}
{{- $name := include "switchboard.name" . -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if hasPrefix .Release.Name $name }}
{{- $name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* What selects the operator's pods. Immutable on a Deployment, so it holds nothing that may change. */}}
{{- define "switchboard.selectorLabels" -}}
app.kubernetes.io/name: {{ include "switchboard.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Labels of an object or pod: what people add, and ours over it. Arguments: root; optionally labels. */}}
{{- define "switchboard.labels" -}}
{{- $ours := include "switchboard.selectorLabels" .root | fromYaml -}}
{{- $_ := set $ours "app.kubernetes.io/component" "operator" -}}
{{- $_ := set $ours "app.kubernetes.io/part-of" "switchboard" -}}
{{- mergeOverwrite (dict) .root.Values.commonLabels (.labels | default dict) $ours | toYaml }}
{{- end }}

{{/* What changes with every version of the chart: on objects, never on pods, which it would replace. */}}
{{- define "switchboard.versionLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* metadata of an object of the release. Arguments: root, name; optionally namespace (`-` for cluster-scoped),
labels, annotations. */}}
{{- define "switchboard.metadata" -}}
name: {{ .name }}
{{- if ne (.namespace | default "") "-" }}
namespace: {{ .namespace | default .root.Release.Namespace | quote }}
{{- end }}
labels:
  {{- include "switchboard.labels" (dict "root" .root "labels" (mergeOverwrite (dict) (.labels | default dict) (include "switchboard.versionLabels" .root | fromYaml))) | nindent 2 }}
{{- with mergeOverwrite (dict) .root.Values.commonAnnotations (.annotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The operator's ServiceAccount, whoever made it. */}}
{{- define "switchboard.serviceAccountName" -}}
{{- $made := ternary (include "switchboard.fullname" .) "default" .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default $made }}
{{- end }}

{{/* The operator's PriorityClass, or nothing. */}}
{{- define "switchboard.priorityClassName" -}}
{{- $made := ternary (include "switchboard.fullname" .) "" .Values.priorityClass.create -}}
{{- .Values.priorityClass.name | default $made }}
{{- end }}

{{/* An image's reference. Arguments: root, image. */}}
{{- define "switchboard.image" -}}
{{- $registry := .root.Values.global.imageRegistry | default .image.registry -}}
{{- $repository := ternary (printf "%s/%s" $registry .image.repository) .image.repository (ne $registry "") -}}
{{- if and .image.digest .image.tag -}}
{{- printf "%s:%s@%s" $repository .image.tag .image.digest }}
{{- else if .image.digest -}}
{{- printf "%s@%s" $repository .image.digest }}
{{- else -}}
{{- printf "%s:%s" $repository (.image.tag | default .root.Chart.AppVersion) }}
{{- end }}
{{- end }}

{{/* Whether the cluster has one of Prometheus operator's kinds: "true" or nothing. Arguments: root, kind. */}}
{{- define "switchboard.hasMonitoring" -}}
{{- if .root.Capabilities.APIVersions.Has (printf "monitoring.coreos.com/v1/%s" .kind) }}true{{ end }}
{{- end }}

{{/* Metadata of a custom resource of ours. On a cluster without the definitions it is a hook after the installation,
because the API server knows the kind only then. It says that it belongs to the release, so that the first upgrade takes it
into the release; from then on it follows the values. It is never deleted by helm: calls go on without the chart.
Arguments: root, kind, name, namespace. */}}
{{- define "switchboard.resourceMetadata" -}}
{{- $annotations := dict
      "helm.sh/resource-policy" "keep"
      "meta.helm.sh/release-name" .root.Release.Name
      "meta.helm.sh/release-namespace" .root.Release.Namespace -}}
{{- if not (.root.Capabilities.APIVersions.Has (printf "switchboard.dev/v1alpha1/%s" .kind)) -}}
{{- $_ := set $annotations "helm.sh/hook" "post-install,post-upgrade" -}}
{{- $_ := set $annotations "helm.sh/hook-weight" (ternary "0" "1" (eq .kind "VoiceGateway")) -}}
{{- end -}}
{{- include "switchboard.metadata" (dict "root" .root "name" .name "namespace" .namespace "annotations" $annotations) }}
{{- end }}

{{/* Pull secrets of a pod, with those of parent charts. */}}
{{- define "switchboard.pullSecrets" -}}
{{- with concat .Values.imagePullSecrets .Values.global.imagePullSecrets -}}
imagePullSecrets:
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* A pod's spec that runs `switchboard check`. Arguments: root, seconds. */}}
{{- define "switchboard.checkPod" -}}
spec:
  serviceAccountName: {{ include "switchboard.serviceAccountName" .root }}
  {{- include "switchboard.pullSecrets" .root | nindent 2 }}
  restartPolicy: Never
  securityContext:
    {{- toYaml .root.Values.podSecurityContext | nindent 4 }}
  containers:
  - name: check
    image: {{ include "switchboard.image" (dict "root" .root "image" .root.Values.image) }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    args: [check, --wait-seconds, {{ .seconds | quote }}]
    env:
    - name: SWITCHBOARD_NAMESPACE
      valueFrom:
        fieldRef:
          fieldPath: metadata.namespace
    {{- with .root.Values.watchNamespaces }}
    - name: SWITCHBOARD_WATCH_NAMESPACES
      value: {{ join "," . | quote }}
    {{- end }}
    resources:
      requests:
        cpu: 10m
        memory: 16Mi
      limits:
        memory: 64Mi
    securityContext:
      {{- toYaml .root.Values.securityContext | nindent 6 }}
  {{- with .root.Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .root.Values.tolerations }}
  tolerations:
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
