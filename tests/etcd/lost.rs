//! Endpoints that are not there, say nothing, answer nonsense, or whose answers are lost.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nicd::fleet::etcd::{Error, Etcd, Op, Txn, WatchEnd, Watched};

use crate::keys::{get, one, put};
use crate::netns::{in_netns, run};
use crate::node::{Node, PATIENCE, block_on, client, wait_until, with_etcd};
use crate::server::{Between, Deed, serve};

/// Drops all that goes to a port of this namespace, or comes from it, from now on.
fn swallow(port: u16) {
    let rules = format!("tcp dport {port} drop\ntcp sport {port} drop\n");
    std::fs::write("/run/rules", format!("table ip hole {{\nchain in {{\ntype filter hook input priority 0\n{rules}}}\n}}\n"))
        .unwrap();
    run("nft -f /run/rules");
}

async fn write(etcd: &Etcd, key: &str) -> Result<i64, Error> {
    etcd.txn(&Txn { success: vec![Op::put(key, "x")], ..Txn::default() }).await.map(|answer| answer.header.revision)
}

fn watched(from: i64) -> Vec<Watched> {
    vec![Watched { prefix: "/".into(), from }]
}

#[test]
fn nonsense_is_never_taken_for_an_answer() {
    in_netns(|| {
        block_on(async {
            let header = r#""header":{"cluster_id":"1","member_id":"2","revision":"3"}"#;
            let endless = format!("HTTP/1.1 200 OK\r\n{}", "X-A: b\r\n".repeat(40));
            let bodies = [
                "",
                "x",
                "{",
                "{}",
                "null",
                "[]",
                "7",
                "{\"header\":{}}",
                "{\"header\":7}",
                "<html>",
                "{\"result\":{}}",
                r#"{"header":{"cluster_id":"-1","member_id":"2","revision":"3"}}"#,
                r#"{"header":{"cluster_id":"99999999999999999999","member_id":"2","revision":"3"}}"#,
                r#"{"header":{"cluster_id":"1","member_id":"2","revision":1e300}}"#,
                r#"{"header":{"cluster_id":"1","member_id":"2","revision":"0"}}"#,
            ];
            let with_header = [
                r#""kvs":7,"responses":7"#,
                r#""kvs":[{"key":"!"}],"count":"1","responses":[{}]"#,
                r#""kvs":[{"key":"YQ==","mod_revision":[]}],"count":"1","responses":[{"response_put":7}]"#,
                r#""count":"5","responses":[{"response_range":{}}]"#,
                r#""more":true,"succeeded":"yes""#,
                r#""kvs":[null],"responses":[null,null]"#,
            ];
            let mut deeds: Vec<Deed> = bodies.iter().map(|body| Deed::answer("200 OK", body)).collect();
            deeds.extend(with_header.iter().map(|rest| Deed::answer("200 OK", &format!("{{{header},{rest}}}"))));
            deeds.extend(
                ["301 Moved\r\nLocation: http://127.0.0.1:1/", "404 Not Found", "500 No", "204 None", "999 x", "100 Continue"]
                    .map(|status| Deed::answer(status, "{\"code\":\"many\"}")),
            );
            deeds.extend([
                Deed::Close,
                Deed::ReadAndClose,
                Deed::Say(b"SSH-2.0-x\r\n".to_vec()),
                Deed::Say(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_vec()),
                Deed::Say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_vec()),
                Deed::Say(b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n".to_vec()),
                Deed::SayOn(endless.clone().into_bytes(), b"X-A: b\r\n".repeat(1000)),
                Deed::SayOn(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'['; 65536]),
                Deed::SayOn(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), b"{\"a\":\n".repeat(10_000)),
            ]);
            for (deed, port) in deeds.into_iter().zip(5000..) {
                let etcd = client(&[&serve(port, deed.clone())], "");
                let read = etcd.range(&one("/a"), None, 0).await.unwrap_err();
                assert!(
                    matches!(&read, Error::Unreachable(why) if why.len() == 1) || matches!(read, Error::TooLong(_)),
                    "{deed:?}: {read}"
                );
                let written = write(&etcd, "/a").await.unwrap_err();
                let may =
                    matches!(&written, Error::Unknown(_)) || matches!((&deed, &written), (Deed::Close, Error::Unreachable(_)));
                assert!(may, "{deed:?}: {written}");
                assert!(etcd.pages("/").all().await.is_err());
                assert!(etcd.lease_grant(5).await.is_err());
                assert!(etcd.lease_keep_alive(5).await.is_err());
                let says_who_it_is = matches!(&deed, Deed::Say(said) if String::from_utf8_lossy(said).contains(header));
                assert!(says_who_it_is || etcd.lease_revoke(5).await.is_err());
                assert!(says_who_it_is || etcd.status().await[0].1.is_err());
                assert!(etcd.watch(&watched(1)).await.is_err());
            }
        });
    });
}

