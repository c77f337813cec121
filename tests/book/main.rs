//! The documents hold: every command that README and the pages in `docs` show is run, and what it prints is what they show; every
//! link leads somewhere.
//!
//! A block of the language `console` is run, each page's in their order, in a network namespace with a daemon of its own, in which
//! `/run/nicd`, `/var/lib/nicd` and `/etc/nicd` are that daemon's. A line that begins with `# ` is a command, with further lines where
//! it ends with `\`; the lines below are what it prints (`examples.rs` says how they are compared). A command ends with 0, unless the
//! next one is `echo $?`. What only reads is read again at the next event where it differs: a reader would look again too.
//!
//! A block that cannot be run here says behind `console` where its commands are tested, or `not-run`, and is listed in [`ELSEWHERE`]
//! with the reason.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

#[path = "../common/daemon.rs"]
mod daemon;
mod examples;
#[path = "../common/netns.rs"]
mod netns;
mod pages;
mod reasons;
mod shell;

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::{Duration, Instant};

use daemon::Daemon;
use examples::Examples;
use netns::{in_netns, run};
use nix::mount::{MsFlags, mount};
use pages::{Block, Page, root};
use shell::Shell;

/// A block that is not run here.
struct Elsewhere {
    page: &'static str,
    /// Its first command.
    command: &'static str,
    why: &'static str,
    /// What becomes of the page's daemon in its place.
    then: Then,
}

/// What a block that is not run would have done to the daemon.
#[derive(Clone, Copy)]
enum Then {
    Nothing,
    Stop,
    Start,
    Reload,
    /// The page's TOML before it is put behind the configuration, and the daemon is started again.
    Configure,
}

const fn elsewhere(page: &'static str, command: &'static str, then: Then, why: &'static str) -> Elsewhere {
    Elsewhere { page, command, why, then }
}

