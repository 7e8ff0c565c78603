{{- /* Labels of every object of this chart. */ -}}
{{- define "base.labels" -}}
app.kubernetes.io/name: istiod
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: istio
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
{{- end }}

{{- /* Keys that are accepted for Istio's sake and were given, one a line with why they do nothing. */ -}}
{{- define "base.ignored" -}}
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
