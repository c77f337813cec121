//! Values inside bodies: random JSON, texts somebody might choke on, addresses at the edges.

use serde_json::{Value, json};

use crate::attack::{Attack, Want};
use crate::dice::Dice;

const KEYS: &[&str] = &[
    "network",
    "networks",
    "subnet",
    "subnets",
    "port",
    "ports",
    "server",
    "interfaceAttachment",
    "virtual_interface",
    "id",
    "name",
    "network_id",
    "net_id",
    "port_id",
    "fixed_ips",
    "ip_address",
    "subnet_id",
    "cidr",
    "guest",
    "kind",
    "path",
    "mtu",
    "mac_address",
    "",
    "\u{0}",
    "__proto__",
    "nicd:bridge",
    "allocation_pools",
    "gateway_ip",
    "binding:profile",
    "device_id",
];

/// A random value.
pub fn value(dice: &mut Dice, depth: usize) -> Value {
    match dice.below(if depth == 0 { 6 } else { 8 }) {
        0 => Value::Null,
        1 => dice.chance(50).into(),
        2 => dice.next().into(),
        3 => (f64::from_bits(dice.next())).into(),
        4 => dice.id().into(),
        5 => text(dice).into(),
        6 => (0..dice.below(5)).map(|_| value(dice, depth - 1)).collect(),
        _ => (0..dice.below(6)).map(|_| (dice.of(KEYS).to_owned(), value(dice, depth - 1))).collect(),
    }
}

/// A text somebody might choke on.
pub fn text(dice: &mut Dice) -> String {
    let all = [
        "",
        "\0",
        "a\0b",
        "\u{202e}gnp.exe",
        "\u{feff}",
        "'; DROP TABLE ports; --",
        "${jndi:ldap://x}",
        "../../etc/passwd",
        "/",
        ".",
        "%s%n",
        "\r\nX-Injected: yes",
        "👩‍👩‍👧‍👦",
        "e\u{301}",
        "\u{ffff}",
        "-",
        "--help",
        "lo",
        " ",
        "\\",
        "\"",
        "{}",
    ];
    match dice.below(10) {
        0 => "n".repeat(dice.of(&[254, 255, 256, 60_000])),
        1 => "\u{1f980}".repeat(dice.of(&[63, 64, 255, 256])),
        _ => dice.of(&all).to_owned(),
    }
}

/// Addresses, ranges and MACs at the edges of what is one.
pub fn addresses(dice: &mut Dice) -> Attack {
    let cidr = dice.of(&[
        "0.0.0.0/0",
        "::/0",
        "255.255.255.255/32",
        "10.0.0.1/24",
        "10.0.0.0/33",
        "10.0.0.0/-1",
        "10.0.0.0/",
        "/24",
        "10.0.0.0/024",
        "010.0.0.0/8",
        "::ffff:10.0.0.0/96",
        "fe80::%eth0/64",
        "ff00::/8",
        "::1/128",
        "127.0.0.0/8",
        "224.0.0.0/4",
        "10.0.0.0/255.255.255.0",
        "10/8",
        "2001:db8::/127",
        "192.0.2.0/31",
        "255.255.255.254/31",
        "1.2.3.4.5/8",
        "::1::/64",
    ]);
    let ip = dice.of(&[
        "0.0.0.0",
        "255.255.255.255",
        "1",
        "0x7f000001",
        "127.1",
        "::",
        "::ffff:1.2.3.4",
        "fe80::1%lo",
        "1.2.3.4 ",
        "１.2.3.4",
    ]);
    let mac = dice.of(&[
        "00:00:00:00:00:00",
        "ff:ff:ff:ff:ff:ff",
        "fe:00:00:00:00:01",
        "01:00:5e:00:00:01",
        "fa-16-3e-00-00-01",
        "fa16.3e00.0001",
        "fa:16:3e:0:0:1",
        "fa:16:3e:00:00:01:02",
        "fa:16:3e:00:00:0g",
        "FA:16:3E:AA:BB:CC",
        "",
    ]);
    let (network, subnet) = (dice.id(), dice.id());
    let (target, body) = match dice.below(4) {
        0 => ("/v2.0/subnets", json!({"subnet": {"network_id": network, "cidr": cidr}})),
        1 => (
            "/v2.0/subnets",
            json!({"subnet": {"network_id": network, "cidr": cidr, "gateway_ip": ip,
            "allocation_pools": [{"start": ip, "end": "10.0.0.9"}], "dns_nameservers": [ip],
            "host_routes": [{"destination": cidr, "nexthop": ip}]}}),
        ),
        2 => ("/v2.0/ports", json!({"port": {"network_id": network, "mac_address": mac}})),
        _ => ("/v2.0/ports", json!({"port": {"network_id": network, "fixed_ips": [{"ip_address": ip, "subnet_id": subnet}]}})),
    };
    Attack::json("addresses", "POST", target, body.to_string().as_bytes(), Want::Any)
}
