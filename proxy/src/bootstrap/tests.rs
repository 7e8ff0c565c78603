//! Bootstraps as people write them, taken and refused.

use super::*;

const GOOD: &str = r#"{
  "node": {"id": "n1", "cluster": "c"},
  "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 9901}}},
  "staticResources": {
    "listeners": [{
      "address": {"socketAddress": {"address": "127.0.0.1", "portValue": "8080"}},
      "filter_chains": [{"filters": [{"name": "http", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [
          {"match": {"prefix": "/"}, "route": {"cluster": "u", "timeout": "0.200s"}}]}]},
        "http_filters": [{"name": "router", "typed_config": {
          "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]
      }}]}]
    }],
    "clusters": [{"name": "u", "type": "STATIC", "connect_timeout": "1s", "load_assignment": {
      "cluster_name": "u", "endpoints": [{"lb_endpoints": [{"endpoint": {"address":
        {"socket_address": {"address": "127.0.0.1", "port_value": 8081}}}}]}]}}]
  }
}"#;

fn read_text(text: &str) -> Result<Bootstrap, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bootstrap");
    std::fs::write(&path, text).unwrap();
    read(&path).map_err(|error| error.to_string())
}

#[test]
fn a_bootstrap_becomes_a_snapshot() {
    let bootstrap = read_text(GOOD).unwrap();
    assert_eq!(bootstrap.node, "n1");
    assert_eq!(bootstrap.admin, Some("127.0.0.1:9901".parse().unwrap()));
    assert_eq!(bootstrap.snapshot.listeners["listener-0"].address.port(), 8080);
    assert!(bootstrap.snapshot.clusters.contains_key("u"));
}

#[test]
fn yaml_is_the_same() {
    let value: serde_json::Value = serde_json::from_str(GOOD).unwrap();
    let yaml = serde_saphyr::to_string(&value).unwrap();
    let (one, other) = (read_text(GOOD).unwrap(), read_text(&yaml).unwrap());
    assert_eq!(one.snapshot.listeners, other.snapshot.listeners);
    assert_eq!(one.snapshot.clusters, other.snapshot.clusters);
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    for (old, new, wanted) in [
        ("\"node\"", "\"nodes\"", "nodes"),
        ("{\"id\"", "{\"id\": 3, \"x\"", "id"),
        ("\"admin\"", "\"dynamic_resources\": {}, \"admin\"", "dynamic_resources"),
        ("router.v3.Router", "router.v3.Rooter", "Rooter"),
        ("\"prefix\": \"/\"", "\"connect_matcher\": {}", "connect_matcher"),
        ("\"STATIC\"", "\"SOMETIMES\"", "SOMETIMES"),
        ("{\n", "", "YAML"),
    ] {
        assert!(GOOD.contains(old));
        let error = read_text(&GOOD.replacen(old, new, 1)).unwrap_err();
        assert!(error.contains(wanted), "{wanted} is not named in: {error}");
    }
}
