//! `nicctl` against the real daemon, as an operator uses it.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

#[path = "../common/daemon.rs"]
mod daemon;
#[path = "../common/fixture.rs"]
mod fixture;
#[path = "../common/kernel_view.rs"]
mod kernel_view;
#[path = "../common/netns.rs"]
mod netns;
#[path = "../common/programs.rs"]
mod programs;
mod top;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use daemon::{Daemon, PATIENCE};
use fixture::text;
use kernel_view::{marked, marked_ports, try_link};
use netns::{Guest, in_netns, run};
use programs::has;
use serde_json::{Value, json};

/// The client's program, for one daemon.
struct Ctl(PathBuf);

/// How a command ended.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Ctl {
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nicctl"));
        command.arg("--socket").arg(&self.0).args(line.split_whitespace());
        command.env_remove("NICD_SOCKET").env_remove("NO_COLOR").stdin(Stdio::null());
        command
    }

    fn run(&self, line: &str) -> Said {
        let output = self.command(line).output().unwrap();
        let said = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let said = Said { code: output.status.code().unwrap(), out: said(&output.stdout), err: said(&output.stderr) };
        assert!(!said.out.contains('\u{1b}') && !said.err.contains('\u{1b}'), "colours without a terminal: {said:?}");
        said
    }

    /// What a command says that is to succeed.
    fn ok(&self, line: &str) -> String {
        let said = self.run(line);
        assert!(said.code == 0 && said.err.is_empty(), "{line}: {said:?}");
        said.out
    }

    /// The same as JSON.
    fn json(&self, line: &str) -> Value {
        let said = self.ok(&format!("-o json {line}"));
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{line}: {error}: {said}"))
    }

    /// One sentence on stderr, and nothing else, with this exit code.
    fn fails(&self, line: &str, code: i32) -> String {
        let said = self.run(line);
        assert_eq!(said.code, code, "{line}: {said:?}");
        assert!(said.out.is_empty() || code == 3, "{line}: {said:?}");
        assert!(code == 2 || said.err.trim_end().lines().count() == 1, "{line}: {said:?}");
        said.err
    }
}

/// `nicctl watch`, running until it is dropped.
struct Watch {
    child: Child,
    lines: Receiver<String>,
}

