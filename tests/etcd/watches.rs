//! Watches: nothing is missed, nothing is seen twice, and compaction is told.

use std::collections::BTreeMap;

use nicd::fleet::etcd::{Batch, Error, Etcd, Event, Op, Txn, Watch, WatchEnd, Watched};
use tokio::time::timeout;

use crate::keys::{compact, prefix, put};
use crate::node::{Node, PATIENCE, client, with_etcd};

fn from(prefixes: &[&str], from: i64) -> Vec<Watched> {
    prefixes.iter().map(|prefix| Watched { prefix: (*prefix).to_owned(), from }).collect()
}

async fn next(watch: &mut Watch) -> Batch {
    timeout(PATIENCE, watch.next()).await.expect("something comes").unwrap()
}

async fn delete(etcd: &Etcd, below: &str) -> i64 {
    etcd.txn(&Txn { success: vec![Op::Delete(prefix(below))], ..Txn::default() }).await.unwrap().header.revision
}

/// What was seen, as `prefix: revision of keys`.
fn said(batch: &Batch) -> String {
    let events = batch.events.iter().map(|event| match event {
        Event::Put(pair) => format!("{}={}", pair.key, String::from_utf8_lossy(&pair.value)),
        Event::Delete { key, .. } => format!("-{key}"),
    });
    format!("{}: {}", batch.prefix, events.collect::<Vec<_>>().join(" "))
}

#[test]
fn prefixes_are_watched_on_one_connection_and_continue_where_they_were() {
    with_etcd(|| async {
        let node = Node::alone(2379, &["--experimental-watch-progress-notify-interval", "1s"]).await;
        let etcd = client(&[&node.url], "");
        let first = put(&etcd, &[("/a/1", "1"), ("/b/1", "1"), ("/c/1", "1")]).await;
        let mut watch = etcd.watch(&from(&["/a/", "/b/"], first)).await.unwrap();
        assert_eq!(watch.header().revision, first);
        let mut both = [said(&next(&mut watch).await), said(&next(&mut watch).await)];
        both.sort();
        assert_eq!(both, ["/a/: /a/1=1", "/b/: /b/1=1"]);
        // All of a transaction is in one batch; what is beside is not seen.
        let second = put(&etcd, &[("/a/1", "2"), ("/a/2", "2"), ("/ab", "no"), ("/c/1", "2")]).await;
        let batch = next(&mut watch).await;
        assert_eq!((said(&batch), batch.revision), ("/a/: /a/1=2 /a/2=2".into(), second));
        assert_eq!(watch.positions(), [from(&["/a/"], second + 1), from(&["/b/"], first + 1)].concat());
        watch.add(&from(&["/c/"], first)[0]).unwrap();
        assert_eq!([said(&next(&mut watch).await)], ["/c/: /c/1=1 /c/1=2"]);
        assert!(matches!(watch.add(&from(&["/c/"], first)[0]), Err(Error::Refused(_))));
        watch.remove("/c/");
        put(&etcd, &[("/c/1", "3")]).await;
        let third = delete(&etcd, "/a/").await;
        let batch = next(&mut watch).await;
        assert_eq!((said(&batch), batch.revision), ("/a/: -/a/1 -/a/2".into(), third));
        // A prefix without changes is told from time to time how far it is.
        while watch.positions().iter().any(|one| one.from != third + 1) {
            let _ = timeout(std::time::Duration::from_millis(20), watch.next()).await;
        }
        // What changes while nothing is watched is seen later, once.
        let positions = watch.positions();
        drop(watch);
        for n in 0..30 {
            put(&etcd, &[("/a/1", &n.to_string()), ("/b/2", &n.to_string())]).await;
        }
        let mut watch = etcd.watch(&positions).await.unwrap();
        let mut seen: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        while seen.values().map(Vec::len).sum::<usize>() < 60 {
            let batch = next(&mut watch).await;
            seen.entry(batch.prefix).or_default().extend(batch.events.iter().map(Event::mod_revision));
        }
        let all: Vec<i64> = (third + 1..=third + 30).collect();
        assert_eq!(seen, BTreeMap::from([("/a/".into(), all.clone()), ("/b/".into(), all)]));
        assert_eq!(watch.positions(), from(&["/a/", "/b/"], third + 31));
        let error = etcd.watch(&from(&["/a/"], third + 32)).await.unwrap_err();
        assert!(matches!(error, Error::Behind(_)), "{error}");
        for bad in [from(&[""], 1), from(&["/a/"], 0), Vec::new()] {
            assert!(matches!(etcd.watch(&bad).await, Err(Error::Refused(_))));
        }
    });
}

