//! First bytes of connections, and parts of messages.

use std::collections::HashMap;

use hickory_proto::op::Message;
use lateen_proxy::agent::dns::{Answer, answer};
use lateen_proxy::config::NameTable;
use lateen_proxy::http::{decode_peer_metadata, normalize};
use lateen_proxy::listen::client_hello::{self, Parsed};
use lateen_proxy::listen::http_sniff::{self, Sniffed};

/// What is decided on some bytes stays decided when more come.
pub(crate) fn client_hello(input: &[u8]) {
    let whole = client_hello::parse(input);
    let before = client_hello::parse(&input[..input.len() / 2]);
    assert!(before == Parsed::More || before == whole, "{before:?} became {whole:?}");
    if let Parsed::Hello(hello) = whole {
        let name = hello.server_name.unwrap_or_default();
        assert!(name.len() <= 255 && name == name.to_ascii_lowercase(), "{name:?}");
    }
}

/// What is decided on some bytes stays decided when more come.
pub(crate) fn http_head(input: &[u8]) {
    let whole = http_sniff::sniff(input);
    let before = http_sniff::sniff(&input[..input.len() / 2]);
    assert!(before == Sniffed::More || before == whole, "{before:?} became {whole:?}");
}

/// An answer is to the question that was asked, and can be sent.
pub(crate) fn dns(input: &[u8]) {
    let Ok(query) = Message::from_vec(input) else { return };
    let address = "10.0.0.1".parse().expect("an address");
    let hosts = ["cart.shop.svc.cluster.local", "*.example.com"];
    let hosts: HashMap<_, _> =
        hosts.iter().map(|host| ((*host).to_owned(), vec![address])).collect();
    let search = ["shop.svc.cluster.local".to_owned(), "cluster.local".to_owned()];
    if let Answer::Ours(response) = answer(&query, &NameTable { hosts }, &search) {
        assert_eq!(response.metadata.id, query.metadata.id);
        assert!(response.to_vec().is_ok(), "an answer that cannot be sent");
    }
}

/// A path in normal form stays as it is, and leads nowhere else.
pub(crate) fn path(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Some(once) = normalize(text, true, true) else { return };
    let again = normalize(&once, true, true);
    assert_eq!(again.as_deref(), Some(once.as_ref()), "normal form of {text:?}");
    if text.starts_with('/') {
        assert!(once.starts_with('/'), "{text:?} became {once:?}");
        let up = once.split('/').any(|segment| segment == ".." || segment == ".");
        assert!(!up && !once.contains("//"), "{text:?} became {once:?}");
    }
}

/// Metadata of a caller is read or passed over.
pub(crate) fn peer(input: &[u8]) {
    let _labels = decode_peer_metadata(input);
}