#[test]
fn a_stream_of_nonsense_ends_the_watch() {
    in_netns(|| {
        block_on(async {
            let header = r#""header":{"cluster_id":"1","member_id":"2","revision":"3"}"#;
            let read = format!("{{{header}}}");
            let read = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{read}", read.len());
            let lines = [
                "x\n".to_owned(),
                "{}\n".to_owned(),
                "{\"result\":7}\n".to_owned(),
                "{\"result\":{}}\n".to_owned(),
                "{\"error\":{\"grpc_code\":14,\"message\":\"etcdserver: no leader\"}}\n".to_owned(),
                format!("{{\"result\":{{{header},\"watch_id\":\"1\",\"events\":[{{}}]}}}}\n"),
                format!(
                    "{{\"result\":{{{header},\"watch_id\":\"1\",\"events\":[{{\"type\":\"LOST\",\"kv\":{{\"key\":\"Lw==\",\"mod_revision\":\"3\"}}}}]}}}}\n"
                ),
                format!("{{\"result\":{{{header},\"watch_id\":\"1\",\"canceled\":true}}}}\n"),
                String::new(),
            ];
            for (line, port) in lines.into_iter().zip(5000..) {
                // The read before the watch, and then the stream, by the same server.
                let stream = format!("HTTP/1.1 200 OK\r\n\r\n{line}");
                let url = in_order(port, vec![read.clone(), stream]);
                let mut watch = client(&[&url], "").watch(&watched(3)).await.unwrap();
                let end = watch.next().await.unwrap_err();
                assert!(matches!(end, WatchEnd::Lost(_)), "{line}: {end}");
                assert_eq!(watch.next().await.unwrap_err(), end, "it stays so");
                assert_eq!(watch.positions(), watched(3));
            }
            let url = in_order(6000, vec![read.clone(), "HTTP/1.1 404 Not Found\r\n\r\n".into()]);
            let error = client(&[&url], "").watch(&watched(3)).await.unwrap_err();
            assert!(matches!(&error, Error::Unreachable(why) if why[0].why.contains("404")), "{error}");
            let url = in_order(6001, vec![read]);
            let error = client(&[&url], "").watch(&watched(9)).await.unwrap_err();
            assert!(matches!(&error, Error::Behind(why) if why.contains("its revision is 3")), "{error}");
        });
    });
}

/// Answers each connection by the next of these, and closes it.
fn in_order(port: u16, answers: Vec<String>) -> String {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
            let _ = stream.shutdown(std::net::Shutdown::Write);
            std::thread::spawn(move || stream.read_to_end(&mut Vec::new()));
        }
    });
    format!("http://127.0.0.1:{port}")
}

