//! `RequestAuthentication`: whose tokens in requests are believed, and where they are looked for.

use std::time::Duration;

use serde::Deserialize;

use super::Selector;
use crate::duration::optional;
use crate::proto_enum::proto_enum;
use crate::target::TargetRef;

/// `spec` of a RequestAuthentication.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RequestAuthentication {
    /// Workloads; the whole namespace where absent.
    pub selector: Option<Selector>,
    /// Object it is attached to.
    #[serde(alias = "target_ref")]
    pub target_ref: Option<TargetRef>,
    /// Objects it is attached to.
    #[serde(alias = "target_refs")]
    pub target_refs: Vec<TargetRef>,
    /// Issuers, each with its keys.
    #[serde(alias = "jwt_rules")]
    pub jwt_rules: Vec<JwtRule>,
}

/// An issuer of tokens.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct JwtRule {
    /// Who issues; any issuer of the key set where absent.
    pub issuer: Option<String>,
    /// Audiences of which a token must have one.
    pub audiences: Vec<String>,
    /// Where the keys are fetched.
    #[serde(alias = "jwks_uri")]
    pub jwks_uri: Option<String>,
    /// The keys themselves, a JSON Web Key Set.
    pub jwks: Option<String>,
    /// Headers that may hold the token.
    #[serde(alias = "from_headers")]
    pub from_headers: Vec<TokenHeader>,
    /// Query parameters that may hold it.
    #[serde(alias = "from_params")]
    pub from_params: Vec<String>,
    /// Cookies that may hold it.
    #[serde(alias = "from_cookies")]
    pub from_cookies: Vec<String>,
    /// Header that the workload gets the payload in.
    #[serde(alias = "output_payload_to_header")]
    pub output_payload_to_header: String,
    /// Headers that the workload gets single claims in.
    #[serde(alias = "output_claim_to_headers")]
    pub output_claim_to_headers: Vec<ClaimToHeader>,
    /// The workload gets the token too.
    #[serde(alias = "forward_original_token")]
    pub forward_original_token: bool,
    /// Longest wait for the keys.
    #[serde(deserialize_with = "optional")]
    pub timeout: Option<Duration>,
    /// Claims that are lists of words.
    #[serde(alias = "space_delimited_claims")]
    pub space_delimited_claims: Vec<String>,
    /// Whether a request without a token is let through.
    pub presence: Presence,
}

/// A header that may hold a token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TokenHeader {
    /// Name.
    pub name: String,
    /// What stands before the token, such as `Bearer `.
    pub prefix: String,
}

/// A claim that the workload gets in a header.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClaimToHeader {
    /// The claim.
    pub claim: String,
    /// The header.
    pub header: String,
}

proto_enum! {
    /// Whether a request without a token is let through.
    pub enum Presence {
        /// It is.
        Optional = "OPTIONAL" / 0,
        /// It is refused.
        Required = "REQUIRED" / 1,
    }
}
