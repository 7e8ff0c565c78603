//! Response flags: why a response is what it is, in Envoy's short codes.

use std::fmt;

/// A set of response flags.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags(u32);

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:literal $text:literal;)*) => {
        impl Flags {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*
            const NAMES: &'static [(Self, &'static str)] = &[$((Self::$name, $text)),*];
        }
    };
}

flags! {
    /// No healthy upstream.
    NO_HEALTHY_UPSTREAM = 0 "UH";
    /// Connecting upstream failed.
    UPSTREAM_CONNECTION_FAILURE = 1 "UF";
    /// A circuit breaker was open.
    UPSTREAM_OVERFLOW = 2 "UO";
    /// No route.
    NO_ROUTE = 3 "NR";
    /// Retries were used up.
    RETRY_LIMIT = 4 "URX";
    /// The route's cluster is unknown.
    NO_CLUSTER = 5 "NC";
    /// The upstream took too long.
    UPSTREAM_TIMEOUT = 6 "UT";
    /// The upstream reset the stream.
    UPSTREAM_RESET = 7 "UR";
    /// The upstream connection ended early.
    UPSTREAM_TERMINATION = 8 "UC";
    /// The client went away.
    DOWNSTREAM_TERMINATION = 9 "DC";
    /// A fault delayed the request.
    DELAY_INJECTED = 10 "DI";
    /// A fault answered the request.
    FAULT_INJECTED = 11 "FI";
    /// The client broke the protocol.
    DOWNSTREAM_PROTOCOL = 12 "DPE";
    /// The upstream broke the protocol.
    UPSTREAM_PROTOCOL = 13 "UPE";
    /// Nothing passed for too long.
    IDLE_TIMEOUT = 14 "SI";
    /// Authorization refused.
    UNAUTHORIZED = 15 "UAEX";
}

impl Flags {
    /// Adds flags.
    pub fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Whether any of `other` is set.
    #[must_use]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// No flag is set.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the flag with this short code is set.
    #[must_use]
    pub fn has_named(self, name: &str) -> bool {
        Self::NAMES.iter().any(|(flag, text)| *text == name && self.has(*flag))
    }

    /// The flag of a short code that [`crate::upstream::UpstreamError::flag`] gives.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self::NAMES.iter().find(|(_, text)| *text == name).map_or(Self(0), |(flag, _)| *flag)
    }
}

impl fmt::Display for Flags {
    /// `-` when empty, else short codes with commas, as `%RESPONSE_FLAGS%` has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (flag, text) in Self::NAMES {
            if self.has(*flag) {
                f.write_str(separator)?;
                f.write_str(text)?;
                separator = ",";
            }
        }
        if separator.is_empty() { f.write_str("-") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_written_as_in_access_logs() {
        let mut flags = Flags::default();
        assert_eq!(flags.to_string(), "-");
        flags.add(Flags::UPSTREAM_CONNECTION_FAILURE);
        flags.add(Flags::RETRY_LIMIT);
        assert_eq!(flags.to_string(), "UF,URX");
        assert!(flags.has_named("URX") && !flags.has_named("NR"));
        assert_eq!(Flags::named("UO"), Flags::UPSTREAM_OVERFLOW);
    }
}
