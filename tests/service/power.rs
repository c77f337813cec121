//! What the units are given is needed: without each single thing something fails. What they are not given is said.

use std::io::{Read, Write};

use nix::sched::{CloneFlags, setns};
use serde_json::json;

use crate::guests::{attach, attach_namespace, network};
use crate::machine::{Machine, Wishes, on_a_machine};

/// Stops everything. What a failure of the service starts is stopped before: it would start the sockets again meanwhile.
const STOP: &str = "systemctl stop nicd-sockets.service; \
    systemctl stop nicd.socket nicd-netns.socket nicd.service nicd-netns.service; systemctl reset-failed";

/// Starts the service anew with a word changed in one unit, and has it do its whole work.
fn works_with(machine: &Machine, unit: &str, change: &str) -> Result<(), String> {
    let folder = format!("/run/systemd/system/{unit}.d");
    // One try is to tell.
    let limits = if unit == "nicd.service" { "TimeoutStartSec=4s\\nRestart=no\\n" } else { "" };
    machine.run(&format!(
        "mkdir -p {folder}; printf '[Service]\\n{limits}{change}\\n' >{folder}/change.conf; systemctl daemon-reload"
    ));
    // With its sockets: a connection to one would start it again while it stops.
    machine.run(STOP);
    let done = machine.try_run(WORK).map(drop);
    machine.run(&format!("rm -r {folder}; systemctl daemon-reload; {STOP}"));
    machine.run(
        "systemctl start nicd.service nicd.socket nicd-netns.socket; nicctl version; sh -c \"$CLEAN\""
            .replace("$CLEAN", CLEAN)
            .as_str(),
    );
    done
}

