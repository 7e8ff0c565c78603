//! Checks of the HTTP routes of a `VirtualService`.

use super::{Remarks, fields};
use crate::networking::{
    CorsPolicy, DirectResponse, Fault, FaultAbort, FaultDelay, GRPC_STATUSES, HeaderOperations,
    Headers, HttpMatch, HttpRoute, Percent, Redirect, Retries, Rewrite,
};
use crate::string_match::check_regex;

/// Body of a fixed response from which on a warning is due, and the most that is accepted.
const LARGE_BODY: usize = 100 * 1024;
const MAX_BODY: usize = 1024 * 1024;

const RETRY_CONDITIONS: [&str; 17] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
    "unknown",
];

const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*"];

/// Checks one HTTP route.
pub(super) fn route(remarks: &mut Remarks, path: &str, route: &HttpRoute) {
    action(remarks, path, route);
    for (index, wanted) in route.matches.iter().enumerate() {
        request_match(remarks, &format!("{path}.match[{index}]"), wanted);
    }
    for (index, target) in route.route.iter().enumerate() {
        let path = format!("{path}.route[{index}]");
        fields::destination(remarks, &format!("{path}.destination"), &target.destination);
        headers(remarks, &format!("{path}.headers"), target.headers.as_ref());
    }
    let weights: Vec<u32> = route.route.iter().map(|target| target.weight).collect();
    fields::weights(remarks, &format!("{path}.route"), &weights);
    headers(remarks, &format!("{path}.headers"), route.headers.as_ref());
    if route.timeout.is_some_and(|timeout| !timeout.is_zero()) {
        fields::wait(remarks, &format!("{path}.timeout"), route.timeout);
    }
    if let Some(it) = &route.retries {
        retries(remarks, &format!("{path}.retries"), it);
    }
    if let Some(it) = &route.fault {
        fault(remarks, &format!("{path}.fault"), it);
    }
    if let Some(it) = &route.rewrite {
        rewrite(remarks, &format!("{path}.rewrite"), it);
    }
    if let Some(it) = &route.cors_policy {
        cors(remarks, &format!("{path}.corsPolicy"), it);
    }
    if route.websocket_upgrade.is_some() {
        let message = "websocketUpgrade has no effect: upgrades always pass";
        remarks.warn(format!("{path}.websocketUpgrade"), message);
    }
    mirrors(remarks, path, route);
}

/// What the route does: exactly one thing.
fn action(remarks: &mut Remarks, path: &str, route: &HttpRoute) {
    let actions = [
        ("route", !route.route.is_empty()),
        ("redirect", route.redirect.is_some()),
        ("directResponse", route.direct_response.is_some()),
        ("delegate", route.delegate.is_some()),
    ];
    let given: Vec<&str> = actions.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
    match given.as_slice() {
        [] => remarks.error(path, "one of route, redirect, directResponse and delegate is needed"),
        [_] => {}
        several => remarks.error(path, format!("{} exclude each other", several.join(" and "))),
    }
    remarks.not_honoured(route.delegate.is_some(), path, "delegate");
    if let Some(it) = &route.redirect {
        redirect(remarks, &format!("{path}.redirect"), it);
        for (name, is) in [("fault", route.fault.is_some()), ("rewrite", route.rewrite.is_some())] {
            if is {
                remarks.error(
                    format!("{path}.{name}"),
                    format!("{name} and redirect exclude each other"),
                );
            }
        }
    }
    if let Some(it) = &route.direct_response {
        direct_response(remarks, &format!("{path}.directResponse"), it);
    }
}

fn request_match(remarks: &mut Remarks, path: &str, wanted: &HttpMatch) {
    let texts = [
        ("uri", &wanted.uri),
        ("scheme", &wanted.scheme),
        ("method", &wanted.method),
        ("authority", &wanted.authority),
    ];
    for (name, text) in texts {
        fields::string_match(remarks, &format!("{path}.{name}"), text.as_ref());
    }
    fields::matches(remarks, &format!("{path}.headers"), &wanted.headers, true);
    fields::matches(remarks, &format!("{path}.withoutHeaders"), &wanted.without_headers, true);
    fields::matches(remarks, &format!("{path}.queryParams"), &wanted.query_params, false);
    fields::optional_port(remarks, &format!("{path}.port"), wanted.port);
    fields::selector(remarks, &format!("{path}.sourceLabels"), &wanted.source_labels);
    remarks.not_honoured(!wanted.stat_prefix.is_empty(), path, "statPrefix");
}

fn headers(remarks: &mut Remarks, path: &str, headers: Option<&Headers>) {
    let Some(headers) = headers else { return };
    for (side, operations) in [("request", &headers.request), ("response", &headers.response)] {
        if let Some(operations) = operations {
            header_operations(remarks, &format!("{path}.{side}"), operations);
        }
    }
}

