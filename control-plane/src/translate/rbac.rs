//! One authorization rule as Envoy's RBAC policy: who (principals) may do what (permissions).
//!
//! A rule that asks about HTTP on a port that carries plain TCP cannot be answered there. An ALLOW
//! rule then allows nothing, and a DENY rule denies without looking at that condition: less is let
//! through, never more. The same goes for conditions that are not supported. Knows no filters and
//! no workloads.

use envoy_types::pb::envoy::config::core::v3::CidrRange;
use envoy_types::pb::envoy::config::rbac::v3::permission::{Rule as Permit, Set as PermissionSet};
use envoy_types::pb::envoy::config::rbac::v3::principal::{
    Authenticated, Identifier, Set as PrincipalSet,
};
use envoy_types::pb::envoy::config::rbac::v3::{Permission, Policy, Principal};
use envoy_types::pb::envoy::config::route::v3::HeaderMatcher;
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use envoy_types::pb::envoy::r#type::matcher::v3::path_matcher::Rule as PathRule;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{PathMatcher, StringMatcher};
use lateen_api::security::{Condition, Operation, Rule, Source};

use super::aliases::with_aliases;
use super::pack::{any, cidr, extension, matcher, regex};

/// Who reads a policy, and so what can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// A proxy that sees requests.
    Requests,
    /// A proxy on a port that carries plain TCP: nothing is known of requests.
    Connections,
    /// A gRPC library, which refuses a whole listener for what it does not know.
    Grpc,
}

/// In which surroundings a rule is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms<'a> {
    /// Who reads the policy.
    pub(crate) reader: Reader,
    /// The rule denies (or only logs), so what cannot be asked widens it; else it allows, and
    /// what cannot be asked makes it void.
    pub(crate) widens: bool,
    /// Namespace of the policy.
    pub(crate) namespace: &'a str,
    /// The mesh's trust domain and its other names.
    pub(crate) trust_domains: &'a [String],
}

/// A condition that could not be put into the policy: path of the field below the rule, reason.
pub(crate) type Unmet = (String, String);

/// What became of a rule.
#[derive(Debug, Default)]
pub(crate) struct Ruling {
    /// The policy; `None` when the rule is void here.
    pub(crate) policy: Option<Policy>,
    /// What could not be honoured, for reasons other than that the port is TCP.
    pub(crate) unmet: Vec<Unmet>,
}

/// Why one value makes no matcher.
enum Gap {
    /// It is about HTTP and the port is TCP.
    NotHttp,
    /// It is not supported or not understood.
    Unsupported(String),
}

type Answer<T> = Result<T, Gap>;

/// Translates one rule.
pub(crate) fn ruling(rule: &Rule, terms: Terms<'_>) -> Ruling {
    let mut unmet = Vec::new();
    let policy = policy(rule, terms, &mut unmet);
    Ruling { policy, unmet }
}

/// The policy that matches nothing: for ALLOW policies without rules.
pub(crate) fn match_nothing() -> Policy {
    let anything = Permission { rule: Some(Permit::Any(true)) };
    let anyone = Principal { identifier: Some(Identifier::Any(true)) };
    Policy {
        permissions: vec![Permission { rule: Some(Permit::NotRule(Box::new(anything))) }],
        principals: vec![Principal { identifier: Some(Identifier::NotId(Box::new(anyone))) }],
        ..Policy::default()
    }
}

