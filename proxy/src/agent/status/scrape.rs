//! The application's own metrics, fetched so that one scrape of the pod has all.

use super::client::{Beyond, RequestError, send};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::Empty;
use serde_json::Value;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::net::TcpStream;

/// Largest metrics text of one target.
const MAX_METRICS: usize = 32 << 20;
/// Most targets.
const MAX_TARGETS: usize = 16;

/// One place with metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    port: u16,
    path: String,
}

/// Where the application has metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Targets(Vec<Target>);

impl Targets {
    /// From the JSON of `ISTIO_PROMETHEUS_ANNOTATIONS`: `scrape`, `port`, `path`, `targets`.
    /// What is malformed gives no target; the remark says so.
    #[must_use]
    pub fn parse(json: &str) -> (Self, Option<String>) {
        if json.is_empty() {
            return (Self::default(), None);
        }
        let remark = || Some(format!("ISTIO_PROMETHEUS_ANNOTATIONS is not understood: {json}"));
        let Ok(value) = serde_json::from_str::<Value>(json) else {
            return (Self::default(), remark());
        };
        let text = |name: &str| match value.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::Bool(flag)) => flag.to_string(),
            _ => String::new(),
        };
        if text("scrape") == "false" {
            return (Self::default(), None);
        }
        let several = text("targets");
        let list: Vec<String> = if several.is_empty() {
            let port = text("port");
            let port = if port.is_empty() { "80".to_owned() } else { port };
            vec![format!("{port}:{}", text("path"))]
        } else {
            several.split(',').map(|target| target.trim().to_owned()).collect()
        };
        let parsed: Option<Vec<_>> = list.iter().take(MAX_TARGETS).map(|t| target(t)).collect();
        match parsed {
            Some(targets) => (Self(targets), None),
            None => (Self::default(), remark()),
        }
    }

    /// All texts, one after the other, and the number of targets that failed.
    pub(super) async fn fetch(&self, timeout: Duration) -> (String, u64) {
        let mut all = String::new();
        let mut failed = 0;
        for target in &self.0 {
            match tokio::time::timeout(timeout, Box::pin(fetch(target))).await {
                Ok(Ok(text)) => {
                    // The end mark of OpenMetrics would end the merged text too.
                    for line in text.lines().filter(|line| *line != "# EOF") {
                        all.push_str(line);
                        all.push('\n');
                    }
                }
                Ok(Err(error)) => {
                    failed += 1;
                    tracing::debug!(?target, %error, "application metrics not had");
                }
                Err(_) => {
                    failed += 1;
                    tracing::debug!(?target, "application metrics not had in time");
                }
            }
        }
        (all, failed)
    }
}

fn target(text: &str) -> Option<Target> {
    let (port, path) = text.split_once(':').unwrap_or((text, ""));
    let path = match path {
        "" => "/metrics".to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        path => format!("/{path}"),
    };
    let _valid: http::uri::PathAndQuery = path.parse().ok()?;
    Some(Target { port: port.trim().parse().ok().filter(|port| *port != 0)?, path })
}

async fn fetch(target: &Target) -> Result<String, RequestError> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, target.port)).await?;
    let request = Request::get(&target.path)
        .header(header::HOST, format!("localhost:{}", target.port))
        .header(header::ACCEPT, "text/plain;version=0.0.4")
        .body(Empty::<Bytes>::new())
        .map_err(std::io::Error::other)?;
    let response = send(stream, request, (MAX_METRICS, Beyond::Refuse)).await?;
    if !response.status().is_success() {
        return Err(std::io::Error::other(format!("status {}", response.status())).into());
    }
    Ok(String::from_utf8_lossy(response.body()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(json: &str) -> Vec<(u16, String)> {
        let (targets, remark) = Targets::parse(json);
        assert_eq!(remark, None);
        targets.0.into_iter().map(|target| (target.port, target.path)).collect()
    }

    #[test]
    fn annotations_of_both_kinds_are_read() {
        let one = r#"{"scrape":"true","path":"/stats","port":"8080"}"#;
        assert_eq!(targets(one), [(8080, "/stats".to_owned())]);
        let several = r#"{"scrape":"true","targets":"8080:/metrics, 9100:x"}"#;
        let expected = [(8080, "/metrics".to_owned()), (9100, "/x".to_owned())];
        assert_eq!(targets(several), expected);
        assert_eq!(targets(r#"{"scrape":"false","port":"1"}"#), []);
        assert_eq!(targets(""), []);
        assert!(Targets::parse("{").1.is_some());
        assert!(Targets::parse(r#"{"port":"http"}"#).1.is_some());
    }
}
