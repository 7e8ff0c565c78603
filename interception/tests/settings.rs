//! Any settings and any pod become a plan or an error, never a panic.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use clap::Parser;
use lateen_interception::settings::flags::{Flags, Surroundings};
use lateen_interception::settings::pod::{self, from_pod};
use lateen_interception::settings::{DnsCapture, OwnerGroups, PortSelection, RangeSelection};
use lateen_interception::{RedirectPlan, Settings, render};
use proptest::prelude::*;
use serde_json::{Value, json};

fn pod(annotations: &Value, proxy: &Value) -> Value {
    let mut container = json!({"name": "istio-proxy"});
    for (key, value) in proxy.as_object().unwrap() {
        container[key] = value.clone();
    }
    json!({"metadata": {"annotations": annotations}, "spec": {"initContainers": [container]}})
}

fn settings(annotations: &Value, proxy: &Value) -> Settings {
    from_pod(&pod(annotations, proxy)).unwrap().settings.unwrap()
}

#[test]
fn a_pod_without_annotations_is_captured_whole() {
    let found = settings(&json!({}), &json!({}));
    assert_eq!(found.inbound_ports, PortSelection::All);
    assert_eq!(found.inbound_ports_exclude, [15020, 15021, 15090]);
    assert_eq!(found.outbound_ranges, RangeSelection::All);
    assert_eq!(found.outbound_ports_exclude, [15020]);
    assert_eq!((found.proxy_uids, found.proxy_gids), (vec![1337], vec![1337]));
}

#[test]
fn fields_of_a_pod_become_settings() {
    let found = settings(
        &json!({pod::INCLUDE_INBOUND_PORTS: "", pod::EXCLUDE_INBOUND_PORTS: "3306",
            pod::INCLUDE_OUTBOUND_RANGES: "127.0.0.0/8", pod::KUBEVIRT_INTERFACES: "net1"}),
        &json!({"securityContext": {"runAsUser": 1_000_670_000, "runAsGroup": 0},
            "env": [{"name": "ISTIO_META_DNS_CAPTURE", "value": "true"}]}),
    );
    assert_eq!(found.inbound_ports, PortSelection::Only(Vec::new()));
    assert_eq!(found.inbound_ports_exclude, [3306, 15020, 15021, 15090]);
    assert_eq!((found.proxy_uids[0], found.proxy_gids[0]), (1_000_670_000, 1337));
    assert_eq!(found.dns, DnsCapture::All);
    assert_eq!(found.reroute_interfaces[0].name(), "net1");
    assert!(found.captures_loopback());
}

#[test]
fn the_order_of_ports_is_no_difference() {
    let plan = |list: &str| {
        RedirectPlan::new(&settings(&json!({pod::EXCLUDE_OUTBOUND_PORTS: list}), &json!({})))
    };
    assert_eq!(plan("80,443,80"), plan("443,80"));
    assert_ne!(plan("80,443"), plan("80"));
}

#[test]
fn what_cannot_be_honoured_names_the_annotation() {
    for (annotation, value) in [
        (pod::MODE, "WRONG"),
        (pod::EXCLUDE_OUTBOUND_PORTS, "80,abc"),
        (pod::EXCLUDE_OUTBOUND_RANGES, "*"),
        (pod::INCLUDE_OUTBOUND_RANGES, "10.0.0.0/8,*"),
        (pod::EXCLUDE_INTERFACES, "eth0/../1"),
    ] {
        let error = from_pod(&pod(&json!({annotation: value}), &json!({}))).unwrap_err();
        assert!(error.to_string().contains(annotation), "{error}");
    }
    let none = from_pod(&pod(&json!({pod::MODE: "NONE"}), &json!({}))).unwrap();
    assert_eq!(none.settings, None);
}

#[test]
fn hostile_lists_are_refused_by_name_in_few_words() {
    let long = "9".repeat(200_000);
    for (annotation, value) in [
        (pod::EXCLUDE_OUTBOUND_PORTS, "80;flush ruleset"),
        (pod::EXCLUDE_OUTBOUND_PORTS, "80\n-A OUTPUT -j ACCEPT"),
        (pod::EXCLUDE_OUTBOUND_PORTS, "$(reboot)"),
        (pod::INCLUDE_INBOUND_PORTS, "\u{0}"),
        (pod::INCLUDE_INBOUND_PORTS, "-80"),
        (pod::INCLUDE_INBOUND_PORTS, "８０"),
        (pod::INCLUDE_INBOUND_PORTS, "80-90"),
        (pod::EXCLUDE_INBOUND_PORTS, long.as_str()),
        (pod::INCLUDE_OUTBOUND_RANGES, "10.0.0.0/8 0.0.0.0/0"),
        (pod::INCLUDE_OUTBOUND_RANGES, "10.0.0.0/-1"),
        (pod::INCLUDE_OUTBOUND_RANGES, "10.0.0/8"),
        (pod::EXCLUDE_OUTBOUND_RANGES, "fe80::1%eth0"),
        (pod::EXCLUDE_OUTBOUND_RANGES, "::/129"),
        (pod::EXCLUDE_OUTBOUND_RANGES, "kube-dns.kube-system"),
        (pod::EXCLUDE_INTERFACES, "eth0\" counter drop"),
        (pod::EXCLUDE_INTERFACES, "--help"),
        (pod::REROUTE_INTERFACES, "net1\u{202e}"),
    ] {
        let error = from_pod(&pod(&json!({annotation: value}), &json!({}))).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(annotation) && text.len() < 300, "{text}");
        assert!(!text.contains('\n') && !text.contains('\u{0}'), "{text}");
    }
}

