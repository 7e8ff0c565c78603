//! Reading a TLS `ClientHello` from the first bytes of a connection (RFC 8446, 4.1.2).
//!
//! Only the server name and the application protocols are taken. The bytes come from anyone:
//! every length is checked, and a message may be split over any number of records.

/// Longest `ClientHello` looked at, bytes; also Envoy's limit.
pub(super) const MAX_LENGTH: usize = 16 * 1024;

const RECORD_HANDSHAKE: u8 = 22;
const MESSAGE_CLIENT_HELLO: u8 = 1;
const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;
/// Longest name of a host.
const MAX_HOST: usize = 255;

/// What a client says at the start of TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// Server name, lower case.
    pub server_name: Option<String>,
    /// Application protocols, most wanted first; those that are not text are left out.
    pub application_protocols: Vec<String>,
}

/// What the bytes so far mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// It may become one.
    More,
    /// It is not TLS.
    NotTls,
    /// A whole one.
    Hello(ClientHello),
}

/// Reads the bytes a connection begins with.
#[must_use]
pub fn parse(bytes: &[u8]) -> Parsed {
    match message(bytes) {
        Message::More => Parsed::More,
        Message::NotTls => Parsed::NotTls,
        Message::Whole(body) => hello(&body).map_or(Parsed::NotTls, Parsed::Hello),
    }
}

enum Message {
    More,
    NotTls,
    Whole(Vec<u8>),
}

/// Joins the records of the first handshake message and gives its body.
fn message(bytes: &[u8]) -> Message {
    let mut rest = bytes;
    let mut joined: Vec<u8> = Vec::new();
    loop {
        match rest {
            [kind, ..] if *kind != RECORD_HANDSHAKE => return Message::NotTls,
            [_, major, ..] if *major != 3 => return Message::NotTls,
            [_, _, _, high, low, tail @ ..] => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                if length == 0 || length > MAX_LENGTH {
                    return Message::NotTls;
                }
                let fragment = tail.get(..length).unwrap_or(tail);
                joined.extend_from_slice(fragment);
                rest = tail.get(fragment.len()..).unwrap_or_default();
                if joined.first().is_some_and(|kind| *kind != MESSAGE_CLIENT_HELLO) {
                    return Message::NotTls;
                }
                if let [_, a, b, c, body @ ..] = joined.as_slice() {
                    let wanted = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
                    if wanted > MAX_LENGTH {
                        return Message::NotTls;
                    }
                    if let Some(body) = body.get(..wanted) {
                        return Message::Whole(body.to_vec());
                    }
                }
                if fragment.len() < length {
                    return Message::More;
                }
            }
            _ => return Message::More,
        }
    }
}

/// Takes bytes off the front.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn short(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    /// Bytes with a one-byte length before them.
    fn vector8(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.byte()?);
        self.take(length)
    }

    /// Bytes with a two-byte length before them.
    fn vector16(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.short()?);
        self.take(length)
    }
}

fn hello(body: &[u8]) -> Option<ClientHello> {
    const VERSION_AND_RANDOM: usize = 2 + 32;
    let mut cursor = Cursor(body);
    cursor.take(VERSION_AND_RANDOM)?;
    let _session_id = cursor.vector8()?;
    let _cipher_suites = cursor.vector16()?;
    let _compression = cursor.vector8()?;
    let mut found = ClientHello::default();
    if cursor.0.is_empty() {
        return Some(found);
    }
    let mut extensions = Cursor(cursor.vector16()?);
    while !extensions.0.is_empty() {
        let kind = extensions.short()?;
        let data = extensions.vector16()?;
        match kind {
            EXTENSION_SERVER_NAME => found.server_name = server_name(data)?,
            EXTENSION_ALPN => found.application_protocols = application_protocols(data)?,
            _ => {}
        }
    }
    Some(found)
}

/// The first host name of the list; `Some(None)` for a name that is none.
fn server_name(data: &[u8]) -> Option<Option<String>> {
    const HOST_NAME: u8 = 0;
    let mut list = Cursor(Cursor(data).vector16()?);
    while !list.0.is_empty() {
        let kind = list.byte()?;
        let name = list.vector16()?;
        if kind == HOST_NAME {
            return Some(host(name));
        }
    }
    Some(None)
}

