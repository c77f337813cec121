//! Attacks on the message as such: framing, methods, targets, headers (RFC 9112, RFC 9110).

use crate::attack::{Attack, Pace, Want, framed, method, route};
use crate::dice::Dice;

/// Any of them.
pub fn any(dice: &mut Dice) -> Attack {
    let all: &[fn(&mut Dice) -> Attack] =
        &[garbage, pipelined, lengths, chunked, smuggled, versions, methods, targets, flood, broken_off, expecting, bytewise];
    dice.of(all)(dice)
}

const HEALTH: &str = "GET /nicd/v1/health HTTP/1.1\r\nHost: nicd\r\n\r\n";

fn garbage(dice: &mut Dice) -> Attack {
    let length = 1 + dice.below(2000);
    let mut bytes = dice.bytes(length);
    // Whatever it is, it is not the beginning of a method.
    bytes[0] = dice.of(b"\0\x01\x16\x80\xff{[(");
    bytes.extend_from_slice(b"\r\n\r\n");
    Attack::raw("garbage", bytes, Want::Refused)
}

fn pipelined(dice: &mut Dice) -> Attack {
    let mut bytes = HEALTH.repeat(1 + dice.below(5)).into_bytes();
    let length = 1 + dice.below(300);
    bytes.push(0);
    bytes.extend(dice.bytes(length));
    bytes.extend_from_slice(b"\r\n\r\n");
    Attack::raw("pipelined garbage", bytes, Want::RefusedAtLast)
}

fn lengths(dice: &mut Dice) -> Attack {
    let length = dice.of(&[
        "-1",
        "+5",
        "0x5",
        "5 5",
        "5, 6",
        "1e3",
        "5\r\nContent-Length: 6",
        "18446744073709551615",
        "18446744073709551616",
        "99999999999999999999999999",
        "1073741824",
        "65537",
        "5;",
        "five",
        "٥",
    ]);
    let target = route(dice);
    let body = "x".repeat(dice.below(3) * 50_000);
    let bytes = format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}");
    Attack::raw("wrong lengths", bytes, Want::RefusedAtLast)
}

fn chunked(dice: &mut Dice) -> Attack {
    let body = dice.of(&[
        "zz\r\nabc\r\n0\r\n\r\n",
        "-1\r\nabc\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\nabc",
        "ffffffffffffffff\r\nabc",
        "3\r\nabcdef\r\n0\r\n\r\n",
        "3\nabc\n0\n\n",
        "3\r\nab",
        "0",
        "",
        "10001\r\n",
    ]);
    let big = dice.chance(10);
    let body = if big { "8000\r\n".to_owned() + &"x".repeat(0x8000) + "\r\n" } else { body.to_owned() };
    let repeat = if big { 40 } else { 1 };
    let target = route(dice);
    let bytes = format!("POST {target} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{}", body.repeat(repeat));
    Attack::raw("chunked", bytes, Want::RefusedAtLast)
}

/// What two parsers might frame differently: never may the inner request be answered as one of its own.
fn smuggled(dice: &mut Dice) -> Attack {
    let pair = dice.of(&[
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: gzip, chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding : chunked\r\nContent-Length: 4",
        "Transfer-Encoding: xchunked\r\nContent-Length: 4",
        " Content-Length: 4",
        "Content-Length: 4\r\nContent-Length: 0",
        "Content-Length: 4\r\n Transfer-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
    ]);
    let bytes = format!("POST /nowhere HTTP/1.1\r\nHost: a\r\n{pair}\r\n\r\n0\r\n\r\n{HEALTH}");
    Attack::raw("smuggling", bytes, Want::Refused)
}

fn versions(dice: &mut Dice) -> Attack {
    let (line, want) = dice.of(&[
        ("GET /nicd/v1/health\r\n\r\n", Want::Refused),
        ("GET /nicd/v1/health HTTP/0.9\r\n\r\n", Want::Refused),
        ("GET /nicd/v1/health HTTP/1.0\r\n\r\n", Want::Fine),
        ("GET /nicd/v1/health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", Want::Fine),
        ("GET /nicd/v1/health HTTP/2.0\r\n\r\n", Want::Refused),
        ("GET /nicd/v1/health HTTP/1.10\r\n\r\n", Want::Refused),
        ("GET /nicd/v1/health http/1.1\r\n\r\n", Want::Refused),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Want::Refused),
        ("GET  /nicd/v1/health  HTTP/1.1\r\n\r\n", Want::Refused),
        ("\r\n\r\nGET /nicd/v1/health HTTP/1.1\r\n\r\n", Want::Any),
        ("GET /nicd/v1/health HTTP/1.1\n\n", Want::Any),
    ]);
    Attack::raw("versions", line, want)
}