fn header_operations(remarks: &mut Remarks, path: &str, operations: &HeaderOperations) {
    let named = (operations.set.keys().map(|name| ("set", name)))
        .chain(operations.add.keys().map(|name| ("add", name)))
        .chain(operations.remove.iter().map(|name| ("remove", name)));
    for (kind, name) in named {
        let path = format!("{path}.{kind}.{name}");
        let is_authority = name == ":authority" || name.eq_ignore_ascii_case("host");
        if name.starts_with(':') && name != ":authority" {
            remarks.error(&path, format!("`{name}` cannot be changed: use rewrite"));
        } else if is_authority && kind == "remove" {
            remarks.error(&path, "the authority cannot be removed");
        }
        fields::header_name(remarks, &path, name);
    }
}

fn redirect(remarks: &mut Remarks, path: &str, redirect: &Redirect) {
    let nothing = redirect.uri.is_empty()
        && redirect.authority.is_empty()
        && redirect.scheme.is_empty()
        && redirect.prefix_rewrite.is_empty()
        && redirect.redirect_code == 0
        && redirect.port.is_none()
        && redirect.derive_port.is_none();
    remarks.refuse_unless(
        !nothing,
        path,
        "a redirect must change something: uri, authority, scheme, port or redirectCode",
    );
    if !redirect.uri.is_empty() && !redirect.prefix_rewrite.is_empty() {
        remarks.error(path, "uri and prefixRewrite exclude each other");
    }
    if redirect.port.is_some() && redirect.derive_port.is_some() {
        remarks.error(path, "port and derivePort exclude each other");
    }
    if let Some(port) = redirect.port {
        fields::port(remarks, &format!("{path}.port"), port);
    }
    if !matches!(redirect.redirect_code, 0 | 301 | 302 | 303 | 307 | 308) {
        let message = format!("{} is none of 301, 302, 303, 307, 308", redirect.redirect_code);
        remarks.error(format!("{path}.redirectCode"), message);
    }
    if !matches!(redirect.scheme.as_str(), "" | "http" | "https") {
        remarks.error(format!("{path}.scheme"), "must be http or https");
    }
}

fn direct_response(remarks: &mut Remarks, path: &str, response: &DirectResponse) {
    if !(200..600).contains(&response.status) {
        let message = format!("{} is not a status: 200 to 599", response.status);
        remarks.error(format!("{path}.status"), message);
    }
    let Some(body) = &response.body else { return };
    let path = format!("{path}.body");
    let size = match (&body.string, &body.bytes) {
        (Some(_), Some(_)) => return remarks.error(path, "string and bytes exclude each other"),
        (None, None) => return remarks.error(path, "one of string and bytes is needed"),
        (Some(text), None) => text.len(),
        (None, Some(base64)) => base64.len() / 4 * 3,
    };
    if size > MAX_BODY {
        remarks.error(path, format!("a body of {size} bytes is too large: at most {MAX_BODY}"));
    } else if size > LARGE_BODY {
        remarks.warn(path, format!("a body of {size} bytes goes to every proxy of the mesh"));
    }
}

fn rewrite(remarks: &mut Remarks, path: &str, rewrite: &Rewrite) {
    let nothing = rewrite.uri.is_empty()
        && rewrite.authority.is_empty()
        && rewrite.uri_regex_rewrite.is_none();
    remarks.refuse_unless(!nothing, path, "one of uri, uriRegexRewrite and authority is needed");
    if let Some(regex) = &rewrite.uri_regex_rewrite {
        if !rewrite.uri.is_empty() {
            remarks.error(path, "uri and uriRegexRewrite exclude each other");
        }
        if let Err(message) = check_regex(&regex.pattern) {
            remarks.error(format!("{path}.uriRegexRewrite.match"), message);
        }
    }
}

fn retries(remarks: &mut Remarks, path: &str, retries: &Retries) {
    if retries.per_try_timeout.is_some_and(|timeout| !timeout.is_zero()) {
        fields::wait(remarks, &format!("{path}.perTryTimeout"), retries.per_try_timeout);
    }
    fields::wait(remarks, &format!("{path}.backoff"), retries.backoff);
    for condition in retries.retry_on.split(',').map(str::trim).filter(|it| !it.is_empty()) {
        let is_status = condition.parse::<u16>().is_ok_and(|code| (100..600).contains(&code));
        if !is_status && !RETRY_CONDITIONS.contains(&condition) {
            let message = format!(
                "`{condition}` is no status code and none of {}",
                RETRY_CONDITIONS.join(", ")
            );
            remarks.error(format!("{path}.retryOn"), message);
        }
    }
    if retries.attempts == 0 && (retries.per_try_timeout.is_some() || !retries.retry_on.is_empty())
    {
        remarks.error(path, "with attempts 0 nothing else may be set");
    }
    let remote = retries.retry_remote_localities == Some(true);
    remarks.not_honoured(remote, path, "retryRemoteLocalities");
}

