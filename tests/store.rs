//! The store on a real disk: durability, refused transactions, and detaches on a full disk.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

#[path = "common/netns.rs"]
mod netns;

use std::collections::{BTreeSet, HashMap};
use std::fs::Permissions;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use nicd::model::idempotency::{CallerId, Key, Made, StoredRequest};
use nicd::model::notice::{Notice, NoticeKey, NovaFact, NovaState, Occasion, StoredNotice};
use nicd::model::port::Binding;
use nicd::model::{
    AddressPair, Claim, Epoch, FixedIp, GroupId, Held, Intent, Lent, Limits, Mac, Member, MemberId, Network, NetworkId,
    NetworkKind, NotedMember, Origin, Port, PortId, Profile, RateLimit, Registration, Server, ServerId, SubPort, Subnet,
    SubnetId, Trunk, TrunkId,
};
use nicd::plan::groups::number;
use nicd::store::{Change, FILE, Loaded, Lock, Purpose, Store, StoreError};
use rusqlite::{Connection, OpenFlags};
use uuid::Uuid;

/// Longer than any flush.
const PATIENCE: Duration = Duration::from_secs(10);

/// A store open in a directory, and a way to wait for its reports.
struct Opened {
    store: Store,
    loaded: Loaded,
    thread: JoinHandle<()>,
}

impl Opened {
    fn at(dir: &Path) -> Self {
        let (store, loaded, thread) = Store::open(dir).unwrap();
        Self { store, loaded, thread }
    }

    /// Makes changes durable and answers what became of that.
    fn commit(&self, changes: Vec<Change>, purpose: Purpose) -> Result<(), StoreError> {
        commit(&self.store, changes, purpose)
    }

    /// Hands all of these in while another program holds the store, and answers what became of each.
    fn commit_together(&self, dir: &Path, all: Vec<Vec<Change>>) -> Vec<Result<(), StoreError>> {
        let other = Connection::open(dir.join(FILE)).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let commits = join_all(all.into_iter().map(|changes| self.store.commit(changes, Purpose::Growing)));
        // Polled behind the commits, which are handed in by then.
        let release = async { other.execute_batch("ROLLBACK").unwrap() };
        block_on(async { tokio::join!(commits, release).0 })
    }

    fn close(self) {
        self.store.close();
        self.thread.join().unwrap();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.unwrap() })
}

fn commit(store: &Store, changes: Vec<Change>, purpose: Purpose) -> Result<(), StoreError> {
    block_on(store.commit(changes, purpose))
}

