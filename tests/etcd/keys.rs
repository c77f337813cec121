//! Keys, transactions, leases, compaction and space, on one member.

use std::time::Duration;

use nicd::fleet::etcd::{Compare, Done, Error, Etcd, Header, KeyValue, Keys, MAX_VALUE, Op, Relation, Target, Txn, TxnAnswer};

use crate::node::{Node, PATIENCE, client, with_etcd};

/// Writes keys in one transaction.
pub async fn put(etcd: &Etcd, pairs: &[(&str, &str)]) -> i64 {
    let success = pairs.iter().map(|(key, value)| Op::put(*key, *value)).collect();
    etcd.txn(&Txn { success, ..Txn::default() }).await.unwrap().header.revision
}

pub fn one(key: &str) -> Keys {
    Keys::One(key.to_owned())
}

pub fn prefix(prefix: &str) -> Keys {
    Keys::Prefix(prefix.to_owned())
}

/// What a key has.
pub async fn get(etcd: &Etcd, key: &str) -> Option<KeyValue> {
    let read = etcd.range(&one(key), None, 0).await.unwrap();
    assert!(!read.more && read.keys.len() < 2, "{read:?}");
    read.keys.into_iter().next()
}

async fn guarded(etcd: &Etcd, compare: Vec<Compare>, success: Vec<Op>) -> TxnAnswer {
    let failure = vec![Op::Range { keys: prefix("/g/"), limit: 1 }];
    etcd.txn(&Txn { compare, success, failure }).await.unwrap()
}

/// Discards what came before a revision.
pub async fn compact(node: &Node, revision: i64) {
    let body = format!("{{\"revision\":\"{revision}\",\"physical\":true}}");
    let url = format!("{}/v3/kv/compaction", node.url);
    let said = tokio::task::spawn_blocking(move || curl(&url, &body, &[])).await.unwrap();
    assert!(said.contains("header"), "{said}");
}

