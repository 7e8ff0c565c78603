//! A gateway at the edge of the mesh: Istio's bookinfo, published through its own gateway manifest,
//! asked from outside the mesh. The manifests are those of `bookinfo`.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::bookinfo::samples;
use crate::lab::Lab;

/// Longest time a rule may take to hold.
const PATIENCE: Duration = Duration::from_secs(5);

/// A gateway workload as Istio's chart makes it, and a client without a sidecar.
const INGRESS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: default, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Namespace
metadata: {name: ingress}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: ingress, namespace: ingress}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: ingress, namespace: ingress}
spec:
  replicas: 1
  selector: {matchLabels: {istio: ingressgateway}}
  template:
    metadata:
      annotations: {inject.istio.io/templates: gateway}
      labels: {istio: ingressgateway, sidecar.istio.io/inject: 'true'}
    spec:
      serviceAccountName: ingress
      containers: [{name: istio-proxy, image: auto}]
---
apiVersion: v1
kind: Service
metadata: {name: ingress, namespace: ingress}
spec:
  selector: {istio: ingressgateway}
  ports: [{name: http2, port: 80, targetPort: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: outside, namespace: ingress}
spec:
  replicas: 1
  selector: {matchLabels: {app: outside}}
  template:
    metadata: {labels: {app: outside}}
    spec:
      containers: [{name: app, image: example.com/outside:1, ports: [{containerPort: 8080}]}]
";

/// Lets the gateway carry TCP, and send HTTP of one host away.
const MORE: &str = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: more, namespace: default}
spec:
  selector: {istio: ingressgateway}
  servers:
    - {port: {number: 8080, name: http, protocol: HTTP}, hosts: [secure.example.com], tls: {httpsRedirect: true}}
    - {port: {number: 9000, name: tcp, protocol: TCP}, hosts: ['*']}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: tcp, namespace: default}
spec:
  hosts: ['*']
  gateways: [more]
  tcp: [{route: [{destination: {host: details, port: {number: 9080}}}]}]
";

const DENY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-login, namespace: ingress}
spec:
  selector: {matchLabels: {istio: ingressgateway}}
  action: DENY
  rules: [{to: [{operation: {paths: [/login]}}]}]
";

struct Edge {
    lab: Lab,
    outside: String,
    address: String,
}

impl Edge {
    fn get(&self, place: &str, arguments: &[&str]) -> Value {
        let url = format!("http://{}{place}", self.address);
        self.lab.get_in("ingress", &self.outside, &[&[url.as_str()], arguments].concat())
    }

    /// Asks until the answer has this status, since a rule takes a moment to reach the gateway.
    fn until(&self, (place, status): (&str, u64), arguments: &[&str]) -> Value {
        let begun = Instant::now();
        loop {
            let summary = self.get(place, arguments);
            if summary["last_status"] == status {
                return summary;
            }
            assert!(begun.elapsed() < PATIENCE, "{place} {arguments:?}: {summary}");
        }
    }

    fn apply(&self, manifests: &str) {
        let output = self.lab.apply_text(manifests);
        assert!(output.status.success(), "{}", crate::lab::text(&output));
    }
}

#[test]
#[ignore = "runs the release binaries: make test-mesh"]
fn bookinfo_is_reached_through_its_gateway() {
    let bookinfo = samples().join("bookinfo");
    let ingress = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::fs::write(ingress.path(), INGRESS).unwrap();
    let app = bookinfo.join("platform/kube/bookinfo.yaml");
    let gateway = bookinfo.join("networking/bookinfo-gateway.yaml");
    let files = [ingress.path(), &app, &gateway].map(|file| file.to_string_lossy().into_owned());
    let arguments: Vec<&str> = files.iter().flat_map(|file| ["-f", file]).collect();
    let lab = Lab::up("gateway", &arguments);
    let pods = lab.pods();
    let pod = pods.iter().find(|pod| pod["name"].as_str().unwrap().starts_with("ingress-"));
    let address = pod.unwrap()["addresses"][0].as_str().unwrap().to_owned();
    let outside = lab.pod("outside");
    let edge = Edge { lab, outside, address };

    let page = edge.until((":8080/productpage", 200), &[]);
    let body: Value = serde_json::from_str(page["last_body"].as_str().unwrap()).unwrap();
    assert_eq!(body["app"], "productpage");
    let client = body["headers"]["x-forwarded-client-cert"].as_str().unwrap_or_default();
    assert!(client.contains("URI=spiffe://cluster.local/ns/ingress/sa/ingress"), "{body}");
    let from = body["headers"]["x-envoy-external-address"].as_str().unwrap_or_default();
    assert!(!from.is_empty(), "who asked is not told: {body}");
    let claimed = ["-H", "x-envoy-external-address: 192.0.2.1"];
    let page = edge.until((":8080/productpage", 200), &claimed);
    assert!(!page["last_body"].as_str().unwrap().contains("192.0.2.1"), "strangers are believed");
    assert_eq!(edge.get(":8080/elsewhere", &[])["last_status"], 404);

    edge.apply(MORE);
    let sent = edge.until((":8080/a", 301), &["-H", "host: secure.example.com"]);
    assert_eq!(sent["last_headers"]["location"], "https://secure.example.com/a", "{sent}");
    let details = edge.until((":9000/details/0", 200), &[]);
    let body: Value = serde_json::from_str(details["last_body"].as_str().unwrap()).unwrap();
    assert_eq!(body["app"], "details");

    assert_eq!(edge.get(":8080/login", &[])["last_status"], 200);
    edge.apply(DENY);
    edge.until((":8080/login", 403), &[]);
    assert_eq!(edge.get(":8080/productpage", &[])["last_status"], 200);
}
