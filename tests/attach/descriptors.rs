//! A daemon, or its helper, that has no file descriptor left: what cannot be opened is not taken for something that is not there.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::mount::{MsFlags, mount, umount};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::daemon::{Answer, Daemon, PATIENCE};
use crate::fixture::{Fixture, interfaces, server_path};
use crate::helper::Helper;
use crate::kernel_view::{marked, marked_ports};
use crate::netns::{Guest, comes_true, in_netns, run};

/// As much as a process may have by default.
const USUAL: usize = 1024;

/// Waits until a daemon has closed what it opened for the check of the filters at its start. No event tells of it.
fn wait_for_the_check(daemon: Pid) {
    let name = |task: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(task.unwrap().path().join("comm"));
    let checks = || {
        std::fs::read_dir(format!("/proc/{daemon}/task")).unwrap().any(|task| name(task).is_ok_and(|name| name == "nicd-proof\n"))
    };
    comes_true(PATIENCE, || !checks(), || "the check has not ended".to_owned());
}

/// Lets a process open only so many files and sockets more.
fn leave_free(process: Pid, free: usize) {
    wait_for_the_check(process);
    let open: BTreeSet<usize> = std::fs::read_dir(format!("/proc/{process}/fd"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    let limit = (0..).filter(|number| !open.contains(number)).nth(free).unwrap();
    set_limit(process, limit);
}

fn leave_all(process: Pid) {
    set_limit(process, USUAL);
}

/// By its own user, as another needs more than root's usual power.
fn set_limit(process: Pid, limit: usize) {
    let status = std::fs::metadata(format!("/proc/{process}/stat")).unwrap();
    let user = format!("setpriv --reuid={} --regid={} --clear-groups", status.uid(), status.gid());
    run(&format!("{user} prlimit --pid {process} --nofile={limit}:"));
}

/// Whether an answer is a success; else it is the one refusal that is right here.
fn done(answer: &Answer) -> bool {
    if answer.status < 300 {
        return true;
    }
    let error = answer.refused(503, "no_descriptors");
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    assert!(error["message"].as_str().unwrap().contains("LimitNOFILE"), "{error}");
    false
}

/// The processor time a process has had, in clock ticks (proc_pid_stat(5)).
fn ticks(process: Pid) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn helped() -> (Fixture, Helper) {
    let mut daemon = Daemon::prepared("/run/nicd");
    daemon.confine();
    let helper = Helper::start();
    daemon.launch();
    (Fixture::of(daemon), helper)
}

/// Attaches and a new server are tried with ever more descriptors, which `scarce` has, until all goes well.
fn nothing_is_lost_however_few_there_are(fixture: &mut Fixture, scarce: Pid) {
    let network = fixture.usual_network();
    let (_guest, server) = fixture.guest("a");
    let vm = fixture.vm();
    let standing = [fixture.attach_to(&server, &network), fixture.attach_to(&vm, &network)];
    let statuses = |fixture: &mut Fixture| {
        let shown = |fixture: &mut Fixture, port| {
            [&fixture.port(port)["status"], &fixture.port(port)["nicd:reason"]].map(Value::to_string)
        };
        standing.each_ref().map(|port| shown(fixture, port))
    };
    let before = (statuses(fixture), marked());
    let other = Guest::new("b");
    let mut refused = [0; 3];
    for free in 0.. {
        // The first port of a network brings its bridge.
        let lone = fixture.network(json!({"name": "lone"}));
        fixture.subnet(&lone, "198.51.100.0/24");
        let mut all = true;
        for (which, (server, network)) in [(&server, &network), (&vm, &lone)].into_iter().enumerate() {
            leave_free(scarce, free);
            let answer = fixture.api.post(&interfaces(server), &json!({"interfaceAttachment": {"net_id": network}}));
            if done(&answer) {
                let port = answer.json()["interfaceAttachment"]["port_id"].as_str().unwrap().to_owned();
                fixture.detach(server, &port);
            } else {
                (all, refused[which]) = (false, refused[which] + 1);
            }
            assert_eq!(fixture.port_ids().len(), 2);
        }
        leave_free(scarce, free);
        let id = uuid::Uuid::new_v4().to_string();
        let put = json!({"server": {"guest": {"kind": "netns", "path": other.path}}});
        if done(&fixture.api.put(&server_path(&id), &put)) {
            fixture.api.delete(&server_path(&id)).expect(204);
        } else {
            (all, refused[2]) = (false, refused[2] + 1);
            fixture.api.get(&server_path(&id)).refused(404, "no_such_server");
        }
        fixture.api.delete(&format!("/v2.0/networks/{lone}")).expect(204);
        assert_eq!((statuses(fixture), marked()), before, "{free} descriptors");
        if all {
            break;
        }
        assert!(free < 40, "an attach takes no more");
    }
    assert!(refused[0] > 0 && refused[2] > 0, "{refused:?}");
    leave_all(scarce);
    for server in [&server, &vm] {
        fixture.attach_to(server, &network);
    }
}

#[test]
fn without_descriptors_an_attach_is_refused_and_nothing_is_lost() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let scarce = fixture.daemon.pid();
        nothing_is_lost_however_few_there_are(&mut fixture, scarce);
    });
}

#[test]
fn the_same_with_a_helper() {
    in_netns(|| {
        let (mut fixture, _helper) = helped();
        let scarce = fixture.daemon.pid();
        nothing_is_lost_however_few_there_are(&mut fixture, scarce);
    });
}