/// What the gateway answers to another client.
pub fn curl(url: &str, body: &str, more: &[&str]) -> String {
    let output =
        std::process::Command::new("curl").args(["--silent", "--max-time", "10", "--data", body]).args(more).arg(url).output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

#[test]
fn keys_are_written_read_and_guarded() {
    with_etcd(|| async {
        let node = Node::alone(2379, &[]).await;
        let etcd = client(&[&node.url], "");
        assert_eq!(get(&etcd, "/g/a").await, None);
        // That no key begins so can be demanded, and is then not so any more.
        let nobody = vec![Compare::absent(prefix("/g/"))];
        let first = guarded(&etcd, nobody.clone(), vec![Op::put("/g/a", "1"), Op::Range { keys: one("/g/a"), limit: 0 }]).await;
        assert!(first.succeeded);
        let [Done::Put, Done::Range(read)] = first.done.as_slice() else { panic!("{first:?}") };
        assert_eq!((read.keys[0].value.as_slice(), read.keys[0].mod_revision), (&b"1"[..], first.header.revision));
        let second = guarded(&etcd, nobody, vec![Op::put("/g/b", "2")]).await;
        let [Done::Range(read)] = second.done.as_slice() else { panic!("{second:?}") };
        assert_eq!((second.succeeded, read.keys[0].key.as_str()), (false, "/g/a"));
        let a = get(&etcd, "/g/a").await.unwrap();
        assert_eq!((a.create_revision, a.mod_revision, a.version, a.lease), (first.header.revision, first.header.revision, 1, 0));
        // Each way to compare, where it holds and where it does not.
        let revision = a.mod_revision;
        for (keys, is, to, holds) in [
            (one("/g/a"), Relation::Equal, Target::ModRevision(revision), true),
            (one("/g/a"), Relation::Equal, Target::ModRevision(revision + 1), false),
            (one("/g/a"), Relation::NotEqual, Target::CreateRevision(0), true),
            (one("/g/a"), Relation::Greater, Target::CreateRevision(revision), false),
            (one("/g/a"), Relation::Less, Target::ModRevision(revision + 1), true),
            (one("/g/a"), Relation::Equal, Target::Value(b"1".to_vec()), true),
            (one("/g/a"), Relation::Equal, Target::Value(b"2".to_vec()), false),
            (one("/g/a"), Relation::Less, Target::Value(b"2".to_vec()), true),
            (one("/g/a"), Relation::Equal, Target::Lease(0), true),
            (one("/none"), Relation::Equal, Target::Lease(0), true),
            (one("/none"), Relation::Equal, Target::ModRevision(0), true),
            (one("/none"), Relation::Greater, Target::ModRevision(0), false),
            (one("/none"), Relation::Equal, Target::Value(Vec::new()), false),
            (prefix("/g/"), Relation::Greater, Target::CreateRevision(0), true),
            (prefix("/none/"), Relation::Equal, Target::ModRevision(0), true),
            (prefix("/none/"), Relation::Greater, Target::ModRevision(0), false),
        ] {
            let compare = Compare { keys, is, to };
            assert_eq!(guarded(&etcd, vec![compare.clone()], Vec::new()).await.succeeded, holds, "{compare:?}");
        }
        let unchanged = Compare::unchanged("/g/a", revision);
        assert!(guarded(&etcd, vec![unchanged.clone()], vec![Op::put("/g/a", vec![0, 255])]).await.succeeded);
        assert!(!guarded(&etcd, vec![unchanged], vec![Op::put("/g/a", "4")]).await.succeeded);
        let a = get(&etcd, "/g/a").await.unwrap();
        assert_eq!((a.value, a.version, a.create_revision), (vec![0, 255], 2, revision));
        // As it was, and as it cannot have been.
        let then = etcd.range(&one("/g/a"), Some(revision), 0).await.unwrap();
        assert_eq!((then.keys[0].value.as_slice(), then.header.revision), (&b"1"[..], a.mod_revision));
        let ahead = etcd.range(&one("/g/a"), Some(1_000_000), 0).await.unwrap_err();
        assert!(matches!(ahead, Error::Behind(_)), "{ahead}");
        // What is refused leaves nothing behind.
        for (success, why) in [
            (vec![Op::put("/x", "1"), Op::put("/x", "2")], "duplicate"),
            (vec![Op::put("/x", "1"), Op::Put { key: "/y".into(), value: Vec::new(), lease: 77 }], "lease not found"),
            (vec![Op::put("/x", vec![0; MAX_VALUE + 1])], "1048577 bytes"),
            (vec![Op::put("/x", vec![0; MAX_VALUE]), Op::put("/y", vec![0; MAX_VALUE])], "larger than max"),
            ((0..129).map(|n| Op::put(format!("/x/{n}"), "")).collect(), "too many operations"),
            (vec![Op::put("", "1")], "key is not provided"),
        ] {
            let error = etcd.txn(&Txn { success, ..Txn::default() }).await.unwrap_err();
            assert!(matches!(&error, Error::Refused(text) if text.contains(why)), "{why}: {error}");
        }
        assert!(etcd.range(&prefix("/x"), None, 0).await.unwrap().keys.is_empty());
        let deleted =
            etcd.txn(&Txn { success: vec![Op::Delete(prefix("/g/")), Op::Delete(one("/none"))], ..Txn::default() }).await;
        assert_eq!(deleted.unwrap().done, [Done::Deleted(1), Done::Deleted(0)]);
        let (name, status) = etcd.status().await.remove(0);
        let status = status.unwrap();
        assert_eq!((name, status.leader, status.errors), (node.url.clone(), status.header.member_id, Vec::new()));
        assert!(status.version.starts_with("3.") && status.db_size >= status.db_size_in_use, "{}", status.version);
    });
}

#[test]
fn pages_are_of_one_revision_however_long_the_values() {
    with_etcd(|| async {
        let node = Node::alone(2379, &[]).await;
        let etcd = client(&[&node.url], "");
        let keys: Vec<String> = (0..1100).map(|n| format!("/p/{n:04}")).collect();
        for some in keys.chunks(100) {
            put(&etcd, &some.iter().map(|key| (key.as_str(), "x")).collect::<Vec<_>>()).await;
        }
        put(&etcd, &[("/p0", "beside"), ("/o", "beside")]).await;
        let mut pages = etcd.pages("/p/");
        let first = pages.next().await.unwrap().unwrap();
        // What changes meanwhile is not seen.
        etcd.txn(&Txn { success: vec![Op::Delete(one("/p/1000")), Op::put("/p/0900a", "new")], ..Txn::default() }).await.unwrap();
        let mut seen: Vec<String> = first.keys.iter().map(|pair| pair.key.clone()).collect();
        let mut count = 1;
        while let Some(page) = pages.next().await.unwrap() {
            assert_eq!(page.header, first.header);
            seen.extend(page.keys.into_iter().map(|pair| pair.key));
            count += 1;
        }
        assert_eq!((seen == keys, count), (true, 3));
        let (header, all) = etcd.pages("/p/").all().await.unwrap();
        assert_eq!((all.len(), header.revision), (1100, first.header.revision + 1));
        assert_eq!(etcd.pages("/none/").all().await.unwrap().1, []);
        assert_eq!(etcd.range(&prefix(""), None, 0).await.unwrap().keys.len(), 1102, "the empty prefix is that of all keys");
        // A compaction in the middle is told, or read over.
        let mut pages = etcd.pages("/p/");
        pages.next().await.unwrap();
        let now = put(&etcd, &[("/o", "again")]).await;
        compact(&node, now).await;
        let error = pages.next().await.unwrap_err();
        assert!(matches!(error, Error::Compacted(_)), "{error}");
        assert_eq!(pages.all().await.unwrap().1.len(), 1100);
        // Long ones do not fit into one answer.
        for n in 0..13 {
            etcd.txn(&Txn { success: vec![Op::put(format!("/l/{n:02}"), vec![n; MAX_VALUE])], ..Txn::default() }).await.unwrap();
        }
        let error = etcd.range(&prefix("/l/"), None, 0).await.unwrap_err();
        assert!(matches!(error, Error::TooLong(_)), "{error}");
        let (_, all) = etcd.pages("/l/").all().await.unwrap();
        assert!(all.len() == 13 && all.iter().zip(0..).all(|(pair, n)| pair.value == vec![n; MAX_VALUE]));
    });
}

#[test]
fn leases_end_with_their_keys_unless_they_are_kept_alive() {
    with_etcd(|| async {
        let node = Node::alone(2379, &[]).await;
        let etcd = client(&[&node.url], "");
        let kept = etcd.lease_grant(1).await.unwrap();
        let left = etcd.lease_grant(1).await.unwrap();
        assert!(kept.id != 0 && kept.id != left.id && kept.ttl >= 1, "{kept:?}");
        let under = |key: &str, lease| Op::Put { key: key.into(), value: Vec::new(), lease };
        let success = vec![under("/kept", kept.id), under("/left", left.id)];
        let put = etcd.txn(&Txn { success, ..Txn::default() }).await.unwrap();
        assert_eq!(get(&etcd, "/kept").await.unwrap().lease, kept.id);
        let owned = Compare { keys: one("/kept"), is: Relation::Equal, to: Target::Lease(kept.id) };
        assert!(guarded(&etcd, vec![owned], Vec::new()).await.succeeded);
        let watched = nicd::fleet::etcd::Watched { prefix: "/left".into(), from: put.header.revision + 1 };
        let mut watch = etcd.watch(&[watched]).await.unwrap();
        let end = tokio::time::timeout(PATIENCE, watch.next());
        tokio::pin!(end);
        let mut beat = tokio::time::interval(Duration::from_millis(300));
        let ended = loop {
            tokio::select! {
                ended = &mut end => break ended.unwrap().unwrap(),
                _ = beat.tick() => assert_eq!(etcd.lease_keep_alive(kept.id).await.unwrap().unwrap().id, kept.id),
            }
        };
        assert!(matches!(&ended.events[..], [nicd::fleet::etcd::Event::Delete { key, .. }] if key == "/left"), "{ended:?}");
        assert_eq!(etcd.lease_keep_alive(left.id).await.unwrap(), None, "it is no more");
        assert!(get(&etcd, "/kept").await.is_some());
        etcd.lease_revoke(kept.id).await.unwrap();
        etcd.lease_revoke(kept.id).await.unwrap();
        assert_eq!(get(&etcd, "/kept").await, None);
    });
}

#[test]
fn a_full_etcd_says_so_and_is_read_and_deleted_from() {
    with_etcd(|| async {
        let node = Node::alone(2379, &["--quota-backend-bytes", "3000000"]).await;
        let etcd = client(&[&node.url], "");
        let mut written = 0;
        let error = loop {
            let success = vec![Op::put(format!("/f/{written}"), vec![0; 500_000])];
            match etcd.txn(&Txn { success, ..Txn::default() }).await {
                Ok(_) => written += 1,
                Err(error) => break error,
            }
            assert!(written < 20);
        };
        // The one that took the last space may be done, and is answered so all the same.
        assert!(matches!(error, Error::Full(_)) && error.may_be_done(), "{error}");
        let there = etcd.pages("/f/").all().await.unwrap().1.len();
        assert!(there == written || there == written + 1, "{there} of {written}");
        let error = etcd.txn(&Txn { success: vec![Op::put("/f/more", "x")], ..Txn::default() }).await.unwrap_err();
        assert!(matches!(error, Error::Full(_)), "{error}");
        assert_eq!(get(&etcd, "/f/more").await, None);
        let error = etcd.lease_grant(10).await.unwrap_err();
        assert!(matches!(error, Error::Full(_)), "{error}");
        let alarm = etcd.status().await.remove(0).1.unwrap().errors;
        assert!(alarm.iter().any(|text| text.contains("NOSPACE")), "{alarm:?}");
        let deleted = etcd.txn(&Txn { success: vec![Op::Delete(prefix("/f/"))], ..Txn::default() }).await.unwrap();
        assert_eq!(deleted.done, [Done::Deleted(there.try_into().unwrap())]);
    });
}

#[test]
fn many_requests_share_a_few_connections() {
    with_etcd(|| async {
        let node = Node::alone(2379, &[]).await;
        let etcd = client(&[&node.url], "");
        let began = std::time::Instant::now();
        for n in 0..200 {
            put(&etcd, &[("/one", &n.to_string())]).await;
        }
        let alone = began.elapsed();
        let all = (0..400).map(|n| {
            let etcd = etcd.clone();
            tokio::spawn(async move { put(&etcd, &[(&format!("/m/{n}"), "x")]).await })
        });
        let began = std::time::Instant::now();
        for task in all.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        eprintln!("200 one after the other: {alone:?}; 400 together: {:?}", began.elapsed());
        let Header { revision, .. } = etcd.pages("/m/").all().await.unwrap().0;
        assert_eq!(revision, 601);
        let connections = crate::netns::run("ss -Htn state established dport = 2379").lines().count();
        // One is the gateway's to its own member.
        assert!((2..=5).contains(&connections), "{connections} are kept");
    });
}