/// All blocks that are not run here.
const ELSEWHERE: &[Elsewhere] = &[
    elsewhere("README.md", "packaging/build", Then::Nothing, "needs a Debian of its own, under systemd"),
    elsewhere("README.md", "nicd", Then::Nothing, "the page's daemon is started as the service is, and waited for"),
    elsewhere(
        "README.md",
        "nicd demo --fleet",
        Then::Nothing,
        "needs an etcd of its own, and takes as long as all other blocks together",
    ),
    elsewhere(
        "docs/fleet.md",
        "nicd demo --fleet",
        Then::Nothing,
        "needs an etcd of its own, and takes as long as all other blocks together",
    ),
    elsewhere("docs/first-five-minutes.md", "nicd demo", Then::Nothing, "takes as long as all other blocks together"),
    elsewhere(
        "docs/first-five-minutes.md",
        "nicd",
        Then::Nothing,
        "the page's daemon is started as the service is, and waited for",
    ),
    elsewhere("docs/dbus.md", "busctl tree org.nicd.Agent1", Then::Nothing, "needs a bus, which that suite runs"),
    elsewhere(
        "docs/integrate.md",
        "cloud-hypervisor --kernel vmlinux --disk path=disk.img --cpus boot=2 --memory size=512M \\\n    --net tap=nicd94f050f1ed9,mac=fa:16:3e:75:13:51",
        Then::Nothing,
        "Debian has no package of it",
    ),
    elsewhere(
        "docs/integrate.md",
        "podman run --network ns:/run/netns/web docker.io/library/nginx",
        Then::Nothing,
        "needs images from the network; the namespace that they take is tested",
    ),
    elsewhere(
        "docs/integrate.md",
        "ip netns attach web $(podman inspect --format '{{.State.Pid}}' web)",
        Then::Nothing,
        "needs a container that runs",
    ),
    elsewhere(
        "docs/integrate.md",
        "socat TCP-LISTEN:8774,bind=127.0.0.1,fork UNIX-CONNECT:/run/nicd/nicd.sock &",
        Then::Nothing,
        "needs clients from PyPI, and has a proxy of its own in socat's place",
    ),
    elsewhere(
        "docs/groups.md",
        "export OS_AUTH_TYPE=none OS_ENDPOINT=http://127.0.0.1:8774/v2.0 OS_NETWORK_ENDPOINT_OVERRIDE=http://127.0.0.1:8774/v2.0",
        Then::Nothing,
        "needs clients from PyPI, and has a proxy of its own in socat's place",
    ),
    elsewhere("docs/operate.md", "apt install ./nicd_*.deb", Then::Nothing, "needs a Debian of its own, under systemd"),
    elsewhere(
        "docs/operate.md",
        "usermod -aG nicd OPERATOR",
        Then::Nothing,
        "the package's groups are on an installed Debian only",
    ),
    elsewhere("docs/operate.md", "systemctl reload nicd", Then::Reload, "needs systemd; here the daemon gets the signal"),
    elsewhere(
        "docs/operate.md",
        "systemctl stop nicd.socket nicd.service",
        Then::Stop,
        "needs systemd; here the daemon gets SIGTERM",
    ),
    elsewhere(
        "docs/operate.md",
        "systemctl start nicd.socket nicd.service",
        Then::Start,
        "needs systemd; here the daemon is started",
    ),
    elsewhere(
        "docs/trunks.md",
        "nicctl attach web --port router --wait",
        Then::Nothing,
        "needs VLAN devices, which the kernel here may not have",
    ),
    elsewhere(
        "docs/trunks.md",
        "ip link add link eth0 name eth0.101 address fa:16:3e:5a:10:7c type vlan id 101",
        Then::Nothing,
        "needs VLAN devices, which the kernel here may not have",
    ),
    elsewhere(
        "docs/segments.md",
        "nicctl network create office --vlan 101 --physical physnet1 --subnet 192.0.2.0/24",
        Then::Nothing,
        "needs VLAN devices, which this kernel may not have",
    ),
    elsewhere(
        "docs/remote.md",
        "chgrp nicd /etc/nicd/tls/key.pem",
        Then::Nothing,
        "the package's groups are on an installed Debian only",
    ),
    elsewhere(
        "docs/remote.md",
        "systemctl restart nicd",
        Then::Configure,
        "needs systemd; here the daemon is started again, with the page's configuration",
    ),
    elsewhere("docs/fleet.md", "nicctl host list", Then::Nothing, "needs etcd and a second host"),
    elsewhere("docs/fleet.md", "nicctl host forget compute-2", Then::Nothing, "needs etcd and a second host"),
    elsewhere("docs/operate.md", "apt remove nicd", Then::Nothing, "needs a Debian of its own, under systemd"),
];

macro_rules! pages {
    ($($test:ident: $page:literal,)*) => {
        /// The pages with blocks that are run.
        const PLAYED: &[&str] = &[$($page),*];
        $(#[test]
        fn $test() {
            play($page);
        })*
    };
}

pages! {
    agent_api: "docs/agent-api.md",
    first_five_minutes: "docs/first-five-minutes.md",
    dhcp: "docs/dhcp.md",
    groups: "docs/groups.md",
    hotplug: "docs/hotplug.md",
    integrate: "docs/integrate.md",
    libvirt: "docs/libvirt.md",
    metrics: "docs/metrics.md",
    operate: "docs/operate.md",
    remote: "docs/remote.md",
    trunks: "docs/trunks.md",
    readme: "README.md",
}