#[test]
fn records_survive_a_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Opened::at(dir.path());
    let (store_id, ports) = (opened.loaded.store_id, [port(1, 5), port(2, 6)]);
    let server = server();
    opened.commit(base(), Purpose::Growing).unwrap();
    opened.commit(vec![Change::PutServer(server.clone()), put(&ports[0]), put(&ports[1])], Purpose::Growing).unwrap();
    let kept = vec![remembered(0, "a"), remembered(1000, "a")];
    let remember = |one: &StoredRequest| Change::Remember(Box::new(one.clone()));
    opened.commit(kept.iter().chain([&remembered(0, "b")]).map(remember).collect(), Purpose::Growing).unwrap();
    let notices = [notice(1), notice(2)];
    let told = notices.iter().map(|one| Change::PutNotice(Box::new(one.clone()))).collect();
    opened.commit(told, Purpose::Growing).unwrap();
    opened.commit(vec![Change::ForgetNotice(notices[1].recipient(), notices[1].about())], Purpose::Freeing).unwrap();
    let registration =
        Registration { created: 4, epoch: Epoch { number: 1, id: Uuid::from_u128(5) }, seen: 6, is_settled: false };
    let network_of = NetworkId(Uuid::from_u128(7));
    let held = [1, 40].map(|last| Held {
        claim: Claim::of_address(network_of, [192, 0, 2, last].into()),
        made: 9,
        epoch: registration.epoch,
    });
    let claims = [Change::PutClaim(held[0]), Change::PutClaim(held[1]), Change::DeleteClaim(held[1].claim)];
    let members = [1, 2].map(|port| NotedMember {
        network: network_of,
        id: MemberId { host: "node-2".into(), port: PortId(Uuid::from_u128(port)) },
        member: Member { groups: [GroupId(Uuid::from_u128(8))].into(), addresses: [[192, 0, 2, 7].into()].into() },
    });
    let put_members = members.iter().map(|member| Change::PutMember(Box::new(member.clone())));
    let lent = [1, 2].map(|last| Lent {
        claim: Claim::Address(network().id, IpAddr::from([10, 0, 0, last])),
        host: "compute-2".into(),
        made: 9,
    });
    let put_lent = lent.iter().cloned().map(Change::PutLent).chain([Change::DeleteLent(lent[1].claim)]);
    let claims =
        claims.into_iter().chain(put_lent).chain(put_members).chain([Change::DeleteMember(network_of, members[1].id.clone())]);
    let noted = [Change::ReserveEvents(77), Change::NoteRegistration(registration)].into_iter().chain(claims);
    let gone = [Change::DeletePort(ports[1].id), Change::ForgetKey(remembered(0, "b").key)].into_iter().chain(noted).collect();
    opened.commit(gone, Purpose::Freeing).unwrap();
    opened.close();
    let again = Opened::at(dir.path());
    let wanted = Loaded {
        groups: Vec::new(),
        notices: notices[..1].to_vec(),
        store_id,
        // Each of the six flushes has a number of its own.
        commit: 6,
        next_event: 77,
        lost: None,
        registration: Some(registration),
        claims: vec![held[0]],
        lent: lent[..1].to_vec(),
        members: members[..1].to_vec(),
        networks: vec![network()],
        subnets: vec![subnet()],
        servers: vec![server],
        ports: vec![ports[0].clone()],
        trunks: Vec::new(),
        remembered: kept,
        jobs: Vec::new(),
    };
    assert_eq!(again.loaded, wanted);
    // What the deleted one had is free.
    again.commit(vec![put(&Port { id: PortId(Uuid::from_u128(3)), ..ports[1].clone() })], Purpose::Growing).unwrap();
    again.close();
}

#[test]
fn a_trunk_is_kept_with_its_subports_and_names_ports_that_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Opened::at(dir.path());
    let ports = [port(1, 5), port(2, 6)];
    opened.commit(base(), Purpose::Growing).unwrap();
    opened.commit(ports.iter().map(put).collect(), Purpose::Growing).unwrap();
    let now = jiff::Timestamp::UNIX_EPOCH;
    let trunk = Trunk {
        id: TrunkId(Uuid::from_u128(9)),
        name: "router".into(),
        description: String::new(),
        project_id: String::new(),
        port_id: ports[0].id,
        admin_up: true,
        sub_ports: vec![SubPort { port_id: ports[1].id, vlan: 101 }],
        created_at: now,
        updated_at: now,
        revision_number: 2,
    };
    opened.commit(vec![Change::PutTrunk(Box::new(trunk.clone()))], Purpose::Growing).unwrap();
    opened.close();
    let again = Opened::at(dir.path());
    assert_eq!(again.loaded.trunks, std::slice::from_ref(&trunk));
    let twice = Trunk { sub_ports: vec![SubPort { port_id: ports[0].id, vlan: 101 }], ..trunk.clone() };
    again.commit(vec![Change::PutTrunk(Box::new(twice))], Purpose::Growing).unwrap();
    again.close();
    let refusal = Store::open(dir.path()).map(|_| ()).unwrap_err().to_string();
    assert!(refusal.contains("table trunks") && refusal.contains("in the trunk twice"), "{refusal}");
    let sql = Connection::open(dir.path().join(FILE)).unwrap();
    sql.execute("DELETE FROM trunks", []).unwrap();
    drop(sql);
    let last = Opened::at(dir.path());
    assert_eq!(last.loaded.trunks, []);
    last.commit(vec![Change::PutTrunk(Box::new(trunk.clone())), Change::DeleteTrunk(trunk.id)], Purpose::Growing).unwrap();
    last.close();
}

