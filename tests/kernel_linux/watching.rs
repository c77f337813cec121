//! The watch: every change is told, soon, and the last thing told is true.

use std::time::{Duration, Instant};

use nicd::kernel::linux::Linux;
use nicd::kernel::{Host, Kernel, Notice, tap};
use nicd::model::names;
use nicd::plan::{At, LinkChange, LinkState, Op, Switch, TokenBucket};
use tokio::sync::mpsc::{Receiver, channel};

use crate::host::{BRIDGE, DEVICE, LinuxFixture, port};
use crate::netns::{Guest, in_netns, run};

fn watch(room: usize) -> Receiver<Notice> {
    let (sender, receiver) = channel(room);
    Linux::default().watch(sender).unwrap();
    receiver
}

/// Waits for a notice for which `wanted` gives something.
fn until<T>(notices: &mut Receiver<Notice>, limit: Duration, wanted: impl Fn(&Notice) -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        match notices.try_recv() {
            Ok(notice) => {
                if let Some(found) = wanted(&notice) {
                    return Some(found);
                }
            }
            Err(_) => std::hint::spin_loop(),
        }
    }
    None
}

fn seen(index: u32, right: impl Fn(&LinkState) -> bool) -> impl Fn(&Notice) -> Option<Instant> {
    move |notice| match notice {
        Notice::Seen { link, at } if link.index == index && right(link) => Some(*at),
        _ => None,
    }
}

fn gone(index: u32) -> impl Fn(&Notice) -> Option<()> {
    move |notice| matches!(notice, Notice::Gone { index: gone, .. } if *gone == index).then_some(())
}

const SOON: Duration = Duration::from_secs(3);

/// The kernel tells of a qdisc also when it is read.
#[test]
fn a_look_at_a_rate_is_no_reason_for_another() {
    in_netns(|| {
        let mut host = LinuxFixture::open();
        host.attach_tap(port(1), DEVICE, 0);
        let mut notices = watch(1024);
        let set = |rate| {
            let bucket = Some(TokenBucket { rate, burst: 2_000 });
            Op::Configure { port: port(1), at: At::Altname, changes: [LinkChange::ToGuest(bucket)].into() }
        };
        let rate = |rate| seen(DEVICE, move |link| link.to_guest.is_some_and(|bucket| bucket.rate == rate));
        host.apply(&set(8_000));
        until(&mut notices, SOON, rate(8_000)).expect("set");
        for _ in 0..20 {
            host.get_link(port(1)).unwrap();
        }
        host.apply(&set(9_000));
        let mut looks = 0;
        while !until(&mut notices, SOON, |notice| Some(rate(9_000)(notice).is_some())).expect("a notice") {
            looks += 1;
        }
        assert!(looks < 5, "{looks} looks");
    });
}

#[test]
fn an_opened_tap_is_active_at_once_and_again_after_a_short_close() {
    in_netns(|| {
        let mut host = LinuxFixture::open();
        host.bridge(1500);
        let mut notices = watch(1024);
        let name = host.attach_tap(port(1), DEVICE, BRIDGE);
        // What another test has just forked holds the tap open until it runs its program.
        until(&mut notices, SOON, seen(DEVICE, |link| link.up && !link.lower_up)).expect("free");
        let mut times = Vec::new();
        for _ in 0..20 {
            let start = Instant::now();
            let vmm = tap::attach(&name, 1, true).unwrap();
            let at = until(&mut notices, SOON, seen(DEVICE, |link| link.lower_up)).expect("active");
            times.push(at.max(start) - start);
            drop(vmm);
            until(&mut notices, SOON, seen(DEVICE, |link| !link.lower_up)).expect("not active");
            std::thread::sleep(Duration::from_millis(20));
        }
        times.sort_unstable();
        // Without the look at once it would be a second.
        assert!(times[18] < Duration::from_millis(500), "{times:?}");
    });
}