#[test]
fn every_block_is_run_or_listed_with_the_reason() {
    let (mut played, mut left_out) = (BTreeSet::new(), BTreeSet::new());
    for page in all() {
        for block in &page.blocks {
            // What README has for a copy: the demo, which tests/demo runs, and the command that runs this suite.
            let is_first = page.name == "README.md" && block.language == "sh";
            let known = ["console", "ini", "json", "text", "toml", "xml"];
            assert!(
                is_first || known.contains(&block.language.as_str()),
                "{}: commands are in console blocks: {block:?}",
                page.name
            );
            match &block.elsewhere {
                Some(place) => {
                    let is_suite = root().join(place).is_dir() || root().join(format!("{place}.rs")).is_file();
                    assert!(place == "not-run" || place.starts_with("tests/") && is_suite, "{}: no suite {place}", page.name);
                    left_out.insert((page.name.clone(), block.commands[0].text.clone()));
                }
                None if block.language == "console" => _ = played.insert(page.name.clone()),
                None => {}
            }
        }
    }
    let listed = ELSEWHERE.iter().map(|one| (one.page.to_owned(), one.command.to_owned())).collect();
    assert_eq!(left_out, listed, "on the left what says that it is not run, on the right what is listed");
    assert!(ELSEWHERE.iter().all(|one| one.why.len() > 20), "each has a reason");
    assert_eq!(played, PLAYED.iter().map(|page| (*page).to_owned()).collect());
}

