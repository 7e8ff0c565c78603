{{- define "gateway.name" -}}
{{- .Values.name | default .Release.Name -}}
{{- end }}

{{- define "gateway.account" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "gateway.name" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end }}

{{- /* Which pods are the gateway's: labels app and istio, unless the user sets them. */ -}}
{{- define "gateway.selector" -}}
{{- $name := include "gateway.name" . -}}
app: {{ .Values.labels.app | default $name | quote }}
istio: {{ .Values.labels.istio | default ($name | trimPrefix "istio-") | quote }}
{{- end }}

{{- define "gateway.common" -}}
app.kubernetes.io/name: {{ include "gateway.name" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: istio
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
{{- with .Values.revision }}
istio.io/rev: {{ . | quote }}
{{- end }}
{{- with omit .Values.labels "app" "istio" }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "gateway.labels" -}}
{{ include "gateway.common" . }}
{{ include "gateway.selector" . }}
{{- with .Values.networkGateway }}
topology.istio.io/network: {{ . | quote }}
{{- end }}
{{- end }}

{{- /* Whether there is, or may come, more than one replica. */ -}}
{{- define "gateway.several" -}}
{{- if eq .Values.kind "DaemonSet" }}yes
{{- else if .Values.autoscaling.enabled -}}
{{- if gt (int .Values.autoscaling.minReplicas) 1 }}yes{{ end -}}
{{- else if gt (int (.Values.replicaCount | default 1)) 1 }}yes{{ end -}}
{{- end }}

{{- /* Keys that are accepted for Istio's sake and were given, one a line with why they do nothing. */ -}}
{{- define "gateway.ignored" -}}
{{- $values := .Values | toJson | fromJson -}}
{{- range $key, $why := .Files.Get "files/without-meaning.yaml" | fromYaml -}}
{{- $at := $values -}}
{{- $found := true -}}
{{- range $part := splitList "." $key -}}
{{- if not $found -}}
{{- else if not (kindIs "map" $at) -}}{{- $found = false -}}
{{- else if not (hasKey $at $part) -}}{{- $found = false -}}
{{- else -}}{{- $at = index $at $part -}}
{{- end -}}
{{- end -}}
{{- if $found }}
- {{ $key }}: {{ $why }}
{{- end -}}
{{- end -}}
{{- end }}
