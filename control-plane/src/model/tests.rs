//! Small meshes in YAML, and what proxies see of them.

mod gateways;
mod increments;
mod rules;
mod services;
mod translated;

use clap::Parser;
use lateen_api::mesh::MeshConfig;

use super::Model;
use crate::serve::generation::{Mesh, Scope};
use crate::settings::Settings;
use crate::source::{Files, Load, State};
use crate::translate::input::Outbound;
use crate::translate::view::ProxyView;

fn model_with(text: &str, mesh: &str) -> Model {
    let files: Files = [("mesh.yaml".to_owned(), Ok(text.into()))].into();
    let load = Load::next(&State::default(), &files);
    assert!(load.findings.iter().all(|it| !it.is_error()), "{:?}", load.findings);
    let settings = Settings::parse_from(["lateend", "--config-dir", "."]);
    Model::new(&load.objects, &MeshConfig::parse("mesh", mesh).unwrap(), &settings)
}

fn model(text: &str) -> Model {
    model_with(text, "")
}

fn seen(model: &Model, namespace: &str) -> Outbound {
    model.outbound(&Scope { namespace: namespace.to_owned(), ..Scope::default() })
}

fn view(namespace: &str, name: &str) -> ProxyView {
    ProxyView { namespace: namespace.into(), name: name.into(), ..ProxyView::default() }
}

const CART: &str = "
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec:
  clusterIP: 10.96.0.1
  clusterIPs: [10.96.0.1, 'fd00::1']
  selector: {app: cart}
  ports:
    - {name: http, port: 80, targetPort: web}
    - {name: dns, port: 53, protocol: UDP}
---
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {topology.kubernetes.io/region: r, topology.kubernetes.io/zone: z}}
---
apiVersion: v1
kind: Pod
metadata:
  name: cart-abc-1
  generateName: cart-abc-
  namespace: shop
  labels: {app: cart, version: v1, pod-template-hash: abc, security.istio.io/tlsMode: istio}
  ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: cart-abc, uid: u, controller: true}]
spec:
  serviceAccountName: cart
  nodeName: n1
  containers: [{name: c, ports: [{name: web, containerPort: 8080}]}]
status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}], conditions: [{type: Ready, status: 'True'}]}
";

const SLICE: &str = "
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cart-x, namespace: shop, labels: {kubernetes.io/service-name: cart}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
  - {addresses: [10.0.0.1], conditions: {ready: true}}
  - {addresses: [10.0.0.2], conditions: {ready: false}}
  - {addresses: [10.0.0.3]}
";

fn rule(kind: &str, name: &str, namespace: &str, spec: &str) -> String {
    let group = if kind.starts_with("Auth") || kind.starts_with("Peer") {
        "security"
    } else {
        "networking"
    };
    format!(
        "---\napiVersion: {group}.istio.io/v1\nkind: {kind}\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}
