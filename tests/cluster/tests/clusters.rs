//! Whole clusters: two side by side, one of two nodes; nothing of them is left, however they end.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test may")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lateen_cluster::Kubectl;
use lateen_cluster::cluster::{BUSYBOX, Cluster};

/// A web server on every node, behind a Service of both families.
const WEB: &str = r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: web
          image: IMAGE
          args: ["-c", "mkdir /tmp/w; echo $NODE > /tmp/w/index.html; exec busybox httpd -f -p 8080 -h /tmp/w"]
          env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
          readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}], ipFamilyPolicy: PreferDualStack}
"#;

/// What a cluster must not change of the machine.
fn machine() -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for folder in ["/etc/cni", "/opt/cni", "/var/lib/kubelet", "/etc/containerd", "/run/netns"] {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            seen.insert(entry.path().display().to_string());
        }
    }
    for file in ["vm/overcommit_memory", "kernel/panic", "net/ipv4/ip_forward"] {
        let text = std::fs::read_to_string(Path::new("/proc/sys").join(file)).unwrap();
        seen.insert(format!("{file} {}", text.trim()));
    }
    for entry in std::fs::read_dir("/sys/class/net").unwrap().flatten() {
        seen.insert(format!("interface {}", entry.file_name().display()));
    }
    seen
}

/// What is left of a cluster: processes, mounts, cgroups, files.
fn left(name: &str, folder: &Path) -> Vec<String> {
    let path = folder.display().to_string();
    let mut left = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        if line.contains(&path) {
            left.push(format!("process {line}"));
        }
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    left.extend(mounts.lines().filter(|line| line.contains(&path)).map(str::to_owned));
    let mut groups = vec![PathBuf::from("/sys/fs/cgroup")];
    groups.extend(std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|it| it.path()));
    let groups = groups.iter().map(|group| group.join(format!("lateen-{name}")));
    left.extend(groups.filter(|path| path.exists()).map(|path| path.display().to_string()));
    left.extend(folder.exists().then(|| path.clone()));
    left
}

async fn fetch(kubectl: &Kubectl, url: &str) -> Result<String, String> {
    let command = ["exec", "shell", "--", "wget", "-qO-", url];
    let answer = kubectl.run(command).await.map_err(|error| error.to_string())?;
    Ok(answer.trim().to_owned())
}

/// Asks until every one of `nodes` has answered.
async fn all_answer(kubectl: &Kubectl, url: &str, nodes: &[&str]) {
    let start = Instant::now();
    let mut seen = BTreeSet::new();
    let mut last = String::new();
    while start.elapsed() < Duration::from_secs(60) {
        match fetch(kubectl, url).await {
            Ok(node) => drop(seen.insert(node)),
            Err(error) => last = error,
        }
        if nodes.iter().all(|node| seen.contains(*node)) {
            return;
        }
    }
    panic!("{url}: of {nodes:?} only {seen:?} answered; {last}");
}

async fn serves(cluster: &Cluster, nodes: &[&str]) {
    let kubectl = cluster.kubectl().await.unwrap();
    kubectl.apply(&WEB.replace("IMAGE", BUSYBOX)).await.unwrap();
    kubectl.run(["rollout", "status", "daemonset/web", "--timeout=60s"]).await.unwrap();
    let image = format!("--image={BUSYBOX}");
    let run = ["run", "shell", &image, "--restart=Never", "--", "-c", "sleep 3600"];
    kubectl.run(run).await.unwrap();
    let wait = ["wait", "--for=condition=Ready", "pod/shell", "--timeout=60s"];
    kubectl.run(wait).await.unwrap();
    all_answer(&kubectl, "http://web.default.svc.cluster.local/", nodes).await;
    if cluster.plan().ipv6 {
        let service = kubectl.json(&["get", "service", "web"]).await.unwrap();
        let address = service["spec"]["clusterIPs"][1].as_str().unwrap().to_owned();
        all_answer(&kubectl, &format!("http://[{address}]/"), nodes).await;
    }
    kubectl.run(["logs", "shell"]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "builds Kubernetes, as root: make e2e"]
async fn two_clusters_side_by_side_leave_nothing() {
    let before = machine();
    let clusters = tempfile::Builder::new().prefix("lateen-clusters-").tempdir_in("/var/tmp");
    let clusters = clusters.unwrap().keep();
    let names = ["one", "two"].map(|name| format!("{name}-{}", std::process::id()));
    let one = Cluster::up(&clusters, &names[0], 1).await.unwrap();
    let two = Cluster::up(&clusters, &names[1], 2).await.unwrap();
    tokio::join!(serves(&one, &["node1"]), serves(&two, &["node1", "node2"]));

    // A component that ends is started again, and pods have not noticed.
    one.kill("kube-apiserver").await.unwrap();
    let kubectl = one.kubectl().await.unwrap();
    let start = Instant::now();
    while kubectl.run(["get", "--raw", "/readyz"]).await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(60), "the API server does not come back");
    }
    let pods = kubectl.json(&["get", "pods", "--all-namespaces"]).await.unwrap();
    for pod in pods["items"].as_array().unwrap() {
        assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0, "{pod}");
    }

    // Killed, not ended: the kernel ends all; what is left then is removed by hand.
    let folder = one.folder().to_owned();
    let holder = std::fs::read_to_string(folder.join("holder")).unwrap();
    let pid = holder.split(' ').next().unwrap();
    let killed = std::process::Command::new("kill").args(["-KILL", pid]).status();
    assert!(killed.unwrap().success());
    one.down().await.unwrap();
    assert_eq!(left(&names[0], &folder), Vec::<String>::new());
    serves_still(&two).await;

    let folder = two.folder().to_owned();
    two.down().await.unwrap();
    assert_eq!(left(&names[1], &folder), Vec::<String>::new());
    assert!(!clusters.exists());
    assert_eq!(machine(), before);
}

async fn serves_still(cluster: &Cluster) {
    let kubectl = cluster.kubectl().await.unwrap();
    all_answer(&kubectl, "http://web/", &["node1", "node2"]).await;
}
