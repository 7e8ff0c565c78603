//! What is answered from the name table, and what is left to upstream servers. Pure.
//!
//! Resolvers try search domains one after another. A mesh name with the first search domain
//! behind it is answered at once by an alias to the name itself, so the round of attempts ends.

use crate::config::NameTable;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use std::net::IpAddr;

/// How long answers may be kept, in seconds.
const TTL: u32 = 30;
/// Most addresses in one answer.
const MAX_ADDRESSES: usize = 256;
/// Largest UDP payload we say we take.
const PAYLOAD: u16 = 1232;

/// What becomes of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// This is the response.
    Ours(Box<Message>),
    /// Upstream servers know.
    Forward,
}

/// Answers a query from the table.
#[must_use]
pub fn answer(query: &Message, names: &NameTable, search: &[String]) -> Answer {
    if query.metadata.message_type != MessageType::Query {
        return ours(query, ResponseCode::FormErr, Vec::new());
    }
    if query.metadata.op_code != OpCode::Query {
        return ours(query, ResponseCode::NotImp, Vec::new());
    }
    let [question] = query.queries.as_slice() else {
        return ours(query, ResponseCode::FormErr, Vec::new());
    };
    let kind = question.query_type();
    if question.query_class() != DNSClass::IN || !matches!(kind, RecordType::A | RecordType::AAAA) {
        return Answer::Forward;
    }
    let asked = question.name();
    let host = asked.to_ascii().trim_end_matches('.').to_ascii_lowercase();
    let Some(found) = find(&host, names, search) else { return Answer::Forward };
    let mut records = Vec::new();
    let mut owner = asked.clone();
    if let Some(alias) = found.alias {
        let Ok(target) = Name::from_ascii(format!("{alias}.")) else { return Answer::Forward };
        records.push(Record::from_rdata(owner, TTL, RData::CNAME(CNAME(target.clone()))));
        owner = target;
    }
    let mut addresses: Vec<RData> = found
        .addresses
        .iter()
        .filter_map(|address| match (address, kind) {
            (IpAddr::V4(v4), RecordType::A) => Some(RData::A(A(*v4))),
            (IpAddr::V6(v6), RecordType::AAAA) => Some(RData::AAAA(AAAA(*v6))),
            _ => None,
        })
        .take(MAX_ADDRESSES)
        .collect();
    if !addresses.is_empty() {
        // Clients take the first; every query gets another one.
        let first = usize::from(query.metadata.id) % addresses.len();
        addresses.rotate_left(first);
    }
    records.extend(addresses.into_iter().map(|data| Record::from_rdata(owner.clone(), TTL, data)));
    ours(query, ResponseCode::NoError, records)
}

struct Found<'n> {
    addresses: &'n [IpAddr],
    /// The name in the table, when the one asked for only leads to it.
    alias: Option<&'n str>,
}

fn find<'n>(host: &str, names: &'n NameTable, search: &[String]) -> Option<Found<'n>> {
    let direct = |addresses: &'n Vec<IpAddr>| Found { addresses, alias: None };
    if let Some(addresses) = names.hosts.get(host) {
        return Some(direct(addresses));
    }
    // Short names, for clients that do not search themselves.
    let longer = |domain: &String| names.hosts.get(&format!("{host}.{domain}"));
    if let Some(addresses) = search.iter().find_map(longer) {
        return Some(direct(addresses));
    }
    if let Some(first) = search.first()
        && let Some(short) = host.strip_suffix(first.as_str()).and_then(|h| h.strip_suffix('.'))
        && let Some((name, addresses)) = names.hosts.get_key_value(short)
    {
        return Some(Found { addresses, alias: Some(name) });
    }
    wildcard(host, names).map(direct)
}

/// The addresses of the nearest `*.suffix`.
fn wildcard<'n>(host: &str, names: &'n NameTable) -> Option<&'n Vec<IpAddr>> {
    let mut rest = host;
    while let Some((_, suffix)) = rest.split_once('.') {
        if let Some(addresses) = names.hosts.get(&format!("*.{suffix}")) {
            return Some(addresses);
        }
        rest = suffix;
    }
    None
}

fn ours(query: &Message, code: ResponseCode, answers: Vec<Record>) -> Answer {
    Answer::Ours(Box::new(respond(query, code, answers)))
}

/// A response to `query`.
pub(super) fn respond(query: &Message, code: ResponseCode, answers: Vec<Record>) -> Message {
    let mut response = Message::response(query.metadata.id, query.metadata.op_code);
    response.metadata.recursion_desired = query.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.metadata.authoritative = !answers.is_empty();
    response.metadata.response_code = code;
    response.queries.clone_from(&query.queries);
    response.answers = answers;
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD);
        response.edns = Some(edns);
    }
    response
}

/// The bytes of a response, cut down to what `limit` bytes hold.
pub(super) fn encode(response: &Message, limit: usize) -> Option<Vec<u8>> {
    let bytes = response.to_vec().ok()?;
    if bytes.len() <= limit {
        return Some(bytes);
    }
    response.truncate().to_vec().ok()
}
