//! Records the frames of a network namespace as a pcap file.
//!
//! Of a bridge each frame once: those of pods where they come in, those of the node where they
//! leave it. Must not know pods.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;
use tokio_util::sync::CancellationToken;

/// Frames cannot be recorded.
#[derive(Debug, thiserror::Error)]
#[error("capture: {0}")]
pub struct CaptureError(String);

/// Longest frame: segments are joined up to this before they cross a virtual interface.
const FRAME_BYTES: usize = 1 << 17;
const BUFFER_BYTES: usize = 16 << 20;
const LOOPBACK: usize = 1;
const OUTGOING: u8 = 4;
const TICK: TimeVal = TimeVal::new(0, 50_000);

/// Records for `time`, or until told to stop; gives the number of frames. With a `bridge` a frame
/// that crosses it counts once, without one it counts at every interface.
///
/// # Errors
/// When there is no such bridge, packets may not be seen, or the file does not take them.
pub fn record(
    bridge: Option<&str>,
    time: Duration,
    file: OwnedFd,
    stop: &CancellationToken,
) -> Result<u64, CaptureError> {
    let failed = |e: &dyn std::fmt::Display| CaptureError(e.to_string());
    let bridge = bridge.map(if_nametoindex).transpose().map_err(|e| failed(&e))?;
    let bridge = bridge.map(|index| index as usize);
    let socket =
        socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
            .map_err(|e| failed(&e))?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TICK).map_err(|e| failed(&e))?;
    // Without the right to it the default size stays.
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES);
    let mut out = BufWriter::new(File::from(file));
    out.write_all(&file_header()).map_err(|e| failed(&e))?;
    let (end, mut frames, mut buffer) = (Instant::now() + time, 0, vec![0; FRAME_BYTES]);
    while Instant::now() < end && !stop.is_cancelled() {
        let (length, from) = match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer) {
            Ok((length, Some(from))) => (length, from),
            Ok(_) | Err(nix::Error::EAGAIN | nix::Error::EINTR | nix::Error::ENETDOWN) => continue,
            Err(e) => return Err(failed(&e)),
        };
        if !counts(from.ifindex(), from.pkttype(), bridge) {
            continue;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let frame = buffer.get(..length).unwrap_or_default();
        out.write_all(&frame_header(now, frame.len())).map_err(|e| failed(&e))?;
        out.write_all(frame).map_err(|e| failed(&e))?;
        frames += 1;
    }
    out.flush().map_err(|e| failed(&e))?;
    Ok(frames)
}

/// Whether a frame seen at an interface is one to record.
fn counts(interface: usize, kind: u8, bridge: Option<usize>) -> bool {
    interface != LOOPBACK && bridge.is_none_or(|it| (interface == it) == (kind == OUTGOING))
}

/// Little endian, microseconds, Ethernet.
fn file_header() -> Vec<u8> {
    let words: [u32; 6] = [0xa1b2_c3d4, 2 | 4 << 16, 0, 0, 1 << 18, 1];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn frame_header(time: Duration, length: usize) -> Vec<u8> {
    let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    let words = [seconds, time.subsec_micros(), length, length];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::{Duration, OUTGOING, counts, file_header, frame_header};

    #[test]
    fn each_frame_counts_once() {
        let (bridge, pod) = (Some(2), 3);
        assert!(counts(pod, 3, bridge), "from a pod to another");
        assert!(!counts(pod, OUTGOING, bridge), "the same frame, at the other pod");
        assert!(!counts(2, 0, bridge), "to the node: seen at the pod");
        assert!(counts(2, OUTGOING, bridge), "from the node");
        assert!(!counts(1, 0, bridge) && !counts(1, OUTGOING, bridge), "loopback");
        assert!(counts(pod, OUTGOING, None) && !counts(1, 0, None), "without a bridge, but lo");
    }

    #[test]
    fn headers_are_those_of_the_format() {
        let wanted =
            [0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0];
        assert_eq!(file_header(), wanted);
        let header = frame_header(Duration::from_micros(1_000_002), 60);
        assert_eq!(header, [1, 0, 0, 0, 2, 0, 0, 0, 60, 0, 0, 0, 60, 0, 0, 0]);
    }
}
