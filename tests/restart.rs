//! Stop, kill and restart: requests answered with success are durable, others are complete or absent, and a restart writes nothing
//! to correct devices.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

#[path = "common/daemon.rs"]
mod daemon;
#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/kernel_view.rs"]
mod kernel_view;
#[path = "common/netns.rs"]
mod netns;

use std::collections::BTreeSet;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use daemon::{Client, Daemon, PATIENCE, Power};
use fixture::{Fixture, interfaces, text};
use kernel_view::{Monitor, marked, marked_ports, name_of, try_link};
use netns::{Guest, in_netns, run};
use serde_json::{Value, json};

/// How a daemon ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Term,
    Kill,
}

fn end(fixture: &mut Fixture, how: End) {
    match how {
        End::Term => fixture.daemon.term(),
        End::Kill => fixture.daemon.kill(),
    }
}

/// A host with two namespaces and three virtual machines, one of whose taps is held open.
struct Host {
    fixture: Fixture,
    guests: Vec<Guest>,
    _vmm: std::os::fd::OwnedFd,
}

impl Host {
    fn new() -> Self {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (one, one_server) = fixture.guest("a");
        let (other, other_server) = fixture.guest("b");
        let mut servers = vec![one_server, other_server];
        servers.extend((0..3).map(|_| fixture.vm()));
        let ports: Vec<String> = servers.iter().map(|server| fixture.attach_to(server, &network)).collect();
        let device = fixture.device(&ports[4]).parse().unwrap();
        let vmm = nicd::kernel::tap::attach(&device, 1, true).unwrap();
        fixture.wait_status(&ports[4], "ACTIVE");
        fixture.create_port(json!({"network_id": network, "name": "for later"}));
        Self { fixture, guests: vec![one, other], _vmm: vmm }
    }
}

fn a_restart_writes_to_no_right_device(how: End) {
    in_netns(move || {
        let mut host = Host::new();
        let ports = host.fixture.ports();
        let networks = host.fixture.api.get("/v2.0/networks").text;
        let servers = host.fixture.api.get("/nicd/v1/servers").text;
        let inside: Vec<String> = host.guests.iter().map(|guest| guest.ip("addr show dev eth0")).collect();
        let mut told = Monitor::links();
        for _ in 0..3 {
            end(&mut host.fixture, how);
            host.fixture.launch();
            assert_eq!(host.fixture.ports(), ports);
            assert_eq!(host.fixture.api.get("/v2.0/networks").text, networks);
            assert_eq!(host.fixture.api.get("/nicd/v1/servers").text, servers);
        }
        let ours: Vec<String> = told.take_links().iter().map(name_of).filter(|name| name.starts_with('n')).collect();
        assert!(ours.is_empty(), "these were written to: {ours:?}");
        let now: Vec<String> = host.guests.iter().map(|guest| guest.ip("addr show dev eth0")).collect();
        assert_eq!(now, inside);
        assert!(host.fixture.events.next(Duration::from_millis(100)).is_none(), "nothing happened, so nothing is told");
    });
}

#[test]
fn a_stop_and_a_start_change_no_answer_and_write_to_no_right_device() {
    a_restart_writes_to_no_right_device(End::Term);
}

#[test]
fn a_kill_and_a_start_change_no_answer_and_write_to_no_right_device() {
    a_restart_writes_to_no_right_device(End::Kill);
}

#[test]
fn a_detach_that_was_answered_is_carried_out_after_a_kill() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let server = fixture.vm();
        for _ in 0..10 {
            let kept = fixture.create_port(json!({"network_id": network}));
            fixture.attach(&server, json!({"port_id": kept}));
            let port = fixture.attach_to(&server, &network);
            for leaving in [&kept, &port] {
                fixture.api.delete(&format!("{}/{leaving}", interfaces(&server))).expect(202);
            }
            fixture.daemon.kill();
            fixture.launch();
            fixture.wait_until(&port, "gone", |port| port.is_none());
            fixture.wait_until(&kept, "unbound", |port| port.is_some_and(|port| port["nicd:phase"] == "unbound"));
            assert!(marked_ports().is_empty());
            fixture.api.delete(&format!("/v2.0/ports/{kept}")).expect(204);
        }
    });
}

