//! A change ends in what a build from nothing gives.

use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use lateen_api::mesh::MeshConfig;
use proptest::prelude::{ProptestConfig, prop_assert_eq, proptest};

use super::{CART, SLICE, rule, view};
use crate::model::Model;
use crate::serve::generation::{Generation, Mesh};
use crate::serve::stream::TYPES;
use crate::settings::Settings;
use crate::source::{Files, Load, State};
use crate::translate::view::ProxyView;

/// A mesh of random services, endpoints, rules and policies, as files.
fn random_files(shape: &[(u8, u8, u8)]) -> Files {
    let mut files = Files::new();
    for (what, which, content) in shape {
        let (name, text) = match what {
            0 => {
                let kind =
                    if content % 4 == 3 { "None".to_owned() } else { format!("10.96.0.{which}") };
                let text = format!(
                    "apiVersion: v1\nkind: Service\nmetadata: {{name: s{which}, namespace: shop}}\n\
                     spec: {{clusterIP: {kind}, selector: {{app: s{which}}}, \
                     ports: [{{name: http, port: {}}}, {{name: tcp, port: 9000}}]}}\n",
                    80 + content % 2
                );
                (format!("service-{which}.yaml"), text)
            }
            1 => {
                let ends: Vec<String> = (0..content % 4)
                    .map(|it| format!("{{addresses: [10.{which}.0.{it}]}}"))
                    .collect();
                let text = format!(
                    "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: x{which}, \
                     namespace: shop, labels: {{kubernetes.io/service-name: s{which}}}}}\n\
                     addressType: IPv4\nports: [{{name: http, port: 8080}}, {{name: tcp, port: 9000}}]\n\
                     endpoints: [{}]\n",
                    ends.join(", ")
                );
                (format!("slice-{which}.yaml"), text)
            }
            2 => {
                let text = format!(
                    "apiVersion: v1\nkind: Pod\nmetadata: {{name: p{which}, namespace: shop, \
                     labels: {{app: s{which}, v: 'v{}', security.istio.io/tlsMode: istio}}}}\n\
                     spec: {{serviceAccountName: a{}, containers: [{{name: c}}]}}\n\
                     status: {{podIP: 10.{which}.0.0, podIPs: [{{ip: 10.{which}.0.0}}], \
                     conditions: [{{type: Ready, status: 'True'}}]}}\n",
                    content % 2,
                    content % 3
                );
                (format!("pod-{which}.yaml"), text)
            }
            _ => random_rule(*what, *which, *content),
        };
        // Contents from ten on take the file away.
        if *content < 10 {
            files.insert(name, Ok(text.into()));
        } else {
            files.remove(&name);
        }
    }
    files
}

fn random_rule(what: u8, which: u8, content: u8) -> (String, String) {
    match what {
        3 => {
            let spec = format!(
                "{{host: s{which}, subsets: [{{name: v0, labels: {{v: 'v0'}}}}], trafficPolicy: \
                     {{loadBalancer: {{simple: {}}}}}}}",
                ["RANDOM", "PASSTHROUGH", "ROUND_ROBIN"][usize::from(content % 3)]
            );
            (
                format!("rule-{which}.yaml"),
                rule("DestinationRule", &format!("d{which}"), "shop", &spec),
            )
        }
        _ => {
            let mode = ["STRICT", "DISABLE", "PERMISSIVE"][usize::from(content % 3)];
            let spec =
                format!("{{selector: {{matchLabels: {{app: s{which}}}}}, mtls: {{mode: {mode}}}}}");
            let name = format!("m{which}");
            (format!("mode-{which}.yaml"), rule("PeerAuthentication", &name, "shop", &spec))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever changes, in whatever order: what is made from the generation before is what would be
    /// made from nothing.
    #[test]
    fn an_increment_equals_a_fresh_start(
        changes in proptest::collection::vec((0..5_u8, 1..4_u8, 0..13_u8), 4..40),
    ) {
        let settings = Settings::parse_from(["lateend", "--config-dir", "."]);
        let mesh = MeshConfig::default();
        let library = ProxyView { grpc: true, ..view("shop", "g") };
        let views = [view("shop", "p1"), view("shop", "p2"), view("bank", "p"), library].map(|it| {
            ProxyView { addresses: vec!["10.1.0.0".parse().unwrap()], ..it }
        });
        let mut state = State::default();
        let mut before: Option<(Arc<Model>, Generation)> = None;
        for end in 1..=changes.len() {
            let files = random_files(&changes[..end]);
            let load = Load::next(&state, &files);
            let fresh = Load::next(&State::default(), &files);
            prop_assert_eq!(&load.objects, &fresh.objects);
            prop_assert_eq!(&load.findings, &fresh.findings);
            let scratch = Model::new(&fresh.objects, &mesh, &settings);
            let scratch = Generation::new(1, Arc::new(scratch), Instant::now());
            let mut model = Model::new(&load.objects, &mesh, &settings);
            if let Some((before, _)) = &before {
                model.reuse(before);
            }
            let model = Arc::new(model);
            let state_of_mesh = Arc::clone(&model) as Arc<dyn Mesh>;
            let next = match &before {
                None => Generation::new(1, state_of_mesh, Instant::now()),
                Some((_, before)) => Generation::after(before, state_of_mesh, Instant::now()),
            };
            for view in &views {
                let (made, wanted) = (next.resources(view), scratch.resources(view));
                for type_url in TYPES {
                    prop_assert_eq!(made.of(type_url), wanted.of(type_url), "{}", type_url);
                }
            }
            state = load.state;
            before = Some((model, next));
        }
    }
}

#[test]
fn endpoints_that_change_make_nothing_else_again() {
    let settings = Settings::parse_from(["lateend", "--config-dir", "."]);
    let mesh = MeshConfig::default();
    let of = |text: String, state: &State| {
        let files: Files =
            [("mesh.yaml".to_owned(), Ok(CART.into())), ("slice.yaml".to_owned(), Ok(text.into()))]
                .into();
        let load = Load::next(state, &files);
        (Model::new(&load.objects, &mesh, &settings), load.state)
    };
    let (first, state) = of(SLICE.to_owned(), &State::default());
    let (mut second, _) = of(SLICE.replace("10.0.0.3", "10.0.0.4"), &state);
    second.reuse(&first);
    let proxy = ProxyView { addresses: vec!["10.0.0.9".parse().unwrap()], ..view("shop", "p") };
    let before = Generation::new(1, Arc::new(first), Instant::now());
    let old = before.resources(&proxy);
    let after = Generation::after(&before, Arc::new(second), Instant::now());
    let new = after.resources(&proxy);
    let changed: Vec<String> =
        new.since.as_ref().unwrap().changed.iter().map(ToString::to_string).collect();
    assert_eq!(changed, ["outbound|80||cart.shop.svc.cluster.local"]);
    assert_eq!(after.number, 2);
    for type_url in TYPES {
        let same = Arc::ptr_eq(old.of(type_url).unwrap(), new.of(type_url).unwrap());
        assert_eq!(same, type_url != lateen_xds::type_url::ENDPOINTS, "{type_url}");
    }
}
