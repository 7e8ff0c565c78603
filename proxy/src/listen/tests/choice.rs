//! Which chain takes a connection.

use crate::config::{ChainMatch, Direction, FilterChain, Inspect, Listener, TcpProxy, Terminal};
use crate::listen::{ConnectionFacts, DestinationIndex, choose};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// A chain that goes to the cluster of its own name.
pub(super) fn chain(name: &str, matches: ChainMatch) -> Arc<FilterChain> {
    let proxy = TcpProxy {
        stat_prefix: name.into(),
        clusters: vec![(name.into(), 1)],
        idle_timeout: None,
        max_duration: None,
        access_log: Vec::new(),
    };
    Arc::new(FilterChain {
        name: name.into(),
        matches,
        tls: None,
        handshake_timeout: Duration::from_secs(5),
        rbac: Vec::new(),
        stats: true,
        terminal: Terminal::Tcp(Arc::new(proxy)),
    })
}

pub(super) fn listener(address: &str, chains: Vec<Arc<FilterChain>>) -> Listener {
    Listener {
        name: address.into(),
        address: address.parse().unwrap(),
        additional_addresses: Vec::new(),
        bind: true,
        use_original_dst: false,
        direction: Direction::Inbound,
        inspect: Inspect::default(),
        filter_chains: chains,
        default_filter_chain: None,
        access_log: Vec::new(),
    }
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn protocols(tls: bool, list: &[&str]) -> ChainMatch {
    ChainMatch { tls: Some(tls), application_protocols: strings(list), ..ChainMatch::default() }
}

struct Client<'a> {
    to: &'a str,
    sni: &'a str,
    tls: bool,
    alpn: &'a [&'a str],
}

fn chosen(listener: &Listener, client: &Client<'_>) -> Option<String> {
    let offered = strings(client.alpn);
    let facts = ConnectionFacts {
        destination: client.to.parse().unwrap(),
        server_name: client.sni,
        tls: client.tls,
        application_protocols: &offered,
    };
    choose(listener, &facts).map(|chain| chain.name.to_string())
}

/// The five chains of a port in PERMISSIVE mode, as the control plane sends them.
fn permissive() -> Listener {
    let mtls_http = ["istio-http/1.0", "istio-http/1.1", "istio-h2"];
    listener(
        "0.0.0.0:15006",
        vec![
            chain("mtls-http", protocols(true, &mtls_http)),
            chain("plain-http", protocols(false, &["http/1.1", "h2c"])),
            chain("mtls-tcp", protocols(true, &["istio-peer-exchange", "istio"])),
            chain("plain-tcp", protocols(false, &[])),
            chain("other-tls", protocols(true, &[])),
        ],
    )
}

#[test]
fn permissive_ports_take_every_client() {
    let listener = permissive();
    for (tls, alpn, wanted) in [
        (true, &["istio-http/1.1", "istio", "http/1.1"][..], "mtls-http"),
        (true, &["istio-h2", "istio", "h2"], "mtls-http"),
        (true, &["istio"], "mtls-tcp"),
        (true, &["istio-peer-exchange", "istio"], "mtls-tcp"),
        (true, &["h2", "http/1.1"], "other-tls"),
        (true, &[], "other-tls"),
        (false, &["http/1.1"], "plain-http"),
        (false, &["h2c"], "plain-http"),
        (false, &["http/1.0"], "plain-tcp"),
        (false, &[], "plain-tcp"),
    ] {
        let client = Client { to: "10.0.0.1:80", sni: "", tls, alpn };
        assert_eq!(chosen(&listener, &client).as_deref(), Some(wanted), "{tls} {alpn:?}");
    }
}