fn policy(rule: &Rule, terms: Terms<'_>, unmet: &mut Vec<Unmet>) -> Option<Policy> {
    let mut conditions_on_peer = Vec::new();
    let mut conditions_on_call = Vec::new();
    for (index, condition) in rule.when.iter().enumerate() {
        let path = format!("when[{index}]");
        match condition_of(condition, &path, terms, unmet)? {
            Wanted::Peer(ids) => conditions_on_peer.extend(ids),
            Wanted::Call(rules) => conditions_on_call.extend(rules),
        }
    }
    let mut principals = Vec::new();
    for (index, from) in rule.from.iter().enumerate() {
        let path = format!("from[{index}].source");
        let mut ids = source(&from.source, &path, terms, unmet)?;
        ids.extend(conditions_on_peer.iter().cloned());
        principals.push(all_of_ids(ids));
    }
    if rule.from.is_empty() {
        principals.push(all_of_ids(conditions_on_peer));
    }
    let mut permissions = Vec::new();
    for (index, to) in rule.to.iter().enumerate() {
        let path = format!("to[{index}].operation");
        let mut rules = operation(&to.operation, &path, terms, unmet)?;
        rules.extend(conditions_on_call.iter().cloned());
        permissions.push(all_of_rules(rules));
    }
    if rule.to.is_empty() {
        permissions.push(all_of_rules(conditions_on_call));
    }
    Some(Policy { permissions, principals, ..Policy::default() })
}

