//! A store on a full or failing disk, a damaged store, and a restored older copy: existing devices stay, health reports the
//! problem, and nicd recovers by itself where possible.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

#[path = "common/daemon.rs"]
mod daemon;
#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/kernel_view.rs"]
mod kernel_view;
#[path = "common/netns.rs"]
mod netns;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use daemon::{Daemon, PATIENCE};
use fixture::{Fixture, interfaces, text};
use kernel_view::{Monitor, link, marked, marked_ports};
use netns::{in_netns, run};
use serde_json::{Value, json};

/// A fixture whose state lies on a file system of its own, which `mount` makes at the path it is given.
fn on_disk(mount: impl FnOnce(&Path)) -> Fixture {
    let mut daemon = Daemon::prepared("/run/nicd");
    mount(&daemon.state());
    daemon.launch();
    Fixture::of(daemon)
}

fn problems(fixture: &mut Fixture) -> Vec<String> {
    let health = fixture.api.get("/nicd/v1/health").expect(200);
    let problems = health["problems"].as_array().unwrap();
    assert_eq!(health["status"] == "ok", problems.is_empty(), "{health}");
    assert!(problems.iter().all(|problem| problem["detail"] != "" && problem["remedy"] != ""), "{health}");
    problems.iter().map(|problem| text(&problem["reason"])).collect()
}

fn attach(fixture: &mut Fixture, server: &str, network: &str) -> daemon::Answer {
    fixture.api.post(&interfaces(server), &json!({"interfaceAttachment": {"net_id": network}}))
}

/// Leaves no room in a file system.
fn fill(dir: &Path) {
    let mut ballast = fs::File::create(dir.join("ballast")).unwrap();
    while ballast.write_all(&[0; 4096]).is_ok() {}
}

#[test]
fn on_a_full_disk_attaches_are_refused_detaches_work_and_room_ends_it() {
    in_netns(|| {
        let mut fixture = on_disk(|state| _ = run(&format!("mount -t tmpfs -o size=3m tmpfs {}", state.display())));
        let network = fixture.usual_network();
        let server = fixture.server(json!({"kind": "vm"}));
        let ports: Vec<String> = (0..6).map(|_| fixture.attach_to(&server, &network)).collect();
        let vm = fixture.server_with(json!({"guest": {"kind": "vm"}, "nic_limit": 1000}));
        fill(&fixture.daemon.state());
        // The log has room inside its file at first; soon none is left.
        let refused = (0..400).map(|_| attach(&mut fixture, &vm, &network)).find(|answer| answer.status != 200);
        refused.expect("the disk is full").refused(507, "store_full");
        let (devices, records) = (marked_ports(), fixture.port_ids());
        assert_eq!(devices, records, "what was refused left nothing");
        let full = |event: &Value| event["event"] == "agent.degraded" && event["reason"] == "store_full";
        fixture.events.wait_for("degraded", full);
        for port in &ports {
            fixture.detach(&server, port);
        }
        fs::remove_file(fixture.daemon.state().join("ballast")).unwrap();
        fixture.events.wait_for("recovered", |event| event["event"] == "agent.recovered" && event["reason"] == "store_full");
        assert!(problems(&mut fixture).is_empty());
        fixture.attach_to(&server, &network);
    });
}

#[test]
fn a_disk_that_fails_is_said_and_forgiven() {
    in_netns(|| {
        let image = Path::new("/run/image");
        run("truncate -s 16m /run/image");
        run("mkfs.ext2 -q /run/image");
        let mut fixture = on_disk(|state| _ = run(&format!("mount -o loop,sync /run/image {}", state.display())));
        let network = fixture.usual_network();
        let (_guest, server, port) = fixture.active_guest("a", &network);
        let device = unchanging(&link(&fixture.device(&port)));
        let of = run(&format!("findmnt -n -o SOURCE {}", fixture.daemon.state().display()));
        let resize = |size: &str| {
            run(&format!("truncate -s {size} {}", image.display()));
            run(&format!("losetup -c {}", of.trim()));
        };
        run("cp /run/image /run/whole");
        resize("4k");
        let refused = (0..400).map(|_| attach(&mut fixture, &server, &network)).find(|answer| answer.status != 200).unwrap();
        refused.refused(503, "store_failed");
        assert!(refused.header("retry-after").is_some());
        assert_eq!(problems(&mut fixture), ["store_failed"]);
        assert_eq!(unchanging(&link(&fixture.device(&port))), device, "what lives goes on");
        assert_eq!(fixture.port(&port)["status"], "ACTIVE");
        run("cp /run/whole /run/image");
        resize("16m");
        fixture.events.wait_for("recovered", |event| event["event"] == "agent.recovered" && event["reason"] == "store_failed");
        assert!(problems(&mut fixture).is_empty());
        fixture.detach(&server, &port);
        fixture.daemon.kill();
        fixture.launch();
    });
}

/// What the host shows of nicd's links.
fn ours() -> Vec<Value> {
    marked().iter().map(|name| unchanging(&link(name))).collect()
}