fn methods(dice: &mut Dice) -> Attack {
    let odd = dice.of(&["TRACE", "CONNECT", "PRI", "PROPFIND", "QUERY", "!", "GETGETGETGETGETGETGETGETGET", "get", "OPTIONS"]);
    let target = if odd == "CONNECT" { "nicd:443".to_owned() } else { route(dice) };
    Attack::raw("methods", format!("{odd} {target} HTTP/1.1\r\nHost: a\r\n\r\n"), Want::Refused)
}

fn targets(dice: &mut Dice) -> Attack {
    let long = "a".repeat(dice.of(&[15_000, 17_000, 70_000]));
    let all = [
        ("http://nicd/nicd/v1/health".to_owned(), Want::Fine),
        ("http://[::1]:80/nicd/v1/health?x#y".to_owned(), Want::Any),
        ("http://u:p@nicd/nowhere".to_owned(), Want::Refused),
        ("nicd:80".to_owned(), Want::Refused),
        ("*".to_owned(), Want::Refused),
        ("/../../etc/passwd".to_owned(), Want::Refused),
        ("/nicd/v1/../v1/health".to_owned(), Want::Refused),
        ("/nicd//v1/health".to_owned(), Want::Refused),
        ("/nicd/v1/health/".to_owned(), Want::Fine),
        ("/v2.0/ports/%00".to_owned(), Want::Refused),
        ("/v2.0/ports/%ff%fe".to_owned(), Want::Refused),
        ("/v2.1/servers/%c0%af/os-interface".to_owned(), Want::Refused),
        ("/v2.1/servers/%ed%a0%80/os-interface/%zz".to_owned(), Want::Refused),
        ("/v2.1/%ff/servers".to_owned(), Want::Any),
        ("/nicd/v1/servers/%2e%2e%2f%2e%2e".to_owned(), Want::Refused),
        ("/nicd/v1/ports/%/explain".to_owned(), Want::Refused),
        (format!("/v2.0/ports/{long}"), Want::Refused),
        (format!("/{long}"), Want::Refused),
        ("/\u{202e}\u{0}".to_owned(), Want::Refused),
        ("/v2.0/ports/\u{fffd}".to_owned(), Want::Refused),
    ];
    let (target, want) = dice.of(&all);
    Attack::raw("targets", format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"), want)
}

fn flood(dice: &mut Dice) -> Attack {
    let count = dice.of(&[50, 99, 101, 3000]);
    let mut fields = String::new();
    for _ in 0..count {
        let name = dice.of(&["X-A", "Cookie", "X-Auth-Token", "Accept", "Host", "X-Forwarded-For", "Range", "If-Match"]);
        fields.push_str(&format!("{name}: {:x}\r\n", dice.next()));
    }
    let want = if count > 100 { Want::Refused } else { Want::Any };
    Attack::raw("header floods", format!("GET /nicd/v1/health HTTP/1.1\r\n{fields}\r\n"), want)
}

/// A valid request that breaks off somewhere: half closed, or dropped.
fn broken_off(dice: &mut Dice) -> Attack {
    let (method, target) = (method(dice), route(dice));
    let mut bytes = framed(method, &target, &[("Content-Type", b"application/json")], br#"{"port": {"name": "x"}}"#);
    bytes.truncate(1 + dice.below(bytes.len() - 1));
    let pace = if dice.chance(50) { Pace::Dropped } else { Pace::Whole };
    Attack::raw("broken off", bytes, Want::Refused).paced(pace)
}

fn expecting(dice: &mut Dice) -> Attack {
    let expectation = dice.of(&["100-continue", "100-Continue", "200-ok", "100-continue, 100-continue", ""]);
    let (length, sent) = dice.of(&[("1073741824", 0), ("2", 2), ("2", 1), ("70000", 70_000)]);
    let (target, body) = (route(dice), "{}"[..sent.min(2)].repeat(sent.max(1).div_ceil(2)));
    let bytes = format!(
        "POST {target} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nExpect: {expectation}\r\n\
         Content-Length: {length}\r\n\r\n{}",
        &body[..sent.min(body.len())]
    );
    Attack::raw("expectations", bytes, Want::Any)
}

fn bytewise(dice: &mut Dice) -> Attack {
    let mut attack = dice.of(&[garbage as fn(&mut Dice) -> Attack, lengths, smuggled, versions, broken_off])(dice);
    attack.bytes.truncate(300);
    let want = if attack.bytes.len() < 300 { attack.want } else { Want::Any };
    Attack { kind: "byte at a time", want, pace: Pace::Bytewise, ..attack }
}
