//! Pods in real namespaces, with a fake API server. They make their own namespaces, as root or as
//! ordinary user with subordinate ids, and leave nothing behind.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that panics has failed")]

mod stage;

use std::time::Duration;

use serde_json::{Value, json};
use stage::{Outside, Stage, alive, key, on_node, pod};

fn sidecar_pod() -> Value {
    json!({
        "terminationGracePeriodSeconds": 10,
        "serviceAccountName": "cart",
        "securityContext": {"fsGroup": 1337},
        "initContainers": [
            {"name": "first", "image": "sh", "args": ["umask 0; echo first >> /shared/order"],
             "volumeMounts": [{"name": "shared", "mountPath": "/shared"}]},
            {"name": "proxy", "image": "sh", "restartPolicy": "Always",
             "args": ["echo proxy >> /shared/order; \
                       trap 'echo proxy ended $(date +%s%N); exit 0' TERM; \
                       sleep 0.3; touch /shared/started; while :; do sleep 0.05; done"],
             "startupProbe": {"exec": {"command": ["test", "-e", "/shared/started"]},
                "periodSeconds": 1},
             "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", "echo $$ > /dev/null"]}}},
             "securityContext": {"runAsUser": 1337, "runAsGroup": 1337, "runAsNonRoot": true,
                "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]}},
             "env": [{"name": "POD_IPS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIPs"}}}],
             "volumeMounts": [{"name": "shared", "mountPath": "/shared"},
                {"name": "data", "mountPath": "/var/lib/istio/data"},
                {"name": "config", "mountPath": "/var/run/secrets/istio"},
                {"name": "none", "mountPath": "/var/run/secrets/istio/crl"},
                {"name": "token", "mountPath": "/var/run/secrets/tokens"},
                {"name": "info", "mountPath": "/etc/istio/pod"}]},
            {"name": "second", "image": "sh", "args": ["test -e /shared/started && \
                echo second >> /shared/order"],
             "volumeMounts": [{"name": "shared", "mountPath": "/shared"}]},
        ],
        "containers": [
            {"name": "app", "image": "sh", "args":
                ["echo app >> /shared/order; lateen-echo serve --port 8080 & \
                  trap 'echo app ended $(date +%s%N); exit 0' TERM; \
                  while :; do sleep 0.05; done"],
             "ports": [{"name": "http", "containerPort": 8080}],
             "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1},
             "env": [{"name": "ME", "value": "$(HOSTNAME)"}],
             "volumeMounts": [{"name": "shared", "mountPath": "/shared"},
                {"name": "config", "mountPath": "/app/only/here.txt", "subPath": "ca"}]},
        ],
        "volumes": [
            {"name": "shared", "emptyDir": {}},
            {"name": "data", "emptyDir": {"medium": "Memory"}},
            {"name": "config", "configMap": {"name": "config"}},
            {"name": "none", "configMap": {"name": "none", "optional": true}},
            {"name": "token", "projected": {"sources": [{"serviceAccountToken":
                {"audience": "istio-ca", "expirationSeconds": 4, "path": "istio-token"}}]}},
            {"name": "info", "downwardAPI": {"items":
                [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        ],
    })
}

#[test]
fn a_pod_starts_in_order_serves_and_ends() {
    on_node("a_pod_starts_in_order_serves_and_ends", async |state| {
        let stage = Stage::start(&state).await;
        let config = [("ca".to_owned(), "one".to_owned())].into();
        stage.api.config_maps.lock().insert("config".into(), config);
        stage.kubelet.run(pod("cart", &sidecar_pod()));
        let status = stage.ready("cart").await;
        assert_eq!(status.pod_ips.len(), 2, "{status:?}");
        assert_eq!(stage.ok("cart", "cat /shared/order").await, "first\nproxy\nsecond\napp");
        is_confined(&stage).await;
        has_volumes(&stage).await;
        let hosts = stage.ok("cart", "cat /etc/hosts /etc/resolv.conf; hostname; echo $ME").await;
        for text in ["istiod.istio-system.svc", "search shop.svc.cluster.local", "\ncart\ncart"] {
            assert!(hosts.contains(text), "{text}: {hosts}");
        }
        stage.kubelet.remove(&key("cart")).await;
        let at = |log: String, name: &str| -> u64 {
            let line = log.lines().find(|line| line.contains("ended")).unwrap_or_else(|| {
                panic!("{name} was not asked to end: {log}");
            });
            line.rsplit(' ').next().unwrap().parse().unwrap()
        };
        let app = at(stage.log("cart", "app"), "app");
        let proxy = at(stage.log("cart", "proxy"), "proxy");
        assert!(app < proxy, "the sidecar ended {} ns before the app", app - proxy);
        stage.end().await;
    });
}

