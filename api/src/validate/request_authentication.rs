//! Checks of `RequestAuthentication`: issuers, where their keys are, and where tokens stand.

use serde_json::{Map, Value};

use super::attachment::{self, Attachment};
use super::{Remarks, fields};
use crate::security::{JwtRule, RequestAuthentication};
use crate::url;

/// Most issuers of one policy.
const MAX_RULES: usize = 4096;
/// Most claims of words of one issuer.
const MAX_CLAIMS: usize = 64;
/// Longest `jwksUri`.
const MAX_URL: usize = 2048;

/// Members that a public key of each type has, and those that only a private one has.
const KEY_TYPES: [(&str, &[&str], &[&str]); 4] = [
    ("RSA", &["n", "e"], &["d"]),
    ("EC", &["crv", "x", "y"], &["d"]),
    ("OKP", &["crv", "x"], &["d"]),
    ("oct", &["k"], &["k"]),
];

/// Checks a RequestAuthentication.
pub(super) fn check(spec: &RequestAuthentication, remarks: &mut Remarks) {
    let RequestAuthentication { selector, target_ref, target_refs, jwt_rules } = spec;
    let (selector, target_ref) = (selector.as_ref(), target_ref.as_ref());
    attachment::check(remarks, Attachment { selector, target_ref, target_refs });
    if jwt_rules.len() > MAX_RULES {
        remarks.error("spec.jwtRules", format!("more than {MAX_RULES} issuers"));
    }
    for (index, it) in jwt_rules.iter().enumerate() {
        rule(remarks, &format!("spec.jwtRules[{index}]"), it);
    }
}

fn rule(remarks: &mut Remarks, path: &str, rule: &JwtRule) {
    match rule.issuer.as_deref() {
        Some("") => remarks.error(format!("{path}.issuer"), "an empty issuer issues nothing"),
        None if rule.jwks_uri.is_none() => {
            remarks.error(path, "one of issuer and jwksUri is needed");
        }
        Some(_) | None => {}
    }
    keys(remarks, path, rule);
    let lists = [
        ("audiences", &rule.audiences),
        ("fromParams", &rule.from_params),
        ("fromCookies", &rule.from_cookies),
        ("spaceDelimitedClaims", &rule.space_delimited_claims),
    ];
    for (name, texts) in lists {
        for (index, _) in texts.iter().enumerate().filter(|(_, text)| text.is_empty()) {
            remarks.error(format!("{path}.{name}[{index}]"), "an empty text means nothing");
        }
    }
    if rule.space_delimited_claims.len() > MAX_CLAIMS {
        let message = format!("more than {MAX_CLAIMS} claims");
        remarks.error(format!("{path}.spaceDelimitedClaims"), message);
    }
    for (index, header) in rule.from_headers.iter().enumerate() {
        let path = format!("{path}.fromHeaders[{index}].name");
        remarks.refuse_unless(!header.name.is_empty(), &path, "a name is needed");
    }
    for (index, output) in rule.output_claim_to_headers.iter().enumerate() {
        let path = format!("{path}.outputClaimToHeaders[{index}]");
        let claim = format!("{path}.claim");
        remarks.refuse_unless(!output.claim.is_empty(), &claim, "a claim is needed");
        fields::plain_header(remarks, &format!("{path}.header"), &output.header);
    }
    fields::wait(remarks, &format!("{path}.timeout"), rule.timeout);
}

fn keys(remarks: &mut Remarks, path: &str, rule: &JwtRule) {
    if rule.jwks.is_some() && rule.jwks_uri.is_some() {
        remarks.error(path, "jwks and jwksUri exclude each other");
    }
    if let Some(uri) = &rule.jwks_uri {
        let path = format!("{path}.jwksUri");
        match url::scheme(uri) {
            _ if uri.len() > MAX_URL => {
                remarks.error(path, format!("longer than {MAX_URL} characters"));
            }
            Ok(scheme) if scheme == "http" || scheme == "https" => {}
            Ok(_) => remarks.error(path, "must begin with http:// or https://"),
            Err(reason) => remarks.error(path, format!("not a URL: {reason}")),
        }
    }
    if let Some(jwks) = rule.jwks.as_deref().filter(|jwks| !jwks.is_empty()) {
        key_set(remarks, &format!("{path}.jwks"), jwks);
    }
}

/// A JSON Web Key Set, or a single key, with the members that its keys need.
fn key_set(remarks: &mut Remarks, path: &str, text: &str) {
    let set: Map<String, Value> = match serde_json::from_str(text) {
        Ok(set) => set,
        Err(error) => return remarks.error(path, format!("not a JSON Web Key Set: {error}")),
    };
    let Some(keys) = set.get("keys") else {
        return key(remarks, path, &set);
    };
    let Some(keys) = keys.as_array() else {
        return remarks.error(path, "not a JSON Web Key Set: keys is no list");
    };
    for (index, it) in keys.iter().enumerate() {
        let path = format!("{path}.keys[{index}]");
        match it.as_object() {
            Some(it) => key(remarks, &path, it),
            None => remarks.error(path, "a key is an object"),
        }
    }
}

fn key(remarks: &mut Remarks, path: &str, key: &Map<String, Value>) {
    let kind = key.get("kty").and_then(Value::as_str).unwrap_or_default();
    let Some((_, needed, private)) = KEY_TYPES.iter().find(|(name, _, _)| *name == kind) else {
        return remarks.error(path, "kty must be RSA, EC, OKP or oct");
    };
    let has =
        |member: &&str| key.get(*member).and_then(Value::as_str).is_some_and(|it| !it.is_empty());
    if let Some(missing) = needed.iter().find(|member| !has(member)) {
        remarks.error(path, format!("a key of type {kind} needs `{missing}`"));
    }
    if private.iter().any(has) {
        let message = "this is a private key: only public keys are needed, take it out";
        remarks.warn(path, message);
    }
}
