//! A stock Envoy as a sidecar of our control plane: the bootstrap, and nothing else.

use serde_json::{Value, json};

/// A bootstrap that gets everything by delta ADS from `127.0.0.1:15010`.
pub(crate) fn bootstrap(node: &str) -> Value {
    let http2 = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}}
        }
    });
    let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": 15010}});
    let endpoint = json!({"endpoint": {"address": address}});
    json!({
        "node": {"id": node, "cluster": "client.default", "metadata": {"NAMESPACE": "default"}},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 15000}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}]
            },
            "cds_config": {"ads": {}, "resource_api_version": "V3"},
            "lds_config": {"ads": {}, "resource_api_version": "V3"}
        },
        "static_resources": {"clusters": [{
            "name": "xds-grpc",
            "type": "STATIC",
            "connect_timeout": "1s",
            "typed_extension_protocol_options": http2,
            "load_assignment": {
                "cluster_name": "xds-grpc",
                "endpoints": [{"lb_endpoints": [endpoint]}]
            }
        }]}
    })
}
