//! Tests of templates of the user on pods.

use serde_json::{Value, json};

use crate::inject::{AdmissionContext, InjectError, Injection, inject};
use crate::policy::Reason;
use crate::settings::{InjectionSettings, Options};

fn settings(templates: &Value, default: &[&str]) -> InjectionSettings {
    let values = json!({
        "pilot": {"cni": {"enabled": true}, "env": {"GREETING": "from-env"}},
        "global": {"proxy": {"extra": {"cpu": "7m", "none": null}}},
        "sidecarInjectorWebhook": {"templates": templates, "defaultTemplates": default},
    });
    let mesh = json!({"trustDomain": "td.test", "defaultConfig": {"proxyMetadata": {"A": "b"}}});
    InjectionSettings::from_sources(Some(&values), Some(&mesh), Options::default()).unwrap()
}

fn pod() -> Value {
    json!({
        "metadata": {"name": "web-1", "labels": {"app": "web"}, "annotations": {"team": "x: \"y\""}},
        "spec": {"serviceAccountName": "sa", "containers": [
            {"name": "web", "image": "web:1", "ports": [{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}]},
            {"name": "log", "image": "log:1"},
        ]},
    })
}

fn injected(pod: &Value, text: &str) -> Result<Injection, InjectError> {
    let settings = settings(&json!({"mine": text}), &["sidecar", "mine"]);
    let context = AdmissionContext { namespace: "shop".to_owned(), ..AdmissionContext::default() };
    inject(pod, &settings, &context)
}

/// What an action renders, seen as an annotation.
#[track_caller]
fn renders(action: &str, expected: &str) {
    let text =
        format!("metadata: {{annotations: {{out: {{{{ {action} | toString | toJson }}}}}}}}");
    let injection = injected(&pod(), &text).unwrap_or_else(|error| panic!("{action}: {error}"));
    assert_eq!(injection.pod["metadata"]["annotations"]["out"], expected, "{action}");
}

#[test]
fn templates_see_what_istio_shows_them() {
    for (action, expected) in [
        (".ObjectMeta.Name", "web-1"),
        (".ObjectMeta.Namespace", "shop"),
        (".ObjectMeta.Labels.app", "web"),
        ("index .ObjectMeta.Labels \"none\"", ""),
        ("index .ObjectMeta.Annotations \"team\"", "x: \"y\""),
        (".DeploymentMeta.Name", "web-1"),
        (".DeploymentMeta.Namespace", "shop"),
        (".TypeMeta.Kind", "Pod"),
        (".TypeMeta.APIVersion", "v1"),
        (".Spec.ServiceAccountName", "sa"),
        (".Spec.NodeName", ""),
        (".Spec.HostNetwork", "false"),
        ("(index .Spec.Containers 0).Name", "web"),
        ("(index (index .Spec.Containers 0).Ports 0).ContainerPort", "80"),
        ("len .Spec.Containers", "2"),
        (".ProxyConfig.InterceptionMode", "REDIRECT"),
        (".ProxyConfig.InterceptionMode.String", "REDIRECT"),
        (".ProxyConfig.ProxyMetadata.A", "b"),
        ("index .ProxyConfig.ProxyMetadata \"none\"", ""),
        (".ProxyConfig.StatusPort", "15020"),
        ("eq .ProxyConfig.GetTracing.GetTlsSettings nil", "true"),
        ("or .ProxyConfig.HoldApplicationUntilProxyStarts.GetValue \"no\"", "no"),
        (".MeshConfig.TrustDomain", "td.test"),
        (".MeshConfig.ProxyListenPort", "15001"),
        (".Values.global.proxy.extra.cpu", "7m"),
        (".Values.pilot.cni.enabled", "true"),
        (".Revision", "default"),
        (".NativeSidecars", "true"),
        (".ProxyUID", "1337"),
        (".InboundTrafficPolicyMode", "passthrough"),
        (".CompliancePolicy", ""),
    ] {
        renders(action, expected);
    }
}

#[test]
fn functions_of_istio() {
    for (action, expected) in [
        ("annotation .ObjectMeta \"team\" \"z\"", "x: \"y\""),
        ("annotation .ObjectMeta \"none\" 15020", "15020"),
        ("annotation .ObjectMeta \"none\" .Values.none", "<nil>"),
        ("isset .ObjectMeta.Annotations \"team\"", "true"),
        ("valueOrDefault \"\" \"d\"", "d"),
        ("valueOrDefault .Values.none.at.all \"d\"", "d"),
        ("contains \"/\" \"a/b\"", "true"),
        ("toLower \"AB\"", "ab"),
        ("directory \"/a/b.c\"", "/a/"),
        ("indent 2 \"a\\nb\"", "a\n  b"),
        ("nindent 2 \"a\\nb\"", "\n  a\n  b"),
        ("toJSON .ObjectMeta.Labels", "{\"app\":\"web\"}"),
        ("structToJSON (index (index .Spec.Containers 0).Ports 0)", "{\"containerPort\":80}"),
        ("(fromJSON \"{\\\"a\\\":1}\").a", "1"),
        ("fromJSON \"{\"", "{}"),
        ("protoToJSON .ProxyConfig", "{\"proxyMetadata\":{\"A\":\"b\"}}"),
        ("toJsonMap (strdict \"a\" \"1\") (strdict \"b\" \"2\")", "{\"a\":\"1\",\"b\":\"2\"}"),
        ("(mergeMaps (strdict \"a\" \"1\") (strdict \"a\" \"2\")).a", "2"),
        ("omit .ObjectMeta.Labels \"app\"", "map[]"),
        ("toYaml (omitNil .Values.global.proxy.extra)", "cpu: \"7m\"\n"),
        ("excludeInboundPort 15020 \"1, 2\"", "1,2,15020"),
        ("excludeInboundPort 2 \"1, 2\"", "1, 2"),
        ("includeInboundPorts .Spec.Containers", "80"),
        ("applicationPorts .Spec.Containers", "80"),
        ("appendMultusNetwork \"a\" \"default/istio-cni\"", "a, default/istio-cni"),
        (
            "appendMultusNetwork \"[{\\\"name\\\":\\\"m\\\"}]\" \"d/n\"",
            "[{\"name\":\"m\"},{\"name\":\"n\",\"namespace\":\"d\"}]",
        ),
        ("env \"GREETING\" \"none\"", "from-env"),
        ("env \"OTHER\" \"none\"", "none"),
        ("formatDuration .ProxyConfig.DrainDuration", "45s"),
        (
            "otelResourceAttributes .MeshConfig .ObjectMeta.Annotations .ObjectMeta.Labels \"shop\" .Spec.Containers",
            "",
        ),
    ] {
        renders(action, expected);
    }
}

