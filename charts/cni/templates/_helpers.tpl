{{- define "cni.labels" -}}
istio.io/rev: {{ .Values.revision | default "default" | quote }}
install.operator.istio.io/owning-resource: {{ .Values.ownerName | default "unknown" }}
operator.istio.io/component: Cni
release: {{ .Release.Name }}
app.kubernetes.io/name: istio-cni
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: istio
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
{{- end }}

{{- define "cni.image" -}}
{{- if contains "/" .Values.image -}}
{{ .Values.image }}
{{- else -}}
{{- $variant := .Values.variant | default .Values.global.variant -}}
{{ .Values.hub | default .Values.global.hub }}/{{ .Values.image }}:{{ .Values.tag | default .Values.global.tag }}{{ with $variant }}-{{ . }}{{ end }}
{{- end -}}
{{- end }}

{{- /* Folders and form that a platform needs, as JSON. */ -}}
{{- define "cni.platform" -}}
{{- $plain := dict "bin" "/opt/cni/bin" "conf" "/etc/cni/net.d" "netns" "/var/run/netns" "chained" true "keep" false "file" "" "quota" false -}}
{{- $known := dict
  "gke" (dict "bin" "/home/kubernetes/bin" "quota" true)
  "k3s" (dict "bin" "/var/lib/rancher/k3s/data/cni" "conf" "/var/lib/rancher/k3s/agent/etc/cni/net.d")
  "k3d" (dict "bin" "/bin" "conf" "/var/lib/rancher/k3s/agent/etc/cni/net.d")
  "microk8s" (dict "bin" "/var/snap/microk8s/current/opt/cni/bin" "conf" "/var/snap/microk8s/current/args/cni-network")
  "minikube" (dict "netns" "/var/run/docker/netns")
  "openshift" (dict "bin" "/var/lib/cni/bin" "conf" "/etc/cni/multus/net.d" "chained" false "keep" true "file" "istio-cni.conf") -}}
{{- $platform := .Values.platform | default .Values.global.platform | default "" -}}
{{- /* As Istio's chart, which knows GKE by its version where nothing is said. */ -}}
{{- if and (not $platform) (contains "-gke" .Capabilities.KubeVersion.Version) }}{{ $_ := set $plain "bin" "/home/kubernetes/bin" }}{{ end -}}
{{- mustMergeOverwrite $plain (get $known $platform | default dict) | toJson -}}
{{- end }}

{{- define "cni.repair" -}}
{{- $repair := .Values.repair -}}
{{- if not $repair.enabled }}off
{{- else if $repair.deletePods }}delete
{{- else if $repair.labelPods }}label
{{- else if $repair.repairPods }}in-place
{{- else }}off{{ end -}}
{{- end }}

{{- define "cni.logLevel" -}}
{{- $level := "info" -}}
{{- range $scope := splitList "," (.Values.logging.level | default .Values.global.logging.level) -}}
{{- $parts := splitList ":" $scope -}}
{{- if or (eq (len $parts) 1) (has (first $parts) (list "default" "all" "cni-agent")) -}}{{- $level = last $parts -}}{{- end -}}
{{- end -}}
{{ $level }}
{{- end }}
{{- /* Keys that are accepted for Istio's sake and were given, one a line with why they do nothing. */ -}}
{{- define "cni.ignored" -}}
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
