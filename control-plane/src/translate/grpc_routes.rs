//! Route tables of calls: one for each port of a service, made from the same rules as a proxy's.
//!
//! Here they are brought to what libraries understand: a route with a filter they do not know would
//! have the whole table refused, and of timeouts they know only that of the stream. Source of
//! behaviour: Istio pilot/pkg/networking/grpcgen/rds.go.

use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::MaxStreamDuration;

use super::filters::FAULT;
use super::grpc::ports;
use super::grpc_listeners::table_name;
use super::input::{MeshSettings, Outbound};
use super::routes::Build;

/// The route tables that the listeners of calls name.
pub(crate) fn tables(outbound: &Outbound, mesh: &MeshSettings) -> Vec<RouteConfiguration> {
    let build = Build::new(outbound, mesh);
    let of = |(service, port)| build.of_port(service, port, table_name(service, port));
    ports(outbound).map(|it| understood(of(it))).collect()
}

fn understood(mut table: RouteConfiguration) -> RouteConfiguration {
    let routes = table.virtual_hosts.iter_mut().flat_map(|host| host.routes.iter_mut());
    for route in routes {
        route.typed_per_filter_config.retain(|filter, _| filter == FAULT);
        if let Some(Action::Route(action)) = &mut route.action {
            action.max_stream_duration = action.timeout.map(|timeout| MaxStreamDuration {
                max_stream_duration: Some(timeout),
                ..MaxStreamDuration::default()
            });
        }
    }
    table
}