impl Watch {
    fn start(ctl: &Ctl, line: &str) -> Self {
        let mut child = ctl.command(line).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    fn next(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn started() -> (Daemon, Ctl) {
    let daemon = Daemon::start();
    let ctl = Ctl(daemon.socket());
    (daemon, ctl)
}

#[test]
fn an_operator_gives_a_guest_a_nic_and_takes_it_away() {
    in_netns(|| {
        let (_daemon, ctl) = started();
        let guest = Guest::new("web");
        assert!(ctl.ok("status").contains("ok"));
        let made = ctl.ok("network create blue --subnet 192.0.2.0/24 --subnet 2001:db8::/64");
        assert!(made.contains("blue"), "{made}");
        assert!(ctl.ok("network list").contains("blue"));
        ctl.ok("server add web --netns /run/netns/web");
        assert!(ctl.ok("server list").contains("web"));
        let attached = ctl.ok("attach web --network blue --ip 192.0.2.77 --wait");
        for shown in ["192.0.2.77", "ACTIVE", "fa:16:3e"] {
            assert!(attached.contains(shown), "{shown}: {attached}");
        }
        assert!(guest.ip("addr show dev eth0").contains("192.0.2.77"));
        let port = marked_ports().remove(0);
        assert!(attached.contains(&port[..8]), "{attached}");
        let listed = ctl.ok("list web");
        assert!(listed.contains("192.0.2.77") && listed.contains("ACTIVE"), "{listed}");
        assert!(ctl.ok("list -o wide").contains(&port), "wide has full ids");
        assert!(ctl.ok(&format!("show {}", &port[..8])).contains("192.0.2.77"), "a prefix will do");
        let why = ctl.ok(&format!("explain {port}"));
        for fact in ["device", "bridge", "carrier", "forwarding"] {
            assert!(why.contains(fact), "{fact}: {why}");
        }
        assert!(ctl.fails("network delete blue", 1).contains("in use"));
        assert!(ctl.fails("server delete web", 1).contains("detach"));
        ctl.ok(&format!("detach web {port} --wait"));
        assert!(marked_ports().is_empty(), "--wait waits for the device's end");
        ctl.ok("server delete web");
        ctl.ok("network delete blue");
        assert!(marked().is_empty());
    });
}

#[test]
fn each_json_answer_parses_and_is_the_daemons_own_object() {
    in_netns(|| {
        let (_daemon, ctl) = started();
        let network = ctl.json("network create blue --subnet 192.0.2.0/24 --mtu 1400");
        assert_eq!((&network["name"], &network["mtu"]), (&"blue".into(), &1400.into()));
        let server = ctl.json("server add one --vm --queues 2 --owner 107:108");
        assert_eq!(server["guest"]["owner"]["uid"], 107);
        let port = ctl.json("attach one --network blue");
        assert_eq!(port["device_id"], server["id"]);
        assert_eq!(ctl.json(&format!("show {}", text(&port["id"])))["id"], port["id"]);
        for (line, key) in [("list", "mac_address"), ("network list", "mtu"), ("subnet list", "cidr"), ("server list", "guest")] {
            let listed = ctl.json(line);
            assert_eq!(listed.as_array().map(Vec::len), Some(1), "{line}: {listed}");
            assert!(!listed[0][key].is_null(), "{line}: {listed}");
        }
        assert_eq!(ctl.json("status")["status"], "ok");
        assert_eq!(ctl.json(&format!("explain {}", text(&port["id"])))["status"], "DOWN");
    });
}

#[test]
fn watch_tells_each_event_as_it_comes() {
    in_netns(|| {
        let (_daemon, ctl) = started();
        ctl.ok("network create blue --subnet 192.0.2.0/24");
        ctl.ok("server add one --vm");
        let (lines, objects) = (Watch::start(&ctl, "watch"), Watch::start(&ctl, "watch --json"));
        // A watch is there once it says something: ports are made until both have.
        let mut made = 0;
        let (line, object) = loop {
            ctl.ok(&format!("port create blue --name p{made}"));
            made += 1;
            assert!(made < 200, "the watches say nothing");
            if let (Ok(line), Ok(object)) = (lines.lines.try_recv(), objects.lines.try_recv()) {
                break (line, object);
            }
        };
        assert!(line.contains("port.created"), "{line}");
        let object: Value = serde_json::from_str(&object).unwrap();
        assert_eq!(object["event"], "port.created");
        assert!(object["seq"].is_u64());
        let port = text(&ctl.json("attach one --network blue")["id"]);
        while !objects.next().contains(&port) {}
        while !lines.next().contains(&port[..8]) {}
    });
}

#[test]
fn exit_codes_tell_a_script_what_to_do() {
    in_netns(|| {
        let (mut daemon, ctl) = started();
        ctl.ok("network create blue --subnet 192.0.2.0/24");
        ctl.ok("server add one --vm");
        assert!(ctl.fails("attach one --network red", 1).contains("red"));
        assert!(ctl.fails("attach two", 1).contains("two"));
        assert!(ctl.fails("attach one --network blue --ip 198.51.100.1", 1).contains("198.51.100.1"));
        assert!(ctl.fails("network create wide --bridge nowhere", 1).contains("nowhere"));
        assert!(ctl.fails("network create half --subnet 192.0.2.0/24 --subnet 192.0.2.0/25", 1).contains("overlap"));
        assert!(!ctl.ok("network list").contains("half"), "all of it or nothing");
        ctl.fails("attach", 2);
        ctl.fails("nonsense", 2);
        ctl.fails("server add one", 2);
        let ran_out = ctl.fails("attach one --network blue --wait=1", 3);
        assert!(ran_out.contains("DOWN") && ran_out.contains("explain"), "{ran_out}");
        assert_eq!(marked_ports().len(), 1, "what was attached stays");
        ctl.ok("verify");
        daemon.term();
        assert!(ctl.fails("list", 4).contains("nicd.sock"));
        let nowhere = Ctl(Path::new("/run/nowhere.sock").to_owned());
        nowhere.fails("status", 4);
    });
}

#[test]
fn what_is_left_over_is_found_and_goes_when_asked() {
    in_netns(|| {
        let (daemon, ctl) = started();
        ctl.ok("network create blue --subnet 192.0.2.0/24");
        ctl.ok("server add one --vm");
        ctl.ok("attach one --network blue");
        ctl.ok("verify");
        assert_eq!(ctl.json("gc"), json!({"leftovers": [], "removed": []}));
        run("ip link add stray type veth peer name other");
        run("ip link property add dev stray altname nicd-11111111-2222-4333-8444-555555555555");
        assert_eq!(ctl.json("gc"), json!({"leftovers": [], "removed": []}), "it is not known to be nicd's");
        daemon.tag("stray");
        let said = ctl.run("verify");
        assert!(said.code == 1 && said.out.contains("stray") && said.err.contains("differ"), "{said:?}");
        assert!(ctl.ok("gc").contains("stray"));
        assert!(try_link("stray").is_some());
        assert!(ctl.ok("gc --apply").contains("removed"));
        assert!(try_link("stray").is_none());
        ctl.ok("verify");
        assert_eq!(marked_ports().len(), 1);
    });
}

#[test]
fn a_port_of_ones_own_keeps_its_name_and_survives_a_detach() {
    in_netns(|| {
        let (_daemon, ctl) = started();
        let guest = Guest::new("web");
        ctl.ok("network create blue --subnet 192.0.2.0/24");
        ctl.ok("server add web --netns /run/netns/web");
        ctl.ok("port create blue --name uplink --mac fa:16:3e:00:00:42 --ip 192.0.2.42 --ifname wan0");
        ctl.ok("attach web --port uplink --wait");
        assert!(guest.ip("addr show dev wan0").contains("192.0.2.42"));
        ctl.ok("port set uplink --admin-down");
        assert_eq!(ctl.json("show uplink")["status"], "DOWN");
        ctl.ok("detach web uplink --wait");
        assert_eq!(ctl.json("show uplink")["device_id"], "");
        ctl.ok("port delete uplink");
        ctl.fails("show uplink", 1);
    });
}

#[test]
fn an_operator_changes_what_there_is_and_asks_before() {
    in_netns(|| {
        let (_daemon, ctl) = started();
        let guest = Guest::new("web");
        ctl.ok("network create blue --subnet 192.0.2.0/24");
        ctl.ok("server add web --netns /run/netns/web");
        let planned = ctl.ok("plan attach web --network blue");
        assert!(planned.contains("veth") && marked_ports().is_empty(), "{planned}");
        ctl.ok("attach web --network blue --mac fa:16:3e:00:00:42 --ifname wan0 --name wan --wait");
        assert!(guest.ip("addr show dev wan0").contains("fa:16:3e:00:00:42"));
        ctl.ok("port set wan --ip 192.0.2.77");
        let shown = |columns: &str| ctl.ok(&format!("port show wan -o value --columns {columns}"));
        assert_eq!(shown("addresses"), "192.0.2.77\n");
        ctl.ok("subnet set 192.0.2.0/24 --dns 192.0.2.53").clear();
        assert!(ctl.ok("plan detach wan").contains("delete"));
        ctl.ok("server set web --nic-limit 3");
        assert_eq!(ctl.json("server show web")["nic_limit"], 3);
        assert_eq!(ctl.ok("list --columns name,status --no-header"), "wan  ACTIVE\n");
        ctl.ok("detach wan --wait");
        ctl.ok("port set wan --mac fa:16:3e:00:00:43");
        ctl.ok("port rm wan");
        assert_eq!(ctl.ok("ls -o csv --columns id"), "ID\n");
        assert!(ctl.ok("version").contains(env!("CARGO_PKG_VERSION")));
    });
}

#[test]
fn an_operator_sees_what_is_attached_and_what_would_stop_an_attach() {
    in_netns(|| {
        let (mut daemon, ctl) = started();
        let _guest = Guest::new("web");
        run("ip link add br-ops type bridge");
        run("ip link set br-ops up");
        run("ip link add uplink0 type veth peer name away");
        run("ip link set uplink0 master br-ops up");
        ctl.ok("network create ops --bridge br-ops --subnet 192.0.2.0/24");
        ctl.ok("server add web --netns /run/netns/web");
        ctl.ok("attach web --network ops --wait");
        for format in ["dot", "svg", "mermaid"] {
            let drawn = ctl.ok(&format!("graph --format {format} --network ops"));
            for part in ["uplink0", "br-ops", "192.0.2.2", "ACTIVE", "web"] {
                assert!(drawn.contains(part), "{format}: {part} in {drawn}");
            }
        }
        let found = ctl.json("doctor");
        let of = |found: &Value, check: &str| {
            let all = found["findings"].as_array().unwrap();
            all.iter().find(|finding| finding["check"] == check).cloned().unwrap_or_else(|| panic!("{check}: {found}"))
        };
        assert!(found["findings"].as_array().unwrap().iter().all(|finding| finding["level"] != "fail"), "{found}");
        assert_eq!(of(&found, "bridge br-ops")["level"], "ok", "{found}");
        run("ip link set br-ops type bridge stp_state 1");
        run("ip addr add 192.0.2.99/24 dev br-ops");
        run("ip route add default via 192.0.2.98 dev br-ops table 77");
        run("ip link set br-ops mtu 1400");
        let said = ctl.run("doctor -o json");
        let found: Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!(said.code, 1, "{said:?}");
        let bridge = of(&found, "bridge br-ops");
        assert!(["STP", "table 77"].iter().all(|part| text(&bridge["detail"]).contains(part)), "{bridge}");
        assert!(text(&of(&found, "subnet 192.0.2.0/24")["detail"]).contains("192.0.2.99"));
        assert!(text(&of(&found, "network ops")["detail"]).contains("1400"));
        daemon.term();
        let said = ctl.run("doctor");
        assert!(said.code == 1 && said.out.contains("nicd cannot be reached") && said.out.contains("bridge br-ops"), "{said:?}");
    });
}

/// What `doctor` says of bridges and addresses is what nicd does.
#[test]
fn doctor_judges_bridges_and_addresses_as_nicd_does() {
    in_netns(|| {
        let (_daemon, ctl) = started();
        let _guest = Guest::new("web");
        for bridge in ["br-ops", "br-other", "br9"] {
            run(&format!("ip link add {bridge} type bridge"));
            run(&format!("ip link set {bridge} up"));
        }
        run("ip link property add dev br-ops altname lan6");
        run("ip link property add dev br-ops altname nbrop");
        // Of a pool of two addresses an unrelated bridge has one.
        run("ip addr add 192.0.2.3/24 dev br-other");
        ctl.ok("network create ops --bridge lan6");
        ctl.ok("subnet create ops 192.0.2.0/29 --pool 192.0.2.2-192.0.2.3");
        ctl.ok("network create more --bridge nbrop");
        ctl.ok("server add web --netns /run/netns/web");
        ctl.ok("attach web --network ops --wait");
        let findings = || {
            let said = ctl.run("doctor -o json");
            let found: Value = serde_json::from_str(&said.out).unwrap();
            (said.code, found["findings"].as_array().unwrap().clone())
        };
        let of = |check: &str| {
            let (_, all) = findings();
            all.iter().find(|one| one["check"] == check).cloned().unwrap_or_else(|| panic!("{check}: {all:?}"))
        };
        let (code, all) = findings();
        assert_eq!(code, 0, "{all:?}");
        let about = |one: &&Value| ["subnet", "network"].iter().any(|word| text(&one["check"]).starts_with(word));
        assert!(all.iter().find(about).is_none(), "{all:?}");
        // A next hop by the network's own bridge is none of the guests'.
        run("ip addr add 192.0.2.1/29 dev br-ops");
        run("ip route add 198.51.100.0/24 via 192.0.2.3 dev br-ops");
        let full = of("subnet 192.0.2.0/29");
        assert_eq!(full["level"], "fail", "{full}");
        let (_, all) = findings();
        assert!(all.iter().any(|one| text(&one["detail"]).contains("192.0.2.3, the next hop of a route")), "{all:?}");
        assert_eq!(ctl.run("attach web --network ops").code, 1);

        assert_eq!(of("bridge br9")["level"], "ok");
        let above = ["ip link add above link br9 type macvlan mode bridge", "ip link set above up"];
        let ways: [(&[&str], &[&str], &str); 5] = [
            (
                &["ip route add 0.0.0.0/1 dev br9", "ip route add 128.0.0.0/1 dev br9"],
                &["ip route flush dev br9"],
                "(table main, by br9)",
            ),
            (&["ip route add default dev br9 table 77"], &["ip route flush dev br9 table 77"], "(table 77, by br9)"),
            (&["ip -6 route add default dev br9 table 78"], &["ip -6 route flush dev br9 table 78"], "(table 78, by br9)"),
            (&[above[0], above[1], "ip route add default dev above"], &["ip link del above"], "(table main, by above)"),
            (
                &[
                    "ip link add above type veth peer name below",
                    "ip link set below master br9 up",
                    "ip link set above up",
                    "ip route add default dev above",
                ],
                &["ip link del above"],
                "(table main, by above)",
            ),
        ];
        for (make, undo, how) in ways {
            for command in make {
                run(command);
            }
            let (bridge, refused) = (of("bridge br9"), ctl.run("network create up --bridge br9"));

            assert!(bridge["level"] == "warn" && text(&bridge["detail"]).contains(how), "{make:?}: {bridge}");
            assert!(refused.code == 1 && refused.err.contains(how), "{make:?}: {refused:?}");
            for command in undo {
                run(command);
            }
            assert_eq!(of("bridge br9")["level"], "ok", "{make:?}");
        }
    });
}

#[test]
fn errors_and_networks_are_shown_in_the_operators_words() {
    in_netns(|| {
        let (daemon, ctl) = started();
        let guest = Guest::new("web");
        let path = format!("/proc/{}/root/run/netns/web", nix::unistd::gettid());
        ctl.ok("network create blue --subnet 192.0.2.0/24");
        let bridge = || ctl.ok("network show blue -o value --columns bridge");
        assert_eq!(bridge(), "\n");
        ctl.ok(&format!("server add web --netns {path}"));
        ctl.ok("attach web --network blue --name wan --wait");
        let shown = bridge();
        assert!(try_link(shown.trim()).is_some(), "{shown}");
        let refused = ctl.fails("server delete web", 1);
        assert!(refused.contains("Instance web has 1 interfaces") && refused.contains("--detach"), "{refused}");
        let request = refused.trim_end().rsplit(' ').next().unwrap();
        assert!(request.starts_with("req-") && daemon.log().contains(request), "{refused}");
        // The path names another namespace by now, which is nobody's yet.
        let mut events = daemon.follow(None);
        guest.end();
        events.wait_for("without namespace", |event| event["reason"] == "namespace_gone");
        let _other = Guest::new("web");
        ctl.ok("server set web --nic-limit 3");
        assert_eq!(ctl.json("show wan")["nicd:reason"], "namespace_gone", "nothing was said of the namespace");
        ctl.ok(&format!("server set web --netns {path}"));
        ctl.ok("detach wan --wait");
        ctl.ok("detach wan --wait").clear();
        assert_eq!(bridge(), shown, "it stays until its network goes");
        ctl.ok("network create blue --subnet 198.51.100.0/24");
        let said = ctl.fails("network show blue", 1);
        assert!(said.contains("'blue' is ambiguous"), "{said}");
        for network in ctl.json("network list").as_array().unwrap() {
            assert!(said.contains(&text(&network["id"])), "{said}");
        }
    });
}

#[test]
fn a_receipt_has_each_step_of_an_attach() {
    in_netns(|| {
        let (_daemon, ctl) = started();
        let _guest = Guest::new("web");
        ctl.ok("network create blue --subnet 192.0.2.0/24");
        ctl.ok("server add vm --vm");
        ctl.ok("server add web --netns /run/netns/web");
        let plain = ctl.json("attach vm --network blue");
        assert!(plain.get("nicd:receipt").is_none(), "it was not asked for: {plain}");
        for (server, make) in [("vm", "create_tap"), ("web", "create_veth")] {
            let planned = ctl.json(&format!("plan attach {server} --network blue"));
            let began = std::time::Instant::now();
            let port = ctl.json(&format!("attach {server} --network blue --receipt"));
            let whole = u64::try_from(began.elapsed().as_micros()).unwrap();
            let steps = port["nicd:receipt"].as_array().unwrap();
            let names: Vec<&str> = steps.iter().map(|step| step["step"].as_str().unwrap()).collect();
            assert_eq!((names.first(), names.last()), (Some(&"reserve"), Some(&"reply")), "{names:?}");
            assert!(names.contains(&"commit") && names.contains(&make), "{names:?}");
            for step in planned["plan"]["steps"].as_array().unwrap() {
                assert!(names.contains(&step["op"]["op"].as_str().unwrap()), "{step} is not in {names:?}");
            }
            let ends = steps.iter().map(|step| step["at_us"].as_u64().unwrap() + step["took_us"].as_u64().unwrap());
            assert!(ends.max() <= Some(whole) && steps[0]["at_us"] == 0, "of {whole} µs: {port}");
        }
        assert!(ctl.ok("attach vm --network blue --name named --receipt").contains("create_tap"));
    });
}

/// How long a shell may take, in seconds.
const SHELL: u64 = 5;

/// What a real shell offers for a command line that is begun with this, in which `nicctl` is the program that is tested. A zsh that does
/// not offer the name is ended.
fn offered(shell: &str, ctl: &Ctl, line: &str, name: &str) -> String {
    let folder = Path::new(env!("CARGO_BIN_EXE_nicctl")).parent().unwrap();
    let here = tempfile::tempdir().unwrap();
    let file = here.path().join("_nicctl");
    std::fs::write(&file, ctl.ok(&format!("completion {shell}"))).unwrap();
    let (file, line) = (file.display(), format!("nicctl --socket {} {line}", ctl.0.display()));
    let words = line.split(' ').count();
    let script = match shell {
        "bash" => format!(
            ". {file}; COMP_WORDS=({line}); COMP_CWORD={}; \
             _clap_complete_nicctl nicctl \"${{COMP_WORDS[-1]}}\" x; echo \"${{COMPREPLY[@]}}\"",
            words - 1
        ),
        "fish" => format!("source {file}; complete -C '{line}'"),
        // A whole interactive shell, which loads the file as it is installed; the name is waited for.
        _ => format!(
            "zmodload zsh/zpty; zpty z zsh -f -i; zpty -w z 'fpath=({} $fpath); autoload -Uz compinit; compinit -D -u; print READ\"\"Y'; \
             zpty -r -m z said '*READY*'; zpty -w -n z $'{line}\\t'; zpty -r -m z said '*{name}*'; print -r -- $said",
            here.path().display()
        ),
    };
    let mut command = Command::new("timeout");
    command.args(["--kill-after=1", &SHELL.to_string(), shell]).args(match shell {
        "bash" => ["--norc", "-c"].as_slice(),
        "fish" => &["--no-config", "-c"],
        _ => &["-f", "-c"],
    });
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let output = command.arg(script).env("PATH", path).env_remove("NICD_SOCKET").output().unwrap();
    let [said, complained] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let is_late = output.status.code() == Some(124);
    assert!(is_late || output.status.success() && complained.is_empty(), "{shell}: {said}{complained}");
    said
}

#[test]
fn real_shells_offer_the_names_that_the_daemon_has() {
    in_netns(|| {
        let (mut daemon, ctl) = started();
        ctl.ok("network create blue --subnet 192.0.2.0/24");
        ctl.ok("server add web --vm");
        ctl.ok("port create blue --name uplink");
        let shells: Vec<&str> = ["bash", "fish", "zsh"].into_iter().filter(|shell| has(shell)).collect();
        for &shell in &shells {
            for (line, name) in [("server show w", "web"), ("attach web --network bl", "blue"), ("detach upl", "uplink")] {
                // On a busy machine the daemon may answer too late for one press of the key.
                let until = Instant::now() + PATIENCE;
                while let said = offered(shell, &ctl, line, name)
                    && !said.contains(name)
                {
                    assert!(Instant::now() < until, "{shell}: {line}: {said}");
                }
            }
        }
        daemon.term();
        for shell in shells.into_iter().filter(|shell| *shell != "zsh") {
            assert_eq!(offered(shell, &ctl, "server show w", "").trim(), "", "{shell}: silent without a daemon");
        }
    });
}

#[test]
fn a_shell_gets_its_completion_without_a_daemon() {
    let output = Command::new(env!("CARGO_BIN_EXE_nicctl")).args(["completion", "bash"]).output().unwrap();
    assert!(output.status.success());
    let script = String::from_utf8(output.stdout).unwrap();
    assert!(script.contains("nicctl") && script.contains("complete "), "{script}");
    let mut bash = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut bash.stdin.take().unwrap(), script.as_bytes()).unwrap();
    assert!(bash.wait().unwrap().success(), "bash does not read it");
}
