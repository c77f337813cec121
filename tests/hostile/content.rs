//! Attacks inside well-framed requests: bodies, JSON, names, addresses, queries, header values.

use serde_json::{Value, json};

use crate::attack::{Attack, Pace, Want, framed, method, route};
use crate::dice::Dice;
use crate::values::{addresses, text, value};

/// Any of them.
pub fn any(dice: &mut Dice) -> Attack {
    let all: &[fn(&mut Dice) -> Attack] =
        &[no_json, brackets, numbers, any_json, mutated, names, addresses, queries, versions, resumed, ids, gigabyte, duplicates];
    dice.of(all)(dice)
}

/// A POST or PUT that reads a body.
fn writing(dice: &mut Dice) -> (&'static str, String) {
    let (one, other) = (dice.id(), dice.id());
    let all = [
        ("POST", "/v2.0/networks".to_owned()),
        ("POST", "/v2.0/subnets".to_owned()),
        ("POST", "/v2.0/ports".to_owned()),
        ("PUT", format!("/nicd/v1/servers/{one}")),
        ("POST", format!("/v2.1/servers/{one}/os-interface")),
        ("POST", format!("/servers/{one}/os-virtual-interfacesv2")),
        ("PUT", format!("/v2.0/networks/{other}")),
    ];
    dice.of(&all)
}

fn no_json(dice: &mut Dice) -> Attack {
    let utf16: Vec<u8> = "{\"port\": {}}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let noise = dice.bytes(500);
    let bodies: [&[u8]; 14] = [
        b"\xef\xbb\xbf{\"network\": {}}",
        b"\xff\xfe{\x00}\x00",
        &utf16,
        b"{\"network\": {\"name\": \"\xc0\xaf\"}}",
        b"{\"network\": {\"name\": \"\xed\xa0\x80\"}}",
        b"{\"network\": {\"name\": \"\xf4\x90\x80\x80\"}}",
        b"{\"network\": {\"name\": \"\\ud800\"}}",
        b"{\"network\": {\"name\": \"\\udc00\\ud800\"}}",
        b"{\"network\": {\"name\": \"\x00\"}}",
        b"{'network': {}}",
        b"{\"network\": {},}",
        b"{\"network\": {}} {}",
        b"NaN",
        &noise,
    ];
    let (method, target) = writing(dice);
    let body = dice.of(&bodies);
    let kind =
        dice.of(&["application/json", "Application/JSON; charset=utf-16", "text/plain", "application/xml", "", "\u{0661}"]);
    Attack::request("no JSON", method, &target, &[("Content-Type", kind.as_bytes())], body, Want::Refused)
}

/// As many as fit, or a million of them.
fn brackets(dice: &mut Dice) -> Attack {
    let (method, target) = writing(dice);
    let open = dice.of(&["[", "{\"a\":", "[{\"port\":", "{\"port\":["]);
    if dice.chance(3) {
        let body = "[".repeat(1_000_000);
        return Attack::json("brackets", method, &target, body.as_bytes(), Want::Refused).paced(Pace::Whole);
    }
    let body = open.repeat(dice.of(&[64, 127, 128, 129, 5000]));
    Attack::json("brackets", method, &target, body.as_bytes(), Want::Refused)
}

fn numbers(dice: &mut Dice) -> Attack {
    let number = dice.of(&[
        "1e999",
        "-1e999",
        "-0",
        "-0.0",
        "1e-999",
        "18446744073709551615",
        "18446744073709551616",
        "9223372036854775808",
        "4294967296",
        "65522",
        "1500.0",
        "1.5e3",
        "01500",
        "0x5dc",
        "+1500",
        "1_500",
        ".5",
        "5.",
    ]);
    let digits = "9".repeat(dice.of(&[400, 60_000]));
    let number = if dice.chance(5) { digits.as_str() } else { number };
    let id = dice.id();
    let (method, target, body) = match dice.below(4) {
        0 => ("POST", "/v2.0/networks".to_owned(), format!("{{\"network\": {{\"mtu\": {number}}}}}")),
        1 => (
            "PUT",
            format!("/nicd/v1/servers/{id}"),
            format!("{{\"server\": {{\"guest\": {{\"kind\": \"vm\", \"queues\": {number}}}}}}}"),
        ),
        2 => ("POST", "/v2.0/ports".to_owned(), format!("{{\"port\": {{\"network_id\": {number}}}}}")),
        _ => ("POST", "/v2.0/subnets".to_owned(), format!("{{\"subnet\": {{\"ip_version\": {number}}}}}")),
    };
    Attack::json("numbers", method, &target, body.as_bytes(), Want::Refused)
}

