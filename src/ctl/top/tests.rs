//! Frames of `top` as a terminal would have them, its order, and the terminal it leaves behind.

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use jiff::civil::datetime;
use jiff::tz::TimeZone;
use nix::pty::{Winsize, openpty};
use nix::sys::termios::{LocalFlags, tcgetattr};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;
use serde_json::{Value, json};

use super::draw::{Agent, Look, Picture, draw, short};
use super::screen::Screen;
use super::table::{Counters, Key, Order, Row, Rows};

fn port(number: u32, name: &str, status: &str, reason: Value, limits: Value) -> Value {
    json!({"admin_state_up": true, "id": format!("{number:08x}-199f-48c0-816c-13e38010b442"), "name": name, "device_id": format!("server-{}", number % 3),
        "network_id": "blue", "status": status, "nicd:reason": reason, "nicd:limits": limits,
        "binding:vif_details": {"device": format!("nicd{number:08x}199")}})
}

fn counters(from: u64, to: u64, dropped: Value) -> Counters {
    Counters::of(&json!({"from_guest": {"packets": from / 100, "bytes": from}, "to_guest": {"packets": to / 1000, "bytes": to},
        "dropped": dropped}))
}

/// Ports in every state, of which each but the last was counted twice within two seconds.
fn rows() -> Rows {
    let limits = json!({"from_guest": {"rate_kbps": 100_000}, "to_guest": {"rate_kbps": 1_500_000}});
    let listed = [
        (port(1, "web-0", "ACTIVE", Value::Null, limits), 250_000, 12_500_000, json!({})),
        (port(2, "", "ACTIVE", Value::Null, Value::Null), 2_500_000_000, 1_000, json!({"arp": 0})),
        (port(3, "a-name-longer-than-its-column", "ERROR", json!("bridge_full"), Value::Null), 0, 0, json!({})),
        (port(4, "db-0", "ACTIVE", Value::Null, json!({"to_guest": {"rate_kbps": 64}})), 0, 100, json!({"arp": 1, "ip4": 40})),
        (port(5, "db-1", "DOWN", json!("no_carrier"), Value::Null), 0, 0, json!({})),
        (port(6, "fought", "BUILD", Value::Null, Value::Null), 100, 100, json!({})),
        (port(7, "esc\u{1b}[2J", "DOWN", json!("namespace_gone"), Value::Null), 0, 0, json!({})),
    ];
    let called = |id: &str| id[..8.min(id.len())].to_owned();
    let mut rows = Rows::default();
    let fought =
        |row: Row| Row { contested: if row.name == "fought" { "contested_bridge".to_owned() } else { String::new() }, ..row };
    rows.list(listed.iter().filter_map(|(port, ..)| Row::of(port, called)).map(fought).collect());
    for (port, from, to, dropped) in &listed[..6] {
        let id = port["id"].as_str().unwrap();
        let before = json!({"arp": 0, "ip4": 0});
        rows.count(id, Duration::from_secs(1), counters(1000, 1000, before));
        rows.count(id, Duration::from_secs(3), counters(1000 + from, 1000 + to, dropped.clone()));
    }
    rows
}

fn picture() -> Picture {
    let agent = Agent {
        status: "degraded".to_owned(),
        version: "0.1.0".to_owned(),
        host: "node1".to_owned(),
        up: "3 d 2 h".to_owned(),
        problems: vec![
            ("contested_bridge".to_owned(), "another program keeps changing the bridge of port fought".to_owned()),
            ("port_in_error".to_owned(), "it is full".to_owned()),
        ],
        gone: None,
    };
    let at = datetime(2026, 3, 1, 12, 0, 1, 0).to_zoned(TimeZone::UTC).unwrap();
    Picture { agent, rows: rows(), at: Some(at) }
}

fn drawn(picture: &Picture, look: &Look, (width, height): (u16, u16)) -> TestBackend {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, picture, look)).unwrap();
    terminal.backend().clone()
}