/// Who calls. `None` voids the rule.
fn source(
    source: &Source,
    path: &str,
    terms: Terms<'_>,
    unmet: &mut Vec<Unmet>,
) -> Option<Vec<Principal>> {
    type Make<'m> = &'m dyn Fn(&str) -> Answer<Principal>;
    let account = |value: &str| Ok(service_account(value, terms.namespace));
    let remote = |value: &str| remote_ip(value, terms);
    let principals = with_aliases(&source.principals, terms.trust_domains);
    let not_principals = with_aliases(&source.not_principals, terms.trust_domains);
    let unsupported = |_: &str| -> Answer<Principal> {
        Err(Gap::Unsupported("request authentication is not supported yet".to_owned()))
    };
    let fields: [(&str, &[String], &[String], Make<'_>); 7] = [
        ("serviceAccounts", &source.service_accounts, &source.not_service_accounts, &account),
        ("trustDomains", &source.trust_domains, &source.not_trust_domains, &trust_domain),
        ("principals", &principals, &not_principals, &principal),
        (
            "requestPrincipals",
            &source.request_principals,
            &source.not_request_principals,
            &unsupported,
        ),
        ("namespaces", &source.namespaces, &source.not_namespaces, &namespace),
        ("remoteIpBlocks", &source.remote_ip_blocks, &source.not_remote_ip_blocks, &remote),
        ("ipBlocks", &source.ip_blocks, &source.not_ip_blocks, &source_ip),
    ];
    let mut ids = Vec::new();
    for (name, values, not_values, make) in fields {
        let mut field = Field { path: format!("{path}.{name}"), terms, unmet };
        ids.extend(field.ids(values, not_values, make)?);
    }
    Some(ids)
}

/// What is called. `None` voids the rule.
fn operation(
    operation: &Operation,
    path: &str,
    terms: Terms<'_>,
    unmet: &mut Vec<Unmet>,
) -> Option<Vec<Permission>> {
    type Make<'m> = &'m dyn Fn(&str) -> Answer<Permission>;
    let host = |value: &str| http_only(terms, header_rule(":authority", value, true));
    let method = |value: &str| http_only(terms, header_rule(":method", value, false));
    let url = |value: &str| http_only(terms, url_path(value, terms)?);
    let fields: [(&str, &[String], &[String], Make<'_>); 4] = [
        ("hosts", &operation.hosts, &operation.not_hosts, &host),
        ("methods", &operation.methods, &operation.not_methods, &method),
        ("paths", &operation.paths, &operation.not_paths, &url),
        ("ports", &operation.ports, &operation.not_ports, &destination_port),
    ];
    let mut rules = Vec::new();
    for (name, values, not_values, make) in fields {
        let mut field = Field { path: format!("{path}.{name}"), terms, unmet };
        rules.extend(field.rules(values, not_values, make)?);
    }
    Some(rules)
}

/// What a condition is about.
enum Wanted {
    Peer(Vec<Principal>),
    Call(Vec<Permission>),
}

fn condition_of(
    condition: &Condition,
    path: &str,
    terms: Terms<'_>,
    unmet: &mut Vec<Unmet>,
) -> Option<Wanted> {
    let header = condition.key.strip_prefix("request.headers[").and_then(|k| k.strip_suffix(']'));
    let (values, not_values) = (&condition.values, &condition.not_values);
    let mut field = Field { path: path.to_owned(), terms, unmet };
    let mut peer = |values: &[String], not: &[String], make: &dyn Fn(&str) -> Answer<Principal>| {
        field.ids(values, not, make).map(Wanted::Peer)
    };
    match condition.key.as_str() {
        "source.ip" => peer(values, not_values, &source_ip),
        "remote.ip" => peer(values, not_values, &|v| remote_ip(v, terms)),
        "source.namespace" => peer(values, not_values, &namespace),
        "source.principal" => {
            let values = with_aliases(values, terms.trust_domains);
            let not_values = with_aliases(not_values, terms.trust_domains);
            peer(&values, &not_values, &principal)
        }
        "source.trustDomain" => peer(values, not_values, &trust_domain),
        "source.serviceAccount" => {
            peer(values, not_values, &|v| Ok(service_account(v, terms.namespace)))
        }
        "destination.ip" => field.rules(values, not_values, &destination_ip).map(Wanted::Call),
        "destination.port" => field.rules(values, not_values, &destination_port).map(Wanted::Call),
        "connection.sni" => {
            field.rules(values, not_values, &|v| server_name(v, terms)).map(Wanted::Call)
        }
        _ if header.is_some() => {
            let mut name = header.unwrap_or_default().to_owned();
            if terms.reader == Reader::Grpc {
                // Proxies make no difference between cases; libraries look names up as they stand.
                name.make_ascii_lowercase();
            }
            peer(values, not_values, &|value| {
                if terms.reader == Reader::Grpc && !grpc_shows(&name) {
                    return Err(Gap::Unsupported(format!("gRPC does not show `{name}`")));
                }
                let header = Identifier::Header(header_matcher(&name, value, false));
                http_only(terms, Principal { identifier: Some(header) })
            })
        }
        key => {
            let reason = format!("the key `{key}` is not supported");
            let make = |_: &str| -> Answer<Principal> { Err(Gap::Unsupported(reason.clone())) };
            peer(values, not_values, &make)
        }
    }
}

/// One field of a rule while it is translated.
struct Field<'a> {
    path: String,
    terms: Terms<'a>,
    unmet: &'a mut Vec<Unmet>,
}

impl Field<'_> {
    fn ids(
        &mut self,
        values: &[String],
        not_values: &[String],
        make: &dyn Fn(&str) -> Answer<Principal>,
    ) -> Option<Vec<Principal>> {
        let mut ids = Vec::new();
        let any_of = self.matchers(values, make)?;
        if !any_of.is_empty() {
            ids.push(any_of_ids(any_of));
        }
        let none_of = self.matchers(not_values, make)?;
        if !none_of.is_empty() {
            let identifier = Identifier::NotId(Box::new(any_of_ids(none_of)));
            ids.push(Principal { identifier: Some(identifier) });
        }
        Some(ids)
    }

    fn rules(
        &mut self,
        values: &[String],
        not_values: &[String],
        make: &dyn Fn(&str) -> Answer<Permission>,
    ) -> Option<Vec<Permission>> {
        let mut rules = Vec::new();
        let any_of = self.matchers(values, make)?;
        if !any_of.is_empty() {
            rules.push(any_of_rules(any_of));
        }
        let none_of = self.matchers(not_values, make)?;
        if !none_of.is_empty() {
            let rule = Permit::NotRule(Box::new(any_of_rules(none_of)));
            rules.push(Permission { rule: Some(rule) });
        }
        Some(rules)
    }

    /// The matchers of all values; `None` when one of them voids the rule.
    ///
    /// One value that cannot be asked about drops the whole list of a widening rule: with only
    /// the rest of it, the rule would match less than its author wrote.
    fn matchers<T>(
        &mut self,
        values: &[String],
        make: &dyn Fn(&str) -> Answer<T>,
    ) -> Option<Vec<T>> {
        let mut all = Vec::with_capacity(values.len());
        for value in values {
            match make(value) {
                Ok(one) => all.push(one),
                Err(gap) => {
                    if let Gap::Unsupported(reason) = gap {
                        self.unmet.push((self.path.clone(), reason));
                    }
                    return self.terms.widens.then(Vec::new);
                }
            }
        }
        Some(all)
    }
}