#[test]
fn the_most_specific_criterion_wins_without_way_back() {
    let port = |port| ChainMatch { destination_port: Some(port), ..ChainMatch::default() };
    let prefix = |net: &str| ChainMatch {
        prefix_ranges: vec![net.parse().unwrap()],
        ..ChainMatch::default()
    };
    let name = |list: &[&str]| ChainMatch { server_names: strings(list), ..ChainMatch::default() };
    let listener = listener(
        "0.0.0.0:15006",
        vec![
            chain("any", ChainMatch::default()),
            chain("port", ChainMatch { tls: Some(true), ..port(9080) }),
            chain("wide", prefix("10.0.0.0/8")),
            chain("narrow", prefix("10.1.0.0/16")),
            chain("six", prefix("fd00::/8")),
            chain("exact", name(&["a.test", "b.test"])),
            chain("star", name(&["*.a.test"])),
            chain("long-star", name(&["*.x.a.test"])),
        ],
    );
    for (to, sni, tls, wanted) in [
        ("192.168.0.1:80", "", false, Some("any")),
        // A chain names the port, so those that name none are out, though it wants TLS.
        ("192.168.0.1:9080", "", true, Some("port")),
        ("192.168.0.1:9080", "", false, None),
        ("10.2.0.1:80", "", false, Some("wide")),
        ("10.1.0.1:80", "", false, Some("narrow")),
        ("[::ffff:10.1.0.1]:80", "", false, Some("narrow")),
        ("[fd00::1]:80", "", false, Some("six")),
        ("192.168.0.1:80", "b.test", true, Some("exact")),
        ("192.168.0.1:80", "www.a.test", true, Some("star")),
        ("192.168.0.1:80", "w.x.a.test", true, Some("long-star")),
        ("192.168.0.1:80", "c.test", true, Some("any")),
        // The prefix decides before the server name does.
        ("10.2.0.1:80", "b.test", true, Some("wide")),
    ] {
        let client = Client { to, sni, tls, alpn: &[] };
        assert_eq!(chosen(&listener, &client).as_deref(), wanted, "{to} {sni} {tls}");
    }
}

#[test]
fn the_default_chain_takes_the_rest() {
    let only = ChainMatch { tls: Some(true), ..ChainMatch::default() };
    let mut listener = listener("0.0.0.0:80", vec![chain("tls", only)]);
    let client = Client { to: "10.0.0.1:80", sni: "", tls: false, alpn: &[] };
    assert_eq!(chosen(&listener, &client), None);
    listener.default_filter_chain = Some(chain("rest", ChainMatch::default()));
    assert_eq!(chosen(&listener, &client).as_deref(), Some("rest"));
}

#[test]
fn destinations_find_their_listener() {
    let unbound = |name: &str, addresses: &[&str]| {
        let mut listener = listener(addresses[0], Vec::new());
        listener.name = name.into();
        listener.bind = false;
        listener.additional_addresses =
            addresses[1..].iter().map(|text| text.parse().unwrap()).collect();
        (listener.name.clone(), Arc::new(listener))
    };
    let mut listeners = HashMap::from([
        unbound("vip", &["10.96.0.7:80", "[fd00::7]:80"]),
        unbound("any", &["0.0.0.0:80", "[::]:80"]),
        unbound("four", &["0.0.0.0:81"]),
    ]);
    let bound = Arc::new(listener("0.0.0.0:15001", Vec::new()));
    listeners.insert("bound".into(), bound);
    let index = DestinationIndex::new(&listeners);
    for (to, wanted) in [
        ("10.96.0.7:80", Some("vip")),
        ("[fd00::7]:80", Some("vip")),
        ("[::ffff:10.96.0.7]:80", Some("vip")),
        ("10.96.0.8:80", Some("any")),
        ("[fd00::8]:80", Some("any")),
        ("10.96.0.7:81", Some("four")),
        ("[fd00::7]:81", None),
        ("10.96.0.7:15001", None),
    ] {
        let found = index.find(to.parse().unwrap()).map(|listener| listener.name.to_string());
        assert_eq!(found.as_deref(), wanted, "{to}");
    }
}