/// A guest by its mounted namespace, one by a process, one with a tap; each attached and detached. The filters are checked at the
/// start, as in the first one after a boot.
const WORK: &str = r#"
    nft delete table bridge nicd 2>/dev/null || :
    systemctl start nicd.socket nicd-netns.socket nicd.service
    ip netns add web
    unshare --net -- sleep 60 & sleeper=$!
    trap "kill $sleeper" EXIT
    while [ "$(readlink /proc/$sleeper/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do :; done
    nicctl network create blue --subnet 192.0.2.0/24
    nicctl server add mounted --netns /run/netns/web
    nicctl server add process --netns /proc/$sleeper/ns/net
    nicctl server add vm --vm
    for server in mounted process vm; do nicctl attach $server --network blue; done
    ! nicctl status | grep filters_unproven
    for server in mounted process vm; do nicctl server delete $server --detach; done
    nicctl network delete blue"#;

/// Takes away what a failed one has left.
const CLEAN: &str = r#"
    for server in mounted process vm; do nicctl server delete $server --detach 2>/dev/null || :; done
    nicctl network delete blue 2>/dev/null || :
    ip netns del web 2>/dev/null || :"#;

#[test]
fn the_service_needs_all_that_its_units_give_it() {
    on_a_machine(Wishes::default(), |machine| {
        machine.install();
        for unit in ["nicd.service", "nicd-netns.service"] {
            works_with(&machine, unit, "").unwrap_or_else(|said| panic!("as shipped: {said}\n{}", machine.log()));
        }
        let needed = [
            ("nicd.service", "AmbientCapabilities="),
            ("nicd.service", "CapabilityBoundingSet=~CAP_NET_ADMIN"),
            ("nicd.service", "StateDirectory="),
            ("nicd.service", "InaccessiblePaths=/dev/net/tun"),
            ("nicd.service", "RestrictAddressFamilies=~AF_NETLINK"),
            ("nicd.service", "RestrictAddressFamilies=~AF_UNIX"),
            ("nicd.service", "SystemCallFilter=~@basic-io"),
            ("nicd.service", "SystemCallFilter=~@file-system"),
            ("nicd.service", "SystemCallFilter=~@io-event"),
            ("nicd.service", "SystemCallFilter=~@network-io"),
            ("nicd.service", "SystemCallFilter=~@signal"),
            ("nicd.service", "SystemCallFilter=~@sync"),
            ("nicd-netns.service", "CapabilityBoundingSet=~CAP_SYS_ADMIN"),
            ("nicd-netns.service", "CapabilityBoundingSet=~CAP_SYS_PTRACE"),
            ("nicd-netns.service", "RestrictNamespaces=yes"),
            ("nicd-netns.service", "RestrictAddressFamilies=~AF_NETLINK"),
            ("nicd-netns.service", "SystemCallFilter=~@basic-io"),
            ("nicd-netns.service", "SystemCallFilter=~@network-io"),
            ("nicd-netns.service", "SystemCallFilter=~setns"),
            ("nicd-netns.service", "SystemCallFilter=~unshare"),
        ];
        let useless: Vec<_> = needed.iter().filter(|(unit, change)| works_with(&machine, unit, change).is_ok()).collect();
        assert!(useless.is_empty(), "these change nothing: {useless:?}");
    });
}

#[test]
fn metrics_are_served_on_loopback_which_needs_the_internets_families() {
    on_a_machine(Wishes::default(), |machine| {
        machine.install();
        machine.run("mkdir -p /etc/nicd");
        for (address, family) in [("127.0.0.1", "AF_INET"), ("[::1]", "AF_INET6")] {
            machine.run(&format!("printf '[metrics]\nlisten = \"{address}:9476\"\n' >/etc/nicd/nicd.toml"));
            works_with(&machine, "nicd.service", "").unwrap_or_else(|said| panic!("{address}: {said}\n{}", machine.log()));
            assert!(served(&machine, address).contains("nicd_build_info"), "{address}");
            works_with(&machine, "nicd.service", &format!("RestrictAddressFamilies=~{family}")).unwrap_err();
        }
    });
}

/// What is served on TCP inside the machine.
fn served(machine: &Machine, address: &str) -> String {
    let network = std::fs::File::open(machine.path("/proc/1/ns/net")).unwrap();
    let address: std::net::SocketAddr = format!("{address}:9476").parse().unwrap();
    let ask = move || {
        setns(network, CloneFlags::CLONE_NEWNET).unwrap();
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: nicd\r\nConnection: close\r\n\r\n").unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said
    };
    std::thread::spawn(ask).join().unwrap()
}

#[test]
fn the_helper_has_the_hosts_mounts_and_not_its_network() {
    on_a_machine(Wishes::default(), |machine| {
        machine.install();
        machine.run("ip netns add web; nicctl server add web --netns /run/netns/web");
        let of = |unit: &str, what: &str| {
            let pid = machine.property(unit, "MainPID");
            machine.run(&format!("readlink /proc/{pid}/ns/{what}"))
        };
        let first = |what: &str| machine.run(&format!("readlink /proc/1/ns/{what}"));
        assert_eq!(of("nicd-netns", "mnt"), first("mnt"));
        assert_ne!(of("nicd-netns", "net"), first("net"));
        assert_eq!(of("nicd", "net"), first("net"));
    });
}

#[test]
fn the_filters_are_checked_in_a_namespace_that_the_helper_makes() {
    on_a_machine(Wishes::default(), |machine| {
        machine.install();
        let mut api = machine.client();
        let network = network(&mut api);
        assert!(machine.log().contains("this kernel drops what the filters are to drop"), "{}", machine.log());
        let change = "/run/systemd/system/nicd-netns.service.d";
        machine.run(&format!(
            "mkdir -p {change}; printf '[Service]\nSystemCallFilter=~unshare\n' >{change}/change.conf; systemctl daemon-reload
            systemctl stop nicd.service nicd-netns.service; nft delete table bridge nicd; systemctl start nicd.service"
        ));
        let problem = machine.run("nicctl status | grep '^filters_unproven '");
        assert!(problem.contains("EPERM"), "{problem}");
        // What is not known closes no port.
        let nic = attach_namespace(&machine, &mut machine.client(), "web", &network);
        machine.comes_true("nicctl list | grep ACTIVE");
        machine.run(&format!("rm -r {change}; systemctl daemon-reload; systemctl stop nicd-netns.service"));
        machine.comes_true("nicctl status | grep -q '^status *ok'");
        assert!(machine.log().contains("checked with frames"), "{}", machine.log());
        machine.run(&format!("nft list table bridge nicd | grep {}", nic.address));
    });
}

#[test]
fn a_tun_node_that_is_closed_is_said_before_the_first_attach_fails() {
    on_a_machine(Wishes::default(), |machine| {
        machine.install();
        machine.run("chmod 0600 /dev/net/tun");
        let mut api = machine.client();
        let health = api.get("/nicd/v1/health").expect(200);
        assert_eq!((&health["status"], &health["problems"][0]["reason"]), (&json!("degraded"), &json!("tun_unusable")));
        let remedy = health["problems"][0]["remedy"].as_str().unwrap();
        assert!(remedy.contains("chmod 0666 /dev/net/tun"), "{remedy}");
        assert!(machine.run("nicctl status || :").contains("chmod 0666 /dev/net/tun"));
        let network = network(&mut api);
        let server = uuid::Uuid::new_v4();
        api.put(&format!("/nicd/v1/servers/{server}"), &json!({"server": {"guest": {"kind": "vm"}}})).expect(201);
        let path = format!("/v2.1/servers/{server}/os-interface");
        let error = api.post(&path, &json!({"interfaceAttachment": {"net_id": network}})).refused(503, "no_permission");
        assert!(error["message"].as_str().unwrap().contains("chmod 0666 /dev/net/tun"), "{error}");
        assert_eq!(api.get("/v2.0/ports").expect(200)["ports"], json!([]));
        machine.run("chmod 0666 /dev/net/tun");
        attach(&mut api, &json!({"kind": "vm"}), &network);
        // The filters are checked now, too.
        machine.comes_true("nicctl status | grep -q '^status *ok'");
    });
}