async fn is_confined(stage: &Stage) {
    let status = "id -u; id -g; id -G; grep -E 'CapBnd|CapEff|NoNewPrivs' /proc/self/status";
    let (_, text) = stage.exec("cart", Some("proxy"), status).await;
    let words: Vec<&str> = text.split_whitespace().collect();
    let none = "0000000000000000";
    assert_eq!(
        words,
        ["1337", "1337", "1337", "CapEff:", none, "CapBnd:", none, "NoNewPrivs:", "1"]
    );
    for path in ["/tmp/x", "/x", "/etc/x", "/var/x", "/run/x", "/etc/istio/pod/x"] {
        let (code, text) = stage.exec("cart", Some("proxy"), &format!("touch {path}")).await;
        assert_ne!(code, 0, "{path} can be written");
        let ro = text.contains("Read-only") || text.contains("Permission denied");
        assert!(ro, "{text}");
    }
    let eff = stage
        .ok("cart", "grep CapBnd /proc/self/status; id -u; touch /etc/x /usr/x; ls /usr/x")
        .await;
    assert_eq!(eff, "CapBnd:\t00000000a80425fb\n0\n/usr/x", "root has the default set");
    let (code, _) = stage.exec("cart", None, "echo 0 > /proc/sys/kernel/core_uses_pid").await;
    assert_ne!(code, 0, "a container may change the machine");
    let (code, _) = stage.exec("cart", None, "ip link add more0 type bridge").await;
    assert_ne!(code, 0, "root of a container may change the network");
    let (code, text) = stage.exec("cart", None, "exit 7").await;
    assert_eq!((code, text.as_str()), (7, ""));
    assert_eq!(
        stage.ok("cart", "echo out > /dev/stdout; echo $((1 + 1)) > /dev/null").await,
        "out"
    );
    let (_, pids) = stage.exec("cart", Some("proxy"), "cat /proc/1/cmdline | tr '\\0' ' '").await;
    assert!(pids.starts_with("/bin/sh -c"), "{pids}");
    let (code, text) = stage.exec_root("cart", "id -u; ip -br addr show eth0; ls -d /proc/1").await;
    assert!(code == 0 && text.starts_with("0\n") && text.contains("fd00:10:244::"), "{text}");
    let (code, text) = stage.exec_root("cart", "ip link add more0 type bridge").await;
    assert_eq!((code, text.as_str()), (0, ""));
}

async fn has_volumes(stage: &Stage) {
    let read = async |file: &str| {
        let (_, text) = stage.exec("cart", Some("proxy"), &format!("cat {file}")).await;
        text
    };
    assert_eq!(read("/var/run/secrets/istio/ca").await, "one");
    assert_eq!(read("/etc/istio/pod/labels").await, "app=\"cart\"");
    assert_eq!(
        read("/app/only/here.txt").await,
        "cat: /app/only/here.txt: No such file or directory"
    );
    assert_eq!(stage.ok("cart", "cat /app/only/here.txt").await, "one");
    let first = read("/var/run/secrets/tokens/istio-token").await;
    assert!(first.starts_with("cart|Some(\"istio-ca\")|"), "{first}");
    let write = "touch /var/lib/istio/data/x; stat -c '%u %g' /var/lib/istio/data/x";
    let (_, text) = stage.exec("cart", Some("proxy"), write).await;
    assert_eq!(text, "1337 1337");
    let config = [("ca".to_owned(), "two".to_owned())].into();
    stage.api.config_maps.lock().insert("config".into(), config);
    let until = "until grep -q two /var/run/secrets/istio/ca && \
                 ! grep -qxF \"$OLD\" /var/run/secrets/tokens/istio-token; do sleep 0.05; done";
    let script = format!("OLD='{first}'; {until}");
    let renewed = stage.exec("cart", Some("proxy"), &script);
    let renewed = tokio::time::timeout(Duration::from_secs(20), renewed).await;
    assert_eq!(renewed.expect("volumes are kept up to date").0, 0);
}