#[test]
fn the_next_endpoint_answers_for_one_that_does_not() {
    with_etcd(|| async {
        let node = Node::alone(2379, &[]).await;
        let silent = serve(5001, Deed::Silence);
        swallow(5002);
        let closed = "http://127.0.0.1:5003";
        let nonsense = serve(5004, Deed::answer("200 OK", "{}"));
        let others = ["http://127.0.0.1:5002", closed, "http://nowhere.invalid:2379"].map(|bad| {
            let url = &node.url;
            async move {
                // Nothing was sent there, so also a transaction goes on.
                let began = Instant::now();
                let etcd = client(&[bad, url], "");
                write(&etcd, "/a").await.unwrap();
                assert!(began.elapsed() < Duration::from_secs(4), "{bad}: {:?}", began.elapsed());
                let began = Instant::now();
                get(&etcd, "/a").await.unwrap();
                assert!(began.elapsed() < Duration::from_secs(1), "the one that works is first");
            }
        });
        let any = one("/");
        let etcd = client(&[&nonsense, closed, &node.url], "");
        assert!(etcd.range(&any, None, 0).await.unwrap().keys.is_empty());
        // One that says nothing costs a limit, and what it may have done is not known.
        let (read, write) = (client(&[&silent, &node.url], ""), client(&[&silent, &node.url], ""));
        let began = Instant::now();
        let silence = async { tokio::join!(read.range(&any, None, 0), self::write(&write, "/b")) };
        let (_, (read, written)) = tokio::join!(futures_util::future::join_all(others), silence);
        assert!(read.is_ok());
        assert!(matches!(&written, Err(Error::Unknown(why)) if why.endpoint == silent), "{written:?}");
        assert!((5..7).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
        self::write(&write, "/b").await.unwrap();
        let every = client(&[closed, &nonsense], "").range(&one("/a"), None, 0).await.unwrap_err();
        let Error::Unreachable(why) = every else { panic!("{every}") };
        let why: Vec<_> = why.iter().map(|one| (one.endpoint.as_str(), one.why.contains("refused"))).collect();
        assert_eq!(why, [(closed, true), (nonsense.as_str(), false)]);
    });
}

#[test]
fn a_transaction_whose_answer_is_lost_is_not_repeated() {
    with_etcd(|| async {
        let node = Node::alone(2379, &[]).await;
        let between = Between::start(5001, &node.url);
        let etcd = client(&[&between.url, &node.url], "");
        for kept in [true, false] {
            between.losing.store(false, Ordering::SeqCst);
            let etcd = if kept { etcd.clone() } else { client(&[&between.url, &node.url], "") };
            if kept {
                put(&etcd, &[("/a", "1")]).await;
            }
            let asked = between.asked.load(Ordering::SeqCst);
            between.losing.store(true, Ordering::SeqCst);
            let key = format!("/lost/{kept}");
            let error = write(&etcd, &key).await.unwrap_err();
            assert!(matches!(&error, Error::Unknown(why) if why.endpoint == between.url), "{error}");
            assert!(between.asked.load(Ordering::SeqCst) > asked);
            // It did take effect, once; a read tells so by the other endpoint.
            assert_eq!(get(&etcd, &key).await.unwrap().version, 1);
        }
        // A connection that is closed between two requests costs nothing: none was sent on it.
        between.losing.store(false, Ordering::SeqCst);
        between.closing.store(true, Ordering::SeqCst);
        let etcd = client(&[&between.url], "");
        for n in 0..20 {
            put(&etcd, &[("/closed", &n.to_string())]).await;
            wait_until(|| run("ss -Htn state established dport = 5001").is_empty(), || "a connection is left".into());
        }
        assert_eq!(get(&etcd, "/closed").await.unwrap().version, 20);
    });
}

#[test]
fn a_watch_notices_that_nothing_comes_any_more_and_lives_where_nothing_happens() {
    with_etcd(|| async {
        let quiet = Node::secured(2379, "http", &[]).await;
        let frozen = Node::secured(2380, "http", &[]).await;
        let hole = Node::secured(2381, "http", &[]).await;
        let nodes = [quiet.up("").await, frozen.up("").await, hole.up("").await];
        let mut watches = Vec::new();
        for node in &nodes {
            watches.push(client(&[&node.url], "").watch(&watched(1)).await.unwrap());
        }
        nodes[1].freeze();
        swallow(2381);
        let began = Instant::now();
        // Where nothing answers, a request ends within its limit.
        let requests = async {
            let (frozen, hole) = (client(&[&nodes[1].url], ""), client(&[&nodes[2].url], ""));
            let (frozen, hole) = tokio::join!(write(&frozen, "/a"), write(&hole, "/a"));
            assert!(matches!(frozen, Err(Error::Unknown(_))), "{frozen:?}");
            assert!(matches!(&hole, Err(Error::Unreachable(why)) if why[0].why.contains("no connection in 2 s")), "{hole:?}");
            assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
        };
        let [quiet, frozen, hole] = &mut watches[..] else { panic!() };
        let all = async { tokio::join!(frozen.next(), hole.next(), requests) };
        tokio::select! {
            said = quiet.next() => panic!("{said:?}"),
            (frozen, hole, ()) = all => {
                for end in [frozen.unwrap_err(), hole.unwrap_err()] {
                    assert!(matches!(&end, WatchEnd::Lost(why) if why.contains("sign of life")), "{end}");
                }
            }
            () = tokio::time::sleep(PATIENCE) => panic!("not noticed"),
        }
        let took = began.elapsed();
        assert!((9..12).contains(&took.as_secs()), "{took:?}");
        let etcd = client(&[&nodes[0].url], "");
        let revision = write(&etcd, "/a").await.unwrap();
        assert_eq!(quiet.next().await.unwrap().revision, revision);
    });
}
