//! udhcpc, ISC dhclient, dhcpcd and systemd-networkd in a guest's namespace, whose addresses were taken away.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::daemon::PATIENCE;
use crate::fixture::{Fixture, text};
use crate::netns::{Guest, in_netns, run};

/// A client that runs in a guest's namespace and calls a script with what it is told.
pub struct Client {
    child: Child,
    told: PathBuf,
}

impl Drop for Client {
    fn drop(&mut self) {
        // Told to end, dhcpcd takes its helpers along.
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

/// Writes what a client passes in its environment to a file, one call after the other, and sets the address.
const SCRIPT: &str = r#"#!/bin/sh
case "${1:-$reason}" in
bound | renew | BOUND | RENEW | REBIND | REBOOT)
    address=${ip:-$new_ip_address}
    ip address replace "$address/24" dev "$interface"
    ;;
esac
{ echo "event=${1:-$reason}"; env; echo; } >>TOLD
"#;

impl Client {
    pub fn start(guest: &Guest, program: &str, options: &[&str]) -> Self {
        let dir = PathBuf::from(format!("/run/client-{}-{program}", guest.name));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).unwrap();
        let (script, told) = (dir.join("script"), dir.join("told"));
        fs::write(&script, SCRIPT.replace("TOLD", told.to_str().unwrap())).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let line = match program {
            "udhcpc" => "exec udhcpc -f -i eth0 -s DIR/script -t 10 -T 1 \"$@\"",
            "dhclient" => {
                fs::write(dir.join("conf"), CONF).unwrap();
                "exec dhclient -d -v -cf DIR/conf -lf DIR/leases -pf DIR/pid -sf DIR/script \"$@\" eth0"
            }
            "dhcpcd" => {
                fs::write(dir.join("conf"), DHCPCD).unwrap();
                "mkdir -p /run/dhcpcd /var/lib/dhcpcd DIR/run DIR/lib\n\
                 mount --bind DIR/run /run/dhcpcd\nmount --bind DIR/lib /var/lib/dhcpcd\n\
                 exec dhcpcd -B -d -f DIR/conf -c DIR/script eth0"
            }
            // It waits for udev where /sys can be written to.
            "networkd" => {
                fs::create_dir_all(dir.join("network")).unwrap();
                fs::write(dir.join("network/eth0.network"), NETWORKD).unwrap();
                "mkdir -p /run/systemd DIR/netif\nchmod 777 DIR/netif\nmount --bind DIR /run/systemd\nmount -o remount,ro /sys\n\
                 SYSTEMD_LOG_LEVEL=debug exec /lib/systemd/systemd-networkd"
            }
            other => panic!("{other}"),
        };
        let log = fs::File::create(dir.join("log")).unwrap();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &guest.name, "sh", "-ec", &line.replace("DIR", dir.to_str().unwrap()), program]);
        command.args(options).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self { child: command.spawn().unwrap(), told }
    }

    /// What networkd was told, by the names in its lease's file.
    fn wait_for_lease(&self) -> BTreeMap<String, String> {
        let (leases, deadline) = (self.told.with_file_name("netif").join("leases"), Instant::now() + PATIENCE);
        loop {
            let files = fs::read_dir(&leases).into_iter().flatten();
            let whole =
                files.filter_map(|file| fs::read_to_string(file.ok()?.path()).ok()).find(|said| said.contains("ADDRESS="));
            if let Some(said) = whole {
                return said
                    .lines()
                    .filter_map(|line| line.split_once('='))
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .collect();
            }
            assert!(Instant::now() < deadline, "no lease: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What the client was told at an event, after so many.
    pub fn wait_for(&self, events: &[&str], after: usize) -> BTreeMap<String, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = fs::read_to_string(&self.told).unwrap_or_default();
            // The last one may not be written whole yet.
            let whole = said.rsplit_once("\n\n").map_or("", |(whole, _)| whole);
            let calls = whole.split("\n\n").map(|call| {
                call.lines()
                    .filter_map(|line| line.split_once('='))
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .collect()
            });
            let mut fitting = calls.filter(|call: &BTreeMap<String, String>| {
                call.get("event").is_some_and(|event| events.contains(&event.as_str()))
            });
            if let Some(call) = fitting.nth(after) {
                return call;
            }
            assert!(Instant::now() < deadline, "none of {events:?}: {said}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.told.with_file_name("log")).unwrap_or_default()
    }
}

const CONF: &str = "option rfc3442-classless-static-routes code 121 = array of unsigned integer 8;\n\
    request subnet-mask, broadcast-address, routers, domain-name, domain-name-servers, host-name, interface-mtu, ntp-servers,\n\
    rfc3442-classless-static-routes;\n\
    initial-interval 1;\n";

/// It sets the address without asking the network first whether it is free, which takes seconds.
const DHCPCD: &str = "noarp\nnoipv4ll\noption subnet_mask, broadcast_address, routers, domain_name_servers, host_name, interface_mtu, \
    classless_static_routes, dhcp6_name_servers\n";

const NETWORKD: &str = "[Match]\nName=eth0\n[Network]\nDHCP=yes\nIPv6AcceptRA=yes\n[DHCPv4]\nUseMTU=yes\n";

/// A network whose guests are told much.
fn network(fixture: &mut Fixture) -> String {
    let network = fixture.network(json!({"name": "blue", "mtu": 1400}));
    fixture.subnet_with(json!({"network_id": network, "cidr": "192.0.2.0/24", "dns_nameservers": ["192.0.2.53", "192.0.2.54"],
        "host_routes": [{"destination": "198.51.100.0/24", "nexthop": "192.0.2.9"}]}));
    network
}

/// The same over IPv6 too, by DHCPv6.
fn network_of_both(fixture: &mut Fixture) -> String {
    let network = network(fixture);
    fixture.subnet_with(
        json!({"network_id": network, "cidr": "fd00:a::/64", "gateway_ip": "fe80::1", "dns_nameservers": ["fd00:a::53"]}),
    );
    network
}

/// A guest has the address that its port has over IPv6 from its client, and knows the router; nicd knows of it.
fn wait_for_address6(fixture: &mut Fixture, guest: &Guest, port: &Value) {
    let address = text(&port["fixed_ips"][1]["ip_address"]);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (shown, route) = (guest.ip("-6 address show dev eth0 scope global"), guest.ip("-6 route show default"));
        if shown.contains(&format!(" {address}/")) && route.contains("via fe80::1 ") {
            break;
        }
        assert!(Instant::now() < deadline, "{address} and fe80::1: {shown}{route}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let all = leases(fixture, &text(&port["id"]));
    let lease = all.iter().find(|lease| lease["family"] == "ipv6").expect("what it asked");
    assert_eq!((&lease["state"], &lease["address"]), (&json!("bound"), &json!(address)));
}

/// A guest without addresses, whose port says this, and its port.
pub fn bare_guest(fixture: &mut Fixture, name: &str, mut port: Value) -> (Guest, String, Value) {
    let network = match port.get("network_id") {
        Some(network) => text(network),
        None => network(fixture),
    };
    port["network_id"] = network.into();
    let id = fixture.create_port(port);
    let (guest, server) = fixture.guest(name);
    fixture.attach(&server, json!({ "port_id": id }));
    fixture.wait_status(&id, "ACTIVE");
    guest.ip("address flush dev eth0 scope global");
    let shown = fixture.port(&id);
    (guest, id, shown)
}

pub fn leases(fixture: &mut Fixture, port: &str) -> Vec<Value> {
    fixture.api.get(&format!("/nicd/v1/ports/{port}/leases")).expect(200)["leases"].as_array().unwrap().clone()
}

#[test]
fn udhcpc_gets_what_its_port_says() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let options = json!([{"opt_name": "ntp-server", "opt_value": "192.0.2.123"}, {"opt_name": "bootfile-name", "opt_value": "x.0"},
            {"opt_name": "server-ip-address", "opt_value": "192.0.2.66"}, {"opt_name": "lease-time", "opt_value": "3600"}]);
        let (guest, id, port) = bare_guest(&mut fixture, "a", json!({"dns_name": "web-1.", "extra_dhcp_opts": options}));
        let wishes = [
            "-O",
            "staticroutes",
            "-O",
            "mtu",
            "-O",
            "hostname",
            "-O",
            "ntpsrv",
            "-O",
            "bootfile",
            "-x",
            "hostname:guest<b>-\u{202e}says",
        ];
        let client = Client::start(&guest, "udhcpc", &wishes);
        let told = client.wait_for(&["bound"], 0);
        let address = text(&port["fixed_ips"][0]["ip_address"]);
        let said = |key: &str| told.get(key).map(String::as_str);
        assert_eq!(said("ip"), Some(address.as_str()));
        assert_eq!(said("mask"), Some("24"));
        assert_eq!(said("router"), Some("192.0.2.1"));
        assert_eq!(said("dns"), Some("192.0.2.53 192.0.2.54"));
        assert_eq!(said("staticroutes"), Some("198.51.100.0/24 192.0.2.9 0.0.0.0/0 192.0.2.1"));
        assert_eq!(said("mtu"), Some("1400"));
        assert_eq!(said("hostname"), Some("web-1"));
        assert_eq!(said("ntpsrv"), Some("192.0.2.123"));
        assert_eq!(said("lease"), Some("3600"));
        assert_eq!(said("serverid"), Some("192.0.2.1"));
        assert_eq!(said("siaddr"), Some("192.0.2.66"));
        assert_eq!(said("boot_file"), Some("x.0"));
        let lease = &leases(&mut fixture, &id)[0];
        let shown = ["family", "state", "address", "message", "hostname"].map(|key| text(&lease[key]));
        assert_eq!(shown, ["ipv4", "bound", &address, "request", "guestb-says"]);
    });
}