#[test]
fn pods_reach_each_other_and_are_seen_on_the_bridge() {
    on_node("pods_reach_each_other_and_are_seen_on_the_bridge", async |state| {
        let stage = Stage::start(&state).await;
        let spec = json!({"terminationGracePeriodSeconds": 3, "containers": [{"name": "echo",
            "image": "any/echo:1", "ports": [{"containerPort": 80}],
            "readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1}}]});
        let started = std::time::Instant::now();
        for name in ["a", "b", "c", "d", "e"] {
            stage.kubelet.run(pod(name, &spec));
        }
        for name in ["a", "b", "c", "d", "e"] {
            stage.ready(name).await;
        }
        println!("5 pods ready after {:?}", started.elapsed());
        let b = stage.ready("b").await;
        let file = tempfile::tempfile().unwrap();
        let capture = stage.node.capture(Duration::from_secs(2), file.try_clone().unwrap().into());
        let ask = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            for ip in &b.pod_ips {
                let ip = if ip.ip.contains(':') { format!("[{}]", ip.ip) } else { ip.ip.clone() };
                let text = stage.ok("a", &format!("lateen-echo get http://{ip}/secret-path")).await;
                assert!(text.contains("\"last_status\":200"), "{text}");
            }
        };
        let (frames, ()) = tokio::join!(capture, ask);
        let mut bytes = Vec::new();
        use std::io::{Read, Seek};
        let mut file = file;
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        let seen = bytes.windows(11).filter(|window| *window == b"secret-path").count();
        // The request and the answer that repeats it, each once, by IPv4 and IPv6.
        assert!(frames.unwrap() > 10);
        assert_eq!(seen, count_in_one_exchange() * 2, "a frame is missed or seen twice");
        stage.end().await;
    });
}

/// How often the path is on the wire for one request: asked, and said in the answer.
fn count_in_one_exchange() -> usize {
    2
}

#[test]
fn what_fails_is_told_and_tried_again() {
    on_node("what_fails_is_told_and_tried_again", async |state| {
        let stage = Stage::start(&state).await;
        let refuse = "#!/bin/sh\nread -r conf\n[ $CNI_COMMAND = DEL ] && exit 0\n\
            if [ ! -e $0.seen ]; then touch $0.seen; \
            echo '{\"code\": 11, \"msg\": \"the node agent is away\"}'; exit 1; fi\n\
            echo \"$conf\" | sed 's/.*\"prevResult\"://; s/}$//'\n";
        let program = stage.context.binaries.join("refuse");
        std::fs::write(&program, refuse).unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let file = stage.context.network_file();
        let mut list: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        list["plugins"].as_array_mut().unwrap().push(json!({"type": "refuse"}));
        std::fs::write(&file, list.to_string()).unwrap();
        let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [
            {"name": "weak", "image": "sh", "args": ["echo last words; echo why > /dev/termination-log; exit 3"]},
            {"name": "sick", "image": "sh", "args": ["while :; do sleep 0.1; done"],
                "livenessProbe": {"exec": {"command": ["false"]}, "periodSeconds": 1,
                    "failureThreshold": 1}},
            {"name": "gone", "image": "sh", "command": ["/no/such/program"]}]});
        stage.kubelet.run(pod("poor", &spec));
        let told = stage.wait("all three are started again", |told| {
            let restarts = |name: &str| {
                let status = told.statuses.get(&key("poor"))?;
                status
                    .container_statuses
                    .iter()
                    .find(|it| it.name == name)
                    .map(|it| it.restart_count)
            };
            restarts("weak") >= Some(2) && restarts("sick") >= Some(1)
        });
        let told = told.await;
        let has = |reason: &str, text: &str| {
            let found = told.events.iter().any(|(r, m)| r == reason && m.contains(text));
            assert!(found, "no event {reason} {text:?} in {:#?}", told.events);
        };
        has("FailedCreatePodSandBox", "plugin refuse failed with code 11: the node agent is away");
        has("BackOff", "container weak ended with 3; its log ends: last words");
        has("Unhealthy", "container sick: its liveness probe failed");
        has("Failed", "container gone: /no/such/program: No such file or directory");
        let statuses = &told.statuses[&key("poor")].container_statuses;
        let weak = statuses.iter().find(|it| it.name == "weak").unwrap();
        let last = &weak.extra["lastState"]["terminated"];
        assert_eq!((&last["exitCode"], &last["message"]), (&json!(3), &json!("why")));
        stage.end().await;
    });
}

#[test]
fn a_pod_that_runs_to_its_end_ends_its_sidecars() {
    on_node("a_pod_that_runs_to_its_end_ends_its_sidecars", async |state| {
        let stage = Stage::start(&state).await;
        let spec = json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
            "initContainers": [
                {"name": "proxy", "image": "x/y", "restartPolicy": "Always"},
                {"name": "short", "image": "sh", "command": ["/bin/true"]}],
            "containers": [{"name": "job", "image": "sh", "args": ["sleep 0.2"]}]});
        stage.kubelet.run(pod("job", &spec));
        let told = stage.wait("it has succeeded", |told| {
            let status = told.statuses.get(&key("job"));
            let ended = |status: &lateen_api::core::PodStatus| {
                let proxy = &status.init_container_statuses[0];
                proxy.state.as_ref().is_some_and(|state| state.get("terminated").is_some())
            };
            status.is_some_and(|it| it.phase.as_deref() == Some("Succeeded") && ended(it))
        });
        let told = told.await;
        assert_eq!(told.events, [], "a pod that does well has nothing to say");
        // Short programs in number: none may be taken for one that did not start.
        let spec = json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "short", "image": "sh", "command": ["/bin/true"]}]});
        for number in 0..20 {
            stage.kubelet.run(pod(&format!("short-{number}"), &spec));
        }
        let told = stage.wait("all have succeeded", |told| {
            let ended = |status: &lateen_api::core::PodStatus| {
                ["Succeeded", "Failed"].contains(&status.phase.as_deref().unwrap_or_default())
            };
            told.statuses.values().filter(|status| ended(status)).count() == 21
        });
        let told = told.await;
        assert_eq!(told.events, []);
        let done = |it: &lateen_api::core::PodStatus| it.phase.as_deref() == Some("Succeeded");
        assert!(told.statuses.values().all(done), "{:#?}", told.statuses);
        stage.end().await;
    });
}

