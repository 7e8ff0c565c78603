//! Writing and reading netlink messages and attributes in memory.
//!
//! Attributes are written without the "nested" bit: netfilter accepts both forms and dumps
//! without it, so what we send and what we read back can be compared byte by byte.

/// `NLM_F_REQUEST`.
pub(crate) const REQUEST: u16 = 0x1;
/// `NLM_F_ACK`.
pub(crate) const ACK: u16 = 0x4;
/// `NLM_F_DUMP`.
pub(crate) const DUMP: u16 = 0x300;
/// `NLM_F_EXCL`.
pub(crate) const EXCLUSIVE: u16 = 0x200;
/// `NLM_F_CREATE`.
pub(crate) const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`.
pub(crate) const APPEND: u16 = 0x800;

const HEADER: usize = 16;
const TYPE_MASK: u16 = 0x3fff;

/// A buffer of netlink messages being written.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    buf: Vec<u8>,
    too_long: bool,
}

impl Writer {
    /// Appends one message; `body` writes what follows the header.
    pub(crate) fn message(
        &mut self,
        kind: u16,
        flags: u16,
        seq: u32,
        body: impl FnOnce(&mut Self),
    ) {
        let start = self.buf.len();
        self.buf.extend_from_slice(&[0; 4]);
        self.buf.extend_from_slice(&kind.to_ne_bytes());
        self.buf.extend_from_slice(&flags.to_ne_bytes());
        self.buf.extend_from_slice(&seq.to_ne_bytes());
        self.buf.extend_from_slice(&[0; 4]);
        body(self);
        match u32::try_from(self.buf.len() - start) {
            Ok(length) => self.buf[start..start + 4].copy_from_slice(&length.to_ne_bytes()),
            Err(_) => self.too_long = true,
        }
        self.pad();
    }

    /// Appends bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    /// Appends one attribute.
    pub(crate) fn attribute(&mut self, kind: u16, payload: &[u8]) {
        self.nested(kind, |w| w.raw(payload));
    }

    /// Appends a number in network byte order.
    pub(crate) fn be32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// Appends a zero-terminated string.
    pub(crate) fn string(&mut self, kind: u16, value: &str) {
        self.nested(kind, |w| {
            w.raw(value.as_bytes());
            w.raw(&[0]);
        });
    }

    /// Appends an attribute whose payload `body` writes.
    pub(crate) fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.buf.len();
        self.buf.extend_from_slice(&[0; 2]);
        self.buf.extend_from_slice(&kind.to_ne_bytes());
        body(self);
        match u16::try_from(self.buf.len() - start) {
            Ok(length) => self.buf[start..start + 2].copy_from_slice(&length.to_ne_bytes()),
            Err(_) => self.too_long = true,
        }
        self.pad();
    }

    /// The bytes written, or `None` when something did not fit its length field.
    pub(crate) fn finish(self) -> Option<Vec<u8>> {
        (!self.too_long).then_some(self.buf)
    }

    fn pad(&mut self) {
        self.buf.resize(self.buf.len().next_multiple_of(4), 0);
    }
}

/// One message read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) seq: u32,
    pub(crate) payload: &'a [u8],
}

/// Splits a datagram into its messages; stops at the first malformed one.
pub(crate) fn messages(mut rest: &[u8]) -> Vec<Message<'_>> {
    let mut found = Vec::new();
    while rest.len() >= HEADER {
        let length = host32(&rest[0..4]) as usize;
        if length < HEADER || length > rest.len() {
            break;
        }
        found.push(Message {
            kind: u16::from_ne_bytes([rest[4], rest[5]]),
            flags: u16::from_ne_bytes([rest[6], rest[7]]),
            seq: host32(&rest[8..12]),
            payload: &rest[HEADER..length],
        });
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
    found
}

/// Splits a payload into attributes; stops at the first malformed one.
pub(crate) fn attributes(mut rest: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while rest.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
        if length < 4 || length > rest.len() {
            break;
        }
        found.push((u16::from_ne_bytes([rest[2], rest[3]]) & TYPE_MASK, &rest[4..length]));
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
    found
}

/// The first attribute of a kind.
pub(crate) fn find<'a>(attributes: &[(u16, &'a [u8])], kind: u16) -> Option<&'a [u8]> {
    attributes.iter().find(|(k, _)| *k == kind).map(|(_, payload)| *payload)
}

/// Text of a zero-terminated string attribute.
pub(crate) fn text(payload: &[u8]) -> String {
    let end = payload.iter().position(|b| *b == 0).unwrap_or(payload.len());
    String::from_utf8_lossy(&payload[..end]).into_owned()
}

/// A number in network byte order, 0 when the payload is short.
pub(crate) fn be32(payload: &[u8]) -> u32 {
    payload.get(..4).map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
}

/// A number in host byte order, 0 when the payload is short.
pub(crate) fn host32(payload: &[u8]) -> u32 {
    payload.get(..4).map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut w = Writer::default();
        w.message(7, ACK, 3, |w| {
            w.raw(&[1, 0, 0, 0]);
            w.string(1, "abc");
            w.nested(2, |w| w.be32(5, 9));
        });
        let bytes = w.finish().unwrap();
        let read = messages(&bytes);
        assert_eq!((read[0].kind, read[0].flags, read[0].seq), (7, ACK, 3));
        let found = attributes(&read[0].payload[4..]);
        assert_eq!(text(find(&found, 1).unwrap()), "abc");
        assert_eq!(be32(find(&attributes(find(&found, 2).unwrap()), 5).unwrap()), 9);
    }

    #[test]
    fn an_attribute_of_64_kib_is_refused() {
        let mut w = Writer::default();
        w.attribute(1, &vec![0; 70_000]);
        assert!(w.finish().is_none());
    }

    #[test]
    fn malformed_input_ends_the_walk() {
        assert!(messages(&[1; 40]).is_empty());
        assert!(attributes(&[255, 255, 0, 0]).is_empty());
        assert!(attributes(&[0, 0, 0, 0]).is_empty());
    }
}
