//! What holds for any bytes on stdin, in `CNI_ARGS`, in the environment and on the socket.

use lateen_cni::netconf::{NetConf, PodRef, VERSIONS};
use lateen_cni::plugin::run;
use lateen_cni::protocol::{Answer, Request, receive};
use lateen_cni::settings::Invocation;
use proptest::prelude::{Strategy, any, prop_oneof, proptest};
use proptest::sample::{Index, select};
use serde_json::{Value, json};

fn conf() -> Vec<u8> {
    json!({"cniVersion": "1.1.0", "name": "net", "type": "lateen-cni",
        "cni_agent_run_dir": "/nowhere", "exclude_namespaces": ["kube-system"],
        "prevResult": {"cniVersion": "1.1.0", "interfaces": [], "dns": {"nameservers": ["::1"]}}})
    .to_string()
    .into_bytes()
}

/// Bytes, JSON of any shape, and a good configuration with one byte changed or its end cut off.
fn stdin() -> impl Strategy<Value = Vec<u8>> {
    let damaged = (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| {
        let mut text = conf();
        let at = at.index(text.len());
        text[at] = byte;
        text
    });
    let cut = any::<Index>().prop_map(|at| {
        let mut text = conf();
        text.truncate(at.index(text.len()));
        text
    });
    let other = select(vec!["[]", "null", "1e400", "{}", "{\"cniVersion\":[]}", "\"\""]);
    prop_oneof![any::<Vec<u8>>(), damaged, cut, other.prop_map(|text| text.as_bytes().to_vec())]
}

proptest! {
    #[test]
    fn any_configuration_is_read_or_refused_with_a_code(bytes in stdin()) {
        match NetConf::parse(&bytes) {
            Ok(conf) => assert!(VERSIONS.contains(&conf.version.as_str())),
            Err(error) => assert!([1, 6].contains(&error.code), "{error:?}"),
        }
    }

    #[test]
    fn any_call_ends_in_json_of_the_specification(
        bytes in stdin(),
        verb in prop_oneof![
            select(vec!["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"]).prop_map(str::to_owned),
            any::<String>(),
        ],
        container in "[a-z.]{0,3}", args in any::<String>(), netns in "/?[a-z]{0,3}",
    ) {
        let invocation = Invocation::from_variables(|name| match name {
            "CNI_COMMAND" => Some(verb.clone()),
            "CNI_CONTAINERID" => Some(container.clone()),
            "CNI_NETNS" => Some(netns.clone()),
            "CNI_IFNAME" => Some("eth0".to_owned()),
            "CNI_ARGS" => Some(args.clone()),
            _ => None,
        });
        match run(invocation, &bytes) {
            Ok(text) if text.is_empty() => {}
            Ok(text) => assert!(serde_json::from_str::<Value>(&text).unwrap().is_object()),
            Err((version, error)) => {
                let printed: Value = serde_json::from_str(&error.json(&version)).unwrap();
                assert!(VERSIONS.contains(&printed["cniVersion"].as_str().unwrap()));
                assert!([1, 4, 6, 7, 11, 50].contains(&error.code), "{error:?}");
                assert!(!printed["msg"].as_str().unwrap().is_empty());
            }
        }
    }

    #[test]
    fn a_pod_that_is_named_is_safe_in_a_file_name(
        namespace in prop_oneof![any::<String>(), "[a-z./_]{1,8}"],
        name in prop_oneof![any::<String>(), "[a-z./_]{1,8}"],
        rest in any::<String>(),
    ) {
        let args = format!("{rest};K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}");
        if let Ok(Some(pod)) = PodRef::parse(&args) {
            for part in [&pod.namespace, &pod.name] {
                assert!(!part.contains(['/', '_', '\0']) && !part.starts_with('.'), "{pod:?}");
            }
        }
    }

    #[test]
    fn any_line_on_the_socket_is_read_or_refused(bytes in any::<Vec<u8>>()) {
        let mut line = bytes;
        line.push(b'\n');
        for end in [line.len(), line.len() - 1] {
            if receive::<Request>(&line[..end]).is_ok() || receive::<Answer>(&line[..end]).is_ok() {
                panic!("chance wrote a message: {line:?}");
            }
        }
    }
}