#[test]
fn hooks_are_waited_for_and_the_deaf_are_killed() {
    on_node("hooks_are_waited_for_and_the_deaf_are_killed", async |state| {
        let stage = Stage::start(&state).await;
        let shared = json!([{"name": "shared", "mountPath": "/shared"}]);
        let spec = json!({"terminationGracePeriodSeconds": 2, "volumes": [{"name": "shared"}],
            "containers": [
                {"name": "first", "image": "sh", "volumeMounts": shared,
                 "args": ["trap '' TERM; while :; do sleep 0.05; done"],
                 "lifecycle": {"postStart": {"exec": {"command":
                    ["sh", "-c", "sleep 0.3; echo hooked >> /shared/order"]}},
                    "preStop": {"exec": {"command": ["sh", "-c", "echo stopping > /proc/1/fd/1"]}}}},
                {"name": "second", "image": "sh", "volumeMounts": shared,
                 "args": ["echo second >> /shared/order; exec sleep 1000"]}]});
        stage.kubelet.run(pod("deaf", &spec));
        stage.ready("deaf").await;
        let order =
            "until [ $(wc -l < /shared/order) = 2 ]; do sleep 0.02; done; cat /shared/order";
        assert_eq!(stage.ok("deaf", order).await, "hooked\nsecond");
        let started = std::time::Instant::now();
        stage.kubelet.remove(&key("deaf")).await;
        let took = started.elapsed();
        assert!(took >= Duration::from_secs(2), "it was not given its time: {took:?}");
        assert!(took < Duration::from_secs(8), "it was not killed: {took:?}");
        assert_eq!(stage.log("deaf", "first"), "stopping\n");
        stage.end().await;
    });
}