#[test]
fn compaction_is_told_and_a_reading_goes_on_from_there() {
    with_etcd(|| async {
        let node = Node::alone(2379, &[]).await;
        let etcd = client(&[&node.url], "");
        let first = put(&etcd, &[("/a/1", "1")]).await;
        let mut behind = etcd.watch(&from(&["/a/"], first + 1)).await.unwrap();
        for n in 0..5 {
            put(&etcd, &[("/a/1", &n.to_string())]).await;
        }
        compact(&node, first + 4).await;
        // One that is there goes on.
        assert!(next(&mut behind).await.revision > first);
        let mut watch = etcd.watch(&from(&["/b/", "/a/"], first + 1)).await.unwrap();
        let end = timeout(PATIENCE, watch.next()).await.unwrap().unwrap_err();
        assert_eq!(end, WatchEnd::Compacted(first + 4));
        let error = etcd.range(&prefix("/a/"), Some(first), 0).await.unwrap_err();
        assert!(matches!(error, Error::Compacted(_)), "{error}");
        let (header, keys) = etcd.pages("/a/").all().await.unwrap();
        assert_eq!((keys[0].value.as_slice(), header.revision), (&b"4"[..], first + 5));
        let mut watch = etcd.watch(&from(&["/a/"], header.revision + 1)).await.unwrap();
        let last = put(&etcd, &[("/a/1", "last")]).await;
        assert_eq!(next(&mut watch).await.revision, last);
    });
}

#[test]
fn a_thousand_prefixes_are_watched_at_once() {
    with_etcd(|| async {
        let node = Node::alone(2379, &[]).await;
        let etcd = client(&[&node.url], "");
        let first = put(&etcd, &[("/0", "x")]).await;
        let prefixes: Vec<String> = (0..1000).map(|n| format!("/network/{n:036}/ports/")).collect();
        let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
        let began = std::time::Instant::now();
        let mut watch = etcd.watch(&from(&prefixes, first + 1)).await.unwrap();
        for some in prefixes.chunks(100) {
            let pairs: Vec<(String, &str)> = some.iter().map(|prefix| (format!("{prefix}1"), "x")).collect();
            put(&etcd, &pairs.iter().map(|(key, value)| (key.as_str(), *value)).collect::<Vec<_>>()).await;
        }
        let mut seen = Vec::new();
        while seen.len() < 1000 {
            seen.push(next(&mut watch).await.prefix);
        }
        eprintln!("1000 watches and a change of each: {:?}", began.elapsed());
        seen.sort();
        assert_eq!(seen, prefixes);
        let connections = crate::netns::run("ss -Htn state established dport = 2379").lines().count();
        // One for requests, one for the watches, and the gateway's to its own member.
        assert!(connections <= 3, "{connections}");
    });
}

#[test]
fn what_is_too_long_for_one_message_comes_in_parts_and_whole() {
    with_etcd(|| async {
        let node = Node::alone(2379, &[]).await;
        let etcd = client(&[&node.url], "");
        let first = put(&etcd, &[("/0", "x")]).await;
        for n in 0..8u8 {
            let success = (0..3).map(|part| Op::put(format!("/l/{n}/{part}"), vec![n; 300_000])).collect();
            etcd.txn(&Txn { success, ..Txn::default() }).await.unwrap();
        }
        let mut watch = etcd.watch(&from(&["/l/"], first + 1)).await.unwrap();
        let mut seen = Vec::new();
        while seen.len() < 24 {
            let batch = next(&mut watch).await;
            assert_eq!(batch.events.len() % 3, 0, "all of a transaction is in one batch");
            seen.extend(batch.events);
        }
        let right = seen.iter().zip(0..).all(|(event, at): (&Event, u8)| {
            matches!(event, Event::Put(pair) if pair.key == format!("/l/{}/{}", at / 3, at % 3) && pair.value == vec![at / 3; 300_000])
        });
        assert!(right);
    });
}
