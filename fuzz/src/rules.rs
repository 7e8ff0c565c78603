//! Objects of users, from their text to what proxies take.

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use clap::Parser;
use lateen_api::mesh::MeshConfig;
use lateen_api::{stream, validate};
use lateen_control_plane::model::Model;
use lateen_control_plane::serve::generation::Generation;
use lateen_control_plane::settings::Settings;
use lateen_control_plane::source::{Files, Load, State};
use lateen_control_plane::translate::view::{ProxyView, Role};
use lateen_proxy::config::from_xds;
use lateen_xds::type_url::PUSH_ORDER;

static SETTINGS: LazyLock<Settings> =
    LazyLock::new(|| Settings::parse_from(["lateend", "--config-dir", "."]));

static MESH: LazyLock<MeshConfig> =
    LazyLock::new(|| MeshConfig::parse("mesh", "").expect("no configuration is one"));

/// What is refused is refused with a reason and a place; nothing refused is in force.
pub(crate) fn objects(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let stream = stream::parse("x.yaml", text);
    for finding in &stream.findings {
        assert!(finding.file.is_some() && !finding.message.is_empty(), "{finding:?}");
    }
    for object in &stream.objects {
        let checked = validate::check(object);
        assert!(!(checked.is_refused() && checked.resource.is_some()), "{object:?}");
        for finding in &checked.findings {
            assert!(finding.object.is_some() && !finding.message.is_empty(), "{finding:?}");
        }
    }
}

/// Whatever users write, proxies take what becomes of it.
pub(crate) fn translate(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let files: Files = [("x.yaml".to_owned(), Ok(Arc::from(text)))].into();
    let load = Load::next(&State::default(), &files);
    let model = Model::new(&load.objects, &MESH, &SETTINGS);
    let generation = Generation::new(1, Arc::new(model), Instant::now());
    // What a library takes is judged by one (`control-plane/tests/process/grpc.rs`).
    let _made = generation.resources(&ProxyView { grpc: true, ..view(Role::Sidecar) });
    for role in [Role::Sidecar, Role::Router] {
        let resources = generation.resources(&view(role));
        for kind in PUSH_ORDER {
            for (name, resource) in resources.of(kind).into_iter().flat_map(|map| map.iter()) {
                if let Err(refusal) = from_xds::decode(kind, &resource.body) {
                    panic!("{role:?}: {kind} {name} is not taken: {refusal}");
                }
            }
        }
    }
}

fn view(role: Role) -> ProxyView {
    ProxyView {
        role,
        proven: true,
        name: "cart-1".to_owned(),
        namespace: "shop".to_owned(),
        labels: [("app".to_owned(), "cart".to_owned()), ("istio".to_owned(), "edge".to_owned())]
            .into(),
        addresses: vec!["10.1.0.1".parse().expect("an address")],
        service_account: Some("cart".to_owned()),
        cluster_id: "Kubernetes".to_owned(),
        version: "1.30.0".to_owned(),
        istio_filters: true,
        grpc: false,
    }
}