#[test]
fn dhclient_gets_what_its_port_says() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let (guest, _, port) = bare_guest(&mut fixture, "a", json!({"dns_name": "web-1"}));
        let client = Client::start(&guest, "dhclient", &[]);
        let told = client.wait_for(&["BOUND"], 0);
        let said = |key: &str| told.get(key).map(String::as_str);
        assert_eq!(said("new_ip_address"), port["fixed_ips"][0]["ip_address"].as_str());
        assert_eq!(said("new_subnet_mask"), Some("255.255.255.0"));
        assert_eq!(said("new_broadcast_address"), Some("192.0.2.255"));
        assert_eq!(said("new_routers"), Some("192.0.2.1"));
        assert_eq!(said("new_domain_name_servers"), Some("192.0.2.53 192.0.2.54"));
        assert_eq!(said("new_host_name"), Some("web-1"));
        assert_eq!(said("new_interface_mtu"), Some("1400"));
        assert_eq!(said("new_rfc3442_classless_static_routes"), Some("24 198 51 100 192 0 2 9 0 192 0 2 1"));
        assert_eq!(said("new_dhcp_lease_time"), Some("86400"));
        assert_eq!(said("new_dhcp_renewal_time"), Some("43200"));
        assert_eq!(said("new_dhcp_rebinding_time"), Some("75600"));
    });
}