fn lines(backend: &TestBackend) -> Vec<String> {
    let buffer = backend.buffer();
    let lines = buffer.content().chunks(usize::from(buffer.area.width));
    lines.map(|line| line.iter().map(ratatui::buffer::Cell::symbol).collect::<String>().trim_end().to_owned()).collect()
}

/// Compares a frame with the one that is kept; `NICD_BLESS` writes it.
fn is_golden(name: &str, picture: &Picture, look: &Look, size: (u16, u16)) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/top").join(name);
    let frame = lines(&drawn(picture, look, size)).join("\n") + "\n";
    if std::env::var_os("NICD_BLESS").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, &frame).unwrap();
    }
    assert_eq!(frame, fs::read_to_string(&file).unwrap_or_default(), "{}: NICD_BLESS=1 writes it", file.display());
}

#[test]
fn a_frame_of_a_small_and_of_a_large_terminal() {
    for size in [(80, 24), (200, 60)] {
        is_golden(&format!("{}x{}", size.0, size.1), &picture(), &Look::default(), size);
    }
}

#[test]
fn a_frame_without_a_daemon_and_one_that_is_scrolled_and_paused() {
    let gone = Some(("11:59:58".to_owned(), "nicd cannot be reached at /run/nicd/nicd.sock: Connection refused".to_owned()));
    let agent = Agent { gone, ..picture().agent };
    is_golden("80x24-gone", &Picture { agent, ..picture() }, &Look::default(), (80, 24));
    let look = Look { order: Order { key: Key::Name, reversed: true }, first: 3, paused: true };
    is_golden("80x10-scrolled", &picture(), &look, (80, 10));
    is_golden("80x10-empty", &Picture::default(), &Look::default(), (80, 10));
}

#[test]
fn statuses_and_drops_have_colours() {
    let backend = drawn(&picture(), &Look::default(), (80, 24));
    let lines = lines(&backend);
    let colour = |row: &str, text: &str| {
        let y = lines.iter().position(|line| line.starts_with(row)).unwrap();
        let x = lines[y].split(text).next().unwrap().chars().count();
        backend.buffer()[(u16::try_from(x).unwrap(), u16::try_from(y).unwrap())].fg
    };
    assert_eq!(colour("a-name", "ERROR"), Color::Red);
    assert_eq!(colour("web-0", "ACTIVE"), Color::Green);
    assert_eq!(colour("db-1", "DOWN"), Color::Yellow);
    assert_eq!(colour("db-0", "drops"), Color::Red);
}

#[test]
fn any_size_can_be_drawn() {
    for width in 1..=140 {
        for height in 1..=12 {
            drawn(&picture(), &Look { first: 5, ..Look::default() }, (width, height));
        }
    }
}

#[test]
fn the_worst_is_first() {
    let rows = rows();
    let order = |text: &str| rows.sorted(Order::read(text).unwrap()).iter().map(|row| row.name.clone()).collect::<Vec<_>>();
    let long = "a-name-longer-than-its-column";
    assert_eq!(order("trouble"), [long, "fought", "esc\u{1b}[2J", "db-0", "00000002", "web-0", "db-1"]);
    assert_eq!(order("rate")[..2], ["00000002", "web-0"]);
    assert_eq!(order("-rate")[6], "00000002");
    assert_eq!(order("drops")[0], "db-0");
    assert_eq!(order("name")[..2], ["00000002", long]);
    assert_eq!(Order::read("colour"), None);
}

#[test]
fn a_port_that_is_down_is_in_trouble_unless_its_guest_or_its_owner_is_the_reason() {
    let trouble = |reason: &str, admin_up: bool| {
        let mut down = port(1, "z", "DOWN", json!(reason), Value::Null);
        down["admin_state_up"] = json!(admin_up);
        let mut rows = Rows::default();
        let listed = [down, port(2, "a", "ACTIVE", Value::Null, Value::Null)];
        rows.list(listed.iter().filter_map(|port| Row::of(port, str::to_owned)).collect());
        for at in [1, 2] {
            rows.count(listed[1]["id"].as_str().unwrap(), Duration::from_secs(at), counters(at * 1000, 0, json!({})));
        }
        rows.sorted(Order::default())[0].name == "z"
    };
    for reason in ["namespace_gone", "not_forwarding", "filters_missing"] {
        assert!(trouble(reason, true), "{reason}");
        assert!(!trouble(reason, false), "{reason}");
    }
    for reason in ["no_carrier", "admin_down"] {
        assert!(!trouble(reason, true), "{reason}");
    }
}

