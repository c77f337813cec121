//! Arrows only point down, and the pure rooms stay pure: read off the sources themselves.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Each room with the rooms below it that it may import. A room that is not named here fails the test: it needs a place.
const BELOW: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("uplink", &[]),
    ("plan", &["model", "uplink"]),
    ("lease", &["model"]),
    ("neighbours", &["model"]),
    ("clock", &["model"]),
    ("queue", &[]),
    ("rate_limit", &[]),
    ("exit", &[]),
    ("manual", &[]),
    ("failpoints", &[]),
    ("config", &["model"]),
    ("telemetry", &["config"]),
    ("threads", &["exit", "failpoints", "telemetry"]),
    ("systemd", &[]),
    ("tls", &["config"]),
    ("http", &["exit", "tls"]),
    ("fleet", &["clock", "config", "exit", "failpoints", "http", "model", "telemetry", "tls"]),
    ("sys", &[]),
    ("args", &["config", "exit", "telemetry"]),
    ("access", &["config", "sys"]),
    ("inventory", &["lease", "model", "plan", "rate_limit"]),
    ("events", &["clock", "model", "failpoints", "telemetry"]),
    ("store", &["queue", "model", "failpoints", "telemetry", "threads"]),
    ("monitor", &["failpoints", "model", "sys"]),
    ("kernel", &["queue", "model", "rate_limit", "plan", "failpoints", "sys", "telemetry", "threads", "uplink"]),
    (
        "reconcile",
        &[
            "clock",
            "config",
            "events",
            "inventory",
            "kernel",
            "lease",
            "model",
            "monitor",
            "neighbours",
            "plan",
            "queue",
            "rate_limit",
            "store",
            "sys",
            "telemetry",
            "threads",
        ],
    ),
    (
        "service",
        &[
            "clock",
            "config",
            "events",
            "exit",
            "fleet",
            "inventory",
            "kernel",
            "model",
            "plan",
            "reconcile",
            "store",
            "telemetry",
            "uplink",
        ],
    ),
    ("dbus", &["access", "config", "events", "model", "plan", "service", "telemetry"]),
    ("notify", &["clock", "config", "events", "exit", "http", "model", "service", "store", "telemetry", "tls"]),
    (
        "api",
        &[
            "access",
            "config",
            "events",
            "exit",
            "inventory",
            "kernel",
            "model",
            "plan",
            "service",
            "failpoints",
            "store",
            "telemetry",
            "threads",
            "tls",
        ],
    ),
    (
        "daemon",
        &[
            "access",
            "api",
            "clock",
            "config",
            "dbus",
            "events",
            "exit",
            "fleet",
            "kernel",
            "model",
            "notify",
            "plan",
            "service",
            "store",
            "systemd",
            "telemetry",
            "threads",
            "tls",
        ],
    ),
    // A client of the daemon: it uses the daemon's socket, and of its rooms only names and the opening of a tap.
    ("demo", &["args", "exit", "kernel", "model", "store"]),
    ("ctl", &["exit", "manual", "uplink"]),
    ("lib", &[]),
    ("main", &[]),
    ("bin", &["ctl", "exit"]),
];

/// What no pure room may name: clocks, randomness, the runtime, and everything that does I/O.
const IMPURE: &[&str] = &[
    "tokio",
    "netlink",
    "rusqlite",
    "axum",
    "hyper",
    "nix::",
    "libc::",
    "SystemTime",
    "Instant",
    "Timestamp::now",
    "Zoned::now",
    "std::fs",
    "std::env",
    "std::io",
    "std::process",
    "std::thread",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "UnixDatagram",
    "rand::",
    "new_v4",
    "now_v7",
    "println!",
    "eprintln!",
];

/// Statuses of success: they are no errors, so any handler may name them. (The client in `ctl` reads all there are.)
const NO_ERRORS: &[&str] = &["OK", "CREATED", "ACCEPTED", "NO_CONTENT"];

/// A source file: its room, its place, and its code without comments and unit tests.
pub struct Source {
    pub room: String,
    pub path: PathBuf,
    pub code: String,
}

#[test]
fn plan_and_model_are_pure() {
    let broken = find(|source, line| {
        let pure = matches!(source.room.as_str(), "plan" | "model" | "lease" | "neighbours" | "uplink");
        pure && IMPURE.iter().any(|word| line.contains(word))
    });
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn arrows_only_point_down() {
    let below: BTreeMap<&str, &[&str]> = BELOW.iter().copied().collect();
    let broken = find(|source, line| {
        let may = below.get(source.room.as_str()).unwrap_or_else(|| panic!("{} has no place in BELOW", source.room));
        imports(line).any(|room| room != source.room && !may.contains(&room))
    });
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(!find(|_, line| line.contains("use crate::{")).iter().any(|_| true), "name the room in each `use crate::…`");
}

#[test]
fn the_daemon_does_not_use_its_client() {
    let broken = find(|source, line| !matches!(source.room.as_str(), "demo" | "ctl") && line.contains("nicd_client"));
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn the_only_unsafe_room_is_sys() {
    let broken = find(|source, line| {
        let word = |word: &str| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|found| found == word);
        (word("unsafe") || line.contains("allow(unsafe_code)")) && !source.path.starts_with("sys")
    });
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn no_program_is_run_but_by_the_demo() {
    let broken = find(|source, line| source.room != "demo" && line.contains("Command::new"));
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn an_errors_http_status_is_given_in_one_place() {
    let broken = find(|source, line| {
        let mut constants = line.split("StatusCode::").skip(1).map(word);
        let elsewhere = source.room != "ctl" && !source.path.ends_with("api/status.rs");
        elsewhere && constants.any(|status| is_constant(status) && !NO_ERRORS.contains(&status))
    });
    assert!(broken.is_empty(), "{broken:#?}");
    let below_the_api = find(|source, line| !matches!(source.room.as_str(), "api" | "ctl") && line.contains("StatusCode"));
    assert!(below_the_api.is_empty(), "{below_the_api:#?}");
}

/// The lines for which `what` holds, with their places.
fn find(what: impl Fn(&Source, &str) -> bool) -> Vec<String> {
    let sources = sources();
    assert!(sources.len() > 50, "the sources were not found");
    let lines = sources.iter().flat_map(|source| source.code.lines().enumerate().map(move |(n, line)| (source, n + 1, line)));
    let found = lines.filter(|(source, _, line)| what(source, line));
    found.map(|(source, number, line)| format!("src/{}:{number}: {}", source.path.display(), line.trim())).collect()
}

/// The rooms a line names as `crate::room`, or, in a program, as `nicd::room`.
fn imports(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::").skip(1).map(word).filter(|room| BELOW.iter().any(|(known, _)| known == room))
}

fn word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

fn is_constant(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
}

pub fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    let own = |file: &PathBuf| {
        let path = file.strip_prefix(&root).expect("below src").to_owned();
        let first = path.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
        let room = first.trim_end_matches(".rs").to_owned();
        Source { room, code: code(&fs::read_to_string(file).expect("a source")), path }
    };
    files.iter().filter(|file| !file.ends_with("tests.rs")).map(own).collect()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of src") {
        let path = entry.expect("entry").path();
        match path.is_dir() {
            true => walk(&path, files),
            false if path.extension().is_some_and(|extension| extension == "rs") => files.push(path),
            false => {}
        }
    }
}

/// The code up to the unit tests, which stand last in a file; comments are blanked, so that line numbers stay right.
fn code(text: &str) -> String {
    let uncommented = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
    let lines: Vec<String> = text.lines().take_while(|line| *line != "#[cfg(test)]").map(uncommented).collect();
    lines.join("\n")
}