fn http_only<T>(terms: Terms<'_>, matcher: T) -> Answer<T> {
    if terms.reader == Reader::Connections { Err(Gap::NotHttp) } else { Ok(matcher) }
}

fn all_of_ids(mut ids: Vec<Principal>) -> Principal {
    if ids.is_empty() {
        ids.push(Principal { identifier: Some(Identifier::Any(true)) });
    }
    Principal { identifier: Some(Identifier::AndIds(PrincipalSet { ids })) }
}

fn any_of_ids(ids: Vec<Principal>) -> Principal {
    Principal { identifier: Some(Identifier::OrIds(PrincipalSet { ids })) }
}

fn all_of_rules(mut rules: Vec<Permission>) -> Permission {
    if rules.is_empty() {
        rules.push(Permission { rule: Some(Permit::Any(true)) });
    }
    Permission { rule: Some(Permit::AndRules(PermissionSet { rules })) }
}

fn any_of_rules(rules: Vec<Permission>) -> Permission {
    Permission { rule: Some(Permit::OrRules(PermissionSet { rules })) }
}

fn authenticated(name: StringMatcher) -> Principal {
    let identity = Authenticated { principal_name: Some(name) };
    Principal { identifier: Some(Identifier::Authenticated(identity)) }
}

/// A peer by its SPIFFE ID without scheme: exact, `prefix*`, `*suffix`, or `*` for anyone
/// authenticated.
#[expect(clippy::unnecessary_wraps, reason = "one of several makers with one signature")]
fn principal(value: &str) -> Answer<Principal> {
    let pattern = if value == "*" {
        MatchPattern::SafeRegex(regex(".+"))
    } else if let Some(suffix) = value.strip_prefix('*') {
        MatchPattern::SafeRegex(regex(format!("spiffe://.*{}", regex_quote(suffix))))
    } else if let Some(prefix) = value.strip_suffix('*') {
        MatchPattern::Prefix(format!("spiffe://{prefix}"))
    } else {
        MatchPattern::Exact(format!("spiffe://{value}"))
    };
    Ok(authenticated(matcher(pattern)))
}

#[expect(clippy::unnecessary_wraps, reason = "one of several makers with one signature")]
fn namespace(value: &str) -> Answer<Principal> {
    let pattern = regex_quote(value).replace("\\*", ".*");
    Ok(authenticated(matcher(MatchPattern::SafeRegex(regex(format!(".*/ns/{pattern}/.*"))))))
}

#[expect(clippy::unnecessary_wraps, reason = "one of several makers with one signature")]
fn trust_domain(value: &str) -> Answer<Principal> {
    let pattern = if value.contains('*') {
        let domain = regex_quote(value).replace("\\*", "[^/]*");
        MatchPattern::SafeRegex(regex(format!("spiffe://{domain}/.*")))
    } else {
        MatchPattern::Prefix(format!("spiffe://{value}/"))
    };
    Ok(authenticated(matcher(pattern)))
}

/// `name` or `namespace/name` in any trust domain.
fn service_account(value: &str, namespace: &str) -> Principal {
    let (namespace, name) = value.split_once('/').unwrap_or((namespace, value));
    let pattern =
        format!("spiffe://.+/ns/{}/(.+/|)sa/{}(/.+)?", regex_quote(namespace), regex_quote(name));
    authenticated(matcher(MatchPattern::SafeRegex(regex(pattern))))
}

fn range(value: &str) -> Answer<CidrRange> {
    let net = match value.parse::<ipnet::IpNet>() {
        Ok(net) => Some(net),
        Err(_) => value.parse::<std::net::IpAddr>().ok().map(ipnet::IpNet::from),
    };
    net.map(cidr).ok_or_else(|| Gap::Unsupported(format!("`{value}` is no address or range")))
}