#[test]
fn rates_are_of_the_time_between_two_readings() {
    let mut rows = rows();
    let id = rows.sorted(Order::default())[4].id.clone();
    let of = |rows: &Rows| rows.sorted(Order { key: Key::Name, reversed: false })[0].rates.clone();
    let rates = of(&rows).unwrap();
    assert_eq!((rates.from_guest.bits, rates.to_guest.bits), (1e10, 4000.0));
    // Counters that fall are of another attachment.
    rows.count(&id, Duration::from_secs(4), counters(0, 0, json!({})));
    assert_eq!(of(&rows), None);
    rows.count(&id, Duration::from_secs(4), counters(0, 0, json!({})));
    assert_eq!(of(&rows), None, "no time has passed");
    rows.list(Vec::new());
    assert_eq!(rows.number(), 0);
}

#[test]
fn ports_that_are_not_seen_are_read_in_turn() {
    let rows = rows();
    let ids: Vec<String> = rows.sorted(Order { key: Key::Name, reversed: false }).iter().map(|row| row.id.clone()).collect();
    let (seen, mut turn) = (vec![ids[0].clone(), "gone".to_owned()], String::new());
    let mut read = Vec::new();
    for _ in 0..3 {
        let round = rows.next(&seen, 3, &mut turn);
        assert_eq!((round.len(), &round[0]), (3, &ids[0]));
        read.extend_from_slice(&round[1..]);
    }
    read.sort();
    read.dedup();
    assert_eq!(read.len(), 6, "all others, none twice before all were");
    assert_eq!(rows.next(&ids, 100, &mut turn).len(), 7);
}

#[test]
fn numbers_are_short() {
    for (number, text) in [
        (0.0, "0"),
        (0.5, "0.5"),
        (7.0, "7"),
        (999.4, "999"),
        (999.9, "1.00k"),
        (12_345.0, "12.3k"),
        (99_960.0, "100k"),
        (1_500_000.0, "1.50M"),
        (2.5e14, "250T"),
    ] {
        assert_eq!(short(number), text);
    }
}

/// Not a test: what the next one runs in a process of its own, on a terminal of its own.
#[test]
fn panics_on_its_screen() {
    if std::env::var_os("NICCTL_TEST_PANIC").is_none() {
        return;
    }
    let mut screen = Screen::open().unwrap();
    screen.show(&picture(), &Look::default()).unwrap();
    panic!("a bug");
}

#[test]
fn a_panic_leaves_the_terminal_as_it_was_and_its_message_on_it() {
    let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(&size, None).unwrap();
    let before = tcgetattr(&pty.slave).unwrap();
    assert!(before.local_flags.contains(LocalFlags::ICANON));
    let end = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "ctl::top::tests::panics_on_its_screen", "--nocapture"])
        .env("NICCTL_TEST_PANIC", "1")
        .stdin(end(&pty.slave))
        .stdout(end(&pty.slave))
        .stderr(end(&pty.slave))
        .spawn()
        .unwrap();
    // Its own end of the terminal is kept, so that the terminal is still there to be looked at.
    let mut said = String::new();
    let mut master = fs::File::from(pty.master);
    while !said.contains("test result") {
        let mut bytes = [0; 4096];
        let read = master.read(&mut bytes).unwrap();
        said.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    assert!(!child.wait().unwrap().success());
    let left = said.find("\u{1b}[?1049l").expect("it leaves the second screen");
    assert!(said[left..].contains("a bug"), "the message is on the first screen: {said}");
    assert!(said[left..].contains("\u{1b}[?25h"), "the cursor is shown: {said}");
    assert_eq!(tcgetattr(pty.slave.as_fd()).unwrap(), before);
}