#[test]
fn dhcpcd_gets_what_its_port_says() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = network_of_both(&mut fixture);
        let (guest, _, port) = bare_guest(&mut fixture, "a", json!({"network_id": network, "dns_name": "web-1"}));
        let client = Client::start(&guest, "dhcpcd", &[]);
        let told = client.wait_for(&["BOUND"], 0);
        let said = |key: &str| told.get(key).map(String::as_str);
        assert_eq!(said("new_ip_address"), port["fixed_ips"][0]["ip_address"].as_str());
        assert_eq!(said("new_subnet_mask"), Some("255.255.255.0"));
        assert_eq!(said("new_broadcast_address"), Some("192.0.2.255"));
        assert_eq!(said("new_domain_name_servers"), Some("192.0.2.53 192.0.2.54"));
        assert_eq!(said("new_host_name"), Some("web-1"));
        assert_eq!(said("new_interface_mtu"), Some("1400"));
        assert_eq!(said("new_classless_static_routes"), Some("198.51.100.0/24 192.0.2.9 0.0.0.0/0 192.0.2.1"));
        assert_eq!(said("new_dhcp_lease_time"), Some("86400"));
        let told = client.wait_for(&["BOUND6"], 0);
        let said = |key: &str| told.get(key).map(String::as_str);
        assert_eq!(said("new_dhcp6_ia_na1_ia_addr1"), port["fixed_ips"][1]["ip_address"].as_str());
        assert_eq!(said("new_dhcp6_name_servers"), Some("fd00:a::53"));
        wait_for_address6(&mut fixture, &guest, &port);
    });
}

#[test]
fn networkd_gets_what_its_port_says() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = network_of_both(&mut fixture);
        let (guest, _, port) = bare_guest(&mut fixture, "a", json!({"network_id": network, "dns_name": "web-1"}));
        let client = Client::start(&guest, "networkd", &[]);
        let told = client.wait_for_lease();
        let said = |key: &str| told.get(key).map(String::as_str);
        assert_eq!(said("ADDRESS"), port["fixed_ips"][0]["ip_address"].as_str());
        assert_eq!(said("NETMASK"), Some("255.255.255.0"));
        assert_eq!(said("SERVER_ADDRESS"), Some("192.0.2.1"));
        assert_eq!(said("DNS"), Some("192.0.2.53 192.0.2.54"));
        assert_eq!(said("HOSTNAME"), Some("web-1"));
        assert_eq!(said("MTU"), Some("1400"));
        assert_eq!([said("T1"), said("T2"), said("LIFETIME")], [Some("43200"), Some("75600"), Some("86400")]);
        wait_for_address6(&mut fixture, &guest, &port);
    });
}