#[test]
fn a_program_is_told_to_end() {
    on_node("a_program_is_told_to_end", async |state| {
        let stage = Stage::start(&state).await;
        let loops = "trap 'exit 0' TERM; touch /tmp/listens; while :; do sleep 0.05; done";
        let spec = json!({"terminationGracePeriodSeconds": 60,
            "containers": [{"name": "a", "image": "sh", "args": [loops]}]});
        stage.kubelet.run(pod("polite", &spec));
        stage.ready("polite").await;
        stage.ok("polite", "until [ -e /tmp/listens ]; do sleep 0.02; done").await;
        let started = std::time::Instant::now();
        stage.kubelet.remove(&key("polite")).await;
        let took = started.elapsed();
        assert!(took < Duration::from_secs(20), "it did not hear SIGTERM: {took:?}");
        stage.end().await;
    });
}

#[test]
fn a_pod_that_waits_for_something_can_be_removed() {
    on_node("a_pod_that_waits_for_something_can_be_removed", async |state| {
        let stage = Stage::start(&state).await;
        let setting = json!([{"name": "net.ipv4.tcp_keepalive_time", "value": "77"}]);
        let spec = json!({"securityContext": {"sysctls": setting}, "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "a", "image": "sh", "args": ["exec sleep 1000"]}],
            "volumes": [{"name": "v", "configMap": {"name": "later"}}]});
        for name in ["waits", "starts"] {
            stage.kubelet.run(pod(name, &spec));
        }
        let missing = "volume v: there is no ConfigMap shop/later";
        let named = stage.wait("the missing object is named", |told| {
            told.events.iter().any(|(reason, text)| reason == "FailedMount" && text == missing)
        });
        named.await;
        stage.kubelet.remove(&key("waits")).await;
        stage.api.config_maps.lock().insert("later".into(), [].into());
        stage.ready("starts").await;
        assert_eq!(stage.ok("starts", "cat /proc/sys/net/ipv4/tcp_keepalive_time").await, "77");
        stage.end().await;
    });
}

#[test]
fn nothing_outlives_a_killed_node() {
    let test = "nothing_outlives_a_killed_node";
    if std::process::id() == 1 {
        on_node(test, async |state| {
            let stage = Stage::start(&state).await;
            let spec =
                json!({"containers": [{"name": "a", "image": "sh", "args": ["sleep 86399.5"]}]});
            stage.kubelet.run(pod("a", &spec));
            stage.ready("a").await;
            std::fs::write(state.join("ready"), "").unwrap();
            std::future::pending::<()>().await;
        });
        return;
    }
    let outside = Outside::enter(test);
    let ready = outside.folder.path().join("ready");
    outside.wait("the node does not come up", || ready.exists() || !alive(outside.pid()));
    assert!(ready.exists(), "{}", outside.output());
    let inside = sleepers(&outside);
    assert!(!inside.is_empty());
    let pid = nix::unistd::Pid::from_raw(outside.entered.pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    outside.wait("processes are left", || inside.iter().all(|pid| !alive(*pid)));
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let path = outside.folder.path().to_string_lossy().into_owned();
    assert!(!mounts.contains(&path), "{mounts}");
    lateen_lab::node::remove_state(outside.folder.path()).unwrap();
    assert!(!outside.folder.path().exists());
}

/// The processes of the container, as seen from outside: those with its log open.
fn sleepers(outside: &Outside) -> Vec<u32> {
    let log = outside.folder.path().join("logs/shop_a_a.log");
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let output = std::fs::read_link(format!("/proc/{pid}/fd/1"));
        let is_sleep = arguments.windows(7).any(|window| window == b"86399.5");
        // Another user's files are not shown; its arguments are.
        is_sleep && output.map_or(true, |output| output == log)
    })
    .collect()
}
