//! `lateen-echo` as a process: its client ends when it is told, and says by its status what came.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

const ECHO: &str = env!("CARGO_BIN_EXE_lateen-echo");

/// A server that ends with the test.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start() -> Self {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let serve = ["serve", "--port", &port.to_string(), "--version=v1"];
        let mut child = Command::new(ECHO).args(serve).spawn().unwrap();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(child.try_wait().unwrap().is_none(), "the server has ended");
            std::thread::yield_now();
        }
        Self { child, port }
    }

    fn get(&self, arguments: &[&str]) -> Child {
        let url = format!("http://127.0.0.1:{}/", self.port);
        let mut command = Command::new(ECHO);
        command.args(["get", &url]).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop((self.child.kill(), self.child.wait()));
    }
}

fn summary(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn load_without_limit_ends_with_its_input() {
    let server = Server::start();
    let mut get = server.get(&["-n", "0", "-c", "2", "--pause-ms", "1", "--until-eof"]);
    let input = get.stdin.take();
    assert!(get.try_wait().unwrap().is_none());
    drop(input);
    let output = get.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let summary = summary(&output);
    assert_eq!(summary["failed"], 0, "{summary}");
    // It may have ended before the first.
    assert_eq!(summary["status"]["200"].as_u64().unwrap_or(0), summary["requests"], "{summary}");
}

#[test]
fn a_limit_is_kept_while_input_is_open() {
    let server = Server::start();
    let mut get = server.get(&["-n", "20", "--until-eof"]);
    let input = get.stdin.take();
    let out = get.stdout.take().unwrap();
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line).unwrap();
    let summary: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(summary["requests"], 20);
    assert!(get.wait().unwrap().success());
    drop(input);
}

#[test]
fn a_job_can_tell_by_the_status() {
    let server = Server::start();
    let status = |arguments: &[&str]| {
        let output = server.get(arguments).wait_with_output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert!(status(&["-n", "3", "--fail"]).0);
    let refused = ["-n", "3", "-H", "x-echo-status: 503"];
    assert!(status(&refused).0, "without --fail the summary says it");
    let (ok, message) = status(&[refused.as_slice(), &["--fail"]].concat());
    assert!(!ok && message.contains("3 of 3 requests failed"), "{message}");
}