#[test]
fn a_newer_schema_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    Opened::at(dir.path()).close();
    let file = dir.path().join(FILE);
    let sql = Connection::open(&file).unwrap();
    let known: u32 = sql.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    sql.pragma_update(None, "user_version", known + 1).unwrap();
    drop(sql);
    let before = std::fs::read(&file).unwrap();
    let refusal = Store::open(dir.path()).map(|_| ()).unwrap_err();
    assert_eq!(refusal, StoreError::Newer { file: file.display().to_string(), found: known + 1, known });
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

/// A store as the first version made it, with an attached port, a free one, and an answer under a key.
const VERSION_1: &str = include_str!("fixtures/version-1.sql");

#[test]
fn a_store_of_the_first_version_is_brought_to_the_present_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(FILE);
    let sql = Connection::open(&file).unwrap();
    sql.execute_batch(VERSION_1).unwrap();
    sql.pragma_update(None, "user_version", 1).unwrap();
    drop(sql);
    let opened = Opened::at(dir.path());
    let Loaded { networks, subnets, servers, ports, remembered, commit, .. } = opened.loaded.clone();
    assert_eq!((networks.len(), subnets.len(), servers.len(), ports.len(), remembered.len(), commit), (1, 1, 1, 2, 1, 7));
    let attached = ports.iter().find_map(|port| port.binding.as_ref()).unwrap();
    assert_eq!((attached.server_id, attached.intent, attached.commit), (servers[0].id, Intent::Attached, 5));
    assert_eq!(remembered[0].answer.as_ref().unwrap().status, 200);
    assert!(networks[0].port_security && ports.iter().all(|port| port.port_security));
    opened.commit(vec![put(&ports[0])], Purpose::Growing).unwrap();
    opened.close();
    let again = Opened::at(dir.path());
    assert_eq!(again.loaded.ports, ports);
    again.close();
}

/// While zones of conntrack were no part of the record they were derived from the id, in the order in which networks were made.
#[test]
fn networks_keep_the_zones_that_they_had() {
    let derived = |n: u128| 4096 + u16::try_from(number(&[GroupId(Uuid::from_u128(n))].into()) % 61_440).unwrap();
    let mut seen = HashMap::new();
    let (first, second) = (1..).find_map(|n| Some((seen.insert(derived(n), n)?, n))).unwrap();
    let at = |n: u128, second: &str, bridge: Option<&str>| Network {
        id: NetworkId(Uuid::from_u128(n)),
        bridge: bridge.map(|name| name.parse().unwrap()),
        created_at: format!("2026-11-28T10:35:26.{second}Z").parse().unwrap(),
        ..network()
    };
    // The one with the larger id was made first.
    let networks = [at(first, "15", None), at(second, "1", None), at(901, "2", Some("br0")), at(900, "3", Some("br0"))];
    let dir = tempfile::tempdir().unwrap();
    let opened = Opened::at(dir.path());
    opened.commit(networks.iter().cloned().map(Change::PutNetwork).collect(), Purpose::Growing).unwrap();
    opened.close();
    let sql = Connection::open(dir.path().join(FILE)).unwrap();
    sql.execute("UPDATE networks SET body = json_remove(body, '$.zone')", []).unwrap();
    sql.execute_batch("DROP TABLE claims; DROP TABLE members; DROP TABLE lent").unwrap();
    sql.pragma_update(None, "user_version", 6).unwrap();
    drop(sql);
    let zones = [derived(first) + 1, derived(first), derived(901), derived(901)];
    let mut wanted: Vec<Network> = networks.into_iter().zip(zones).map(|(network, zone)| Network { zone, ..network }).collect();
    wanted.sort_by_key(|network| network.id);
    for _ in 0..2 {
        let opened = Opened::at(dir.path());
        assert_eq!(opened.loaded.networks, wanted);
        opened.close();
    }
}

