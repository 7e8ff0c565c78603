//! Which services there are, and who answers for them.

use lateen_api::security::MutualTlsMode;

use super::{CART, SLICE, model, seen, view};
use crate::serve::generation::Mesh;
use crate::translate::input::Resolution;

#[test]
fn a_service_knows_who_answers_for_it() {
    let outbound = seen(&model(&format!("{CART}{SLICE}")), "bank");
    let service = &outbound.services[0];
    assert_eq!(service.host, "cart.shop.svc.cluster.local");
    assert_eq!(service.addresses.len(), 2);
    let endpoints = &service.ports[0].endpoints;
    let addresses: Vec<&str> = endpoints.iter().map(|it| it.address.as_str()).collect();
    assert_eq!(addresses, ["10.0.0.1", "10.0.0.3"], "those that are not ready are left out");
    let known = &endpoints[0];
    assert_eq!(known.port, 8080);
    assert_eq!(known.identity, "spiffe://cluster.local/ns/shop/sa/cart");
    assert_eq!(known.workload, "cart;shop;cart;v1;Kubernetes");
    assert_eq!(known.locality, "r/z");
    assert!(known.mutual_tls);
    assert!(!endpoints[1].mutual_tls, "nothing is known of it");
    assert!(service.ports[1].endpoints.is_empty(), "UDP is not proxied");
}

/// Slices as the controllers of Kubernetes write them, of a service of two families.
const REAL_SLICES: &str = "
---
apiVersion: v1
kind: Service
metadata: {name: twin, namespace: shop}
spec:
  clusterIP: 10.96.0.2
  clusterIPs: [10.96.0.2, 'fd00::2']
  ipFamilies: [IPv4, IPv6]
  ports: [{name: http, port: 80}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: twin-4, namespace: shop, labels: {kubernetes.io/service-name: twin}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints:
  - addresses: [192.0.2.7]
    conditions: {ready: true, serving: true, terminating: false}
    nodeName: n1
    targetRef: {kind: Pod, namespace: shop, name: cart-abc-1, uid: u1}
  - addresses: [192.0.2.8]
    conditions: {ready: true, serving: true, terminating: false}
    targetRef: {kind: Pod, namespace: shop, name: not-seen-yet, uid: u2}
  - addresses: [192.0.2.9]
    conditions: {ready: false, serving: true, terminating: true}
    targetRef: {kind: Pod, namespace: shop, name: cart-abc-1, uid: u1}
  - addresses: [192.0.2.10]
    conditions: {ready: true}
    nodeName: n1
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: twin-6, namespace: shop, labels: {kubernetes.io/service-name: twin}}
addressType: IPv6
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints:
  - addresses: ['fd00:1::7']
    conditions: {ready: true, serving: true, terminating: false}
    targetRef: {kind: Pod, namespace: shop, name: cart-abc-1, uid: u1}
";

#[test]
fn an_endpoint_is_the_pod_that_it_names_and_waits_for_it() {
    let of = |text: &str| {
        let outbound = seen(&model(text), "shop");
        let mut services = outbound.services.iter();
        services.find(|it| it.name == "twin").unwrap().ports[0].endpoints.to_vec()
    };
    let text = format!("{CART}{REAL_SLICES}");
    let endpoints = of(&text);
    let addresses: Vec<&str> = endpoints.iter().map(|it| it.address.as_str()).collect();
    assert_eq!(addresses, ["192.0.2.10", "192.0.2.7"], "each pod once, none unseen or ending");
    assert!(endpoints[1].mutual_tls, "the pod's own address does not matter");
    assert_eq!(endpoints[1].identity, "spiffe://cluster.local/ns/shop/sa/cart");
    assert_eq!(endpoints[0].locality, "r/z", "of the node alone");
    let headless = text.replace("clusterIP: 10.96.0.2\n", "clusterIP: None\n");
    assert_eq!(of(&headless).len(), 3, "a client may have looked up either family");
    let other_only = text.replace("addressType: IPv4", "addressType: FQDN");
    assert_eq!(of(&other_only).len(), 3, "what there is");
}

#[test]
fn without_slices_the_selector_picks_ready_pods() {
    let outbound = seen(&model(CART), "shop");
    let endpoints = &outbound.services[0].ports[0].endpoints;
    assert_eq!((endpoints.len(), endpoints[0].port), (1, 8080));
    let starting = CART.replace("status: 'True'", "status: 'False'");
    assert!(seen(&model(&starting), "shop").services[0].ports[0].endpoints.is_empty());
    // Its proxy must listen before the pod is ready.
    let inbound = model(&starting).inbound(&view("shop", "cart-abc-1"));
    assert_eq!(inbound.ports.len(), 1);
    let port = &inbound.ports[0];
    assert_eq!((port.port, port.service_port, port.service_name.as_str()), (8080, 80, "cart"));
}