/// Random JSON on any route with any method.
fn any_json(dice: &mut Dice) -> Attack {
    let value = value(dice, 5);
    let (method, target) = (method(dice), route(dice));
    Attack::json("any JSON", method, &target, value.to_string().as_bytes(), Want::Any)
}

/// A request that is right, but for a few bytes.
fn mutated(dice: &mut Dice) -> Attack {
    let (network, subnet, port, server) = (dice.id(), dice.id(), dice.id(), dice.id());
    let seventh = dice.below(250);
    let valid = [
        ("POST", "/v2.0/networks".to_owned(), json!({"network": {"id": network, "name": "hostile", "mtu": 1500}})),
        (
            "POST",
            "/v2.0/subnets".to_owned(),
            json!({"subnet": {"id": subnet, "network_id": network, "cidr": format!("10.{seventh}.0.0/24")}}),
        ),
        ("POST", "/v2.0/ports".to_owned(), json!({"port": {"id": port, "network_id": network, "name": "hostile"}})),
        ("PUT", format!("/nicd/v1/servers/{server}"), json!({"server": {"name": "hostile", "guest": {"kind": "vm"}}})),
        ("POST", format!("/v2.1/servers/{server}/os-interface"), json!({"interfaceAttachment": {"net_id": network}})),
        ("PUT", format!("/v2.0/ports/{port}"), json!({"port": {"name": "renamed", "mac_address": "fa:16:3e:00:00:01"}})),
        ("DELETE", format!("/nicd/v1/servers/{server}?detach=true"), Value::Null),
    ];
    let (method, target, body) = dice.of(&valid);
    let mut body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    for _ in 0..dice.below(4) {
        if body.is_empty() {
            break;
        }
        let at = dice.below(body.len());
        match dice.below(3) {
            0 => body[at] = dice.bytes(1)[0],
            1 => drop(body.remove(at)),
            _ => body.insert(at, dice.of(b"\"{}[]:,0\\ \0\xff")),
        }
    }
    Attack::json("mutated", method, &target, &body, Want::Any)
}

/// A valid name comes back equal (the attacker compares); any other is refused.
fn names(dice: &mut Dice) -> Attack {
    let name = text(dice);
    let mut body = json!({"network": {"name": name, "description": name}});
    // No physical network has such a name: these are refused.
    if dice.below(4) == 0 {
        body["network"]["provider:physical_network"] = name.into();
    }
    Attack::json("names", "POST", "/v2.0/networks", body.to_string().as_bytes(), Want::Any)
}

fn queries(dice: &mut Dice) -> Attack {
    let piece = dice.of(&[
        "id=x&",
        "mtu=1&",
        "name=%00&",
        "%ff=%fe&",
        "%",
        "&",
        "=",
        "fields=id&",
        "sort_key=id&",
        "sort_dir=asc&",
        "limit=99999999999999999999&",
        "limit=-1&",
        "marker=%27&",
        "fields=%ff&",
        "a[]=1&",
        "%zz=%4&",
        "status=ACTIVE&",
        "network_id=x&",
        "detach=true&",
        "reserve_port=x&",
        "+",
        "sort_key=name&sort_dir=desc&",
    ]);
    let length = dice.of(&[1, 3, 100, 15_000]);
    let mut query = piece.repeat(length / piece.len() + 1);
    query.push_str(dice.of(&["", "mtu=1500", "limit=1"]));
    let target = format!("{}?{query}", dice.of(&["/v2.0/networks", "/v2.0/ports", "/v2.0/subnets", "/v2.1/servers"]));
    Attack::request("queries", "GET", &target, &[], b"", Want::Any)
}

