//! What commands and the lab's daemon say to each other over the control socket.
//!
//! One request a connection: a line of JSON, with open files beside it where the request needs
//! them. Answers are lines of JSON until the last; after [`Reply::Raw`] come plain bytes.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use crate::api_server::manifest::ManifestText;
use crate::api_server::view::PodRow;

/// Longest request.
pub const MAX_REQUEST: usize = 48 << 20;
/// Longest line of an answer.
pub const MAX_REPLY: usize = 48 << 20;
/// Most files beside a request.
const MAX_FILES: usize = 3;

/// What a command asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Apply, wait until all pods are ready. The lab ends with this connection until `detach`.
    Up {
        /// What to apply.
        texts: Vec<ManifestText>,
        /// Whether the lab outlives this connection once it is up.
        detach: bool,
    },
    /// Apply.
    Apply {
        /// What to apply.
        texts: Vec<ManifestText>,
    },
    /// List the pods.
    List,
    /// Run a command in a container; standard input, output and error come beside.
    Exec {
        /// Namespace; `None`: where the pod is.
        namespace: Option<String>,
        /// Pod.
        pod: String,
        /// Container.
        container: Option<String>,
        /// As root, in the pod's network namespace.
        root: bool,
        /// Program and arguments.
        command: Vec<String>,
    },
    /// Show the output of a container or component.
    Logs {
        /// Namespace; `None`: where the pod is.
        namespace: Option<String>,
        /// Pod, or component.
        pod: String,
        /// Container.
        container: Option<String>,
        /// Go on as more comes.
        follow: bool,
    },
    /// Write what goes over the bridge into the file that comes beside.
    Capture {
        /// For how long.
        milliseconds: u64,
    },
    /// Kill a component, or start it again.
    Component {
        /// Name.
        name: String,
        /// Start, or kill.
        start: bool,
    },
    /// Take everything down.
    Down,
}

/// What the daemon answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// How far it is; more comes.
    Progress(String),
    /// Something to know; more comes.
    Warning(String),
    /// What happened to an object; more comes.
    Changed(String),
    /// The pods.
    Pods(Vec<PodRow>),
    /// Exit status of a command.
    Exit(i32),
    /// Packets that were captured.
    Packets(u64),
    /// Plain bytes follow until the end.
    Raw,
    /// Everything is ready; more comes only when the connection stays.
    Ready(String),
    /// It is done.
    Done,
    /// It failed, and why.
    Failed(Vec<String>),
}

/// Sends `bytes` with open files; gives how many bytes went.
///
/// # Errors
/// When the connection is broken.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::Error::other("too many files for one message"));
    }
    let sent = sendmsg(socket, &[IoSlice::new(bytes)], &mut beside, SendFlags::NOSIGNAL)?;
    Ok(sent)
}

/// Receives into `bytes`, and open files into `files`; gives how many bytes came.
///
/// # Errors
/// When the connection is broken, or nothing is there yet.
pub fn receive(socket: impl AsFd, bytes: &mut [u8], files: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let slices = &mut [IoSliceMut::new(bytes)];
    let received = recvmsg(socket, slices, &mut beside, RecvFlags::CMSG_CLOEXEC)?;
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            files.extend(received);
        }
    }
    Ok(received.bytes)
}

#[cfg(test)]
mod tests {
    use super::{Reply, Request, receive, send};
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn files_come_beside_a_request() {
        let (one, two) = UnixStream::pair().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        assert_eq!(send(one.as_fd(), b"hi\n", &[writer.as_fd()]).unwrap(), 3);
        drop(writer);
        let (mut bytes, mut files) = ([0; 8], Vec::new());
        assert_eq!(receive(two.as_fd(), &mut bytes, &mut files).unwrap(), 3);
        assert_eq!((&bytes[..3], files.len()), (&b"hi\n"[..], 1));
        drop(files);
        assert_eq!(reader.read(&mut bytes).unwrap(), 0);
    }

    #[test]
    fn what_is_said_reads_back() {
        let request = Request::Component { name: "lateend".to_owned(), start: true };
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
        assert_eq!(serde_json::to_string(&Reply::Raw).unwrap(), "\"raw\"");
        assert_eq!(serde_json::to_string(&Request::List).unwrap(), "\"list\"");
    }
}