#[test]
fn a_ports_filters_and_limits_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let blue = Network { port_security: false, isolated: true, ..network() };
    let limited = Port {
        port_security: false,
        address_pairs: vec![
            AddressPair { ip: "10.0.0.64/26".parse().unwrap(), mac: None },
            AddressPair { ip: "fd00::5/128".parse().unwrap(), mac: Some(Mac([0, 0, 0x5e, 0, 1, 7])) },
        ],
        limits: Limits {
            to_guest: Some(RateLimit { rate_kbps: 64, burst_kb: None, exact: false }),
            from_guest: Some(RateLimit { rate_kbps: 100_000_000, burst_kb: Some(8), exact: true }),
        },
        isolated: Some(false),
        ..port(1, 5)
    };
    let opened = Opened::at(dir.path());
    let changes = vec![Change::PutNetwork(blue.clone()), Change::PutSubnet(subnet()), put(&limited), put(&port(2, 6))];
    opened.commit(changes, Purpose::Growing).unwrap();
    opened.close();
    let again = Opened::at(dir.path());
    assert_eq!((&again.loaded.networks, &again.loaded.ports), (&vec![blue], &vec![limited, port(2, 6)]));
    again.close();
}

#[test]
fn a_record_of_a_newer_nicd_is_refused_and_left_as_it_is() {
    for newer in [
        "UPDATE ports SET version = 2",
        "UPDATE ports SET body = json_set(body, '$.colour', 'blue') WHERE rowid = 1",
        "UPDATE ports SET body = json_set(body, '$.binding.colour', 'blue') WHERE json_extract(body, '$.binding') IS NOT NULL",
        "UPDATE ports SET body = json_set(body, '$.origin', 'heaven') WHERE rowid = 1",
        "UPDATE servers SET body = json_set(body, '$.guest.firmware', 'uefi')",
        "UPDATE servers SET body = json_set(body, '$.guest.kind', 'container')",
        "UPDATE networks SET version = 7",
        "UPDATE subnets SET body = json_set(body, '$.segment', 3)",
        "UPDATE remembered SET version = 2",
    ] {
        let dir = tempfile::tempdir().unwrap();
        with_ports(dir.path());
        let opened = Opened::at(dir.path());
        opened.commit(vec![Change::Remember(Box::new(remembered(0, "a")))], Purpose::Growing).unwrap();
        opened.close();
        let file = dir.path().join(FILE);
        let sql = Connection::open(&file).unwrap();
        assert!(sql.execute(newer, []).unwrap() > 0, "{newer}");
        drop(sql);
        let before = std::fs::read(&file).unwrap();
        let refusal = Store::open(dir.path()).map(|_| ()).unwrap_err();
        assert!(matches!(refusal, StoreError::NewerRecord(_)), "{newer}: {refusal}");
        assert_eq!(std::fs::read(&file).unwrap(), before, "{newer}");
    }
}

#[test]
fn a_name_learnt_late_is_written_into_the_record_it_is_of_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let (ports, _) = with_ports(dir.path());
    let opened = Opened::at(dir.path());
    let note = |commit| vec![Change::NoteGuestDevice(ports[0].id, commit, "eth0".parse().unwrap())];
    let mut leaving = ports[0].clone();
    leaving.binding.as_mut().unwrap().intent = Intent::Deleting;
    opened.commit(vec![put(&leaving)], Purpose::Freeing).unwrap();
    // The same device still: the name is noted, and the newer intent stays.
    opened.commit(note(3), Purpose::Freeing).unwrap();
    // Another attach, and none.
    opened.commit(note(2), Purpose::Freeing).unwrap();
    let gone = Change::NoteGuestDevice(PortId(Uuid::from_u128(9)), 3, "eth1".parse().unwrap());
    opened.commit(vec![gone], Purpose::Freeing).unwrap();
    opened.close();
    let again = Opened::at(dir.path());
    leaving.binding.as_mut().unwrap().guest_device = Some("eth0".parse().unwrap());
    assert!(again.loaded.ports.contains(&leaving) && again.loaded.ports.len() == ports.len());
    again.close();
}

#[test]
fn no_port_has_an_address_of_a_subnet_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Opened::at(dir.path());
    opened.commit(vec![Change::PutNetwork(network())], Purpose::Growing).unwrap();
    let refused = opened.commit(vec![put(&port(1, 5))], Purpose::Growing);
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
    opened.commit(vec![Change::PutSubnet(subnet())], Purpose::Growing).unwrap();
    opened.commit(vec![put(&port(1, 5))], Purpose::Growing).unwrap();
    opened.close();
}