fn versions(dice: &mut Dice) -> Attack {
    let version: &[u8] = dice.of(&[
        &b"2.71"[..],
        b"2.0",
        b"latest",
        b"compute 2.1",
        b"compute 9999999999.1",
        b"\xff\xfe",
        b"2.-1",
        b"compute",
        b"identity 3, compute latest, compute 2.999",
        b"",
        b"2.00000000000000001",
    ]);
    let name = dice.of(&["X-OpenStack-Nova-API-Version", "OpenStack-API-Version"]);
    Attack::request("microversions", "GET", "/v2.1/servers", &[(name, version)], b"", Want::Any)
}

/// What no event's id can be.
fn resumed(dice: &mut Dice) -> Attack {
    let last: &[u8] = dice.of(&[&b"-1"[..], b"18446744073709551616", b"abc", b"1e3", b"\xff", b"1 2", b"0x1"]);
    Attack::request("Last-Event-ID", "GET", "/nicd/v1/events", &[("Last-Event-ID", last)], b"", Want::Refused)
}

/// Ids of many lengths, and once in a while of 10 MB.
fn ids(dice: &mut Dice) -> Attack {
    let id = "7".repeat(if dice.chance(2) { 10_000_000 } else { dice.of(&[1, 35, 37, 1000, 15_000, 60_000]) });
    match dice.below(3) {
        0 => Attack::request("long ids", "GET", &format!("/v2.0/ports/{id}"), &[], b"", Want::Refused).paced(Pace::Whole),
        1 => Attack::json("long ids", "PUT", &format!("/nicd/v1/servers/{id}"), b"{}", Want::Refused).paced(Pace::Whole),
        _ => {
            let body = json!({"port": {"id": id, "network_id": id}}).to_string();
            Attack::json("long ids", "POST", "/v2.0/ports", body.as_bytes(), Want::Refused).paced(Pace::Whole)
        }
    }
}

/// A gigabyte is declared and a little of it sent.
fn gigabyte(dice: &mut Dice) -> Attack {
    let (method, target) = writing(dice);
    let mut bytes = framed(method, &target, &[("Content-Type", b"application/json")], b"");
    let text = String::from_utf8(std::mem::take(&mut bytes)).expect("ASCII");
    let text = text.replace("Content-Length: 0", "Content-Length: 1073741824") + &"[".repeat(dice.below(3) * 60_000);
    Attack::raw("a gigabyte", text, Want::Refused)
}

/// The last of two equal keys counts, as in most readers of JSON; here one of the two is wrong.
fn duplicates(dice: &mut Dice) -> Attack {
    let (first, last) = dice.of(&[("1500", "\"x\""), ("\"x\"", "1500"), ("{}", "[]"), ("1500", "1500")]);
    let body = format!("{{\"network\": {{\"mtu\": {first}, \"name\": \"twice\", \"mtu\": {last}}}}}");
    Attack::json("duplicate keys", "POST", "/v2.0/networks", body.as_bytes(), Want::Refused)
}

/// One of a bounded number of idempotency keys.
pub fn keyed(dice: &mut Dice, number: u64) -> Attack {
    let key = format!("hostile-{number}");
    let body = json!({"port": {"network_id": dice.id(), "name": "x".repeat(usize::from(number.to_le_bytes()[0]))}}).to_string();
    let odd = dice.chance(3);
    let key: &[u8] = if odd { dice.of(&[&b""[..], b"\xff", b"a\tb", &[b'k'; 65]]) } else { key.as_bytes() };
    let fields: &[(&str, &[u8])] = &[("Content-Type", b"application/json"), ("Idempotency-Key", key)];
    Attack::request("idempotency keys", "POST", "/v2.0/ports", fields, body.as_bytes(), Want::Any)
}
