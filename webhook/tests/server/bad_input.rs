//! Requests that are wrong, hostile or too much: each is refused with what is wrong, in bounded
//! time and memory, and the next one is served.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lateen_webhook::server::Limits;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::running::{Running, review, start};

#[tokio::test]
async fn bad_requests_are_answered_by_what_is_wrong() {
    let server = start(Limits { body: 64 * 1024, ..Limits::default() }).await;
    let post = |headers: &str, body: &str| {
        format!("POST /inject HTTP/1.1\r\nhost: x\r\n{headers}\r\n{body}").into_bytes()
    };
    let json = "content-type: application/json\r\n";
    let chunk = "a".repeat(8192);
    let chunked = format!("{:x}\r\n{chunk}\r\n", chunk.len()).repeat(10);
    let cases = [
        (post("content-type: text/plain\r\ncontent-length: 2\r\n", "{}"), "415"),
        (post("content-length: 2\r\n", "{}"), "415"),
        (post(&format!("{json}content-length: 0\r\n"), ""), "400"),
        (post(&format!("{json}content-length: 10485760\r\n"), ""), "413"),
        (post(&format!("{json}transfer-encoding: chunked\r\n"), &chunked), "413"),
        (post(&format!("{json}content-length: 1\r\n"), "{"), "200"),
        (b"GET /inject HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), "405"),
        (b"POST /other HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".to_vec(), "404"),
        (b"POST /injected HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".to_vec(), "404"),
        (b"POST /inject/cluster HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".to_vec(), "400"),
        (b"nonsense\r\n\r\n".to_vec(), "400"),
        (post(&format!("{json}x: {}\r\n", "h".repeat(100 * 1024)), ""), "431"),
    ];
    for (request, expected) in cases {
        let line = server.raw(&request).await;
        let start = String::from_utf8_lossy(&request).chars().take(120).collect::<String>();
        assert!(line.contains(expected), "{start:?}: {line}");
    }
    assert!(server.counter("sidecar_injection_failure_total") >= 7);
    assert!(server.call("/inject", &review()).await.unwrap().allowed);
    server.stop().await;
}

#[tokio::test]
async fn a_slow_body_is_given_up() {
    let limits = Limits { patience: Duration::from_millis(200), ..Limits::default() };
    let server = start(limits).await;
    let request = b"POST /inject HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                    content-length: 100\r\n\r\n{";
    let line = server.raw(request).await;
    assert!(line.contains("408"), "{line}");
    server.stop().await;
}

#[tokio::test]
async fn broken_reviews_are_refused_with_what_is_wrong() {
    let server = start(Limits::default()).await;
    let good = review().to_string();
    let cut = good[..good.len() - 40].to_owned();
    let deep = good.replace("\"a/web:1\"", &format!("{}{}", "[".repeat(500), "]".repeat(500)));
    let old = good.replace("admission.k8s.io/v1", "admission.k8s.io/v1beta1");
    let future = good.replace("admission.k8s.io/v1", "admission.k8s.io/v2");
    let cases = [
        (cut.as_str(), "cannot be read: EOF"),
        (&deep, "recursion limit"),
        (&future, "admission.k8s.io/v2"),
        ("{\"apiVersion\":", "cannot be read: EOF"),
        ("null", "cannot be read"),
        ("[\"admission.k8s.io/v1\", \"AdmissionReview\", null]", "cannot be read"),
    ];
    for (body, needle) in cases {
        let answer = server.post(body.as_bytes()).await;
        assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
        let response = &answer["response"];
        assert_eq!((&response["allowed"], &response["patch"]), (&json!(false), &Value::Null));
        assert_eq!(response["status"]["reason"], "denied.review");
        let message = response["status"]["message"].as_str().unwrap();
        assert!(message.contains(needle), "{message}");
    }
    let answer = server.post(old.as_bytes()).await;
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1beta1");
    assert_eq!(answer["response"]["allowed"], true);
    server.stop().await;
}

fn refusal(answer: &Value) -> &str {
    assert_eq!(answer["response"]["allowed"], false, "{answer}");
    assert_eq!(answer["response"]["patch"], Value::Null);
    answer["response"]["status"]["message"].as_str().unwrap()
}

#[tokio::test]
async fn bytes_that_are_no_text_are_refused() {
    let server = start(Limits::default()).await;
    let good = review().to_string();
    let (before, after) = good.split_once("a/web:1").unwrap();
    for bytes in [&b"\xff\xfe"[..], b"\xc3\x28", b"\xed\xa0\x80", b"\xf0\x9f\x98", b"\n", b"\0"] {
        let body = [before.as_bytes(), bytes, after.as_bytes()].concat();
        let answer = server.post(&body).await;
        assert!(refusal(&answer).contains("cannot be read"), "{bytes:?}: {answer}");
    }
    for surrogate in ["\\ud800", "\\udc00\\ud800", "\\u12"] {
        let answer = server.post(good.replace("a/web:1", surrogate).as_bytes()).await;
        assert!(refusal(&answer).contains("cannot be read"), "{surrogate}: {answer}");
    }
    server.stop().await;
}

#[tokio::test]
async fn hostile_names_and_annotations_stay_texts() {
    let server = start(Limits::default()).await;
    let texts = [
        "x\r\nset-cookie: a=b".to_owned(),
        "\u{0}\u{1b}[31m\u{202e}".to_owned(),
        "a\"}],\"allowed\":true,\"x\":[{\"".to_owned(),
        "../../../etc/passwd".to_owned(),
        "\u{1f600}".repeat(50_000),
    ];
    for text in &texts {
        let mut hostile = review();
        hostile["request"]["namespace"] = json!(text);
        hostile["request"]["uid"] = json!(text);
        let object = &mut hostile["request"]["object"];
        object["metadata"]["name"] = json!(text);
        object["metadata"]["annotations"] =
            json!({text.as_str(): text, "prometheus.io/path": text});
        object["spec"]["containers"][0]["name"] = json!(text);
        let answer = server.post(hostile.to_string().as_bytes()).await;
        assert_eq!(answer["response"]["uid"], json!(text));
        assert_eq!(answer["response"]["allowed"], true, "{answer}");
        // Denied, the text is cut to what fits a line of an answer.
        hostile["request"]["object"]["metadata"]["annotations"] =
            json!({"sidecar.istio.io/proxyCPU": text, "inject.istio.io/templates": text});
        let answer = server.post(hostile.to_string().as_bytes()).await;
        let message = refusal(&answer);
        assert!(message.len() <= 1024 && message.contains("istio.io/"), "{message}");
    }
    server.stop().await;
}

#[tokio::test]
async fn ten_thousand_variables_are_served_and_a_million_values_are_not() {
    let server = start(Limits::default()).await;
    let env = |count: usize| -> Vec<Value> {
        (0..count).map(|n| json!({"name": format!("N_{n}"), "value": "v"})).collect()
    };
    let mut large = review();
    large["request"]["object"]["spec"]["containers"][0]["env"] = json!(env(10_000));
    let begun = Instant::now();
    let answer = server.post(large.to_string().as_bytes()).await;
    assert_eq!(answer["response"]["allowed"], true);
    assert_eq!(answer["response"]["patchType"], "JSONPatch");
    // Only what is added is in the patch.
    assert!(answer["response"]["patch"].as_str().unwrap().len() < 64 * 1024);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    large["request"]["object"]["spec"]["containers"][0]["env"] = json!(env(50_000));
    let answer = server.post(large.to_string().as_bytes()).await;
    assert!(refusal(&answer).contains("more than 100000 values"), "{answer}");
    server.stop().await;
}

/// Memory of this process, in MiB: `VmRSS` now, `VmHWM` at most.
fn memory(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn bodies_that_grow_when_read_do_not_fill_memory() {
    let server = Arc::new(start(Limits::default()).await);
    // Each value of these takes some fifty times what it takes on the wire.
    let fill = |unit: &str| format!("[{}0]", unit.repeat(5 * 1024 * 1024 / unit.len()));
    let good = review().to_string();
    let bodies = ["{\"\":0},", "[[]],", "0,", "\"\","]
        .map(|unit| Arc::new(good.replace("\"a/web:1\"", &fill(unit)).into_bytes()));
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = memory("VmRSS");
    let mut calls = tokio::task::JoinSet::new();
    for turn in 0..24 {
        let (server, body) = (Arc::clone(&server), Arc::clone(&bodies[turn % bodies.len()]));
        calls.spawn(async move { hostile_post(&server, &body).await });
    }
    let mut answers = Vec::new();
    while let Some(answer) = calls.join_next().await {
        answers.push(answer.unwrap());
    }
    let grown = memory("VmHWM").saturating_sub(before);
    assert!(grown < 96, "24 bodies of 5 MiB took {grown} MiB");
    let told = |needle: &str| answers.iter().filter(|answer| answer.contains(needle)).count();
    let (counted, crowded) = (told("more than 100000 values"), told("503"));
    assert!(counted > 0 && counted + crowded == answers.len(), "{answers:?}");
    assert!(server.call("/inject", &review()).await.unwrap().allowed);
    Arc::into_inner(server).unwrap().stop().await;
}

/// Posts a body, which may be refused before it was read; the beginning of what came back.
async fn hostile_post(server: &Running, body: &[u8]) -> String {
    let stream = server.tls(&[]).await;
    let (mut from, mut to) = tokio::io::split(stream);
    let head = format!(
        "POST /inject HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let send = async {
        let _refused = to.write_all(head.as_bytes()).await;
        let _refused = to.write_all(body).await;
    };
    let mut answer = Vec::new();
    let receive = async { from.read_to_end(&mut answer).await };
    let (_, _closed) = tokio::join!(send, receive);
    String::from_utf8_lossy(&answer).chars().take(2000).collect()
}