#[test]
fn commits_go_on_while_everything_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Opened::at(dir.path());
    opened.commit(base(), Purpose::Growing).unwrap();
    let many = (0..4000u32).map(|n| {
        let [_, _, high, low] = n.to_be_bytes();
        let mac = Mac([0xfa, 0x16, 0x3e, 1, high, low]);
        put(&Port { id: PortId(Uuid::from_u128(10_000 + u128::from(n))), mac, fixed_ips: Vec::new(), ..port(0, 9) })
    });
    opened.commit(many.collect(), Purpose::Growing).unwrap();
    let store = opened.store.clone();
    let reader = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(store.read()).unwrap().ports.len()
    });
    let mut during = 0;
    while !reader.is_finished() {
        opened.commit(vec![Change::ReserveEvents(100 + during)], Purpose::Freeing).unwrap();
        during += 1;
    }
    assert_eq!(reader.join().unwrap(), 4000);
    assert!(during > 5, "{during}");
    opened.close();
}

#[test]
fn an_empty_file_is_brought_to_the_present_version() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(FILE);
    let sql = Connection::open(&file).unwrap();
    sql.pragma_update(None, "user_version", 0).unwrap();
    drop(sql);
    let opened = Opened::at(dir.path());
    opened.commit(base(), Purpose::Growing).unwrap();
    opened.close();
    let tables: i64 = Connection::open(&file)
        .unwrap()
        .query_row("SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'ports'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(tables, 1);
}

#[test]
fn a_state_directory_has_one_holder_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let first = Lock::take(dir.path()).unwrap();
    assert!(matches!(Lock::take(dir.path()), Err(StoreError::Held(held)) if held == dir.path().display().to_string()));
    drop(first);
    Lock::take(dir.path()).unwrap();
}

#[test]
fn commits_that_wait_share_a_flush() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Opened::at(dir.path());
    opened.commit(base(), Purpose::Growing).unwrap();
    let before = opened.store.flushes();
    let answers = opened.commit_together(dir.path(), (0..64).map(|n| vec![put(&port(n, n + 10))]).collect());
    answers.into_iter().for_each(|answer| answer.unwrap());
    // The first may have been taken before the others came.
    assert!(opened.store.flushes() - before <= 2);
    opened.close();
}

#[test]
fn what_is_noted_is_durable_with_the_next_commit() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Opened::at(dir.path());
    opened.commit(base(), Purpose::Growing).unwrap();
    let before = opened.store.flushes();
    opened.store.note(vec![put(&port(1, 5))]);
    opened.commit(vec![put(&port(2, 6))], Purpose::Growing).unwrap();
    assert_eq!((count(dir.path(), "ports"), opened.store.flushes() - before), (2, 1));
    opened.close();
}

#[test]
fn what_waits_when_the_store_closes_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Opened::at(dir.path());
    opened.store.note(base());
    let store = opened.store.clone();
    opened.close();
    assert_eq!(count(dir.path(), "networks"), 1);
    assert_eq!(commit(&store, base(), Purpose::Growing), Err(StoreError::Closed));
}

#[test]
fn a_taken_address_or_mac_is_refused_alone_among_those_that_share_a_flush() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Opened::at(dir.path());
    opened.commit(base(), Purpose::Growing).unwrap();
    let same_ip = port(2, 5);
    let same_mac = Port { mac: port(1, 5).mac, ..port(3, 7) };
    let unknown_network = Port { network_id: NetworkId(Uuid::from_u128(99)), ..port(4, 8) };
    let all = [port(1, 5), same_ip, same_mac, unknown_network, port(5, 9)];
    let before = opened.store.flushes();
    let became = opened.commit_together(dir.path(), all.iter().map(|port| vec![put(port)]).collect());
    assert!(
        matches!(
            &became[..],
            [Ok(()), Err(StoreError::Conflict(_)), Err(StoreError::Conflict(_)), Err(StoreError::Conflict(_)), Ok(())]
        ),
        "{became:?}"
    );
    assert!(opened.store.flushes() - before <= 2);
    assert_eq!((count(dir.path(), "ports"), count(dir.path(), "addresses")), (2, 2));
    opened.close();
}