#[test]
fn a_helper_without_descriptors_says_so() {
    in_netns(|| {
        let (mut fixture, helper) = helped();
        nothing_is_lost_however_few_there_are(&mut fixture, helper.pid());
    });
}

#[test]
fn a_namespace_that_cannot_be_looked_for_is_neither_gone_nor_another() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let scarce = fixture.daemon.pid();
        let network = fixture.usual_network();
        let (guest, server) = fixture.guest("a");
        let port = fixture.attach_to(&server, &network);
        let attach = json!({"interfaceAttachment": {"net_id": network}});
        // The pinned one lives elsewhere, and another is at its path.
        std::fs::write("/run/kept", "").unwrap();
        mount(Some(&guest.path), "/run/kept", None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        guest.end();
        let other = Guest::new("a");
        let mut refused = 0;
        for free in 0..40 {
            leave_free(scarce, free);
            let answer = fixture.api.post(&interfaces(&server), &attach);
            if answer.status == 409 {
                answer.refused(409, "namespace_changed");
                break;
            }
            assert!(!done(&answer));
            refused += 1;
        }
        assert!((1..40).contains(&refused), "{refused}");
        assert_eq!(other.ip_json("link").as_array().unwrap().len(), 1);
        leave_all(scarce);
        fixture.detach(&server, &port);
        umount("/run/kept").unwrap();
        fixture.attach_to(&server, &network);
    });
}

#[test]
fn a_port_that_cannot_be_brought_back_for_want_of_descriptors_says_so_and_is_back_with_them() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let scarce = fixture.daemon.pid();
        let network = fixture.usual_network();
        let (guest, server) = fixture.guest("a");
        let port = fixture.attach_to(&server, &network);
        let device = fixture.device(&port);
        leave_free(scarce, 0);
        run(&format!("ip link del {device}"));
        let shown = fixture.wait_until(&port, "refused", |port| port.is_some_and(|port| port["status"] != "ACTIVE"));
        let shown = match shown.unwrap()["status"].as_str() {
            Some("ERROR") => fixture.port(&port),
            _ => fixture.wait_status(&port, "ERROR"),
        };
        assert_eq!(shown["nicd:reason"], "no_descriptors");
        let reasons = |fixture: &mut Fixture| {
            let health = fixture.api.get("/nicd/v1/health").expect(200);
            health["problems"].as_array().unwrap().iter().map(|problem| problem["reason"].to_string()).collect::<Vec<_>>()
        };
        assert!(
            reasons(&mut fixture).iter().all(|reason| !reason.contains("host_not_closed") && !reason.contains("tun_unusable"))
        );
        leave_all(scarce);
        fixture.wait_status(&port, "ACTIVE");
        assert!(guest.ip("link show dev eth0").contains("fa:16:3e"));
        assert!(reasons(&mut fixture).iter().all(|reason| !reason.contains("no_descriptors")));
    });
}

#[test]
fn a_store_whose_file_cannot_be_opened_is_neither_replaced_nor_damaged() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let scarce = fixture.daemon.pid();
        let network = json!({"network": {"name": "blue"}});
        fixture.api.post("/v2.0/networks", &network).expect(201);
        leave_free(scarce, 0);
        // As another program's checkpoint leaves it: what the file holds has to be looked at.
        let store = std::fs::File::options().write(true).open(fixture.daemon.state().join("nicd.db")).unwrap();
        store.set_modified(std::time::SystemTime::now()).unwrap();
        assert!(!done(&fixture.api.post("/v2.0/networks", &network)));
        assert!(!done(&fixture.api.get("/nicd/v1/verify")));
        let health = fixture.api.get("/nicd/v1/health").expect(200);
        assert!(!health.to_string().contains("store_"), "{health}");
        leave_all(scarce);
        fixture.api.post("/v2.0/networks", &network).expect(201);
        assert_eq!(fixture.api.get("/v2.0/networks").expect(200)["networks"].as_array().unwrap().len(), 2);
    });
}

#[test]
fn the_service_manager_is_told_without_a_descriptor_to_spare() {
    in_netns(|| {
        let fixture = Fixture::start();
        leave_free(fixture.daemon.pid(), 0);
        fixture.daemon.reload();
        leave_all(fixture.daemon.pid());
        fixture.daemon.reload();
    });
}

#[test]
fn connections_that_cannot_be_accepted_wait_and_cost_nothing() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let scarce = fixture.daemon.pid();
        let network = fixture.usual_network();
        let (_guest, server) = fixture.guest("a");
        fixture.attach_to(&server, &network);
        leave_free(scarce, 3);
        let waiting: Vec<UnixStream> = (0..20).map(|_| UnixStream::connect(fixture.daemon.socket()).unwrap()).collect();
        let began = ticks(scarce);
        std::thread::sleep(Duration::from_secs(1));
        let used = ticks(scarce) - began;
        assert!(used < 40, "{used} hundredths of a second");
        let attach = json!({"interfaceAttachment": {"net_id": network}});
        assert!(!done(&fixture.api.post(&interfaces(&server), &attach)));
        drop(waiting);
        leave_free(scarce, 30);
        fixture.daemon.client().get("/nicd/v1/health").expect(200);
        fixture.attach_to(&server, &network);
        assert_eq!(marked_ports().len(), 2);
        leave_all(scarce);
    });
}