#[test]
fn lists_of_ten_thousand_are_refused_by_name() {
    let ports: Vec<String> = (1..=10_000).map(|n| n.to_string()).collect();
    let ranges: Vec<String> =
        (0..10_000).map(|n| format!("10.{}.{}.0/24", n / 250, n % 250)).collect();
    for (annotation, flag, list) in [
        (pod::EXCLUDE_OUTBOUND_PORTS, "-o", ports.join(",")),
        (pod::INCLUDE_INBOUND_PORTS, "-b", ports.join(",")),
        (pod::INCLUDE_OUTBOUND_RANGES, "-i", ranges.join(",")),
        (pod::EXCLUDE_OUTBOUND_RANGES, "-x", ranges.join(",")),
    ] {
        let error = from_pod(&pod(&json!({annotation: list}), &json!({}))).unwrap_err();
        let expected = format!(
            "annotation {annotation}: more than 4096 entries; correct it and create the pod again"
        );
        assert_eq!(error.to_string(), expected);
        let error = resolve(&[flag, &list], &[]).unwrap_err();
        assert!(error.ends_with(": more than 4096 entries"), "{error}");
    }
}

#[test]
fn a_boolean_that_is_none_is_a_warning() {
    let proxy = json!({"env": [{"name": "ISTIO_META_DNS_CAPTURE", "value": "perhaps"}]});
    let found = from_pod(&pod(&json!({}), &proxy)).unwrap();
    assert_eq!(found.settings.unwrap().dns, DnsCapture::Off);
    assert!(found.warnings[0].contains("ISTIO_META_DNS_CAPTURE"));
}

fn resolve(args: &[&str], env: &[(&str, &str)]) -> Result<Settings, String> {
    let flags =
        Flags::try_parse_from([&["lateen-init"], args].concat()).map_err(|e| e.to_string())?;
    let around = Surroundings {
        variable: |name: &str| {
            env.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
        },
        passwd: "istio-proxy:x:1400:1400::/:/bin/false".to_owned(),
        group: "java:x:2101:".to_owned(),
        resolv_conf: "nameserver 10.0.0.10\nnameserver fd00::a\n".to_owned(),
    };
    flags.resolve(&around).map(|run| run.settings).map_err(|e| e.to_string())
}

#[test]
fn flags_win_over_variables_and_names_are_looked_up() {
    let env = [("ENVOY_PORT", "1"), ("ISTIO_META_DNS_CAPTURE", "true"), ("PROXY_GID", "")];
    let found = resolve(&["-p=2", "-b", "*", "--drop-invalid"], &env).unwrap();
    assert_eq!((found.outbound_port, found.drop_invalid), (2, true));
    assert_eq!((found.proxy_uids, found.proxy_gids), (vec![1400], vec![1400]));
    assert!(matches!(found.dns, DnsCapture::Servers(servers) if servers.len() == 2));
    let groups = resolve(&[], &[("ISTIO_OUTBOUND_OWNER_GROUPS", "java,202")]).unwrap();
    assert_eq!(groups.owner_groups, OwnerGroups::Only(vec![2101, 202]));
}

#[test]
fn flags_that_cannot_be_honoured_are_named() {
    for (args, env, name) in [
        (["-x", "*"].as_slice(), ("A", ""), "--istio-service-exclude-cidr"),
        (&["-m", "NONE"], ("A", ""), "--istio-inbound-interception-mode"),
        (&["-p", "0"], ("A", ""), "--envoy-port"),
        (&["--backend", "ipfw"], ("A", ""), "--backend"),
        (&["--force-iptables-binary", "old"], ("A", ""), "--force-iptables-binary"),
        (&["--redirect-dns=maybe"], ("A", ""), "--redirect-dns"),
        (&[], ("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR", "10.0.0.0/8"), "LOOPBACK_CIDR"),
        (&[], ("ISTIO_OUTBOUND_OWNER_GROUPS", "nobody-knows"), "OWNER_GROUPS"),
    ] {
        let error = resolve(args, &[env]).unwrap_err();
        assert!(error.contains(name), "{error}");
    }
}

proptest! {
    #[test]
    fn any_annotation_is_a_plan_or_an_error(
        lists in prop::collection::vec("[0-9a-z.:/,*+ -]{0,40}|\\PC{0,40}", 9),
        user in any::<i64>(),
    ) {
        let names = [pod::MODE, pod::INCLUDE_INBOUND_PORTS, pod::EXCLUDE_INBOUND_PORTS,
            pod::INCLUDE_OUTBOUND_RANGES, pod::EXCLUDE_OUTBOUND_RANGES,
            pod::INCLUDE_OUTBOUND_PORTS, pod::EXCLUDE_OUTBOUND_PORTS, pod::EXCLUDE_INTERFACES,
            pod::REROUTE_INTERFACES];
        for (name, list) in names.iter().zip(&lists) {
            let proxy = json!({"securityContext": {"runAsUser": user}});
            if let Ok(found) = from_pod(&pod(&json!({*name: list}), &proxy))
                && let Some(settings) = found.settings
            {
                let plan = RedirectPlan::new(&settings);
                prop_assert!(plan.chains.iter().all(|c| !c.rules.is_empty()));
                prop_assert!(render::text::render(&plan).contains("skuid"));
            }
        }
    }
}