#[test]
fn a_transaction_is_whole_or_absent() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Opened::at(dir.path());
    opened.commit(base(), Purpose::Growing).unwrap();
    let refused = opened.commit(vec![put(&port(1, 5)), put(&port(2, 5))], Purpose::Growing);
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
    assert_eq!((count(dir.path(), "ports"), count(dir.path(), "addresses")), (0, 0));
    opened.close();
}

#[test]
fn nobody_but_its_owner_reads_what_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let opened = Opened::at(dir.path());
    opened.commit(base(), Purpose::Growing).unwrap();
    for file in [FILE.to_owned(), format!("{FILE}-wal"), format!("{FILE}-shm")] {
        let mode = dir.path().join(&file).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    opened.close();
}

#[test]
fn others_can_read_while_the_daemon_has_it_open() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Opened::at(dir.path());
    opened.commit(base(), Purpose::Growing).unwrap();
    opened.commit(vec![put(&port(1, 5))], Purpose::Growing).unwrap();
    assert_eq!(count(dir.path(), "ports"), 1);
    let file = dir.path().join(FILE);
    match std::process::Command::new("sqlite3").arg("-readonly").arg(&file).arg("SELECT mac FROM ports").output() {
        Ok(said) => assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), port(1, 5).mac.to_string()),
        Err(error) => eprintln!("the stock sqlite3 was not tried: {error}"),
    }
    // And the daemon goes on writing while somebody reads.
    let reader = Connection::open_with_flags(&file, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM ports").unwrap();
    opened.commit(vec![put(&port(2, 6))], Purpose::Growing).unwrap();
    opened.close();
}

#[test]
fn a_damaged_record_is_named_and_nothing_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Opened::at(dir.path());
    opened.commit(base(), Purpose::Growing).unwrap();
    opened.close();
    let sql = Connection::open(dir.path().join(FILE)).unwrap();
    sql.execute("UPDATE networks SET body = substr(body, 1, 80)", []).unwrap();
    drop(sql);
    let refusal = Store::open(dir.path()).map(|_| ()).unwrap_err().to_string();
    assert!(refusal.contains(&network().id.to_string()) && refusal.contains("networks"), "{refusal}");
}

/// A store with some ports, of which one is attached, and its bytes.
fn with_ports(dir: &Path) -> (Vec<Port>, Vec<u8>) {
    let opened = Opened::at(dir);
    opened.commit(base(), Purpose::Growing).unwrap();
    let mut ports: Vec<Port> = (0..12).map(|n| port(n, n + 10)).collect();
    ports[0].binding = Some(Binding {
        server_id: server().id,
        ordinal: 0,
        intent: Intent::Attached,
        commit: 3,
        guest_device: None,
        releasing: Vec::new(),
        unproven: false,
        tap: None,
        forced: false,
        tag: None,
        carrier: None,
    });
    let changes = [Change::PutServer(server())].into_iter().chain(ports.iter().map(put)).collect();
    opened.commit(changes, Purpose::Growing).unwrap();
    opened.close();
    (ports, std::fs::read(dir.join(FILE)).unwrap())
}

/// Opens a store of these bytes. It opens or refuses, soon; what it has of the ports is what decides about devices.
fn opens_right_or_not_at_all(bytes: &[u8], ports: &[Port], what: &str) -> bool {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(FILE), bytes).unwrap();
    let start = std::time::Instant::now();
    let opened = Store::open(dir.path());
    assert!(start.elapsed() < PATIENCE, "{what}");
    let Ok((store, loaded, thread)) = opened else { return false };
    store.close();
    thread.join().unwrap();
    let decides = |port: &Port| {
        let binding = port.binding.as_ref().map(|binding| (binding.server_id, binding.intent));
        (port.id, port.network_id, port.mac, port.fixed_ips.clone(), binding, port.origin)
    };
    for port in &loaded.ports {
        let whole =
            ports.iter().find(|whole| whole.id == port.id).unwrap_or_else(|| panic!("{what}: a port of nobody's: {port:?}"));
        assert_eq!(decides(port), decides(whole), "{what}");
    }
    assert!(loaded.ports.is_empty() || loaded.ports.len() == ports.len(), "{what}: some ports are missing");
    true
}