fn fault(remarks: &mut Remarks, path: &str, fault: &Fault) {
    if fault.delay.is_none() && fault.abort.is_none() {
        remarks.error(path, "one of delay and abort is needed");
    }
    if let Some(delay) = &fault.delay {
        fault_delay(remarks, &format!("{path}.delay"), delay);
    }
    if let Some(abort) = &fault.abort {
        fault_abort(remarks, &format!("{path}.abort"), abort);
    }
}

fn fault_delay(remarks: &mut Remarks, path: &str, delay: &FaultDelay) {
    if delay.exponential_delay.is_some() {
        let message = "an exponential delay is not supported: use fixedDelay";
        remarks.error(format!("{path}.exponentialDelay"), message);
    } else if delay.fixed_delay.is_none() {
        remarks.error(format!("{path}.fixedDelay"), "how long the delay is must be given");
    }
    fields::wait(remarks, &format!("{path}.fixedDelay"), delay.fixed_delay);
    share(remarks, path, delay.percentage);
    if let Some(percent) = delay.percent {
        fields::percent(remarks, &format!("{path}.percent"), f64::from(percent));
    }
}

fn fault_abort(remarks: &mut Remarks, path: &str, abort: &FaultAbort) {
    share(remarks, path, abort.percentage);
    if abort.http2_error.is_some() {
        let message = "HTTP/2 errors are not supported: use httpStatus or grpcStatus";
        return remarks.error(format!("{path}.http2Error"), message);
    }
    match (abort.http_status, abort.grpc_status.as_deref()) {
        (None, None) => remarks.error(path, "one of httpStatus and grpcStatus is needed"),
        (Some(_), Some(_)) => remarks.error(path, "httpStatus and grpcStatus exclude each other"),
        (Some(status), None) if !(200..600).contains(&status) => {
            let message = format!("{status} is not a status: 200 to 599");
            remarks.error(format!("{path}.httpStatus"), message);
        }
        (None, Some(name)) if !GRPC_STATUSES.contains(&name) => {
            let message = format!("`{name}` is none of {}", GRPC_STATUSES.join(", "));
            remarks.error(format!("{path}.grpcStatus"), message);
        }
        (Some(_), None) | (None, Some(_)) => {}
    }
}

fn share(remarks: &mut Remarks, path: &str, percentage: Option<Percent>) {
    if let Some(percentage) = percentage {
        fields::percent(remarks, &format!("{path}.percentage.value"), percentage.value);
    }
}

fn cors(remarks: &mut Remarks, path: &str, cors: &CorsPolicy) {
    for (index, origin) in cors.allow_origins.iter().enumerate() {
        fields::string_match(remarks, &format!("{path}.allowOrigins[{index}]"), Some(origin));
    }
    for (index, method) in cors.allow_methods.iter().enumerate() {
        if !METHODS.contains(&method.as_str()) {
            let message = format!("`{method}` is none of {}", METHODS.join(", "));
            remarks.error(format!("{path}.allowMethods[{index}]"), message);
        }
    }
    for (list, names) in
        [("allowHeaders", &cors.allow_headers), ("exposeHeaders", &cors.expose_headers)]
    {
        for (index, name) in names.iter().enumerate() {
            fields::header_name(remarks, &format!("{path}.{list}[{index}]"), name);
        }
    }
    if cors.max_age.is_some_and(|age| age.subsec_nanos() != 0) {
        remarks.error(format!("{path}.maxAge"), "must be of whole seconds");
    }
}

fn mirrors(remarks: &mut Remarks, path: &str, route: &HttpRoute) {
    if route.mirror.is_some() && !route.mirrors.is_empty() {
        remarks.error(path, "mirror and mirrors exclude each other");
    }
    if let Some(target) = &route.mirror {
        fields::destination(remarks, &format!("{path}.mirror"), target);
    }
    for (index, mirror) in route.mirrors.iter().enumerate() {
        let path = format!("{path}.mirrors[{index}]");
        fields::destination(remarks, &format!("{path}.destination"), &mirror.destination);
        share(remarks, &path, mirror.percentage);
    }
    if let Some(percentage) = route.mirror_percentage {
        fields::percent(remarks, &format!("{path}.mirrorPercentage.value"), percentage.value);
    }
    if let Some(percent) = route.mirror_percent {
        fields::percent(remarks, &format!("{path}.mirrorPercent"), f64::from(percent));
    }
}
