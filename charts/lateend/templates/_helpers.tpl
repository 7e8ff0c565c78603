{{- /* Suffix of names: -REVISION, or nothing for the default one. */ -}}
{{- define "lateend.suffix" -}}
{{- if and .Values.revision (ne .Values.revision "default") }}-{{ .Values.revision }}{{ end -}}
{{- end }}

{{- /* Suffix of names of objects that no namespace has. */ -}}
{{- define "lateend.wide" -}}
{{- include "lateend.suffix" . }}-{{ .Release.Namespace -}}
{{- end }}

{{- define "lateend.service" -}}
istiod{{ include "lateend.suffix" . }}
{{- end }}

{{- define "lateend.revision" -}}
{{ .Values.revision | default "default" }}
{{- end }}

{{- /* What Helm and others find objects by. */ -}}
{{- define "lateend.common" -}}
istio.io/rev: {{ include "lateend.revision" . | quote }}
release: {{ .Release.Name }}
app.kubernetes.io/name: istiod
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: istio
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
{{- end }}

{{- /* Labels of the control plane's own objects. */ -}}
{{- define "lateend.labels" -}}
app: istiod
istio: pilot
install.operator.istio.io/owning-resource: {{ .Values.ownerName | default "unknown" }}
operator.istio.io/component: Pilot
{{ include "lateend.common" . }}
{{- end }}

{{- /* Which pods are the control plane's. */ -}}
{{- define "lateend.selector" -}}
app: istiod
{{- if include "lateend.suffix" . }}
istio.io/rev: {{ .Values.revision | quote }}
{{- else }}
istio: pilot
{{- end }}
{{- end }}

{{- define "lateend.image" -}}
{{- if contains "/" .Values.image -}}
{{ .Values.image }}
{{- else -}}
{{- $variant := .Values.variant | default .Values.global.variant -}}
{{ .Values.hub | default .Values.global.hub }}/{{ .Values.image }}:{{ .Values.tag | default .Values.global.tag }}{{ with $variant }}-{{ . }}{{ end }}
{{- end -}}
{{- end }}

{{- /* Whether there is, or may come, more than one replica. */ -}}
{{- define "lateend.several" -}}
{{- if .Values.autoscaleEnabled -}}
{{- if gt (int .Values.autoscaleMin) 1 }}yes{{ end -}}
{{- else if gt (int .Values.replicaCount) 1 }}yes{{ end -}}
{{- end }}

{{- /* lateend knows one level; of scopes as in default:info,ads:debug the default one is taken. */ -}}
{{- define "lateend.logLevel" -}}
{{- $level := "info" -}}
{{- range $scope := splitList "," .Values.global.logging.level -}}
{{- $parts := splitList ":" $scope -}}
{{- if or (eq (len $parts) 1) (has (first $parts) (list "default" "all")) -}}{{- $level = last $parts -}}{{- end -}}
{{- end -}}
{{- if has $level (list "none" "fatal") }}error{{ else }}{{ $level }}{{ end -}}
{{- end }}

{{- /* Mesh configuration: what the user says, over what follows from the other values. */ -}}
{{- define "lateend.mesh" -}}
{{- $address := printf "%s.%s.svc:15012" (include "lateend.service" .) .Release.Namespace -}}
{{- $defaults := dict "defaultConfig" (dict "discoveryAddress" $address) "rootNamespace" .Release.Namespace "trustDomain" "cluster.local" -}}
{{- with .Values.global.trustDomain -}}{{- $_ := set $defaults "trustDomain" . -}}{{- end -}}
{{- mustMergeOverwrite $defaults (deepCopy .Values.meshConfig) | toYaml -}}
{{- end }}

{{- /* What injection reads, as lateend knows it. */ -}}
{{- define "lateend.injection" -}}
{{- $global := deepCopy .Values.global -}}
{{- $_ := set $global "istioNamespace" .Release.Namespace -}}
{{- dict "revision" .Values.revision "global" $global "sidecarInjectorWebhook" .Values.sidecarInjectorWebhook
  "pilot" (dict "cni" .Values.cni "env" .Values.env) "gateways" .Values.gateways | toPrettyJson -}}
{{- end }}

{{- /* Keys that are accepted for Istio's sake and were given, one a line with why they do nothing. */ -}}
{{- define "lateend.ignored" -}}
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