#[test]
fn devices_deleted_while_it_was_down_are_built_again() {
    in_netns(|| {
        let mut host = Host::new();
        let before = host.fixture.ports();
        host.fixture.daemon.kill();
        for name in marked() {
            run(&format!("ip link del {name}"));
        }
        host.fixture.launch();
        for port in before.iter().filter(|port| port["device_id"] != "") {
            // The tap's process holds what is no more.
            let status = if port["binding:vif_type"] == "tap" { "DOWN" } else { "ACTIVE" };
            let id = text(&port["id"]);
            let after = host.fixture.wait_until(&id, status, |port| {
                port.is_some_and(|port| {
                    port["status"] == status
                        && port["nicd:phase"] != "detaching"
                        && port["binding:vif_details"]["device"].is_string()
                })
            });
            let after = after.unwrap();
            for same in ["mac_address", "fixed_ips", "device_id", "binding:vif_details"] {
                assert_eq!(after[same], port[same]);
            }
        }
        for guest in &host.guests {
            assert!(guest.ip("-4 addr show dev eth0").contains("192.0.2."));
        }
    });
}

#[test]
fn drift_from_while_it_was_down_is_undone() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (_guest, server) = fixture.guest("a");
        let port = fixture.attach_to(&server, &network);
        let device = fixture.device(&port);
        fixture.daemon.term();
        run(&format!("ip link set {device} nomaster mtu 1400"));
        run(&format!("ip link set {device} down"));
        fixture.launch();
        fixture.wait_status(&port, "ACTIVE");
        let link = kernel_view::link(&device);
        assert!(link["master"].is_string() && link["mtu"] == 1500, "{link}");
    });
}

#[test]
fn a_marked_device_without_a_record_is_reported_and_left() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        assert_eq!(fixture.api.get("/nicd/v1/health").expect(200)["status"], "ok");
        fixture.daemon.term();
        run("ip link add stray type veth peer name other");
        run("ip link property add dev stray altname nicd-11111111-2222-4333-8444-555555555555");
        fixture.daemon.tag("stray");
        let before = kernel_view::link("stray");
        fixture.launch();
        let health = fixture.api.get("/nicd/v1/health").expect(200);
        assert_eq!(health["status"], "degraded");
        let problem = &health["problems"][0];
        assert_eq!(problem["reason"], "device_without_record");
        assert!(text(&problem["detail"]).contains("stray") && !text(&problem["remedy"]).is_empty(), "{problem}");
        assert_eq!(kernel_view::link("stray"), before);
        fixture.daemon.term();
        run("ip link del stray");
        fixture.launch();
        assert_eq!(fixture.api.get("/nicd/v1/health").expect(200)["status"], "ok");
    });
}

/// What one client of a storm was answered.
#[derive(Debug, Default)]
struct Answered {
    attached: BTreeSet<String>,
    detached: BTreeSet<String>,
    /// A detach of them was asked for and never answered.
    unknown: BTreeSet<String>,
}

/// Attaches and detaches until the daemon dies.
fn storm(mut api: Client, server: &str, network: &str) -> Answered {
    let mut answered = Answered::default();
    let json_type = [("Content-Type", "application/json")];
    let body = json!({"interfaceAttachment": {"net_id": network}}).to_string();
    loop {
        let Ok(answer) = api.try_call("POST", &interfaces(server), &json_type, body.as_bytes()) else { return answered };
        let port = text(&answer.expect(200)["interfaceAttachment"]["port_id"]);
        answered.attached.insert(port.clone());
        // Every other one stays, up to a few.
        if answered.attached.len() < 4 {
            continue;
        }
        let leaving = answered.attached.pop_first().unwrap();
        match api.try_call("DELETE", &format!("{}/{leaving}", interfaces(server)), &[], b"") {
            Ok(answer) => {
                answer.expect(202);
                answered.detached.insert(leaving);
            }
            Err(_) => {
                answered.unknown.insert(leaving);
                return answered;
            }
        }
    }
}

/// Waits until nothing is under way any more, and answers all ports.
fn settle(fixture: &mut Fixture) -> Vec<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ports = fixture.ports();
        if ports.iter().all(|port| ["wired", "active", "unbound"].iter().any(|phase| port["nicd:phase"] == *phase)) {
            return ports;
        }
        let event = fixture.events.next(deadline.saturating_duration_since(Instant::now()));
        assert!(event.is_some(), "it does not settle: {ports:#?}");
    }
}

