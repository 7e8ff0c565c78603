//! From the specification of a container to what the launcher is told.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use lateen_api::core::Container;
use serde_json::Value;

use super::environment::{Environment, environment};
use super::facts::Facts;
use super::image::command;
use super::pod::PodContext;
use super::process::number;
use super::rights::rights;
use crate::launch::{self, BINARIES, Mount, Process};
use crate::node::NodeContext;

/// Where programs are looked for, ours aside.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const TERMINATION_LOG: &str = "/dev/termination-log";
/// More of a termination message is not kept.
const MAX_MESSAGE: usize = 4096;

/// What the launcher is told. Everything that can be missing or wrong is named.
pub(super) fn create(pod: &PodContext, container: &Container) -> Result<launch::Container, String> {
    let facts = pod.facts();
    let rights = rights(facts.pod.spec.security_context.as_ref(), container)?;
    let mut base = Environment::default();
    base.set("PATH", format!("{BINARIES}:{PATH}"));
    base.set("HOSTNAME", facts.hostname().to_owned());
    base.set("HOME", if rights.user == 0 { "/root" } else { "/" }.to_owned());
    let environment = environment(base, container, &facts, pod.api.as_ref())?;
    let labels = &facts.pod.metadata.labels;
    let words = command(container, labels, &facts.key.namespace, &pod.node.images);
    let words = words.iter().map(|word| environment.expand(word)).collect();
    let folder = own_folder(pod, container);
    let mut mounts = {
        let mut volumes = pod.volumes.lock();
        volumes.refresh(&facts)?;
        volumes.mounts(container, &facts, &environment)?
    };
    let message = message_file(pod, container);
    prepare(&folder, &message).map_err(|e| format!("{}: {e}", folder.display()))?;
    let path = container.extra.get("terminationMessagePath").and_then(Value::as_str);
    let target = PathBuf::from(path.unwrap_or(TERMINATION_LOG));
    mounts.push(Mount { source: message, target, read_only: false });
    let binaries = pod.node.binaries.clone();
    mounts.push(Mount { source: binaries, target: BINARIES.into(), read_only: true });
    let network = pod.network.get().cloned().ok_or("the pod has no network yet")?;
    Ok(launch::Container {
        status: PathBuf::new(),
        network,
        work: folder.join(number().to_string()),
        hostname: facts.hostname().to_owned(),
        etc: etc(&facts, &pod.node),
        mounts,
        read_only: rights.read_only,
        privileged: rights.privileged,
        process: Process {
            command: words,
            environment: environment.into_pairs(),
            folder: Path::new("/").join(container.working_dir.as_deref().unwrap_or("/")),
            user: rights.user,
            group: rights.group,
            groups: rights.groups,
            capabilities: rights.capabilities,
            no_new_privileges: rights.no_new_privileges,
        },
    })
}

/// What a container left as its last words.
pub(super) fn last_words(pod: &PodContext, container: &Container) -> String {
    let text = fs::read(message_file(pod, container)).unwrap_or_default();
    let text = text.get(..text.len().min(MAX_MESSAGE)).unwrap_or_default();
    String::from_utf8_lossy(text).trim_end().to_owned()
}

fn own_folder(pod: &PodContext, container: &Container) -> PathBuf {
    pod.folder.join("containers").join(&container.name)
}

fn message_file(pod: &PodContext, container: &Container) -> PathBuf {
    own_folder(pod, container).join("termination-log")
}

fn prepare(folder: &Path, message: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(message, "")?;
    fs::set_permissions(message, fs::Permissions::from_mode(0o666))
}

/// Files in `/etc`. Pure.
fn etc(facts: &Facts, node: &NodeContext) -> BTreeMap<String, String> {
    let files = [
        ("hosts", hosts(facts, node)),
        ("hostname", format!("{}\n", facts.hostname())),
        ("resolv.conf", resolver(facts, node)),
    ];
    files.map(|(name, text)| (name.to_owned(), text)).into()
}