#[test]
fn a_store_with_a_flipped_bit_opens_right_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let (ports, whole) = with_ports(dir.path());
    let mut refused = 0;
    // Every byte of the header, then a sample that is the same each time, of which many are in records.
    let sample = (0..100).chain((100..whole.len()).filter(|at| whole[*at] != 0).step_by(11));
    for at in sample {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        refused += usize::from(!opens_right_or_not_at_all(&bytes, &ports, &format!("bit {} of byte {at}", at % 8)));
    }
    assert!(refused > 50, "{refused}");
}

#[test]
fn a_store_that_was_cut_opens_right_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let (ports, whole) = with_ports(dir.path());
    for length in (0..whole.len()).step_by(509) {
        opens_right_or_not_at_all(&whole[..length], &ports, &format!("cut to {length}"));
    }
}

#[test]
fn a_log_that_was_torn_loses_its_end_alone() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Opened::at(dir.path());
    opened.commit(base(), Purpose::Growing).unwrap();
    for n in 0..10 {
        opened.commit(vec![put(&port(n, n + 10))], Purpose::Growing).unwrap();
    }
    let (file, log) = (dir.path().join(FILE), dir.path().join("nicd.db-wal"));
    let (bytes, mut wal) = (std::fs::read(&file).unwrap(), std::fs::read(&log).unwrap());
    // What lies behind its end is room.
    wal.truncate(wal.iter().rposition(|octet| *octet != 0).unwrap() + 1);
    let mut most = 0;
    for length in (0..=wal.len()).step_by(997).chain([wal.len()]) {
        let torn = tempfile::tempdir().unwrap();
        std::fs::write(torn.path().join(FILE), &bytes).unwrap();
        std::fs::write(torn.path().join("nicd.db-wal"), &wal[..length]).unwrap();
        let again = Opened::at(torn.path());
        let there: Vec<PortId> = again.loaded.ports.iter().map(|port| port.id).collect();
        let first: Vec<PortId> = (0..u8::try_from(there.len()).unwrap()).map(|n| port(n, n + 10).id).collect();
        assert_eq!(there, first, "what was committed first is there first");
        assert!(there.len() >= most, "and more of the log has more");
        most = there.len();
        again.close();
    }
    assert_eq!(most, 10);
    opened.close();
}

#[test]
fn on_a_full_disk_growth_is_refused_and_detaches_go_on() {
    netns::in_netns(|| {
        let dir = tempfile::tempdir().unwrap();
        let tmpfs = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs"].join(" ");
        netns::run(&format!("{tmpfs} {}", dir.path().display()));
        let opened = Opened::at(dir.path());
        opened.commit(base(), Purpose::Growing).unwrap();
        for n in 0..8 {
            opened.commit(vec![put(&port(n, n + 10))], Purpose::Growing).unwrap();
        }
        fill(dir.path());
        // The WAL has room inside its file at first; soon none is left.
        let refused = (0..200u32).find_map(|n| opened.commit(vec![Change::PutNetwork(large(n))], Purpose::Growing).err());
        assert_eq!(refused, Some(StoreError::Full));
        for n in 0..8 {
            assert_eq!(opened.commit(vec![Change::DeletePort(port(n, n + 10).id)], Purpose::Freeing), Ok(()), "port {n}");
        }
        std::fs::remove_file(dir.path().join("ballast")).unwrap();
        opened.commit(vec![put(&port(9, 99))], Purpose::Growing).unwrap();
        opened.close();
        let again = Opened::at(dir.path());
        assert_eq!(again.loaded.ports, [port(9, 99)]);
        again.close();
        netns::run(&format!("umount {}", dir.path().display()));
    });
}

/// Leaves no room in a file system.
fn fill(dir: &Path) {
    use std::io::Write;
    let mut ballast = std::fs::File::create(dir.join("ballast")).unwrap();
    while ballast.write_all(&[0; 4096]).is_ok() {}
}

