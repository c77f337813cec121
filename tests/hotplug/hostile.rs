//! What listens where a monitor is expected, and is none, or a bad one: each is refused with its words, in bounded time, and costs
//! others nothing.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nicd::kernel::tap;
use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::fixture::{Fixture, interfaces, text};
use crate::kernel_view::{has_flag, link, marked};
use crate::netns::in_netns;
use crate::stopped::server;

const GREETING: &str = r#"{"QMP": {"version": {}, "capabilities": []}}"#;

/// Serves a socket in its own way.
fn listen(path: &str, mode: u32, serve: impl Fn(UnixStream) + Send + 'static) {
    let listener = UnixListener::bind(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    thread::spawn(move || listener.incoming().for_each(|client| serve(client.unwrap())));
}

/// Greets, and answers each command with what `answer` makes of its id.
fn answering(answer: impl Fn(&Value) -> String) -> impl Fn(UnixStream) {
    move |client| {
        let mut to = client.try_clone().unwrap();
        let _ = writeln!(to, "{GREETING}");
        for line in BufReader::new(client).lines().map_while(Result::ok) {
            let id = serde_json::from_str::<Value>(&line).unwrap()["id"].clone();
            if writeln!(to, "{}", answer(&id)).is_err() {
                return;
            }
        }
    }
}

/// Writes this without end, or until its reader has gone.
fn without_end(first: &'static str, then: &'static str) -> impl Fn(UnixStream) {
    // Much at a time, so that there is always something to read.
    let then = then.repeat((64 << 10) / then.len());
    move |mut client| {
        let _ = client.write_all(first.as_bytes());
        while client.write_all(then.as_bytes()).is_ok() {}
    }
}

/// Says something, and then nothing.
fn saying(words: &'static str) -> impl Fn(UnixStream) {
    move |mut client| {
        let _ = client.write_all(words.as_bytes());
        // Until the client has enough of it.
        let _ = BufReader::new(client).lines().map_while(Result::ok).count();
    }
}

#[test]
fn what_is_no_monitor_is_refused_in_bounded_time_and_costs_others_nothing() {
    in_netns(|| {
        let mut daemon = Daemon::prepared("/run/nicd");
        daemon.confine();
        daemon.launch();
        let mut fixture = Fixture::of(daemon);
        let network = fixture.usual_network();
        let nested: &'static str = Box::leak(format!("{}\n", "[".repeat(100_000)).into_boxed_str());
        listen("/run/closed", 0o600, saying(GREETING));
        listen("/run/silent", 0o666, saying(""));
        listen("/run/mute", 0o666, saying(concat!(r#"{"QMP": {}}"#, "\n")));
        listen("/run/garbage", 0o666, saying("220 mail.example.org ESMTP\r\n"));
        listen("/run/nested", 0o666, saying(nested));
        listen("/run/endless", 0o666, without_end("", "xxxxxxxxxxxxxxxx"));
        listen("/run/flood", 0o666, without_end("{\"QMP\": {}}\n", "{\"event\": \"STOP\", \"data\": {}}\n"));
        listen("/run/ended", 0o666, drop);
        listen("/run/other", 0o666, answering(|_| json!({"id": "no", "return": {}}).to_string()));
        listen(
            "/run/refusing",
            0o666,
            answering(|id| json!({"id": id, "error": {"class": "GenericError", "desc": "no"}}).to_string()),
        );
        listen("/run/odd", 0o666, answering(|id| json!({"id": id, "return": 7}).to_string()));
        fs::write("/run/file", "").unwrap();
        fs::set_permissions("/run/file", fs::Permissions::from_mode(0o666)).unwrap();
        let cases = [
            ("closed", "monitor_denied", "write permission"),
            ("silent", "monitor_busy", "did not greet in 2 s"),
            ("mute", "monitor_unreachable", "did not answer qmp_capabilities in 5 s"),
            ("garbage", "monitor_unreachable", "does not speak QMP"),
            ("nested", "monitor_unreachable", "does not speak QMP: recursion limit"),
            ("endless", "monitor_unreachable", "a line has no end"),
            ("flood", "monitor_unreachable", "it says too much"),
            ("ended", "monitor_unreachable", "it closed the connection"),
            ("other", "monitor_unreachable", "an answer belongs to no command"),
            ("refusing", "monitor_refused", "refused qmp_capabilities: no"),
            ("odd", "monitor_unreachable", "does not speak QMP: qom-list: invalid type"),
            ("file", "monitor_unreachable", "Connection refused"),
            ("missing", "monitor_unreachable", "No such file or directory"),
        ];
        let asking: Vec<_> = cases
            .into_iter()
            .map(|(what, reason, says)| {
                let vm = server(&mut fixture, &format!("/run/{what}"), 1);
                let (mut api, network) = (fixture.daemon.client(), network.clone());
                thread::spawn(move || {
                    let began = Instant::now();
                    let error =
                        api.post(&interfaces(&vm), &json!({"interfaceAttachment": {"net_id": network}})).refused(409, reason);
                    let message = error["message"].as_str().unwrap();
                    assert!(message.contains(says) && message.contains(&format!("/run/{what}")), "{message}");
                    assert!(began.elapsed() < Duration::from_secs(7), "{what}: {:?}", began.elapsed());
                })
            })
            .collect();
        // Meanwhile.
        let (vm, mut took) = (fixture.vm(), Vec::new());
        for _ in 0..8 {
            let began = Instant::now();
            let port = fixture.attach_to(&vm, &network);
            took.push(began.elapsed());
            fixture.detach(&vm, &port);
        }
        took.sort();
        assert!(took[4] < Duration::from_millis(500), "{took:?}");
        asking.into_iter().for_each(|asking| asking.join().unwrap());
        assert!(fixture.ports().is_empty());
        assert!(marked().iter().all(|name| name.starts_with("nbr")), "{:?}", marked());
    });
}

/// A machine with a free slot that takes a NIC up to the last step, and then does as `last` says with the NIC's id and the command's.
fn slotted(last: impl Fn(&str, &Value) -> String) -> impl Fn(UnixStream) {
    move |client| {
        let mut to = client.try_clone().unwrap();
        let _ = writeln!(to, "{GREETING}");
        for line in BufReader::new(client).lines().map_while(Result::ok) {
            let asked: Value = serde_json::from_str(&line).unwrap();
            let (id, arguments) = (&asked["id"], &asked["arguments"]);
            let gone = || json!({"id": id, "error": {"class": "DeviceNotFound", "desc": "no such device"}});
            let done = |answer: Value| json!({"id": id, "return": answer});
            let answer = match (asked["execute"].as_str().unwrap(), arguments["path"].as_str()) {
                ("qom-list", Some("/machine/peripheral")) => done(json!([{"name": "rp1", "type": "child<pcie-root-port>"}])),
                ("qom-list", _) => done(json!([])),
                ("qom-get", _) => done(json!(true)),
                ("set_link" | "device_del", _) => gone(),
                ("device_add", _) => {
                    let _ = writeln!(to, "{}", last(arguments["id"].as_str().unwrap(), id));
                    continue;
                }
                _ => done(json!({})),
            };
            if writeln!(to, "{answer}").is_err() {
                return;
            }
        }
    }
}

fn refusal(id: &Value) -> String {
    json!({"id": id, "error": {"class": "GenericError", "desc": "it is full"}}).to_string()
}

/// Opens the tap of a machine's NIC, as the machine would.
fn opened(nic: &str) -> OwnedFd {
    let device = format!("nicd{}", &nic["nicd-".len()..].replace('-', "")[..11]);
    tap::attach(&device.parse().unwrap(), 1, true).unwrap()
}

#[test]
fn a_machine_that_fails_at_the_last_step_leaves_nothing_but_what_it_holds_and_others_whole() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        // One that refuses once the test lets it, one that keeps the tap all the same, and one that keeps it and hangs.
        let (reached, begun) = mpsc::channel();
        let (go, may) = mpsc::channel::<()>();
        let may = Mutex::new(may);
        listen(
            "/run/slow",
            0o666,
            slotted(move |_, id| {
                reached.send(()).unwrap();
                let _ = may.lock().unwrap().recv();
                refusal(id)
            }),
        );
        let held: Arc<Mutex<Vec<OwnedFd>>> = Arc::default();
        let holds = Arc::clone(&held);
        listen(
            "/run/holding",
            0o666,
            slotted(move |nic, id| {
                holds.lock().unwrap().push(opened(nic));
                refusal(id)
            }),
        );
        let hung: Arc<Mutex<Vec<OwnedFd>>> = Arc::default();
        let hangs = Arc::clone(&hung);
        listen(
            "/run/hanging",
            0o666,
            slotted(move |nic, _| {
                hangs.lock().unwrap().push(opened(nic));
                loop {
                    thread::park();
                }
            }),
        );
        let attaching = |fixture: &mut Fixture, what: &str, network: &str, reason: &'static str| {
            let vm = server(fixture, &format!("/run/{what}"), 1);
            let (mut api, network, path) = (fixture.daemon.client(), network.to_owned(), interfaces(&vm));
            let asking = thread::spawn(move || {
                let began = Instant::now();
                api.post(&path, &json!({"interfaceAttachment": {"net_id": network}})).refused(409, reason);
                began.elapsed()
            });
            (vm, asking)
        };
        let (hanging_vm, hanging) = attaching(&mut fixture, "hanging", &network, "monitor_unreachable");

        // Another port comes onto the bridge that the failed one has made, and stays whole.
        let green = fixture.network(json!({"name": "green"}));
        fixture.subnet(&green, "198.51.100.0/24");
        let (_, slow) = attaching(&mut fixture, "slow", &green, "monitor_refused");
        begun.recv().unwrap();
        let (guest, _, beside) = fixture.active_guest("beside", &green);
        let before = link(&fixture.device(&beside));
        go.send(()).unwrap();
        slow.join().unwrap();
        assert_eq!(fixture.verified()["deviations"], json!([]));
        assert_eq!(
            (fixture.port(&beside)["status"].as_str(), link(&fixture.device(&beside))["ifindex"].clone()),
            (Some("ACTIVE"), before["ifindex"].clone())
        );
        assert!(guest.ip("link show eth0").contains("LOWER_UP"));
        assert!(!link(before["master"].as_str().unwrap())["ifindex"].is_null());

        // A tap that is held is cut off and left, with its port, until its holder lets go.
        let (holding_vm, holding) = attaching(&mut fixture, "holding", &network, "monitor_refused");
        holding.join().unwrap();
        let kept = |fixture: &mut Fixture, vm: &str, held: &Mutex<Vec<OwnedFd>>| {
            let port = fixture.ports().into_iter().find(|port| port["device_id"] == vm).unwrap();
            let port = text(&port["id"]);
            fixture.wait_until(&port, "kept", |port| port.is_some_and(|port| port["nicd:reason"] == "guest_keeps_device"));
            let shown = link(&fixture.device(&port));
            assert!(shown["master"].is_null() && !has_flag(&shown, "UP"), "{shown}");
            held.lock().unwrap().clear();
            fixture.events.wait_deleted(&port);
        };
        kept(&mut fixture, &holding_vm, &held);
        let took = hanging.join().unwrap();
        assert!(took < Duration::from_secs(9), "{took:?}");
        fs::remove_file("/run/hanging").unwrap();
        kept(&mut fixture, &hanging_vm, &hung);
        assert_eq!(fixture.port_ids(), std::slice::from_ref(&beside));
    });
}
