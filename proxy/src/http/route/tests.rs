//! Tables of route choices, rewrites and redirects.

use super::*;
use crate::config::{
    HeaderMatch, HeaderOps, PathMatch, PathRewrite, QueryMatch, Redirect, RouteMatch, StringMatch,
};
use http::{HeaderValue, StatusCode};
use regex::Regex;

fn route(name: &str, path: PathMatch) -> Route {
    let matches = RouteMatch { path, headers: Vec::new(), query: Vec::new() };
    let response =
        crate::config::DirectResponse { status: StatusCode::OK, body: bytes::Bytes::new() };
    let action = RouteAction::Respond(response);
    Route {
        name: name.into(),
        matches,
        action,
        headers: HeaderOps::default(),
        fault: None,
        cors: None,
    }
}

fn prefix(value: &str) -> PathMatch {
    PathMatch::Prefix { value: value.into(), case_sensitive: true }
}

fn host(name: &str, domains: &[&str], routes: Vec<Route>) -> Arc<VirtualHost> {
    Arc::new(VirtualHost {
        name: name.into(),
        domains: domains.iter().map(|d| (*d).to_owned()).collect(),
        routes: routes.into_iter().map(Arc::new).collect(),
        ..VirtualHost::default()
    })
}

fn table(ignore_port: bool, virtual_hosts: Vec<Arc<VirtualHost>>) -> RouteTable {
    RouteTable::new(Arc::new(RouteConfig { name: "t".into(), virtual_hosts, ignore_port }))
}

fn head<'a>(authority: &'a str, path: &'a str, headers: &'a HeaderMap) -> RequestHead<'a> {
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    RequestHead { method: &Method::GET, authority, scheme: "http", path, query, headers }
}

fn chosen(table: &RouteTable, authority: &str, path: &str) -> String {
    match choose(table, &head(authority, path, &HeaderMap::new())) {
        Decision::NotFound => "-".into(),
        Decision::Route(host, route) => format!("{}/{}", host.name, route.name),
    }
}

#[test]
fn virtual_hosts_are_taken_from_the_most_exact_to_the_widest() {
    let any = || vec![route("r", prefix("/"))];
    let table = table(
        true,
        vec![
            host("star", &["*"], any()),
            host("suffix", &["*.example.com"], any()),
            host("longer", &["*.shop.example.com"], any()),
            host("prefix", &["api.*"], any()),
            host("exact", &["reviews", "reviews.shop.svc.cluster.local", "[fd00::1]"], any()),
        ],
    );
    for (authority, wanted) in [
        ("reviews", "exact/r"),
        ("Reviews:9080", "exact/r"),
        ("reviews.shop.svc.cluster.local:9080", "exact/r"),
        ("[fd00::1]:80", "exact/r"),
        ("[fd00::1]", "exact/r"),
        ("a.example.com", "suffix/r"),
        ("a.shop.example.com", "longer/r"),
        (".example.com", "star/r"),
        ("api.test", "prefix/r"),
        ("other", "star/r"),
    ] {
        assert_eq!(chosen(&table, authority, "/"), wanted, "{authority}");
    }
}

#[test]
fn the_port_counts_unless_ignored() {
    let hosts = vec![host("h", &["reviews"], vec![route("r", prefix("/"))])];
    assert_eq!(chosen(&table(false, hosts.clone()), "reviews:9080", "/"), "-");
    assert_eq!(chosen(&table(true, hosts), "reviews:9080", "/"), "h/r");
}

#[test]
fn the_first_route_that_matches_is_taken() {
    let exact = PathMatch::Exact { value: "/Login".into(), case_sensitive: false };
    let separated = PathMatch::SeparatedPrefix { value: "/api".into(), case_sensitive: true };
    let regex = PathMatch::Regex(Regex::new("^(?:/v[0-9]+/.*)$").unwrap());
    let table = table(
        true,
        vec![host(
            "h",
            &["*"],
            vec![
                route("exact", exact),
                route("separated", separated),
                route("regex", regex),
                route("static", prefix("/static/")),
            ],
        )],
    );
    for (path, wanted) in [
        ("/login", "h/exact"),
        ("/login?user=1", "h/exact"),
        ("/login/", "-"),
        ("/api", "h/separated"),
        ("/api/x", "h/separated"),
        ("/apix", "-"),
        ("/v1/x", "h/regex"),
        ("/v/x", "-"),
        ("/static/a.js", "h/static"),
    ] {
        assert_eq!(chosen(&table, "h", path), wanted, "{path}");
    }
}