#[test]
fn killed_at_any_moment_it_comes_back_with_what_it_answered_and_nothing_else() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.network(json!({}));
        fixture.subnet(&network, "192.0.2.0/24");
        let (_guest, netns_server) = fixture.guest("a");
        let servers = [fixture.vm(), fixture.vm(), fixture.vm(), netns_server];
        for round in 0..30_u64 {
            let clients: Vec<_> = servers
                .iter()
                .map(|server| {
                    let (api, server, network) = (fixture.daemon.client(), server.clone(), network.clone());
                    thread::spawn(move || storm(api, &server, &network))
                })
                .collect();
            // What is tried: another moment each time.
            thread::sleep(Duration::from_micros(1000 + round * 37 % 30 * 1500));
            fixture.daemon.kill();
            let answered: Vec<Answered> = clients.into_iter().map(|client| client.join().unwrap()).collect();
            fixture.launch();
            let ports = settle(&mut fixture);
            let ids: BTreeSet<String> = ports.iter().map(|port| text(&port["id"])).collect();
            for client in &answered {
                assert!(client.attached.is_subset(&ids), "answered with success and not there: {client:?}");
                assert!(client.detached.is_disjoint(&ids), "detached and still there: {client:?}");
            }
            assert_eq!(marked_ports(), ids.iter().cloned().collect::<Vec<_>>(), "round {round}");
            let distinct = |pick: &dyn Fn(&Value) -> String| ports.iter().map(pick).collect::<BTreeSet<_>>().len();
            assert_eq!(distinct(&|port| text(&port["fixed_ips"][0]["ip_address"])), ports.len());
            for port in &ids {
                let server = text(&ports.iter().find(|one| one["id"] == port.as_str()).unwrap()["device_id"]);
                fixture.detach(&server, port);
            }
            assert!(marked_ports().is_empty());
        }
        fixture.api.delete(&format!("/v2.0/networks/{network}")).expect(204);
        assert!(marked().is_empty());
    });
}

#[test]
fn events_are_resumed_and_what_is_lost_in_a_restart_is_said() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let server = fixture.vm();
        let port = fixture.attach_to(&server, &network);
        let created = fixture.events.wait_for("created", |event| event["event"] == "port.created");
        fixture.events.wait_for("wired", |event| event["phase"] == "wired");
        let mut again = fixture.daemon.follow(created["seq"].as_u64());
        let resumed = again.next(PATIENCE).unwrap();
        assert_eq!((&resumed["phase"], &resumed["port_id"]), (&json!("wired"), &json!(port)), "what came after it comes again");
        fixture.daemon.term();
        fixture.launch();
        let mut after = fixture.daemon.follow(resumed["seq"].as_u64());
        assert_eq!(after.next(PATIENCE).unwrap()["event"], "lost");
        fixture.detach(&server, &port);
        let next = after.next(PATIENCE).unwrap();
        assert_eq!((&next["port_id"], &next["phase"]), (&json!(port), &json!("detaching")), "and lost is said once");
        assert!(next["seq"].as_u64() > resumed["seq"].as_u64(), "numbers never go back");
    });
}

#[test]
fn a_second_one_is_refused_by_state_and_by_socket() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let (socket, state) = (fixture.daemon.socket(), fixture.daemon.state());
        let (other_socket, other_state) = (socket.with_file_name("other.sock"), state.with_file_name("other"));
        for (socket, state, names) in
            [(&socket, &state, &state), (&other_socket, &state, &state), (&socket, &other_state, &socket)]
        {
            let (code, said) = fixture.daemon.second(socket, state);
            assert_eq!(code, 69, "{said}");
            assert!(said.contains(&names.display().to_string()), "{said}");
        }
        fixture.api.get("/nicd/v1/health").expect(200);
        fixture.daemon.client().get("/nicd/v1/health").expect(200);
    });
}

