//! Reading a packet capture: what went over the wire between two addresses.
//!
//! Pure: bytes of a pcap file in, counts out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes before the first packet of a pcap file.
const FILE_HEADER: usize = 24;
/// Bytes before each packet.
const PACKET_HEADER: usize = 16;
/// Bytes of an Ethernet header without VLAN tag.
const ETHERNET: usize = 14;
const PROTOCOL_TCP: u8 = 6;

/// What a capture shows of the TCP traffic of some addresses.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// TCP segments with data.
    pub segments: usize,
    /// Segments that begin with a TLS record header.
    pub tls_records: usize,
    /// Segments that hold the text that must not be seen.
    pub leaks: usize,
}

/// Looks through the pcap file `capture` for TCP data from or to `addresses`, and for `secret`.
#[must_use]
pub fn look(capture: &[u8], addresses: &[IpAddr], secret: &[u8]) -> Seen {
    let mut seen = Seen::default();
    let mut rest = capture.get(FILE_HEADER..).unwrap_or_default();
    while let Some((packet, after)) = next(rest) {
        rest = after;
        let Some((from, to, data)) = packet.get(ETHERNET..).and_then(tcp_data) else { continue };
        if data.is_empty() || !(addresses.contains(&from) && addresses.contains(&to)) {
            continue;
        }
        seen.segments += 1;
        seen.tls_records += usize::from(is_tls(data));
        let leaks = data.windows(secret.len().max(1)).any(|window| window == secret);
        seen.leaks += usize::from(leaks);
    }
    seen
}

fn next(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let length: [u8; 4] = rest.get(8..12)?.try_into().ok()?;
    let length = usize::try_from(u32::from_le_bytes(length)).ok()?;
    let body = rest.get(PACKET_HEADER..)?;
    Some((body.get(..length)?, body.get(length..)?))
}

/// Addresses and TCP payload of an IP packet.
fn tcp_data(ip: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    let (from, to, tcp) = match ip.first()? >> 4 {
        4 => {
            let header = usize::from(ip.first()? & 0x0f) * 4;
            let total = usize::from(u16::from_be_bytes(ip.get(2..4)?.try_into().ok()?));
            if *ip.get(9)? != PROTOCOL_TCP {
                return None;
            }
            let from: [u8; 4] = ip.get(12..16)?.try_into().ok()?;
            let to: [u8; 4] = ip.get(16..20)?.try_into().ok()?;
            (Ipv4Addr::from(from).into(), Ipv4Addr::from(to).into(), ip.get(header..total)?)
        }
        6 => {
            let length = usize::from(u16::from_be_bytes(ip.get(4..6)?.try_into().ok()?));
            if *ip.get(6)? != PROTOCOL_TCP {
                return None;
            }
            let from: [u8; 16] = ip.get(8..24)?.try_into().ok()?;
            let to: [u8; 16] = ip.get(24..40)?.try_into().ok()?;
            (Ipv6Addr::from(from).into(), Ipv6Addr::from(to).into(), ip.get(40..40 + length)?)
        }
        _ => return None,
    };
    let offset = usize::from(tcp.get(12)? >> 4) * 4;
    Some((from, to, tcp.get(offset..)?))
}

/// Handshake, change cipher spec, alert or application data of TLS 1.x.
fn is_tls(data: &[u8]) -> bool {
    matches!(data, [0x14..=0x17, 0x03, 0x01..=0x04, ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    fn pcap(payloads: &[&[u8]]) -> Vec<u8> {
        let mut file = vec![0; FILE_HEADER];
        for payload in payloads {
            let mut tcp = vec![0; 20];
            tcp[12] = 5 << 4;
            tcp.extend_from_slice(payload);
            let mut ip = vec![0; 20];
            ip[0] = 0x45;
            ip[2..4].copy_from_slice(&u16::try_from(20 + tcp.len()).unwrap().to_be_bytes());
            ip[9] = PROTOCOL_TCP;
            ip[12..16].copy_from_slice(&A.octets());
            ip[16..20].copy_from_slice(&B.octets());
            let frame = [vec![0; ETHERNET], ip, tcp].concat();
            let length = u32::try_from(frame.len()).unwrap().to_le_bytes();
            file.extend([[0; 4], [0; 4], length, length].concat());
            file.extend(frame);
        }
        file
    }

    #[test]
    fn tls_is_counted_and_a_leak_is_found() {
        let capture = pcap(&[b"", b"\x17\x03\x03\x00\x05abcde", b"GET /secret HTTP/1.1"]);
        let both = [A.into(), B.into()];
        let seen = look(&capture, &both, b"secret");
        assert_eq!(seen, Seen { segments: 2, tls_records: 1, leaks: 1 });
        assert_eq!(look(&capture, &both[..1], b"secret"), Seen::default());
    }

    #[test]
    fn a_cut_capture_is_read_as_far_as_it_goes() {
        let capture = pcap(&[b"\x17\x03\x03", b"\x17\x03\x03"]);
        let both = [A.into(), B.into()];
        for end in 0..capture.len() {
            assert!(look(&capture[..end], &both, b"x").segments <= 2);
        }
    }
}
