//! One connection to the control socket: the request, its files, and the way back.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use crate::protocol::{MAX_REQUEST, Reply, Request, receive};

/// A connection whose request was read.
#[derive(Debug)]
pub(super) struct Attended {
    /// What is asked for.
    pub(super) request: Request,
    /// Files that came beside it.
    pub(super) files: Vec<OwnedFd>,
    /// The way back.
    pub(super) back: Back,
}

/// The way back to whoever asked.
#[derive(Debug)]
pub(super) struct Back {
    stream: UnixStream,
}

impl Attended {
    /// Reads the request of a connection.
    ///
    /// # Errors
    /// When it is none, too long, or the connection broke.
    pub(super) async fn read(stream: UnixStream) -> io::Result<Self> {
        let (mut text, mut files) = (Vec::new(), Vec::new());
        let mut chunk = vec![0; 64 << 10];
        loop {
            let count = stream
                .async_io(Interest::READABLE, || receive(&stream, &mut chunk, &mut files))
                .await?;
            let received = chunk.get(..count).unwrap_or_default();
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            text.extend_from_slice(received);
            if received.contains(&b'\n') {
                break;
            }
            if text.len() > MAX_REQUEST {
                return Err(io::Error::other("the request is too long"));
            }
        }
        let request = serde_json::from_slice(&text)?;
        Ok(Self { request, files, back: Back { stream } })
    }
}

impl Back {
    /// Says something.
    ///
    /// # Errors
    /// When nobody listens any more.
    pub(super) async fn say(&mut self, reply: &Reply) -> io::Result<()> {
        let mut line = serde_json::to_vec(reply)?;
        line.push(b'\n');
        self.stream.write_all(&line).await
    }

    /// Sends plain bytes.
    ///
    /// # Errors
    /// When nobody listens any more.
    pub(super) async fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Waits until nobody listens any more.
    pub(super) async fn gone(&mut self) {
        let mut byte = [0];
        // Whoever asked has nothing more to say: whatever comes is ignored.
        while self.stream.read(&mut byte).await.is_ok_and(|count| count > 0) {}
    }
}

#[cfg(test)]
mod tests {
    use super::Attended;
    use crate::protocol::{Reply, Request, send};
    use std::io::{BufRead, BufReader};
    use std::os::fd::AsFd;
    use tokio::net::UnixStream;

    #[tokio::test]
    async fn a_request_is_read_in_pieces_with_its_file() {
        let (one, two) = std::os::unix::net::UnixStream::pair().unwrap();
        two.set_nonblocking(true).unwrap();
        let file = tempfile::tempfile().unwrap();
        let client = std::thread::spawn(move || {
            send(one.as_fd(), b"\"li", &[file.as_fd()]).unwrap();
            send(one.as_fd(), b"st\"\n", &[]).unwrap();
            let mut line = String::new();
            BufReader::new(one).read_line(&mut line).unwrap();
            line
        });
        let mut attended = Attended::read(UnixStream::from_std(two).unwrap()).await.unwrap();
        assert_eq!((&attended.request, attended.files.len()), (&Request::List, 1));
        attended.back.say(&Reply::Done).await.unwrap();
        assert_eq!(client.join().unwrap(), "\"done\"\n");
        attended.back.gone().await;
    }

    #[tokio::test]
    async fn what_is_no_request_is_refused() {
        let (mut one, two) = UnixStream::pair().unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut one, b"{}\n").await.unwrap();
        assert!(Attended::read(two).await.is_err());
        let (one, two) = UnixStream::pair().unwrap();
        drop(one);
        assert!(Attended::read(two).await.is_err());
    }
}
