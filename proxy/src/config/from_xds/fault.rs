//! Fault injection of routes.

use super::field::{duration, parts_per_million};
use super::{At, Refusal, unsupported};
use crate::config::{Abort, Fault};
use envoy_types::pb::envoy::extensions::filters::common::fault::v3::FaultDelay;
use envoy_types::pb::envoy::extensions::filters::common::fault::v3::fault_delay::FaultDelaySecifier;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::fault_abort::ErrorType;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::{FaultAbort, HttpFault};
use http::StatusCode;
use std::time::Duration;

pub(super) fn take(proto: &HttpFault) -> Result<Fault, Refusal> {
    unsupported(&[
        ("upstream_cluster", !proto.upstream_cluster.is_empty()),
        ("headers", !proto.headers.is_empty()),
        ("downstream_nodes", !proto.downstream_nodes.is_empty()),
        ("max_active_faults", proto.max_active_faults.is_some()),
        ("response_rate_limit", proto.response_rate_limit.is_some()),
    ])?;
    Ok(Fault {
        delay: proto.delay.as_ref().map(delay).transpose().at("delay")?,
        abort: proto.abort.as_ref().map(abort).transpose().at("abort")?,
    })
}

fn delay(proto: &FaultDelay) -> Result<(Duration, u32), Refusal> {
    let share = proto.percentage.as_ref().map_or(Ok(0), parts_per_million).at("percentage")?;
    match &proto.fault_delay_secifier {
        Some(FaultDelaySecifier::FixedDelay(time)) => {
            Ok((duration(time).at("fixed_delay")?, share))
        }
        Some(FaultDelaySecifier::HeaderDelay(_)) => {
            Err(Refusal::new("is not supported")).at("header_delay")
        }
        None => Err(Refusal::new("is needed")).at("fixed_delay"),
    }
}

fn abort(proto: &FaultAbort) -> Result<(Abort, u32), Refusal> {
    unsupported(&[("response_body", !proto.response_body.is_empty())])?;
    let share = proto.percentage.as_ref().map_or(Ok(0), parts_per_million).at("percentage")?;
    let kind = match &proto.error_type {
        Some(ErrorType::HttpStatus(code)) => Abort::Http(status(*code).at("http_status")?),
        Some(ErrorType::GrpcStatus(code)) => Abort::Grpc(*code),
        Some(ErrorType::HeaderAbort(_)) => {
            return Err(Refusal::new("is not supported")).at("header_abort");
        }
        None => return Err(Refusal::new("is needed")).at("http_status"),
    };
    Ok((kind, share))
}

/// A status code that may end a response.
pub(super) fn status(code: u32) -> Result<StatusCode, Refusal> {
    u16::try_from(code)
        .ok()
        .filter(|code| (200..600).contains(code))
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or_else(|| Refusal::new(format!("{code} is not a status code from 200 to 599")))
}