#[test]
fn a_second_one_in_the_same_network_namespace_is_refused_whatever_it_is_given() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let other = |name: &str| fixture.daemon.state().with_file_name(name);
        let (code, said) = fixture.daemon.second(&other("other.sock"), &other("other"));
        let pid = fixture.daemon.pid();
        assert!(code == 69 && said.contains("network namespace") && said.contains(&format!("pid {pid}")), "{code}: {said}");
        // It is the network namespace that counts, and not what is mounted where.
        let elsewhere = fixture.daemon.command(&other("other.sock"), &other("other"));
        let program = elsewhere.get_program().to_owned();
        let mut unshared = Command::new("unshare");
        unshared.arg("--mount").arg(program).args(elsewhere.get_args().map(ToOwned::to_owned).collect::<Vec<_>>());
        let output = unshared.output().unwrap();
        assert_eq!(output.status.code(), Some(69), "{}", String::from_utf8_lossy(&output.stderr));
        fixture.api.get("/nicd/v1/health").expect(200);
        fixture.daemon.kill();
        fixture.launch();
        fixture.api.get("/nicd/v1/health").expect(200);
    });
}

#[test]
fn a_stranger_who_locks_the_network_namespace_does_not_keep_it_from_starting() {
    in_netns(|| {
        // The one that locked it lives still, or left the file to another.
        let lives = "exec flock --no-fork /proc/self/ns/net sh -c 'echo held; exec sleep 600'";
        let left = "exec 9</proc/self/ns/net; flock 9; echo held; exec sleep 600";
        for hold in [lives, left] {
            let mut stranger = Command::new("setpriv")
                .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "sh", "-c", hold])
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let mut said = [0; 5];
            std::io::Read::read_exact(stranger.stdout.as_mut().unwrap(), &mut said).unwrap();
            let mut daemon = Daemon::prepared("/run/nicd");
            daemon.launch();
            daemon.client().get("/nicd/v1/health").expect(200);
            assert!(daemon.log().contains("it is ignored"), "{}", daemon.log());
            daemon.term();
            stranger.kill().unwrap();
            stranger.wait().unwrap();
        }
    });
}

#[test]
fn who_may_not_do_the_work_is_told_what_is_missing() {
    in_netns(|| {
        let mut daemon = Daemon::prepared("/run/nicd");
        daemon.run_as_user(Power::Nobody);
        let (code, said) = daemon.second(&daemon.socket(), &daemon.state());
        assert!(code == 77 && said.contains("CAP_NET_ADMIN"), "{code}: {said}");
        assert!(!daemon.socket().exists());
        std::fs::create_dir("/run/roots").unwrap();
        let state = Path::new("/run/roots/state");
        let (code, said) = daemon.second(&daemon.socket(), state);
        assert!(code == 77 && said.contains("/run/roots/state may not be written"), "{code}: {said}");
    });
}

#[test]
fn a_socket_nobody_listens_on_is_replaced() {
    in_netns(|| {
        let mut daemon = Daemon::prepared("/run/nicd");
        drop(UnixListener::bind(daemon.socket()).unwrap());
        daemon.launch();
        daemon.client().get("/nicd/v1/health").expect(200);
        daemon.kill();
        assert!(daemon.socket().exists(), "a killed one leaves its socket");
        daemon.launch();
        daemon.client().get("/nicd/v1/health").expect(200);
        daemon.term();
        assert!(!daemon.socket().exists(), "a stopped one takes it away");
    });
}

#[test]
fn what_is_no_socket_at_the_sockets_path_is_refused_and_left() {
    in_netns(|| {
        let daemon = Daemon::prepared("/run/nicd");
        let path = daemon.socket();
        let refused = |what: &str| {
            let (code, said) = daemon.second(&path, &daemon.state());
            assert!([69, 78].contains(&code), "{what}: {code}: {said}");
            assert!(said.contains(&path.display().to_string()), "{what}: {said}");
        };
        std::fs::write(&path, "mine").unwrap();
        refused("a file");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        refused("a directory");
        std::fs::remove_dir(&path).unwrap();
        std::os::unix::fs::symlink("/run/nicd/nowhere", &path).unwrap();
        refused("a link");
        assert!(path.is_symlink() && !path.exists());
        std::fs::remove_file(&path).unwrap();
        let live = UnixListener::bind(&path).unwrap();
        let (code, said) = daemon.second(&path, &daemon.state());
        assert_eq!(code, 69, "somebody listens: {said}");
        drop(live);
        assert!(try_link("nowhere").is_none());
    });
}
