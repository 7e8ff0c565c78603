//! What pods of the charts may do on a node.

use serde_json::{Value, json};

use crate::helm::{object, release, render};

/// What the Pod Security level `restricted` asks of a pod, as far as charts can break it.
fn restricted(pod: &Value) -> Vec<String> {
    let mut breaches = Vec::new();
    let mut ask = |fine: bool, what: &str| {
        if !fine {
            breaches.push(what.to_owned());
        }
    };
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        ask(pod.get(field).is_none(), field);
    }
    let volumes = pod["volumes"].as_array().into_iter().flatten();
    ask(volumes.clone().all(|volume| volume.get("hostPath").is_none()), "hostPath");
    ask(pod["securityContext"]["runAsNonRoot"] == true, "runAsNonRoot");
    ask(pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", "seccomp");
    for container in pod["containers"].as_array().unwrap() {
        let context = &container["securityContext"];
        ask(context["allowPrivilegeEscalation"] == false, "allowPrivilegeEscalation");
        ask(context["capabilities"] == json!({"drop": ["ALL"]}), "capabilities");
        ask(context["readOnlyRootFilesystem"] == true, "readOnlyRootFilesystem");
        ask(context.get("runAsUser").is_none_or(|user| *user != 0), "runAsUser");
    }
    breaches
}

#[tokio::test]
#[ignore = "builds Helm: make e2e"]
async fn the_control_plane_is_restricted() {
    let objects = render("lateend", release("lateend"), &[]).await.unwrap();
    let pod = &object(&objects, "Deployment", "istiod")["spec"]["template"]["spec"];
    assert_eq!(restricted(pod), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "builds Helm: make e2e"]
async fn the_node_agent_has_what_it_needs_and_no_more() {
    let objects = render("cni", release("cni"), &[]).await.unwrap();
    let pod = &object(&objects, "DaemonSet", "istio-cni-node")["spec"]["template"]["spec"];
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        assert!(pod.get(field).is_none(), "{field}");
    }
    let context = &pod["containers"][0]["securityContext"];
    assert_eq!(context["privileged"], false);
    assert_eq!(context["readOnlyRootFilesystem"], true);
    let needed = json!({
        "drop": ["ALL"], "add": ["NET_ADMIN", "SYS_ADMIN", "DAC_OVERRIDE", "CHOWN"],
    });
    assert_eq!(context["capabilities"], needed);
    let volumes = pod["volumes"].as_array().unwrap().iter();
    let paths: Vec<&str> =
        volumes.map(|volume| volume["hostPath"]["path"].as_str().unwrap()).collect();
    let expected = ["/opt/cni/bin", "/etc/cni/net.d", "/var/run/istio-cni", "/var/run/netns"];
    assert_eq!(paths, expected);
    assert_eq!(pod["priorityClassName"], "system-node-critical");
}
