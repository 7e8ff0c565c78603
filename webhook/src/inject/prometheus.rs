//! Metrics of the application and of the proxy at one place.
//!
//! Prometheus scrapes by annotations; when merging is on they are pointed to the proxy's status
//! port, and what they said before is handed to the proxy. Must not know how metrics are served.

use lateen_api::names::{annotation, port};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::InjectError;
use super::annotations::{Annotations, parse_bool};

/// Path of the merged metrics.
pub(crate) const MERGED_PATH: &str = "/stats/prometheus";

/// Scrape settings of the application, as the proxy reads them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Scrape {
    #[serde(skip_serializing_if = "String::is_empty")]
    scrape: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    path: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    port: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    targets: Vec<Target>,
}

/// One of several places to scrape.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Target {
    port: String,
    path: String,
}

impl Scrape {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What the application's annotations say, if metrics are to be merged.
pub(crate) fn merge(
    annotations: &Annotations,
    mesh_merges: bool,
    status_port: u16,
) -> Result<Option<Scrape>, InjectError> {
    let wanted = annotations.get(annotation::MERGE_METRICS).and_then(|value| parse_bool(value));
    if !wanted.unwrap_or(mesh_merges) {
        return Ok(None);
    }
    let text = |wanted: &str| {
        let key = annotations.keys().find(|key| sanitised(key) == sanitised(wanted))?;
        annotations.get(key).map(|value| (key.clone(), value.clone()))
    };
    let value = |key: &str| text(key).map(|(_, value)| value).unwrap_or_default();
    let scrape = value(annotation::PROMETHEUS_SCRAPE);
    if scrape == "false" {
        return Ok(None);
    }
    let targets = match annotations.get(annotation::SCRAPE_TARGETS) {
        Some(list) => targets(list)
            .map_err(|reason| InjectError::annotation(annotation::SCRAPE_TARGETS, reason))?,
        None => Vec::new(),
    };
    let found = Scrape {
        scrape,
        path: value(annotation::PROMETHEUS_PATH),
        port: value(annotation::PROMETHEUS_PORT),
        targets,
    };
    if let Some((key, wanted)) = text(annotation::PROMETHEUS_PORT) {
        refuse_own(&wanted, status_port).map_err(|reason| InjectError::annotation(&key, reason))?;
    }
    for target in &found.targets {
        refuse_own(&target.port, status_port)
            .map_err(|reason| InjectError::annotation(annotation::SCRAPE_TARGETS, reason))?;
    }
    Ok(Some(found))
}

/// The proxy must not be told to scrape itself.
fn refuse_own(text: &str, status_port: u16) -> Result<(), String> {
    match text.parse::<u16>() {
        Ok(number) if number == status_port || port::RESERVED.contains(&number) => {
            Err(format!("port {number} belongs to the proxy; name the application's port"))
        }
        _ => Ok(()),
    }
}

/// `8080:/metrics,9100:/x`.
fn targets(list: &str) -> Result<Vec<Target>, String> {
    let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    entries
        .map(|entry| {
            let (number, path) = entry.split_once(':').unwrap_or((entry, "/metrics"));
            match number.trim().parse::<u16>() {
                Ok(port) if port > 0 && path.starts_with('/') => {
                    Ok(Target { port: port.to_string(), path: path.to_owned() })
                }
                _ => Err(format!(
                    "{:?} is not PORT:/PATH",
                    entry.chars().take(64).collect::<String>()
                )),
            }
        })
        .collect()
}

/// Label names as Prometheus makes them of annotations.
fn sanitised(key: &str) -> String {
    key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// Puts back what the annotations said before an earlier injection.
pub(crate) fn restore(pod: &mut Value, recorded: Option<&str>) {
    let Some(annotations) = pod["metadata"]["annotations"].as_object_mut() else { return };
    if annotations.get(annotation::PROMETHEUS_PATH).is_none_or(|path| path != MERGED_PATH) {
        return;
    }
    let before: Scrape =
        recorded.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let values = [
        (annotation::PROMETHEUS_SCRAPE, before.scrape),
        (annotation::PROMETHEUS_PATH, before.path),
        (annotation::PROMETHEUS_PORT, before.port),
    ];
    for (key, value) in values {
        if value.is_empty() {
            annotations.remove(key);
        } else {
            annotations.insert(key.to_owned(), Value::from(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Scrape, merge};

    fn annotations(pairs: &[(&str, &str)]) -> super::Annotations {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn merging_is_off_when_someone_says_so() {
        assert!(merge(&annotations(&[]), false, 15020).unwrap().is_none());
        for pair in [
            ("prometheus.io/scrape", "false"),
            ("prometheus.io.scrape", "false"),
            ("prometheus.istio.io/merge-metrics", "false"),
        ] {
            assert!(merge(&annotations(&[pair]), true, 15020).unwrap().is_none(), "{pair:?}");
        }
        assert_eq!(merge(&annotations(&[]), true, 15020).unwrap(), Some(Scrape::default()));
    }

    #[test]
    fn what_was_said_is_handed_on() {
        let annotations = annotations(&[
            ("prometheus.io/scrape", "true"),
            ("prometheus.io/port", "8080"),
            ("prometheus.istio.io/scrape-targets", "8080:/metrics, 9100:/x"),
        ]);
        let scrape = merge(&annotations, true, 15020).unwrap().unwrap();
        assert_eq!(
            serde_json::to_string(&scrape).unwrap(),
            r#"{"scrape":"true","port":"8080","targets":[{"port":"8080","path":"/metrics"},{"port":"9100","path":"/x"}]}"#
        );
    }

    #[test]
    fn ports_of_the_proxy_are_refused_by_name() {
        for (key, value) in [
            ("prometheus.io/port", "15020"),
            ("prometheus.io/port", "15090"),
            ("prometheus.istio.io/scrape-targets", "15006:/x"),
            ("prometheus.istio.io/scrape-targets", "web:/x"),
        ] {
            let error = merge(&annotations(&[(key, value)]), true, 15020).unwrap_err();
            assert!(error.to_string().contains(key), "{error}");
        }
        assert!(merge(&annotations(&[("prometheus.io/port", "123")]), true, 123).is_err());
    }
}
