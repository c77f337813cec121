//! Which namespaces can be guests, and what happens when one goes, or another stands at its path.

use std::fs::File;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount, umount2};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::daemon::{Client, Daemon, PATIENCE};
use crate::fixture::{Fixture, interfaces, server_path};
use crate::helper::{self, Helper};
use crate::kernel_view::{marked_ports, try_link};
use crate::netns::{Guest, in_netns, run};

/// Runs a test on a daemon that enters namespaces itself, and on one that has the helper do it. What is promised, and each
/// refusal's sentence, is the same.
fn both_ways(test: fn(Fixture)) {
    in_netns(move || test(Fixture::start()));
    in_netns(move || {
        let mut daemon = Daemon::prepared("/run/nicd");
        daemon.confine();
        let _helper = Helper::start();
        daemon.launch();
        test(Fixture::of(daemon));
    });
}

/// A place whose name is written otherwise in the table of mounts.
const KEPT: &str = "/run/kept \\ here";

/// Keeps a guest's namespace alive beside its path.
fn keep(guest: &Guest) {
    std::fs::write(KEPT, "").unwrap();
    mount(Some(&guest.path), KEPT, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
}

fn let_go() {
    umount(KEPT).unwrap();
}

#[test]
fn what_is_no_guests_namespace_is_refused_in_words() {
    both_ways(|mut fixture| {
        std::fs::write("/run/file", "").unwrap();
        std::fs::write("/run/own", "").unwrap();
        mount(Some("/proc/thread-self/ns/net"), "/run/own", None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        for (path, reason) in [
            ("/run/file", "not_a_namespace"),
            ("/run", "not_a_namespace"),
            ("/proc/self/ns/mnt", "not_a_namespace"),
            ("/run/netns/never", "no_such_namespace"),
            ("/run/own", "own_namespace"),
            // Whoever opens it.
            ("/proc/self/ns/net", "own_namespace"),
            ("/proc/thread-self/ns/net", "own_namespace"),
        ] {
            let id = uuid::Uuid::new_v4().to_string();
            let body = json!({"server": {"guest": {"kind": "netns", "path": path}}});
            let error = fixture.api.put(&server_path(&id), &body).refused(400, reason);
            assert!(error["message"].as_str().unwrap().contains(path), "{error}");
            fixture.api.get(&server_path(&id)).refused(404, "no_such_server");
        }
    });
}

#[test]
fn a_deleted_namespace_takes_its_port_down_and_a_new_one_at_the_path_is_built() {
    both_ways(|mut fixture| {
        let network = fixture.usual_network();
        let (guest, server) = fixture.guest("a");
        let port = fixture.attach_to(&server, &network);
        let before = fixture.port(&port);
        guest.end();
        fixture
            .events
            .wait_for("namespace_gone", |event| event["port_id"] == port.as_str() && event["reason"] == "namespace_gone");
        let shown = fixture.wait_status(&port, "DOWN");
        assert_eq!(shown["nicd:reason"], "namespace_gone");
        assert!(marked_ports().is_empty());
        let again = Guest::new("a");
        let after = fixture.wait_status(&port, "ACTIVE");
        for same in ["mac_address", "fixed_ips", "device_id"] {
            assert_eq!(after[same], before[same]);
        }
        assert_eq!(again.ip_json("link show dev eth0")[0]["address"], before["mac_address"]);
    });
}

#[test]
fn another_namespace_at_the_path_is_refused_while_the_pinned_one_lives() {
    both_ways(|mut fixture| {
        let network = fixture.usual_network();
        let (guest, server) = fixture.guest("a");
        let port = fixture.attach_to(&server, &network);
        let device = fixture.device(&port);
        keep(&guest);
        guest.end();
        let other = Guest::new("a");
        let body = json!({"server": {"guest": {"kind": "netns", "path": other.path}}});
        fixture.api.put(&server_path(&server), &body).refused(409, "namespace_changed");
        let body = json!({"interfaceAttachment": {"net_id": network}});
        fixture.api.post(&interfaces(&server), &body).refused(409, "namespace_changed");
        assert_eq!(fixture.port_ids(), [port.as_str()]);
        assert!(try_link(&device).is_some(), "the pinned one keeps its NIC");
        assert_eq!(other.ip_json("link").as_array().unwrap().len(), 1, "the other one is not touched");
        fixture.detach(&server, &port);
        let_go();
        fixture.attach_to(&server, &network);
        assert!(other.ip("link show dev eth0").contains("fa:16:3e"), "once the pinned one has ended the path's is taken");
    });
}

#[test]
fn a_namespace_that_went_first_does_not_hold_its_detach_up() {
    both_ways(|mut fixture| {
        let network = fixture.usual_network();
        let (guest, server) = fixture.guest("a");
        let ports = [fixture.attach_to(&server, &network), fixture.attach_to(&server, &network)];
        guest.end();
        for port in &ports {
            fixture.detach(&server, port);
        }
        assert!(fixture.ports().is_empty() && marked_ports().is_empty());
        fixture.api.delete(&server_path(&server)).expect(204);
        fixture.api.delete(&format!("/v2.0/networks/{network}")).expect(204);
        assert!(crate::kernel_view::marked().is_empty(), "{}", run("ip link"));
    });
}

#[test]
fn no_descriptor_of_the_daemon_outlives_its_work_in_a_namespace() {
    both_ways(|mut fixture| {
        let network = fixture.usual_network();
        let (guest, server) = fixture.guest("a");
        let port = fixture.attach_to(&server, &network);
        let device = fixture.device(&port);
        // Only the end of the namespace takes the host's end away.
        guest.end();
        fixture.events.wait_for("the device goes", |event| event["port_id"] == port.as_str() && event["new"] != "ACTIVE");
        fixture.wait_until(&port, "without namespace", |port| port.is_some_and(|port| port["nicd:reason"] == "namespace_gone"));
        assert!(try_link(&device).is_none());
    });
}

#[test]
fn a_pinned_namespace_lives_also_without_a_nic_in_it() {
    both_ways(|mut fixture| {
        let network = fixture.usual_network();
        let (guest, server) = fixture.guest("a");
        keep(&guest);
        guest.end();
        let other = Guest::new("a");
        let put = json!({"server": {"guest": {"kind": "netns", "path": other.path}}});
        let attach = json!({"interfaceAttachment": {"net_id": network}});
        fixture.api.put(&server_path(&server), &put).refused(409, "namespace_changed");
        fixture.api.post(&interfaces(&server), &attach).refused(409, "namespace_changed");
        assert!(fixture.ports().is_empty() && marked_ports().is_empty());
        let_go();
        fixture.attach_to(&server, &network);
    });
}

#[test]
fn a_helper_that_is_away_is_said_and_waited_for() {
    in_netns(|| {
        let mut daemon = Daemon::prepared("/run/nicd");
        daemon.confine();
        daemon.launch();
        let mut fixture = Fixture::of(daemon);
        let guest = Guest::new("a");
        let put = json!({"server": {"guest": {"kind": "netns", "path": guest.path}}});
        let path = server_path(&uuid::Uuid::new_v4().to_string());
        let error = fixture.api.put(&path, &put).refused(503, "netns_helper_unreachable");
        assert!(error["message"].as_str().unwrap().contains("systemctl restart nicd-netns.socket"), "{error}");
        let problems = |fixture: &mut Fixture| {
            let health = fixture.api.get("/nicd/v1/health").expect(200);
            let reasons = health["problems"].as_array().unwrap().iter().map(|problem| problem["reason"].clone());
            reasons.filter(|reason| reason == "netns_helper_unreachable").count()
        };
        assert_eq!(problems(&mut fixture), 1);
        let mut helper = Helper::start();
        assert_eq!(problems(&mut fixture), 0);
        fixture.api.put(&path, &put).expect(201);
        // It ends when nobody asks, and is no problem then.
        assert!(helper.ended().success());
        assert_eq!(problems(&mut fixture), 0);
        helper.again();
        fixture.api.put(&path, &put).expect(200);
    });
}

/// A place at which everything hangs: a FUSE whose daemon never says a word.
fn dead_place() -> File {
    let device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
    mount(Some("dead"), "/run/dead", Some("fuse"), MsFlags::empty(), Some(options.as_str())).unwrap();
    device
}

/// Asks for so many guests at that path at once, each by a thread of its own; what each is answered, and after how long.
fn ask_for_guests(fixture: &Fixture, path: &'static str, number: usize) -> Vec<JoinHandle<(Value, Duration)>> {
    let one = |_| {
        let socket = fixture.daemon.socket();
        std::thread::spawn(move || {
            let put = json!({"server": {"guest": {"kind": "netns", "path": path}}});
            let began = Instant::now();
            let id = uuid::Uuid::new_v4().to_string();
            let answer = Client::new(socket).put(&server_path(&id), &put);
            (serde_json::from_str(&answer.text).unwrap(), began.elapsed())
        })
    };
    (0..number).map(one).collect()
}

/// A tap is attached as ever while others wait for a namespace, and they are all answered within `limit`.
fn taps_do_not_wait_for(fixture: &mut Fixture, asked: Vec<JoinHandle<(Value, Duration)>>, limit: Duration) -> Vec<Value> {
    let network = fixture.usual_network();
    let vm = fixture.vm();
    let began = Instant::now();
    for _ in 0..5 {
        let port = fixture.attach_to(&vm, &network);
        fixture.detach(&vm, &port);
    }
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert!(!asked.iter().any(JoinHandle::is_finished), "the namespace was waited for meanwhile");
    let answers = asked.into_iter().map(|thread| thread.join().unwrap());
    answers.inspect(|(said, took)| assert!(*took < limit, "{took:?}: {said}")).map(|(said, _)| said).collect()
}

/// Mounted namespaces in a directory that hangs as soon as a dead place is mounted over it.
fn guests_in_one_directory(number: usize) -> Vec<String> {
    std::fs::create_dir("/run/dead").unwrap();
    let one = |n: usize| {
        let path = format!("/run/dead/{n}");
        let guest = Guest::new(&format!("d{n}"));
        std::fs::write(&path, "").unwrap();
        mount(Some(&guest.path), path.as_str(), None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        guest.end();
        path
    };
    (0..number).map(one).collect()
}

#[test]
fn paths_that_hang_cost_others_nothing_and_are_busy_until_they_answer() {
    both_ways(|mut fixture| {
        let network = fixture.usual_network();
        let attach = json!({"interfaceAttachment": {"net_id": network}});
        let server_at = |fixture: &mut Fixture, path: &str| {
            let id = uuid::Uuid::new_v4().to_string();
            fixture.api.put(&server_path(&id), &json!({"server": {"guest": {"kind": "netns", "path": path}}})).expect(201);
            id
        };
        let hanging: Vec<String> = guests_in_one_directory(9).iter().map(|path| server_at(&mut fixture, path)).collect();
        let (guest, healthy) = fixture.guest("a");
        let dead = dead_place();
        let threads: Vec<_> = hanging
            .iter()
            .map(|id| {
                let (socket, path, attach) = (fixture.daemon.socket(), interfaces(id), attach.clone());
                std::thread::spawn(move || Client::new(socket).post(&path, &attach).refused(503, "busy"))
            })
            .collect();
        let vm = fixture.vm();
        let began = Instant::now();
        fixture.attach_to(&vm, &network);
        // One after the other they would take more than twice as long.
        assert!(began.elapsed() < Duration::from_secs(2), "a tap waits for no namespace: {:?}", began.elapsed());
        fixture.attach_to(&healthy, &network);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        assert!(guest.ip("link show dev eth0").contains("fa:16:3e"));
        for thread in threads {
            thread.join().unwrap();
        }
        let began = Instant::now();
        for id in &hanging {
            fixture.api.post(&interfaces(id), &attach).refused(503, "busy");
        }
        let put = json!({"server": {"guest": {"kind": "netns", "path": "/run/dead/0"}}});
        fixture.api.put(&server_path(&hanging[0]), &put).refused(503, "busy");
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        assert_eq!(fixture.ports().len(), 2, "nothing is kept of what was refused");
        // With its daemon's descriptor everything at it fails, and so nothing hangs any more.
        drop(dead);
        umount2("/run/dead", MntFlags::MNT_DETACH).unwrap();
        let until = Instant::now() + PATIENCE;
        for id in &hanging {
            // Whoever hung has a moment to notice.
            while fixture.api.post(&interfaces(id), &attach).status == 503 {
                assert!(Instant::now() < until);
            }
        }
        assert_eq!(fixture.ports().len(), 2 + hanging.len());
    });
}

#[test]
fn a_helper_that_hangs_holds_up_no_tap_and_is_waited_for_once() {
    in_netns(|| {
        let mut daemon = Daemon::prepared("/run/nicd");
        daemon.confine();
        let helper = Helper::start();
        daemon.launch();
        let mut fixture = Fixture::of(daemon);
        let _guest = Guest::new("a");
        helper.signal(Signal::SIGSTOP);
        let asked = ask_for_guests(&fixture, "/run/netns/a", 3);
        for said in taps_do_not_wait_for(&mut fixture, asked, Duration::from_secs(15)) {
            assert!(said.to_string().contains("netns_helper_unreachable"), "{said}");
        }
        let health = fixture.api.get("/nicd/v1/health").expect(200);
        assert_eq!(health["problems"][0]["reason"], "netns_helper_unreachable", "{health}");
        helper.signal(Signal::SIGCONT);
    });
}

#[test]
fn the_helper_answers_nobody_but_its_daemon() {
    in_netns(|| {
        std::fs::create_dir("/run/nicd").unwrap();
        let helper = Helper::start();
        let guest = Guest::new("a");
        let mut root = UnixStream::connect(helper::SOCKET).unwrap();
        // It may have hung up already.
        let _ = root.write_all(&[b"P", guest.path.as_os_str().as_bytes()].concat());
        let _ = root.shutdown(Shutdown::Write);
        root.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut said = Vec::new();
        let _ = root.read_to_end(&mut said);
        assert!(said.is_empty(), "{said:?}");
        drop(helper);
    });
}

#[test]
fn a_namespace_that_only_a_process_is_in_can_be_a_guests() {
    both_ways(|mut fixture| {
        let network = fixture.usual_network();
        let mut process = Command::new("unshare").args(["--net", "--", "sleep", "60"]).spawn().unwrap();
        let path = format!("/proc/{}/ns/net", process.id());
        let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        while std::fs::read_link(&path).unwrap() == own {
            std::thread::yield_now();
        }
        let server = fixture.server(json!({"kind": "netns", "path": path}));
        fixture.attach_to(&server, &network);
        process.kill().unwrap();
        process.wait().unwrap();
    });
}

/// Ways to name the namespace at `/run/netns/a` by a process, this test's thread.
fn names_by_process() -> Vec<String> {
    let thread = nix::unistd::gettid();
    let plain = format!("/proc/{thread}/root/run/netns/a");
    std::fs::create_dir("/run/elsewhere").unwrap();
    mount(Some("proc"), "/run/elsewhere", Some("proc"), MsFlags::empty(), None::<&str>).unwrap();
    for (name, target) in [("link", plain.as_str()), ("hop", "./link")] {
        std::os::unix::fs::symlink(target, format!("/run/{name}")).unwrap();
    }
    std::os::unix::fs::symlink(format!("/proc/{thread}"), "/run/process").unwrap();
    vec![
        plain.clone(),
        format!("//proc//{thread}/./root/run/../run/netns/a"),
        format!("/proc/{thread}/task/{thread}/root/run/netns/a"),
        format!("/run/elsewhere/{thread}/root/run/netns/a"),
        "/run/hop".to_owned(),
        "/run/process/root/run/netns/a".to_owned(),
    ]
}

#[test]
fn a_path_that_names_a_process_is_never_pinned_anew() {
    both_ways(|mut fixture| {
        let network = fixture.usual_network();
        for path in names_by_process() {
            let guest = Guest::new("a");
            let server = fixture.server(json!({"kind": "netns", "path": path}));
            let port = fixture.attach_to(&server, &network);
            fixture.wait_status(&port, "ACTIVE");
            guest.end();
            fixture.wait_until(&port, "without namespace", |port| {
                port.is_some_and(|port| port["nicd:reason"] == "namespace_gone" && port["status"] == "DOWN")
            });
            let other = Guest::new("a");
            let attach = json!({"interfaceAttachment": {"net_id": network}});
            let error = fixture.api.post(&interfaces(&server), &attach).refused(409, "namespace_gone");
            assert!(error["message"].as_str().unwrap().contains("PUT the server again"), "{error}");
            assert_eq!(other.ip_json("link").as_array().unwrap().len(), 1, "{path}: who has the path now is given nothing");
            assert_eq!(fixture.port(&port)["nicd:reason"], "namespace_gone");
            let body = json!({"server": {"guest": {"kind": "netns", "path": path}}});
            fixture.api.put(&server_path(&server), &body).expect(200);
            fixture.wait_status(&port, "ACTIVE");
            assert!(other.ip("link show dev eth0").contains("fa:16:3e"), "{path}: once it is asked for");
            fixture.detach(&server, &port);
            other.end();
        }
    });
}

#[test]
fn a_descriptor_that_becomes_another_namespaces_is_not_pinned_anew() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (first, second) = (Guest::new("a"), Guest::new("b"));
        let open = |guest: &Guest| File::open(&guest.path).unwrap();
        let mut held = open(&first);
        let path = format!("/proc/{}/fd/{}", std::process::id(), held.as_raw_fd());
        let server = fixture.server(json!({"kind": "netns", "path": path}));
        let port = fixture.attach_to(&server, &network);
        held = {
            let other = open(&second);
            let mut number = std::os::fd::OwnedFd::from(held);
            nix::unistd::dup2(&other, &mut number).unwrap();
            File::from(number)
        };
        first.end();
        fixture.wait_until(&port, "without namespace", |port| port.is_some_and(|port| port["nicd:reason"] == "namespace_gone"));
        let attach = json!({"interfaceAttachment": {"net_id": network}});
        fixture.api.post(&interfaces(&server), &attach).refused(409, "namespace_gone");
        assert_eq!(second.ip_json("link").as_array().unwrap().len(), 1);
        drop(held);
    });
}

#[test]
fn a_start_does_not_pin_a_process_path_anew() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let guest = Guest::new("a");
        let path = format!("/proc/{}/root/run/netns/a", nix::unistd::gettid());
        let server = fixture.server(json!({"kind": "netns", "path": path}));
        let port = fixture.attach_to(&server, &network);
        fixture.daemon.kill();
        guest.end();
        let other = Guest::new("a");
        fixture.launch();
        fixture.wait_until(&port, "without namespace", |port| port.is_some_and(|port| port["nicd:reason"] == "namespace_gone"));
        let attach = json!({"interfaceAttachment": {"net_id": network}});
        fixture.api.post(&interfaces(&server), &attach).refused(409, "namespace_gone");
        assert_eq!(other.ip_json("link").as_array().unwrap().len(), 1);
    });
}
