//! Three members, of which some die.

use nicd::fleet::etcd::{Compare, Error, Etcd, Keys, Op, Txn, WatchEnd, Watched};

use crate::keys::{get, put};
use crate::node::{Node, client, with_etcd};

fn urls(nodes: &[Node]) -> Vec<&str> {
    nodes.iter().map(|node| node.url.as_str()).collect()
}

/// Which of them leads, as the first that answers says.
async fn leader(etcd: &Etcd) -> usize {
    let status: Vec<_> = etcd.status().await.into_iter().map(|(_, status)| status.unwrap()).collect();
    status.iter().position(|one| one.header.member_id == status[0].leader).unwrap()
}

#[test]
fn requests_go_on_without_the_leader_and_are_refused_at_once_without_most() {
    with_etcd(|| async {
        let mut nodes = Node::three().await;
        let etcd = client(&urls(&nodes), "");
        let revision = put(&etcd, &[("/a", "1")]).await;
        let led = leader(&etcd).await;
        // The client is at the leader, and has a connection to it.
        let at_leader = client(&[&nodes[led].url, &nodes[(led + 1) % 3].url, &nodes[(led + 2) % 3].url], "");
        assert_eq!(get(&at_leader, "/a").await.unwrap().value, b"1");
        nodes[led].kill();
        // Which of a transaction's outcomes is not known is never one that it repeats: the guard tells.
        let guarded =
            Txn { compare: vec![Compare::absent(Keys::One("/b".into()))], success: vec![Op::put("/b", "2")], ..Txn::default() };
        let done = loop {
            match at_leader.txn(&guarded).await {
                Ok(answer) => break answer,
                Err(Error::Unreachable(why)) => assert!(why.iter().any(|one| one.why.contains("no leader")), "{why:?}"),
                Err(Error::Unknown(why)) => eprintln!("not known: {why}"),
                Err(error) => panic!("{error}"),
            }
        };
        assert!(done.header.revision > revision);
        let b = get(&at_leader, "/b").await.unwrap();
        assert_eq!((b.value.as_slice(), b.version), (&b"2"[..], 1));
        // Now one is left, which can neither write nor read.
        let left = (led + 1) % 3;
        let mut watch =
            client(&[&nodes[left].url], "").watch(&[Watched { prefix: "/".into(), from: b.mod_revision + 1 }]).await.unwrap();
        nodes[(led + 2) % 3].kill();
        let end = watch.next().await.unwrap_err();
        assert!(matches!(&end, WatchEnd::Lost(_)), "{end}");
        for _ in 0..2 {
            let error = at_leader.txn(&Txn { success: vec![Op::put("/c", "3")], ..Txn::default() }).await.unwrap_err();
            let Error::Unreachable(why) = error else { panic!("{error}") };
            assert_eq!(why.len(), 3);
            assert!(why.iter().any(|one| one.endpoint == nodes[left].url && one.why.contains("no leader")), "{why:?}");
        }
        let error = at_leader.range(&Keys::One("/a".into()), None, 0).await.unwrap_err();
        assert!(matches!(error, Error::Unreachable(_)), "{error}");
        nodes[led].restart();
        nodes[led].answers("").await;
        put(&at_leader, &[("/c", "3")]).await;
        assert_eq!(get(&at_leader, "/c").await.unwrap().version, 1, "what was refused was not done");
    });
}

#[test]
fn an_etcd_that_lost_its_keys_or_another_one_is_told_from_the_one_before() {
    with_etcd(|| async {
        let mut nodes = [Node::alone(2379, &[]).await, Node::alone(2380, &[]).await];
        let [one, two] = [0, 1].map(|n: usize| client(&[&nodes[n].url], ""));
        let both = client(&[&nodes[0].url, &nodes[1].url], "");
        let keys: Vec<String> = (0..600).map(|n| format!("/k/{n:03}")).collect();
        for some in keys.chunks(100) {
            let pairs: Vec<(&str, &str)> = some.iter().map(|key| (key.as_str(), "x")).collect();
            put(&one, &pairs).await;
            put(&two, &pairs).await;
        }
        let mut pages = both.pages("/k/");
        let header = pages.next().await.unwrap().unwrap().header;
        let mut watch = one.watch(&[Watched { prefix: "/k/".into(), from: header.revision + 1 }]).await.unwrap();
        nodes[0].kill();
        let error = pages.next().await.unwrap_err();
        assert!(matches!(&error, Error::Refused(why) if why.contains("two clusters")), "{error}");
        let end = watch.next().await.unwrap_err();
        assert!(matches!(end, WatchEnd::Lost(_)), "{end}");
        nodes[0].empty();
        nodes[0].restart();
        nodes[0].answers("").await;
        let error = one.watch(&watch.positions()).await.unwrap_err();
        assert!(matches!(&error, Error::Behind(why) if why.contains("its revision is 1")), "{error}");
        let error = one.range(&Keys::Prefix("/k/".into()), Some(header.revision), 0).await.unwrap_err();
        assert!(matches!(error, Error::Behind(_)), "{error}");
    });
}
