//! Telling HTTP from other protocols by the first bytes a client sends.
//!
//! A request line must be whole before it counts, as Envoy's HTTP inspector has it: the protocol
//! stands at its end.

/// Longest request line waited for, bytes.
pub(super) const MAX_LENGTH: usize = 32 * 1024;
/// Longest method.
const MAX_METHOD: usize = 32;
/// The client connection preface of HTTP/2 (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the bytes so far mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sniffed {
    /// It may become HTTP.
    More,
    /// It is not HTTP.
    NotHttp,
    /// HTTP, by the name chains are matched with: `http/1.0`, `http/1.1`, `h2c`.
    Http(&'static str),
}

/// Reads the bytes a connection begins with.
#[must_use]
pub fn sniff(bytes: &[u8]) -> Sniffed {
    let length = bytes.len().min(PREFACE.len());
    if !bytes.is_empty() && bytes.get(..length) == PREFACE.get(..length) {
        return if length == PREFACE.len() { Sniffed::Http("h2c") } else { Sniffed::More };
    }
    let bytes = without_leading_lines(bytes);
    match bytes.iter().position(|b| *b == b'\n') {
        Some(end) => whole_line(bytes.get(..end).unwrap_or_default()),
        None if bytes.len() >= MAX_LENGTH || !may_begin(bytes) => Sniffed::NotHttp,
        None => Sniffed::More,
    }
}

/// Servers overlook empty lines before a request (RFC 9112, 2.2); a few are enough.
fn without_leading_lines(mut bytes: &[u8]) -> &[u8] {
    const MAX_EMPTY_LINES: usize = 4;
    for _ in 0..MAX_EMPTY_LINES {
        match bytes.strip_prefix(b"\r\n") {
            Some(rest) => bytes = rest,
            None => break,
        }
    }
    bytes
}

fn whole_line(line: &[u8]) -> Sniffed {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut words = line.split(|b| *b == b' ');
    let (method, target) = (words.next(), words.next());
    let (version, extra) = (words.next(), words.next());
    let plausible = method.is_some_and(|m| !m.is_empty() && m.len() <= MAX_METHOD && is_token(m))
        && target.is_some_and(|t| !t.is_empty() && t.iter().all(|b| *b > b' ' && *b != 0x7f))
        && extra.is_none();
    match version {
        Some(b"HTTP/1.1") if plausible => Sniffed::Http("http/1.1"),
        Some(b"HTTP/1.0") if plausible => Sniffed::Http("http/1.0"),
        _ => Sniffed::NotHttp,
    }
}

/// Whether a line without end could still become a request line.
fn may_begin(line: &[u8]) -> bool {
    if matches!(line, [] | b"\r") {
        return true;
    }
    let mut words = line.splitn(2, |b| *b == b' ');
    let method = words.next().unwrap_or_default();
    if method.is_empty() || method.len() > MAX_METHOD || !is_token(method) {
        return false;
    }
    words.next().is_none_or(|rest| rest.iter().all(|b| *b >= b' ' && *b != 0x7f || *b == b'\r'))
}

fn is_token(word: &[u8]) -> bool {
    word.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn protocols_are_told_apart() {
        for (bytes, wanted) in [
            (&b""[..], Sniffed::More),
            (b"G", Sniffed::More),
            (b"GET /", Sniffed::More),
            (b"GET / HTTP/1.1", Sniffed::More),
            (b"GET / HTTP/1.1\r\n", Sniffed::Http("http/1.1")),
            (b"GET / HTTP/1.1\n", Sniffed::Http("http/1.1")),
            (b"\r\nPOST /x HTTP/1.0\r\nhost: a", Sniffed::Http("http/1.0")),
            (b"REPORT http://a/ HTTP/1.1\r\n", Sniffed::Http("http/1.1")),
            (b"PRI * HTTP/2.0\r\n", Sniffed::More),
            (PREFACE, Sniffed::Http("h2c")),
            (b"PRI * HTTP/2.0\r\nx", Sniffed::NotHttp),
            (b"GET / HTTP/3.0\r\n", Sniffed::NotHttp),
            (b"PING\r\n", Sniffed::NotHttp),
            (b"EHLO a.test\r\n", Sniffed::NotHttp),
            (b"*1\r\n$4\r\nPING\r\n", Sniffed::NotHttp),
            (b"\x16\x03\x01", Sniffed::NotHttp),
            (b"\x00\x00\x00\x10", Sniffed::NotHttp),
            (b"get key\r\n", Sniffed::NotHttp),
            (b" GET / HTTP/1.1\r\n", Sniffed::NotHttp),
            (b"GET  / HTTP/1.1\r\n", Sniffed::NotHttp),
        ] {
            assert_eq!(sniff(bytes), wanted, "{:?}", String::from_utf8_lossy(bytes));
        }
        let long = [b"GET /".as_slice(), &[b'a'; MAX_LENGTH]].concat();
        assert_eq!(sniff(&long), Sniffed::NotHttp);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _sniffed = sniff(&bytes);
        }

        #[test]
        fn what_is_decided_stays_decided(bytes in "[A-Z /a-z0-9.\r\n*]{0,60}") {
            let bytes = bytes.as_bytes();
            let mut before = Sniffed::More;
            for length in 0..=bytes.len() {
                let now = sniff(&bytes[..length]);
                prop_assert!(before == Sniffed::More || before == now, "{before:?} {now:?}");
                before = now;
            }
        }
    }
}
