//! Links lead where their client is, whatever it names as the host: each is followed.

use http_body_util::Full;
use hyper::Request;
use serde_json::{Value, json};

use crate::daemon::Client;
use crate::fixture::Fixture;
use crate::netns::in_netns;

/// What a client may send as `Host`, and the host that links have then.
const HOSTS: [(&str, &str); 30] = [
    ("localhost", "localhost"),
    ("localhost:8774", "localhost:8774"),
    ("nicd", "nicd"),
    ("node-1.example.org", "node-1.example.org"),
    ("192.0.2.1:80", "192.0.2.1:80"),
    ("[2001:db8::1]:8774", "[2001:db8::1]:8774"),
    ("localhost:", "localhost"),
    ("", "localhost"),
    ("/run/nicd/nicd.sock", "localhost"),
    ("%2Frun%2Fnicd%2Fnicd.sock", "localhost"),
    ("unix:/run/nicd/nicd.sock", "localhost"),
    ("http://localhost", "localhost"),
    ("localhost/v2.1", "localhost"),
    ("localhost?x=1", "localhost"),
    ("localhost#x", "localhost"),
    ("root@localhost", "localhost"),
    ("local host", "localhost"),
    ("localhost:http", "localhost"),
    ("localhost:99999", "localhost"),
    ("localhost:0", "localhost"),
    ("localhost:80:80", "localhost"),
    ("localhost, other", "localhost"),
    ("\"localhost\"", "localhost"),
    ("<script>", "localhost"),
    ("{0}", "localhost"),
    ("::1", "localhost"),
    ("[::1", "localhost"),
    ("a..b", "localhost"),
    ("b\u{fc}cher.example", "localhost"),
    ("*", "localhost"),
];

/// All links in an answer.
fn links(answer: &Value) -> Vec<String> {
    match answer {
        Value::Object(members) => {
            let own = members.get("href").and_then(Value::as_str).map(str::to_owned);
            own.into_iter().chain(members.values().flat_map(links)).collect()
        }
        Value::Array(entries) => entries.iter().flat_map(links).collect(),
        _ => Vec::new(),
    }
}

/// Every kind of answer that has links: the path, and how many it has.
fn answers(fixture: &mut Fixture) -> Vec<(String, usize)> {
    let network = fixture.usual_network();
    let vm = fixture.vm();
    fixture.vm();
    fixture.network(json!({"name": "a b"}));
    fixture.create_port(json!({"network_id": network, "name": "a b"}));
    fixture.create_port(json!({"network_id": network, "name": "a b"}));
    let mut all: Vec<(String, usize)> =
        [("/", 2), ("/v2", 2), ("/v2/", 2), ("/v2.1", 2), ("/v2.1/", 2), ("/v2.0", 4), ("/v2.0/", 4)]
            .map(|(path, count)| (path.to_owned(), count))
            .to_vec();
    for list in ["networks", "subnets", "ports", "ports.json"] {
        all.push((format!("/v2.0/{list}?limit=1"), 1));
        all.push((format!("/v2.0/{list}?limit=1&sort_key=id&sort_dir=desc&fields=id"), 1));
    }
    all.push(("/v2.0/ports?name=a+b&limit=1".to_owned(), 1));
    all.push(("/v2.0/ports?name=a%20b&name={0}|&name=\u{fc}&limit=1".to_owned(), 1));
    for base in ["/v2", "/v2.1", "/v2/demo", "/v2.1/de%20mo", "/v2.1/{0}", "/v2.1/\u{fc}\""] {
        all.push((format!("{base}/servers/{vm}"), 2));
        all.push((format!("{base}/servers"), 2));
        all.push((format!("{base}/servers/detail/"), 4));
        all.push((format!("{base}/servers?limit=1"), 2));
        all.push((format!("{base}/servers/detail.json?limit=1"), 3));
        for flavors in ["flavors", "flavors/", "flavors/detail", "flavors/nicd", "flavors/nicd.json"] {
            all.push((format!("{base}/{flavors}"), 1));
        }
    }
    all
}

/// One GET with headers of one's own, and without any other.
fn get(api: &mut Client, target: &str, headers: &str) -> (u16, Value) {
    let lines = headers.lines().map(|line| line.split_once(": ").unwrap());
    let request = lines.fold(Request::get(target), |request, (name, value)| request.header(name, value.as_bytes()));
    let answer = api.send(request.body(Full::default()).unwrap()).unwrap();
    (answer.status, answer.json())
}

/// Follows a link as its client would: the host is where it found it, and the rest is a target.
fn follow(api: &mut Client, link: &str, host: &str) {
    if !link.starts_with("http://") {
        panic!("{link} is no address");
    }
    let target = link.strip_prefix(&format!("http://{host}")).unwrap_or_else(|| panic!("{link} is not at {host}"));
    assert!(target.starts_with('/'), "{link}");
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(&byte);
    assert!(target.bytes().all(plain), "{link} is no URI");
    let (status, answer) = get(api, target, &format!("Host: {host}\r\n"));
    assert_eq!(status, 200, "{link}: {answer}");
}

#[test]
fn every_link_of_every_answer_can_be_followed_whatever_the_host() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        for (path, count) in answers(&mut fixture) {
            for (host, link) in HOSTS {
                let (status, answer) = get(&mut fixture.api, &path, &format!("Host: {host}\r\n"));
                assert_eq!(status, 200, "{path} with Host '{host}': {answer}");
                let own = |link: &String| !link.starts_with("http://docs.openstack.org/");
                let found: Vec<String> = links(&answer).into_iter().filter(own).collect();
                let documented = links(&answer).len() - found.len();
                assert_eq!(found.len() + documented, count, "{path} with Host '{host}': {answer}");
                // One of each is followed at least; all of them where the host is one.
                let some = if host == link { found.len() } else { 1 };
                found.iter().for_each(|found| assert!(found.starts_with(&format!("http://{link}/")), "{found} for '{host}'"));
                found.iter().take(some).for_each(|found| follow(&mut fixture.api, found, link));
            }
        }
    });
}

#[test]
fn a_missing_a_repeated_and_a_long_host_are_none_and_the_target_and_proxies_are_heard_as_rfc_9112_has_it() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let long = format!("Host: {}\r\n", "x".repeat(8000));
        for (target, headers, host) in [
            ("/v2.1", "", "localhost"),
            ("/v2.1", "Host: a\r\nHost: b\r\n", "localhost"),
            ("/v2.1", long.as_str(), "localhost"),
            ("http://proxy.example:8774/v2.1", "Host: other\r\n", "proxy.example:8774"),
            ("http://proxy.example:8774/v2.1/servers/", "Host: other\r\n", "proxy.example:8774"),
            ("http://root@proxy.example/v2.1", "Host: other\r\n", "localhost"),
            (
                "/v2.1",
                "Host: nicd\r\nX-Forwarded-Host: evil.example\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 1\r\n\
                 Forwarded: host=evil.example;proto=https\r\nX-Original-Host: evil.example\r\n",
                "nicd",
            ),
        ] {
            fixture.vm();
            let (status, answer) = get(&mut fixture.api, target, headers);
            assert_eq!(status, 200, "{target}: {answer}");
            assert!(links(&answer)[0].starts_with(&format!("http://{host}/v2.1/")), "{target}: {answer}");
        }
    });
}