fn hosts(facts: &Facts, node: &NodeContext) -> String {
    let mut lines = vec![
        "127.0.0.1\tlocalhost".to_owned(),
        "::1\tlocalhost ip6-localhost ip6-loopback".to_owned(),
    ];
    let spec = &facts.pod.spec;
    let full = spec.subdomain.as_ref().map(|subdomain| {
        let (name, namespace) = (facts.hostname(), &facts.key.namespace);
        format!("{name}.{subdomain}.{namespace}.svc.{}\t", node.cluster_domain)
    });
    for address in &facts.addresses {
        lines.push(format!("{address}\t{}{}", full.as_deref().unwrap_or(""), facts.hostname()));
    }
    lines.extend(node.hosts.iter().map(|(address, name)| format!("{address}\t{name}")));
    let aliases = spec.extra.get("hostAliases").and_then(Value::as_array);
    for alias in aliases.into_iter().flatten() {
        let names = alias["hostnames"].as_array().map(Vec::as_slice).unwrap_or_default();
        let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
        lines.push(format!("{}\t{}", alias["ip"].as_str().unwrap_or_default(), names.join("\t")));
    }
    lines.join("\n") + "\n"
}

fn resolver(facts: &Facts, node: &NodeContext) -> String {
    let spec = &facts.pod.spec.extra;
    let config = spec.get("dnsConfig").unwrap_or(&Value::Null);
    let list = |key: &str| -> Vec<String> {
        let list = config[key].as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter().filter_map(|it| it.as_str().map(str::to_owned)).collect()
    };
    let options = config["options"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut options: Vec<String> = options
        .iter()
        .map(|option| match (option["name"].as_str(), option["value"].as_str()) {
            (Some(name), Some(value)) => format!("{name}:{value}"),
            (name, _) => name.unwrap_or_default().to_owned(),
        })
        .collect();
    let (mut servers, mut search) = (Vec::new(), Vec::new());
    if spec.get("dnsPolicy").and_then(Value::as_str) != Some("None") {
        let (namespace, domain) = (&facts.key.namespace, &node.cluster_domain);
        servers.extend(node.gateway.iter().filter(|it| it.is_ipv4()).map(IpAddr::to_string));
        search.push(format!("{namespace}.svc.{domain}"));
        search.push(format!("svc.{domain}"));
        search.push(domain.clone());
        if !options.iter().any(|option| option.starts_with("ndots")) {
            options.push("ndots:5".to_owned());
        }
    }
    servers.extend(list("nameservers"));
    search.extend(list("searches"));
    let mut lines: Vec<String> =
        servers.iter().map(|server| format!("nameserver {server}")).collect();
    if !search.is_empty() {
        lines.push(format!("search {}", search.join(" ")));
    }
    if !options.is_empty() {
        lines.push(format!("options {}", options.join(" ")));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::{hosts, resolver};
    use crate::kubelet::facts::tests::facts;
    use crate::node::{Images, NodeContext};
    use serde_json::json;

    fn node() -> NodeContext {
        NodeContext {
            state: "/s".into(),
            binaries: "/b".into(),
            images: Images::default(),
            gateway: ["10.244.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            hosts: vec![("10.244.0.1".parse().unwrap(), "istiod.istio-system.svc".into())],
            cluster_domain: "cluster.local".into(),
            node_name: "lab".into(),
        }
    }

    #[test]
    fn names_are_those_of_the_pod_and_the_node() {
        let facts = facts(&json!({"subdomain": "carts",
            "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}));
        let text = hosts(&facts, &node());
        let own = "10.244.0.5\tcart-1.carts.shop.svc.cluster.local\tcart-1\n";
        for line in [own, "10.244.0.1\tistiod.istio-system.svc\n", "1.2.3.4\ta\tb\n"] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }

    #[test]
    fn resolvers_can_be_changed() {
        let plain = resolver(&facts(&json!({})), &node());
        let wanted = "nameserver 10.244.0.1\nsearch shop.svc.cluster.local svc.cluster.local \
                      cluster.local\noptions ndots:5\n";
        assert_eq!(plain, wanted);
        let own = json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["9.9.9.9"],
            "options": [{"name": "ndots", "value": "1"}, {"name": "edns0"}]}});
        let wanted = "nameserver 9.9.9.9\noptions ndots:1 edns0\n";
        assert_eq!(resolver(&facts(&own), &node()), wanted);
    }
}