#[test]
fn changes_by_anybody_are_told_with_names() {
    in_netns(|| {
        let mut notices = watch(1024);
        run("ip link add foreign index 900 type veth peer name other");
        until(&mut notices, SOON, seen(900, |link| link.name == "foreign")).expect("made");
        run("ip link set foreign name renamed");
        until(&mut notices, SOON, seen(900, |link| link.name == "renamed")).expect("renamed");
        // The kernel tells of an altname only where the link is up.
        run("ip link set renamed up");
        run("ip link property add dev renamed altname second");
        until(&mut notices, SOON, seen(900, |link| link.altnames == ["second"])).expect("altname");
        run("ip link del renamed");
        until(&mut notices, SOON, gone(900)).expect("gone");
        run("ip link add foreign index 900 type veth peer name other");
        let guest = Guest::new("g");
        run("ip link set foreign netns g");
        until(&mut notices, SOON, gone(900)).expect("moved away");
        drop(guest);
    });
}

#[test]
fn one_of_ours_without_carrier_is_looked_at_once_more() {
    in_netns(|| {
        let mut host = LinuxFixture::open();
        host.attach_tap(port(1), DEVICE, 0);
        host.apply(&Op::SetLink { port: port(1), switch: Switch::Down });
        let mut notices = watch(1024);
        let start = Instant::now();
        host.apply(&Op::SetLink { port: port(1), switch: Switch::Up });
        let late = |notice: &Notice| match notice {
            Notice::Seen { link, at } if link.index == DEVICE && *at - start > Duration::from_secs(1) => Some(*at - start),
            _ => None,
        };
        let second = until(&mut notices, SOON, late).expect("a second look");
        assert!(second < Duration::from_millis(1500), "{second:?}");
        assert!(until(&mut notices, Duration::from_millis(1500), late).is_none(), "and no third");
    });
}

#[test]
fn lost_events_become_a_dump_that_is_true() {
    in_netns(|| {
        let mut host = LinuxFixture::open();
        let mut notices = watch(1);
        // Nobody reads: the watch stands, and its room for events fills.
        host.attach_tap(port(1), DEVICE, 0);
        let name = names::port_device(port(1), 0);
        let lines: String = (0..12_000).map(|n| format!("link set {name} mtu {}\n", 1400 + n % 2)).collect();
        std::fs::write("/run/batch", lines).unwrap();
        for _ in 0..2 {
            run("ip -batch /run/batch");
        }
        run(&format!("ip link set {name} mtu 1333"));
        let resync = |notice: &Notice| match notice {
            Notice::Resync { links, .. } => Some(links.clone()),
            _ => None,
        };
        let mut links = until(&mut notices, SOON, resync).expect("a dump");
        let mut expected = host.kernel.dump_links().unwrap();
        links.sort_by_key(|link| link.index);
        expected.sort_by_key(|link| link.index);
        assert_eq!(links, expected);
        run(&format!("ip link set {name} mtu 1334"));
        until(&mut notices, SOON, seen(DEVICE, |link| link.mtu == 1334)).expect("it goes on");
    });
}

#[test]
fn it_ends_with_its_reader() {
    in_netns(|| {
        let notices = watch(1);
        // A thread gives itself its name only when it runs.
        watches_become(1);
        drop(notices);
        watches_become(0);
    });
}

fn watches_become(number: usize) {
    let deadline = Instant::now() + SOON;
    while watches_here() != number {
        assert!(Instant::now() < deadline, "{} watches instead of {number}", watches_here());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Watch threads in this thread's namespace; other tests of the process have theirs in others.
fn watches_here() -> usize {
    let here = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let is_watch = |task: &std::path::Path| {
        let named = std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "nicd-watch");
        named && std::fs::read_link(task.join("ns/net")).is_ok_and(|namespace| namespace == here)
    };
    tasks.filter(|task| is_watch(&task.as_ref().unwrap().path())).count()
}