/// A guest whose kernel leaves checksums to its NIC, as a veth's does by itself, and one whose kernel does not.
#[test]
fn every_client_gets_its_address_without_checksum_offload() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = network_of_both(&mut fixture);
        let clients: Vec<_> = ["udhcpc", "dhclient", "dhcpcd", "networkd"]
            .map(|program| {
                let (guest, _, port) = bare_guest(&mut fixture, program, json!({ "network_id": network }));
                run(&format!("ip netns exec {} ethtool -K eth0 tx off", guest.name));
                (program, Client::start(&guest, program, &[]), guest, port)
            })
            .into();
        for (program, client, guest, port) in clients {
            let told = match program {
                "networkd" => client.wait_for_lease(),
                _ => client.wait_for(&["bound", "BOUND"], 0),
            };
            let said = ["ip", "new_ip_address", "ADDRESS"].into_iter().find_map(|key| told.get(key));
            assert_eq!(said.map(String::as_str), port["fixed_ips"][0]["ip_address"].as_str(), "{program}");
            if ["dhcpcd", "networkd"].contains(&program) {
                wait_for_address6(&mut fixture, &guest, &port);
            }
        }
    });
}

#[test]
fn dhclient_renews_and_hears_of_changes_and_a_restart_changes_nothing() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let short = [("lease-time", "20"), ("T1", "1"), ("T2", "19")];
        let short = short.map(|(name, value)| json!({"opt_name": name, "opt_value": value}));
        let (guest, id, port) = bare_guest(&mut fixture, "a", json!({"extra_dhcp_opts": short}));
        // The gateway is a guest too: a renewal goes to its MAC.
        let network = text(&port["network_id"]);
        let gateway = json!({"network_id": network, "fixed_ips": [{"ip_address": "192.0.2.1"}], "nicd:dhcp": false});
        let (router, ..) = bare_guest(&mut fixture, "r", gateway);
        router.ip("address add 192.0.2.1/24 dev eth0");
        let client = Client::start(&guest, "dhclient", &[]);
        client.wait_for(&["BOUND"], 0);
        client.wait_for(&["RENEW"], 0);
        let subnet = text(&port["fixed_ips"][0]["subnet_id"]);
        fixture.api.put(&format!("/v2.0/subnets/{subnet}"), &json!({"subnet": {"dns_nameservers": ["192.0.2.99"]}})).expect(200);
        fixture.daemon.kill();
        fixture.launch();
        let deadline = Instant::now() + PATIENCE;
        let mut renewals = 1;
        loop {
            let told = client.wait_for(&["RENEW", "REBIND"], renewals);
            assert_eq!(told.get("new_ip_address").map(String::as_str), port["fixed_ips"][0]["ip_address"].as_str());
            if told.get("new_domain_name_servers").map(String::as_str) == Some("192.0.2.99") {
                break;
            }
            renewals += 1;
            assert!(Instant::now() < deadline, "{told:?}");
        }
        let log = client.log();
        assert!(!log.contains("DHCPNAK") && log.matches("DHCPDISCOVER").count() == 1, "{log}");
        assert!(log.contains("DHCPREQUEST for 192.0.2.2 on eth0 to 192.0.2.1 port 67"), "{log}");
        assert_eq!(leases(&mut fixture, &id)[0]["state"], "bound");
    });
}

/// Its script finds the address in use, as one does that asks by ARP.
#[test]
fn a_real_client_that_declines_is_told_of() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let (guest, id, _) = bare_guest(&mut fixture, "a", json!({}));
        let network = fixture.port(&id)["network_id"].clone();
        let (other, ..) = bare_guest(&mut fixture, "b", json!({"network_id": network, "port_security_enabled": false}));
        let address = text(&fixture.port(&id)["fixed_ips"][0]["ip_address"]);
        other.ip(&format!("address add {address}/24 dev eth0"));
        let _client = Client::start(&guest, "udhcpc", &["-a"]);
        fixture
            .events
            .wait_for("agent.degraded", |event| event["reason"] == "address_declined" && event["port_id"] == id.as_str());
        assert_eq!(leases(&mut fixture, &id)[0]["state"], "declined");
    });
}