#[test]
fn headers_and_query_must_all_hold() {
    let criterion = |name: &str, value: Option<StringMatch>, invert| HeaderMatch {
        name: name.into(),
        value,
        invert,
        range: None,
        treat_missing_as_empty: false,
    };
    let with = |header: HeaderMatch| {
        let mut route = route("r", prefix("/"));
        route.matches.headers.push(header);
        table(true, vec![host("h", &["*"], vec![route])])
    };
    let mut headers = HeaderMap::new();
    headers.insert("end-user", HeaderValue::from_static("jason"));
    let found = |table: &RouteTable, headers: &HeaderMap| {
        matches!(choose(table, &head("h", "/", headers)), Decision::Route(..))
    };
    let none = HeaderMap::new();
    let exact = Some(StringMatch::exact("jason"));
    for (matcher, with_header, without) in [
        (criterion("end-user", exact.clone(), false), true, false),
        (criterion("end-user", exact, true), false, false),
        (criterion("end-user", None, false), true, false),
        (criterion("end-user", None, true), false, true),
        (criterion(":method", Some(StringMatch::exact("GET")), false), true, true),
        (criterion(":authority", Some(StringMatch::exact("x")), false), false, false),
    ] {
        let table = with(matcher.clone());
        assert_eq!(found(&table, &headers), with_header, "{matcher:?}");
        assert_eq!(found(&table, &none), without, "{matcher:?} without");
    }
    let mut by_query = route("q", prefix("/"));
    by_query
        .matches
        .query
        .push(QueryMatch { name: "v".into(), value: Some(StringMatch::exact("a b")) });
    let table = table(true, vec![host("h", &["*"], vec![by_query])]);
    assert_eq!(chosen(&table, "h", "/?x=1&v=a%20b"), "h/q");
    assert_eq!(chosen(&table, "h", "/?v=a"), "-");
}

#[test]
fn weights_share_requests_out() {
    let cluster = |name: &str, weight| WeightedCluster {
        cluster: name.into(),
        weight,
        headers: HeaderOps::default(),
    };
    let forward = Forward {
        clusters: vec![cluster("v1", 90), cluster("off", 0), cluster("v2", 10)],
        timeout: None,
        idle_timeout: None,
        retry: None,
        rewrite: None,
        host_rewrite: None,
        hash_policy: Vec::new(),
        mirrors: Vec::new(),
        upgrades: Vec::new(),
    };
    let hits =
        (0..1000).filter(|n| &*choose_cluster(&forward, || *n).unwrap().cluster == "v1").count();
    assert_eq!(hits, 900);
    assert!((0..1000).all(|n| &*choose_cluster(&forward, || n).unwrap().cluster != "off"));
}

#[test]
fn paths_are_rewritten() {
    let replace = |matched: &PathMatch, new: &str, path: &str, query| {
        rewritten_path(&PathRewrite::Prefix(new.into()), matched, path, query)
    };
    assert_eq!(replace(&prefix("/api/"), "/", "/api/v1/x", Some("q=1")), "/v1/x?q=1");
    assert_eq!(replace(&prefix("/api"), "/", "/api", None), "/");
    let exact = PathMatch::Exact { value: "/a".into(), case_sensitive: true };
    assert_eq!(replace(&exact, "/b", "/a", None), "/b");
    let rewrite = PathRewrite::Regex {
        pattern: Regex::new("^/service/([^/]+)(/.*)$").unwrap(),
        substitution: r"\2/instance/\1".into(),
    };
    assert_eq!(
        rewritten_path(&rewrite, &prefix("/"), "/service/foo/v1/api", None),
        "/v1/api/instance/foo"
    );
}

#[test]
fn redirects_name_their_location() {
    let plain = Redirect {
        host: None,
        path: None,
        prefix_rewrite: None,
        scheme: None,
        port: None,
        strip_query: false,
        status: StatusCode::MOVED_PERMANENTLY,
    };
    let headers = HeaderMap::new();
    let head = head("shop.test:80", "/old/x?q=1", &headers);
    let old = route("r", prefix("/old"));
    for (redirect, wanted) in [
        (Redirect { scheme: Some("https".into()), ..plain.clone() }, "https://shop.test/old/x?q=1"),
        (Redirect { path: Some("/new".into()), ..plain.clone() }, "http://shop.test:80/new?q=1"),
        (
            Redirect { prefix_rewrite: Some("/new".into()), ..plain.clone() },
            "http://shop.test:80/new/x?q=1",
        ),
        (Redirect { host: Some("b".into()), port: Some(81), ..plain }, "http://b:81/old/x?q=1"),
    ] {
        assert_eq!(location(&redirect, &old, &head), wanted);
    }
}
