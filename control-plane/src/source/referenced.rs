//! Which Secrets are asked of an API server: those that a Gateway refers to, in the namespaces of the
//! proxies that serve it.
//!
//! A proxy is given Secrets of its own namespace alone, so no other is read. Pure.

use std::collections::BTreeSet;

use lateen_api::Resource;
use lateen_api::meta::selects;
use lateen_api::networking::Gateway;

use super::objects::Objects;
use super::store::Name;

/// What the name of a Secret with roots for clients ends in.
const ROOTS: &str = "-cacert";

/// Namespaces and names.
pub(super) fn referenced(objects: &Objects) -> BTreeSet<Name> {
    let mut wanted = BTreeSet::new();
    for gateway in &objects.gateways {
        let names = credentials(gateway);
        if names.is_empty() {
            continue;
        }
        for namespace in namespaces(gateway, objects) {
            wanted.extend(names.iter().map(|name| (namespace.to_owned(), name.clone())));
        }
    }
    wanted
}

fn credentials(gateway: &Resource<Gateway>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for tls in gateway.spec.servers.iter().filter_map(|server| server.tls.as_ref()) {
        for name in tls.credentials() {
            names.insert(name.to_owned());
            names.insert(format!("{name}{ROOTS}"));
        }
        names.insert(tls.ca_cert_credential_name.clone());
    }
    // References in the form of a URL name no Secret of the API server.
    names.retain(|name| !name.is_empty() && !name.contains(['/', ':']));
    names
}

/// Namespaces of the pods that serve a Gateway. One that selects everything is served where it is:
/// elsewhere nobody may be made to read Secrets by a pod alone.
fn namespaces<'a>(gateway: &'a Resource<Gateway>, objects: &'a Objects) -> BTreeSet<&'a str> {
    let selector = &gateway.spec.selector;
    if selector.is_empty() {
        return BTreeSet::from([gateway.namespace()]);
    }
    let metadata = objects.pods.iter().map(|pod| &pod.object.metadata);
    let serving = metadata.filter(|meta| selects(selector, &meta.labels));
    serving.map(|meta| meta.namespace_or_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Files, Load, State};
    use super::referenced;

    fn wanted(text: &str) -> Vec<String> {
        let files: Files = [("a.yaml".to_owned(), Ok(text.into()))].into();
        let load = Load::next(&State::default(), &files);
        let wanted = referenced(&load.objects);
        wanted.iter().map(|(namespace, name)| format!("{namespace}/{name}")).collect()
    }

    const PODS: &str = "
---
{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: edge, labels: {istio: ingress}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: b, namespace: shop, labels: {app: cart}}}
";

    fn gateway(selector: &str, tls: &str) -> String {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: Gateway\n\
             metadata: {{name: g, namespace: shop}}\n\
             spec:\n  selector: {selector}\n  servers:\n  \
             - {{port: {{number: 443, name: https, protocol: HTTPS}}, hosts: ['*'], tls: {tls}}}\n\
             {PODS}"
        )
    }

    #[test]
    fn secrets_are_read_where_they_are_served() {
        let text = gateway("{istio: ingress}", "{mode: SIMPLE, credentialName: shop-cert}");
        assert_eq!(wanted(&text), ["edge/shop-cert", "edge/shop-cert-cacert"]);
        assert!(wanted(&text.replace("istio: ingress}\n", "istio: egress}\n")).is_empty());
        let everywhere = gateway("{}", "{mode: SIMPLE, credentialName: shop-cert}");
        assert_eq!(wanted(&everywhere), ["shop/shop-cert", "shop/shop-cert-cacert"]);
    }

    #[test]
    fn files_and_passed_connections_need_none() {
        for tls in [
            "{mode: PASSTHROUGH}",
            "{mode: SIMPLE, serverCertificate: /a/c.pem, privateKey: /a/k.pem}",
        ] {
            assert!(wanted(&gateway("{istio: ingress}", tls)).is_empty(), "{tls}");
        }
    }
}