fn source_ip(value: &str) -> Answer<Principal> {
    Ok(Principal { identifier: Some(Identifier::DirectRemoteIp(range(value)?)) })
}

/// The caller's own address, which may be behind that of a proxy in between.
fn remote_ip(value: &str, terms: Terms<'_>) -> Answer<Principal> {
    if terms.reader == Reader::Grpc {
        let reason = "gRPC knows no address but the one it is connected to";
        return Err(Gap::Unsupported(reason.to_owned()));
    }
    Ok(Principal { identifier: Some(Identifier::RemoteIp(range(value)?)) })
}

fn destination_ip(value: &str) -> Answer<Permission> {
    Ok(Permission { rule: Some(Permit::DestinationIp(range(value)?)) })
}

fn destination_port(value: &str) -> Answer<Permission> {
    let port = value.parse::<u16>().ok().filter(|port| *port != 0);
    let port = port.ok_or_else(|| Gap::Unsupported(format!("`{value}` is no port")))?;
    Ok(Permission { rule: Some(Permit::DestinationPort(u32::from(port))) })
}

fn server_name(value: &str, terms: Terms<'_>) -> Answer<Permission> {
    if terms.reader == Reader::Grpc {
        return Err(Gap::Unsupported("gRPC does not show the server name".to_owned()));
    }
    let name = matcher(wildcard_pattern(value));
    Ok(Permission { rule: Some(Permit::RequestedServerName(name)) })
}

/// A path: exact, prefix, suffix, any, or a template with `{*}` and `{**}`.
fn url_path(value: &str, terms: Terms<'_>) -> Answer<Permission> {
    let template = value.contains("{*}") || value.contains("{**}");
    if template && terms.reader == Reader::Grpc {
        return Err(Gap::Unsupported(format!("gRPC knows no path templates such as `{value}`")));
    }
    if template {
        let template = value.replace("{**}", "**").replace("{*}", "*");
        let config = UriTemplateMatchConfig { path_template: template };
        let template = extension("uri-template", any(&config));
        return Ok(Permission { rule: Some(Permit::UriTemplate(template)) });
    }
    let path = PathMatcher { rule: Some(PathRule::Path(matcher(wildcard_pattern(value)))) };
    Ok(Permission { rule: Some(Permit::UrlPath(path)) })
}

/// Whether a gRPC library lets policies ask for a header, whose name is in lower case.
fn grpc_shows(header: &str) -> bool {
    !matches!(header, ":scheme" | "te") && !header.starts_with("grpc-") && !header.ends_with("-bin")
}

fn header_rule(name: &str, value: &str, ignore_case: bool) -> Permission {
    Permission { rule: Some(Permit::Header(header_matcher(name, value, ignore_case))) }
}

fn header_matcher(name: &str, value: &str, ignore_case: bool) -> HeaderMatcher {
    let how = if value == "*" {
        HeaderMatchSpecifier::PresentMatch(true)
    } else {
        let pattern = Some(wildcard_pattern(value));
        HeaderMatchSpecifier::StringMatch(StringMatcher { ignore_case, match_pattern: pattern })
    };
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(how),
        ..HeaderMatcher::default()
    }
}

/// `*` anything but nothing, `prefix*`, `*suffix`, else exact.
fn wildcard_pattern(value: &str) -> MatchPattern {
    if value == "*" {
        MatchPattern::SafeRegex(regex(".+"))
    } else if let Some(prefix) = value.strip_suffix('*') {
        MatchPattern::Prefix(prefix.to_owned())
    } else if let Some(suffix) = value.strip_prefix('*') {
        MatchPattern::Suffix(suffix.to_owned())
    } else {
        MatchPattern::Exact(value.to_owned())
    }
}

/// Escapes what has a meaning in regular expressions.
fn regex_quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for character in text.chars() {
        if r"\.+*?()|[]{}^$".contains(character) {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted
}
