//! The time of the lab's objects.

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Now, as Kubernetes writes it: RFC 3339 in UTC, whole seconds.
#[must_use]
pub(crate) fn now() -> String {
    let now = OffsetDateTime::from(SystemTime::now());
    let whole = now.replace_nanosecond(0).unwrap_or(now);
    whole.format(&Rfc3339).unwrap_or_default()
}

/// Seconds since 1970.
#[must_use]
pub(crate) fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_those_of_kubernetes() {
        let now = super::now();
        assert_eq!((now.len(), now.ends_with('Z')), (20, true), "{now}");
    }
}
