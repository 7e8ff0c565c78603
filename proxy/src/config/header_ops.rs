//! Changes of headers.

use http::{HeaderName, HeaderValue};

/// Header changes; removal first, then set, then add.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeaderOps {
    /// Of the request.
    pub request: HeaderEdit,
    /// Of the response.
    pub response: HeaderEdit,
}

/// Changes of one set of headers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeaderEdit {
    /// Removed.
    pub remove: Vec<HeaderName>,
    /// Set, whatever was there.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Appended.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Added where there is none.
    pub add_absent: Vec<(HeaderName, HeaderValue)>,
    /// Set where there is one.
    pub overwrite: Vec<(HeaderName, HeaderValue)>,
}