#[test]
fn kinds_of_kubernetes_services() {
    let text = "
apiVersion: v1
kind: Service
metadata: {name: db, namespace: a}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: tcp, port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: out, namespace: a}
spec: {type: ExternalName, externalName: api.example.com, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: mine, namespace: a, annotations: {networking.istio.io/exportTo: '.'}}
spec: {clusterIP: 10.96.0.9, ports: [{name: http, port: 80}]}
";
    let model = model(text);
    let outbound = seen(&model, "a");
    let of = |name: &str| outbound.services.iter().find(|it| it.name == name).unwrap();
    assert!(of("db").is_headless());
    assert_eq!(of("out").resolution, Resolution::Dns);
    assert_eq!(of("out").ports[0].endpoints[0].address, "api.example.com");
    assert!(of("mine").ports[0].endpoints.is_empty());
    assert_eq!(seen(&model, "b").services.len(), 2, "what is not exported is not seen");
}

const TWICE: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: first, namespace: a}
spec: {hosts: [x.example.com], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: second, namespace: a}
spec:
  hosts: [x.example.com]
  resolution: DNS
  ports: [{number: 80, name: http, protocol: TCP}, {number: 443, name: tls, protocol: TLS}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: other, namespace: b}
spec: {hosts: [x.example.com], resolution: NONE, ports: [{number: 8080, name: http, protocol: HTTP}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: squatter, namespace: shop}
spec: {hosts: [cart.shop.svc.cluster.local], resolution: NONE, ports: [{number: 9, name: tcp, protocol: TCP}]}
---
";

#[test]
fn of_definitions_of_one_host_one_holds() {
    let model = model(&format!("{TWICE}{CART}"));
    let ports = |namespace: &str, host: &str| {
        let seen = seen(&model, namespace);
        let service = seen.services.iter().find(|it| it.host == host).unwrap();
        service.ports.iter().map(|port| port.number).collect::<Vec<_>>()
    };
    assert_eq!(ports("a", "x.example.com"), [80, 443], "ports of the second are added");
    assert_eq!(ports("b", "x.example.com"), [8080], "a namespace's own comes first");
    assert_eq!(ports("c", "x.example.com"), [80, 443], "else the oldest");
    assert_eq!(ports("shop", "cart.shop.svc.cluster.local"), [80, 53], "Kubernetes wins");
    let said: Vec<String> = model.findings().iter().map(ToString::to_string).collect();
    assert!(said.iter().any(|it| it.contains("squatter") && it.contains("wins")), "{said:?}");
    assert!(said.iter().any(|it| it.contains("a/second") && it.contains("443")), "{said:?}");
}

#[test]
fn entries_select_pods_and_workload_entries() {
    let text = format!(
        "{CART}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: vm-1, namespace: shop}}
spec:
  address: 192.0.2.7
  labels: {{app: cart, security.istio.io/tlsMode: istio}}
  serviceAccount: vm
  ports: {{web: 9000}}
  weight: 3
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: both, namespace: shop}}
spec:
  hosts: [both.example.com]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{{number: 80, name: web, protocol: HTTP, targetPort: 8080}}]
  workloadSelector: {{labels: {{app: cart}}}}
"
    );
    let outbound = seen(&model(&text), "shop");
    let service = outbound.services.iter().find(|it| it.host == "both.example.com").unwrap();
    let ends: Vec<(&str, u16, u32, bool)> = service.ports[0]
        .endpoints
        .iter()
        .map(|it| (it.address.as_str(), it.port, it.weight, it.mutual_tls))
        .collect();
    assert_eq!(ends, [("192.0.2.7", 9000, 3, true), ("10.0.0.1", 8080, 1, true)]);
    assert_eq!(service.ports[0].endpoints[0].identity, "spiffe://cluster.local/ns/shop/sa/vm");
}

#[test]
fn a_port_without_mutual_tls_is_known_to_clients() {
    let text = format!(
        "{CART}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: cart, namespace: shop}}
spec: {{selector: {{matchLabels: {{app: cart}}}}, portLevelMtls: {{8080: {{mode: DISABLE}}}}}}
"
    );
    let model = model(&text);
    let service = &seen(&model, "shop").services[0];
    assert!(!service.ports[0].endpoints[0].mutual_tls);
    let inbound = model.inbound(&view("shop", "cart-abc-1"));
    assert_eq!(inbound.mode_of(8080), MutualTlsMode::Disable);
    assert_eq!(inbound.mode_of(1), MutualTlsMode::Permissive);
}
