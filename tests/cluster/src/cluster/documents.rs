//! Configuration files of the programs of a node, as pure functions.

use std::path::Path;

use serde_json::{Value, json};

use super::Plan;

/// Image of the first container of every pod.
pub(super) const PAUSE: &str = "lateen.test/pause:1";
/// Where containerd listens.
pub(super) const CONTAINERD: &str = "/run/containerd/containerd.sock";
/// Where containerd tells what it has counted.
pub(crate) const METRICS: &str = "127.0.0.1:1338";
/// Where the network configuration is.
pub(super) const NETWORKS: &str = "/etc/cni/net.d";
/// Where network plugins are.
pub(super) const PLUGINS: &str = "/opt/cni/bin";

/// What this machine can do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Machine {
    /// Whether layers can be stacked in the cluster's folder.
    pub(super) overlay: bool,
    /// Whether a process may be made less likely to be killed.
    pub(super) resource: bool,
}

/// containerd's configuration, TOML.
pub(super) fn containerd(machine: Machine) -> String {
    let snapshotter = if machine.overlay { "overlayfs" } else { "native" };
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = 0
[grpc]
address = "{CONTAINERD}"
[metrics]
address = "{METRICS}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
restrict_oom_score_adj = {restrict}
tolerate_missing_hugetlb_controller = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "{snapshotter}"
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{PLUGINS}"
conf_dir = "{NETWORKS}"
"#,
        restrict = !machine.resource,
    )
}

/// The network of pods: a bridge on every node, ways between them are the nodes' routes.
pub(super) fn network(plan: &Plan, node: u8) -> Value {
    let ranges: Vec<_> =
        plan.pod_ranges(node).iter().map(|range| json!([{ "subnet": range }])).collect();
    let mut routes = vec![json!({ "dst": "0.0.0.0/0" })];
    if plan.ipv6 {
        routes.push(json!({ "dst": "::/0" }));
    }
    json!({
        "cniVersion": "1.0.0",
        "name": "cluster",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "hairpinMode": true,
                "ipam": { "type": "host-local", "ranges": ranges, "routes": routes },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
}

/// The kubelet's configuration.
pub(super) fn kubelet(plan: &Plan, node: u8, certificates: &Path) -> Value {
    let file = |name: &str| certificates.join(name).display().to_string();
    let name = plan.node_name(node);
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": file("ca.crt") },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": file(&format!("{name}.crt")),
        "tlsPrivateKeyFile": file(&format!("{name}.key")),
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD}"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": plan.cgroup(node),
        "failCgroupV1": false,
        "failSwapOn": false,
        "oomScoreAdj": 0,
        "clusterDNS": [plan.dns_address()],
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        "maxPods": 200,
        "serializeImagePulls": false,
        // A crash in a test is told, not waited out.
        "crashLoopBackOff": { "maxContainerRestartPeriod": "10s" },
        // The machine's disk is not the cluster's to judge, and its images cannot be pulled again.
        "evictionHard": {
            "memory.available": "50Mi",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
            "imagefs.inodesFree": "0%",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    })
}

/// kube-proxy's configuration.
pub(super) fn proxy(plan: &Plan, node: u8, kubeconfig: &Path) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": { "kubeconfig": kubeconfig.display().to_string() },
        "hostnameOverride": plan.node_name(node),
        "mode": "nftables",
        "clusterCIDR": plan.pods_range().join(","),
        "oomScoreAdj": 0,
        // Only the machine's own namespace may set these.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
        "nftables": { "minSyncPeriod": "100ms" },
        "metricsBindAddress": "127.0.0.1:10249",
    })
}

/// CoreDNS, YAML.
pub(super) fn coredns(plan: &Plan) -> String {
    include_str!("../../manifests/coredns.yaml").replace("DNS_ADDRESS", &plan.dns_address())
}
