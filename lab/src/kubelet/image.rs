//! What runs where an image is named.
//!
//! Pure. Images are not run: a command stands in for each.

use lateen_api::core::Container;
use lateen_api::meta::Labels;

use crate::node::{Images, LAUNCHER};

/// Images whose last part begins so are ours.
const PROXY: &str = "proxyv2";

/// The command of a container before references are expanded. `command` of the container takes
/// the place of a command that was given for its image, as it does of an entry point.
pub(super) fn command(
    container: &Container,
    labels: &Labels,
    namespace: &str,
    images: &Images,
) -> Vec<String> {
    let image = container.image.as_deref().unwrap_or_default();
    let own = |entry: &[String]| {
        let program = if container.command.is_empty() { entry } else { &container.command };
        [program, &container.args].concat()
    };
    if let Some((_, entry)) = images.0.iter().find(|(name, _)| is(image, name)) {
        return own(entry);
    }
    if last_part(image).starts_with(PROXY) {
        return own(&["lateen-proxy".to_owned()]);
    }
    sample(container, labels, namespace)
}

/// The sample application on the declared ports. Without ports there is nothing to serve, but the
/// container stays.
fn sample(container: &Container, labels: &Labels, namespace: &str) -> Vec<String> {
    let is_tcp = |protocol: Option<&str>| protocol.is_none_or(|it| it == "TCP");
    let ports = container.ports.iter().filter(|port| is_tcp(port.protocol.as_deref()));
    let ports: Vec<String> = ports.map(|port| port.container_port.to_string()).collect();
    if ports.is_empty() {
        return vec![LAUNCHER.to_owned(), "pause".to_owned()];
    }
    let mut command = vec!["lateen-echo".to_owned(), "serve".to_owned()];
    for port in ports {
        command.extend(["--port".to_owned(), port]);
    }
    let label = |key: &str| labels.get(key).map(String::as_str).unwrap_or_default();
    let names = [
        ("--name", container.name.as_str()),
        ("--app", label("app")),
        ("--version", label("version")),
        ("--namespace", namespace),
    ];
    for (flag, value) in names {
        command.push(format!("{flag}={value}"));
    }
    command
}

/// Whether `name` names the image: whole, without its tag, or by its last part.
fn is(image: &str, name: &str) -> bool {
    let bare = without_tag(image);
    [image, bare, last_part(bare)].contains(&name)
}

fn last_part(image: &str) -> &str {
    image.rsplit('/').next().unwrap_or(image)
}

fn without_tag(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or(image);
    match image.rsplit_once(':') {
        // A port of a registry is followed by a path.
        Some((bare, tag)) if !tag.contains('/') => bare,
        _ => image,
    }
}

#[cfg(test)]
mod tests {
    use super::{Images, command, without_tag};
    use serde_json::{Value, json};

    fn of(container: &Value) -> String {
        let container = serde_json::from_value(container.clone()).unwrap();
        let labels = [("app".to_owned(), "cart".to_owned())].into();
        let curl = vec!["/usr/bin/curl".to_owned(), "-s".to_owned()];
        let images = Images(vec![("curl".to_owned(), curl)]);
        command(&container, &labels, "shop", &images).join(" ")
    }

    #[test]
    fn commands_stand_in_for_images() {
        let curl = "registry.test:5000/tools/curl:8@sha256:00";
        assert_eq!(of(&json!({"image": curl, "args": ["-v"]})), "/usr/bin/curl -s -v");
        let own = json!({"image": curl, "command": ["sleep"], "args": ["1"]});
        assert_eq!(of(&own), "sleep 1");
        let proxy = json!({"image": "x/proxyv2:1", "args": ["proxy", "sidecar"]});
        assert_eq!(of(&proxy), "lateen-proxy proxy sidecar");
        let init = json!({"image": "x/proxyv2-distroless", "command": ["lateen-init"]});
        assert_eq!(of(&init), "lateen-init");
    }

    #[test]
    fn everything_else_is_the_sample() {
        let echo = json!({"name": "c", "image": "a/curly", "command": ["x"], "ports":
            [{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}]});
        let wanted = "lateen-echo serve --port 80 --name=c --app=cart --version= --namespace=shop";
        assert_eq!(of(&echo), wanted);
        assert_eq!(of(&json!({"name": "c"})), "lateen-lab-launch pause");
    }

    #[test]
    fn tags_are_not_ports() {
        assert_eq!(without_tag("a:5000/b"), "a:5000/b");
        assert_eq!(without_tag("a:5000/b:1"), "a:5000/b");
    }
}