/// A link without its counters and timers.
fn unchanging(link: &Value) -> Value {
    let kept = ["ifindex", "ifname", "address", "altnames", "ifalias", "mtu", "master", "flags", "inet6_addr_gen_mode"];
    json!(kept.map(|name| link[name].clone()))
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

#[test]
fn an_older_copy_is_noticed_and_nothing_is_removed() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let server = fixture.vm();
        let kept = fixture.create_port(json!({ "network_id": network }));
        fixture.attach(&server, json!({ "port_id": kept }));
        let leaving = fixture.attach_to(&server, &network);
        let old = fixture.attach_to(&server, &network);
        // The copy is of the moment when one is being detached, and another is.
        fixture.daemon.term();
        copy(&fixture.daemon.state(), Path::new("/run/older"));
        fixture.launch();
        let late = fixture.attach_to(&server, &network);
        fixture.detach(&server, &kept);
        fixture.attach(&server, json!({ "port_id": kept }));
        fixture.detach(&server, &leaving);
        let last = fixture.events.seen.iter().filter_map(|event| event["seq"].as_u64()).max();
        fixture.daemon.kill();
        copy(Path::new("/run/older"), &fixture.daemon.state());
        let before = ours();
        fixture.launch();
        let reasons = problems(&mut fixture);
        assert_eq!(reasons, ["store_rolled_back", "port_in_error", "device_without_record"]);
        let now = ours();
        assert!(before.iter().all(|link| now.contains(link)), "every device is as it was: {before:#?} {now:#?}");
        // Sealed by an attach that the copy does not know: nobody here knows what it is to be.
        let shown = fixture.port(&kept);
        assert_eq!((&shown["status"], &shown["nicd:reason"]), (&json!("ERROR"), &json!("store_rolled_back")));
        assert_eq!(fixture.port(&old)["status"], "DOWN");
        assert_eq!(fixture.port(&old)["nicd:reason"], "no_carrier");
        fixture.wait_until(&leaving, "built again", |port| port.is_some_and(|port| port["nicd:reason"] == "no_carrier"));
        let next = fixture.attach_to(&server, &network);
        fixture.events.wait_for("a number", |event| event["port_id"] == next.as_str());
        assert!(fixture.events.seen.last().unwrap()["seq"].as_u64() > last, "numbers never go back");
        // It is still known after another start.
        fixture.daemon.term();
        fixture.launch();
        assert_eq!(problems(&mut fixture), reasons);
        // What a client says counts.
        let gone = fixture.api.post("/nicd/v1/gc", &json!({"apply": true})).expect(200);
        assert_eq!(gone["removed"][0]["altname"], format!("nicd-{late}"));
        assert_eq!(problems(&mut fixture), ["store_rolled_back", "port_in_error"]);
        fixture.detach(&server, &kept);
        assert!(problems(&mut fixture).is_empty());
        fixture.attach(&server, json!({ "port_id": kept }));
    });
}

#[test]
fn no_damage_to_the_store_removes_a_live_device() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (_guest, _server, port) = fixture.active_guest("a", &network);
        fixture.daemon.term();
        let state = fixture.daemon.state();
        copy(&state, Path::new("/run/whole"));
        let file = state.join("nicd.db");
        let whole = fs::read(&file).unwrap();
        let before = ours();
        let mut told = Monitor::links();
        let length = whole.len();
        let cut = [0, 1, 99, 100, 512, 4096, length / 3, length / 2, length - 4096, length - 1].map(|at| whole[..at].to_vec());
        let flipped = [0, 17, 19, 28, 52, 100, 105, 4096 + 7, length - 30].map(|at| {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x55;
            bytes
        });
        let overwritten = [vec![0; length], b"no database at all, but long enough for a header".repeat(20)];
        for (n, bytes) in cut.into_iter().chain(flipped).chain(overwritten).enumerate() {
            copy(Path::new("/run/whole"), &state);
            fs::write(&file, bytes).unwrap();
            let start = Instant::now();
            let refused = starts_or_refuses(&mut fixture.daemon);
            assert!(start.elapsed() < PATIENCE, "{n}");
            assert!(refused.is_none_or(|said| said.contains(&state.display().to_string())), "{n}");
        }
        let written: Vec<String> =
            told.take_links().iter().map(kernel_view::name_of).filter(|name| name.starts_with('n')).collect();
        assert!(written.is_empty(), "{written:?}");
        assert_eq!(ours(), before);
        copy(Path::new("/run/whole"), &state);
        fixture.launch();
        fixture.wait_status(&port, "ACTIVE");
        assert_eq!(ours(), before);
    });
}

/// Changes the store of a daemon that does not run.
fn sql(fixture: &Fixture, what: &str) {
    rusqlite::Connection::open(fixture.daemon.state().join("nicd.db")).unwrap().execute_batch(what).unwrap();
}

#[test]
fn a_record_of_a_newer_nicd_is_refused_and_devices_stay() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let server = fixture.vm();
        fixture.attach_to(&server, &network);
        fixture.daemon.term();
        let before = ours();
        sql(&fixture, "UPDATE ports SET body = json_set(body, '$.colour', 'blue');");
        let said = starts_or_refuses(&mut fixture.daemon).expect("it refuses");
        assert!(said.contains("newer nicd") && said.contains("colour"), "{said}");
        assert_eq!(ours(), before);
        sql(&fixture, "UPDATE ports SET body = json_remove(body, '$.colour');");
        fixture.launch();
    });
}

/// Starts the daemon and stops it again once it answers; what it said when it refuses to start instead, with the store's code.
fn starts_or_refuses(daemon: &mut Daemon) -> Option<String> {
    let mut child = daemon.command(&daemon.socket(), &daemon.state());
    let mut child = child
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            let mut said = String::new();
            std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
            assert_eq!(status.code(), Some(74), "{said}");
            return Some(said);
        }
        if daemon.client().try_call("GET", "/nicd/v1/health", &[], b"").is_ok() {
            break;
        }
        assert!(Instant::now() < until, "it neither starts nor ends");
        // It has no event for "neither yet".
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    None
}