/// How many rows a table has, as another process would count them.
fn count(dir: &Path, table: &str) -> i64 {
    let sql = Connection::open_with_flags(dir.join(FILE), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    sql.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

/// What ports hang on.
fn base() -> Vec<Change> {
    vec![Change::PutNetwork(network()), Change::PutSubnet(subnet())]
}

fn put(port: &Port) -> Change {
    Change::PutPort(Box::new(port.clone()))
}

fn network() -> Network {
    Network {
        id: NetworkId(Uuid::from_u128(1)),
        name: "net".to_owned(),
        description: String::new(),
        project_id: String::new(),
        mtu: 1500,
        bridge: None,
        kind: NetworkKind::Local,
        physical_network: None,
        segmentation_id: None,
        zone: 4096,
        port_security: true,
        isolated: false,
        scope: nicd::model::Scope::Host,
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
        revision_number: 1,
    }
}

/// A network that takes more than a page.
fn large(n: u32) -> Network {
    Network { id: NetworkId(Uuid::from_u128(1000 + u128::from(n))), description: "x".repeat(16_000), ..network() }
}

fn subnet() -> Subnet {
    nicd::model::subnet::NewSubnet {
        id: SubnetId(Uuid::from_u128(2)),
        network_id: network().id,
        name: String::new(),
        description: String::new(),
        project_id: String::new(),
        cidr: "10.0.0.0/24".parse().unwrap(),
        gateway: nicd::model::subnet::Gateway::FirstHost,
        allocation_pools: None,
        dns_nameservers: Vec::new(),
        host_routes: Vec::new(),
        enable_dhcp: true,
        guidance: nicd::model::Guidance::default(),
    }
    .checked(Timestamp::UNIX_EPOCH)
    .unwrap()
}

fn server() -> Server {
    Server {
        id: ServerId(Uuid::from_u128(7)),
        name: String::new(),
        project_id: String::new(),
        guest: nicd::model::Guest::Netns { path: "/run/netns/blue".into() },
        nic_limit: Some(3),
        pin: None,
        by_process: false,
        leaving: false,
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
    }
}

/// What is kept under an idempotency key.
fn remembered(uid: u32, key: &str) -> StoredRequest {
    let made = vec![Made::Port(port(1, 5).id)];
    StoredRequest {
        key: Key { caller: CallerId::Uid(uid), key: key.to_owned() },
        request: "digest".to_owned(),
        at: Timestamp::UNIX_EPOCH,
        since: None,
        made,
        answer: None,
    }
}

/// What Nova is to be told of the n-th port.
fn notice(number: u8) -> StoredNotice {
    let about = NoticeKey { port_id: port(number, 5).id, server_id: Some(server().id) };
    let occasion = Occasion { at: Timestamp::UNIX_EPOCH, seq: 7, request_id: Some("req".to_owned()) };
    let fact = |state| NovaFact { state, nic: "fa:16:3e:00:00:01 192.0.2.5".to_owned() };
    StoredNotice::Nova(Notice {
        about,
        known: Some(fact(NovaState::Nothing)),
        unsure: true,
        wanted: fact(NovaState::Plugged),
        last: false,
        id: Uuid::from_u128(9),
        since: Timestamp::UNIX_EPOCH,
        occasion,
    })
}

/// The n-th port, with an address of the subnet.
fn port(n: u8, host: u8) -> Port {
    Port {
        id: PortId(Uuid::from_u128(100 + u128::from(n))),
        network_id: network().id,
        name: String::new(),
        description: String::new(),
        project_id: String::new(),
        mac: Mac([0xfa, 0x16, 0x3e, 0, 0, n]),
        fixed_ips: vec![FixedIp { subnet_id: subnet().id, ip_address: IpAddr::from([10, 0, 0, host]) }],
        admin_up: true,
        unknown_unicast: false,
        port_security: true,
        address_pairs: Vec::new(),
        groups: BTreeSet::new(),
        limits: Limits::default(),
        isolated: None,
        told: nicd::model::GuestTold::default(),
        device_owner: String::new(),
        profile: Profile::default(),
        origin: Origin::Client,
        binding: None,
        standby: None,
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
        revision_number: 1,
    }
}