fn host(name: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(name).ok()?;
    let plausible = !text.is_empty()
        && text.len() <= MAX_HOST
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'*'));
    plausible.then(|| text.to_ascii_lowercase())
}

fn application_protocols(data: &[u8]) -> Option<Vec<String>> {
    let mut list = Cursor(Cursor(data).vector16()?);
    let mut found = Vec::new();
    while !list.0.is_empty() {
        let name = list.vector8()?;
        if let Ok(text) = std::str::from_utf8(name) {
            found.push(text.to_owned());
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vector16(body: &[u8]) -> Vec<u8> {
        let mut out = u16::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        out.extend_from_slice(body);
        out
    }

    fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut out = kind.to_be_bytes().to_vec();
        out.extend(vector16(body));
        out
    }

    /// A handshake message as a client makes it, not yet in records.
    fn client_hello(name: &str, protocols: &[&str]) -> Vec<u8> {
        let mut entry = vec![0];
        entry.extend(vector16(name.as_bytes()));
        let list: Vec<u8> = protocols
            .iter()
            .flat_map(|p| {
                let mut item = vec![u8::try_from(p.len()).unwrap()];
                item.extend_from_slice(p.as_bytes());
                item
            })
            .collect();
        let mut extensions = extension(0x0a0a, &[]);
        extensions.extend(extension(0, &vector16(&entry)));
        extensions.extend(extension(16, &vector16(&list)));
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.push(0);
        body.extend(vector16(&[0x13, 0x01]));
        body.extend([1, 0]);
        body.extend(vector16(&extensions));
        let mut out = vec![1, 0];
        out.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        out.extend(body);
        out
    }

    fn records(message: &[u8], size: usize) -> Vec<u8> {
        message
            .chunks(size)
            .flat_map(|chunk| {
                let mut record = vec![22, 3, 1];
                record.extend(vector16(chunk));
                record
            })
            .collect()
    }

    fn wanted() -> Parsed {
        Parsed::Hello(ClientHello {
            server_name: Some("outbound_.80_._.a.test".into()),
            application_protocols: vec!["istio-http/1.1".into(), "istio".into()],
        })
    }

    fn sample() -> Vec<u8> {
        client_hello("Outbound_.80_._.A.test", &["istio-http/1.1", "istio"])
    }

    #[test]
    fn names_are_read_however_records_are_cut() {
        for size in [1, 2, 5, 60, 16_000] {
            assert_eq!(parse(&records(&sample(), size)), wanted(), "{size}");
        }
    }

    #[test]
    fn every_prefix_waits_for_more() {
        for size in [1, 50, 16_000] {
            let whole = records(&sample(), size);
            for length in 0..whole.len() {
                assert_eq!(parse(&whole[..length]), Parsed::More, "{size} {length}");
            }
        }
    }

    #[test]
    fn other_protocols_are_not_tls() {
        let huge = [22, 3, 1, 0x40, 0, 1, 0xff, 0, 0, 0];
        for bytes in
            [&b"GET / HTTP/1.1\r\n"[..], b"\x00", b"\x16\x02", b"\x16\x03\x01\x00\x00", &huge]
        {
            assert_eq!(parse(bytes), Parsed::NotTls, "{bytes:?}");
        }
        // A server hello is a handshake, but not a client's.
        assert_eq!(parse(&records(&[2, 0, 0, 1, 0], 100)), Parsed::NotTls);
    }

    #[test]
    fn names_that_are_none_are_left_out() {
        for name in ["a b", "\u{e9}.test", ""] {
            let Parsed::Hello(hello) = parse(&records(&client_hello(name, &[]), 999)) else {
                panic!("{name}");
            };
            assert_eq!(hello.server_name, None);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _parsed = parse(&bytes);
        }

        #[test]
        fn a_damaged_hello_never_panics(at in 0usize..150, value in any::<u8>(), cut in 0usize..200) {
            let mut bytes = records(&sample(), 70);
            let place = at % bytes.len();
            bytes[place] = value;
            bytes.truncate(cut.max(1));
            let _parsed = parse(&bytes);
        }
    }
}