#[test]
fn every_link_leads_to_a_page_and_a_heading() {
    let others = ["CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "benches/README.md"].map(Page::read);
    for page in all().iter().chain(&others) {
        for (link, (file, anchor)) in page.links.iter().filter_map(|link| Some((link, page.target(link)?))) {
            assert!(file.exists(), "{}: {link} is not there", page.name);
            let file = file.canonicalize().unwrap();
            let name = file.strip_prefix(root().canonicalize().unwrap()).unwrap().to_str().unwrap().to_owned();
            // The book, and the pages that the package installs, are complete in themselves.
            assert!(!page.name.starts_with("docs/") || name.starts_with("docs/"), "{}: {link} is outside of docs", page.name);
            let Some(anchor) = anchor else { continue };
            assert!(Page::read(&name).anchors.contains(&anchor), "{}: {link}: no such heading", page.name);
        }
    }
}

#[test]
fn every_page_is_in_the_books_contents() {
    let contents = Page::read("docs/SUMMARY.md");
    let listed: BTreeSet<String> = contents.links.iter().map(|link| format!("docs/{link}")).collect();
    let there = pages::names().into_iter().filter(|name| name.starts_with("docs/") && name != "docs/SUMMARY.md");
    assert_eq!(listed, there.collect());
}

/// Of commands within sentences nicctl knows the words and the flags.
#[test]
fn nicctl_knows_what_sentences_name() {
    let help = |words: &[&str]| {
        let said = Command::new(env!("CARGO_BIN_EXE_nicctl")).args(words).arg("--help").output().unwrap();
        (said.status.success(), String::from_utf8(said.stdout).unwrap())
    };
    let (_, all_commands) = help(&[]);
    let lists = |help: &str, word: &str| help.lines().any(|line| line.trim_start().starts_with(&format!("{word} ")));
    for page in all() {
        for code in page.code.iter().filter(|code| code.starts_with("nicctl ")) {
            let words: Vec<&str> = code.split_whitespace().skip(1).collect();
            let mut path: Vec<&str> = words.iter().copied().find(|word| lists(&all_commands, word)).into_iter().collect();
            assert!(!path.is_empty() || words.iter().all(|word| word.starts_with('-')), "{}: {code}: no such command", page.name);
            let (_, text) = help(&path);
            let behind = words.iter().skip_while(|word| Some(*word) != path.first()).nth(1).copied();
            path.extend(behind.filter(|word| text.contains("Commands:") && lists(&text, word)));
            let (works, text) = help(&path);
            assert!(works, "{}: {code}", page.name);
            for flag in words.iter().filter(|word| word.starts_with("--")) {
                let flag = flag.split('=').next().unwrap().trim_end_matches(|char: char| !char.is_ascii_alphanumeric());
                assert!(text.contains(flag), "{}: {code}: {path:?} has no {flag}", page.name);
            }
        }
    }
}

fn all() -> Vec<Page> {
    pages::names().iter().map(|name| Page::read(name)).collect()
}

/// How long what is read may take to be as shown.
const SOON: Duration = Duration::from_secs(10);

/// Runs a page's blocks.
fn play(name: &'static str) {
    in_netns(move || {
        let mut daemon = Daemon::prepared("/run/nicd");
        places(&daemon);
        daemon.launch();
        // The host's address in the examples.
        run("ip address add 203.0.113.10/32 dev lo");
        let (mut shell, mut known, mut configuration) = (Shell::start(), Examples::default(), String::new());
        for block in &Page::read(name).blocks {
            match (block.language.as_str(), &block.elsewhere) {
                ("console", None) => {}
                ("console", Some(_)) => {
                    stand_in(name, block, &mut daemon, &configuration);
                    continue;
                }
                ("toml", _) => {
                    configuration.clone_from(&block.text);
                    continue;
                }
                _ => continue,
            }
            let next = block.commands.iter().skip(1).map(Some).chain([None]);
            for (command, next) in block.commands.iter().zip(next) {
                let may_fail = next.is_some_and(|next| next.text == "echo $?");
                known = compared(name, command, may_fail, &known, &mut shell, &daemon);
            }
        }
    });
}

/// The daemon's files in their usual places, in this thread's mounts alone.
fn places(daemon: &Daemon) {
    mount(Some("lib"), "/var/lib", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    symlink(daemon.state(), "/var/lib/nicd").unwrap();
    run("mkdir /run/etc /run/etc-work");
    let layers = "lowerdir=/etc,upperdir=/run/etc,workdir=/run/etc-work";
    mount(Some("etc"), "/etc", Some("overlay"), MsFlags::empty(), Some(layers)).unwrap();
    // Also when an editor puts another file in its place.
    symlink(daemon.config().parent().unwrap(), "/etc/nicd").unwrap();
}

fn stand_in(page: &str, block: &Block, daemon: &mut Daemon, configuration: &str) {
    let listed = ELSEWHERE.iter().find(|one| one.page == page && one.command == block.commands[0].text);
    match listed.map(|one| one.then) {
        Some(Then::Stop) => daemon.term(),
        Some(Then::Start) => daemon.launch(),
        Some(Then::Reload) => daemon.reload(),
        Some(Then::Configure) => {
            daemon.term();
            let before = std::fs::read_to_string(daemon.config()).unwrap();
            std::fs::write(daemon.config(), format!("{before}{configuration}")).unwrap();
            daemon.launch();
        }
        Some(Then::Nothing) | None => {}
    }
}

/// Runs a command, and compares what it prints; what is known then.
fn compared(
    page: &str,
    command: &pages::Command,
    may_fail: bool,
    known: &Examples,
    shell: &mut Shell,
    daemon: &Daemon,
) -> Examples {
    let text = known.put_into(&command.text);
    let deadline = Instant::now() + SOON;
    let mut events = None;
    loop {
        let (code, printed) = shell.run(&text);
        let after = known.after(&command.shown, &printed).filter(|_| code == 0 || may_fail);
        if let Some(after) = after {
            return after;
        }
        let shown = command.shown.join("\n");
        let said = format!("{page}: {text}\nis shown to print\n{shown}\nand ends with {code} and prints\n{}", printed.join("\n"));
        assert!(only_reads(&text) && Instant::now() < deadline && daemon.runs(), "{said}");
        events.get_or_insert_with(|| daemon.follow(None)).next(Duration::from_secs(1));
    }
}

/// Whether a command may be run again.
fn only_reads(command: &str) -> bool {
    const READING: &[&str] = &["list", "ls", "show", "explain", "status", "leases", "counters", "verify"];
    let mut words = command.split_whitespace();
    match words.next() {
        Some("nicctl") => words.any(|word| READING.contains(&word)),
        Some("ip") => words.any(|word| ["addr", "route", "link"].contains(&word)) && !command.contains(" add "),
        _ => false,
    }
}