/// As the example in Istio's documentation, with something of everything.
const MINE: &str = r#"
metadata:
  annotations:
    example.test/first: {{ (index .Spec.Containers 0).Name | quote }}
spec:
  containers:
  - name: istio-proxy
    env:
    - name: GREETING
      value: hello-{{ .ObjectMeta.Labels.app | default "world" }}
  {{- range $index, $container := .Spec.Containers }}
  - name: {{ $container.Name }}
    env:
    - name: INDEX
      value: "{{ $index }}"
  {{- end }}
  volumes:
  - name: mine
    emptyDir: {}
"#;

#[test]
fn a_template_is_laid_over_the_pod_and_its_sidecar() {
    let injection = injected(&pod(), MINE).unwrap();
    let spec = &injection.pod["spec"];
    let named = |list: &Value, name: &str| {
        list.as_array().unwrap().iter().find(|element| element["name"] == name).cloned().unwrap()
    };
    let proxy = named(&spec["initContainers"], "istio-proxy");
    assert_eq!(named(&proxy["env"], "GREETING")["value"], "hello-web");
    assert_eq!(named(&named(&spec["containers"], "log")["env"], "INDEX")["value"], "1");
    assert_eq!(named(&spec["containers"], "web")["image"], "web:1");
    assert_eq!(injection.pod["metadata"]["annotations"]["example.test/first"], "web");
    assert_eq!(named(&spec["volumes"], "mine"), json!({"name": "mine", "emptyDir": {}}));
    let again = injected(&injection.pod, MINE).unwrap();
    assert_eq!(again.pod, injection.pod);
}

#[test]
fn a_template_of_the_user_stands_in_for_lateens_own() {
    let sidecar = "spec:\n  {{ if .NativeSidecars }}initContainers{{ else }}containers{{ end }}:\n  \
                   - {name: istio-proxy, image: \"{{ .ProxyImage }}\", env: []}\n";
    let settings = settings(&json!({"sidecar": sidecar}), &[]);
    let mut context =
        AdmissionContext { namespace: "shop".to_owned(), ..AdmissionContext::default() };
    context.environment.insert("ISTIO_META_NETWORK".to_owned(), "n1".to_owned());
    let injected = inject(&pod(), &settings, &context).unwrap().pod;
    let proxy = &injected["spec"]["initContainers"][0];
    assert_eq!(proxy["name"], "istio-proxy");
    assert!(proxy["image"].as_str().unwrap().contains("/proxyv2:"), "{proxy}");
    assert_eq!(proxy["env"], json!([{"name": "ISTIO_META_NETWORK", "value": "n1"}]));
    assert_eq!(injected["metadata"]["labels"]["topology.istio.io/network"], "n1");
    assert_eq!(injected["spec"]["containers"].as_array().unwrap().len(), 2);
    assert!(injected["spec"]["volumes"].is_null(), "{injected}");
}

#[test]
fn what_a_template_annotates_counts_afterwards() {
    let text = "metadata: {annotations: {prometheus.istio.io/merge-metrics: \"false\"}}";
    let merged = injected(&pod(), "metadata: {labels: {a: b}}").unwrap().pod;
    assert_eq!(merged["metadata"]["annotations"]["prometheus.io/scrape"], "true");
    let unmerged = injected(&pod(), text).unwrap().pod;
    assert!(unmerged["metadata"]["annotations"]["prometheus.io/scrape"].is_null(), "{unmerged}");
}

#[test]
fn a_template_that_fails_denies_the_pod_and_says_where() {
    for (text, needle) in [
        (
            "spec:\n  x: {{ .Spec.NodeNam }}",
            "line 2, column 9: can't evaluate field NodeNam in type PodSpec",
        ),
        (
            "{{ .Values.none.at.all }}{{ .Values.global.proxy.extra.cpu.x }}",
            "can't evaluate field x in type string",
        ),
        ("{{ fail \"own words\" }}", "own words"),
        ("{{ range 1000000000 }}{{ end }}", "line 1, column 10: takes more than"),
        ("spec: {{ .ObjectMeta.Annotations.team }}", "not a piece of a pod"),
        ("{{ 1 }}", "expected a map"),
    ] {
        let error = injected(&pod(), text).unwrap_err();
        assert_eq!(error.reason(), Reason::DeniedTemplate);
        let told = error.to_string();
        assert!(told.contains("template \"mine\"") && told.contains(needle), "{text}: {told}");
    }
}
