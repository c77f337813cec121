//! The table of filters on a real kernel; `nft` verifies each change.

use std::collections::HashSet;
use std::process::Command;
use std::time::{Duration, Instant};

use nicd::kernel::linux::{ExecContext, Linux};
use nicd::kernel::{Host, Kernel};
use nicd::model::PortId;
use nicd::plan::filter::{Filter, Guard, Limit, PortFilter, PortFilters};
use nicd::plan::{IndexFilter, Op};
use serde_json::Value;

use crate::host::{DEVICE, LinuxFixture, mac, port};
use crate::netns::{in_netns, json, run, try_run};

fn guard(port: PortId, addresses: &[&str]) -> Guard {
    let mut guard = Guard::default();
    guard.allow_mac(mac(port));
    addresses.iter().for_each(|address| guard.allow(mac(port), address.parse().unwrap()));
    guard
}

fn guarded(port: PortId, addresses: &[&str]) -> Filter {
    Filter { guard: Some(guard(port, addresses)), ..Filter::default() }
}

fn set(port: PortId, index: u32, filter: &Filter) -> Op {
    Op::SetFilter { port, filter: Some(IndexFilter { index, filter: filter.clone() }), before_device: true }
}

/// What a set has, as `nft` shows it.
pub fn elements(set: &str) -> Vec<Value> {
    let shown = json(&format!("nft -j list set bridge nicd {set}"));
    shown["nftables"].as_array().unwrap().iter().find_map(|one| one["set"]["elem"].as_array().cloned()).unwrap_or_default()
}

#[test]
fn a_filter_is_set_changed_and_removed() {
    in_netns(|| {
        let mut host = LinuxFixture::open();
        let port = port(1);
        let mut filter = guarded(port, &["192.0.2.5/32", "198.51.100.0/24", "2001:db8::/64"]);
        for _ in 0..2 {
            host.apply(&set(port, DEVICE, &filter));
        }
        assert_eq!((elements("guarded").len(), elements("open").len()), (1, 0));
        assert_eq!((elements("hosts4").len(), elements("nets4").len(), elements("nets6").len()), (1, 1, 1));
        // Each change is one transaction, also that of a limit, which replaces its element.
        for limit in [Some(125_000), Some(250_000), None] {
            filter.limit = limit.map(|rate| Limit { rate, burst: 16_000 });
            host.apply(&set(port, DEVICE, &filter));
            let shown: Vec<u64> = elements("rates").iter().map(|one| one["elem"]["limit"]["rate"].as_u64().unwrap()).collect();
            let unit = |rate: u64| [rate, rate / 1000, rate >> 10];
            assert_eq!(shown.len(), usize::from(limit.is_some()));
            assert!(limit.is_none_or(|rate| unit(rate).contains(&shown[0])), "{shown:?}");
        }
        filter.guard = Some(guard(port, &["192.0.2.6/32"]));
        host.apply(&set(port, DEVICE, &filter));
        assert_eq!((elements("hosts4").len(), elements("nets4").len(), elements("nets6").len()), (1, 0, 0));
        assert!(elements("hosts4")[0].to_string().contains("192.0.2.6"));
        let tunnelled = Some(nicd::model::Mac([0xfa, 0x16, 0x3e, 1, 2, 3]));
        let open = Filter { isolated: true, trunk: true, tunnelled, ..Filter::default() };
        host.apply(&set(port, DEVICE, &open));
        assert_eq!((elements("guarded").len(), elements("open").len(), elements("isolated").len()), (0, 1, 1));
        assert_eq!((elements("trunks").len(), elements("tunnelled").len()), (1, 1));
        assert!(elements("tunnelled")[0].to_string().contains("fa:16:3e:01:02:03"));
        assert!(elements("macs").is_empty());
        // A new device of the port's has them instead of the old one.
        host.apply(&set(port, DEVICE + 1, &open));
        assert_eq!((elements("open").len(), elements("tunnelled").len()), (1, 1));
        host.apply(&Op::SetFilter { port, filter: None, before_device: true });
        assert!(["open", "isolated", "trunks", "tunnelled", "logged", "dropped_mac"].iter().all(|set| elements(set).is_empty()));
    });
}

/// The kernel adds such an element when it drops a device's first frame.
#[test]
fn what_was_counted_of_a_device_goes_with_the_port_and_is_removed_with_the_device() {
    in_netns(|| {
        let mut host = LinuxFixture::open();
        let (port, other) = (port(1), port(2));
        let filter = guarded(port, &["192.0.2.5/32"]);
        host.apply(&set(port, DEVICE, &filter));
        host.apply(&set(other, DEVICE + 1, &guarded(other, &["192.0.2.6/32"])));
        run(&format!("nft add element bridge nicd dropped_mac {{ {DEVICE} counter packets 7 bytes 420 }}"));
        run(&format!("nft add element bridge nicd logged {{ {DEVICE} }}"));
        let counted = || -> Vec<u64> {
            let packets = |one: &Value| one["elem"]["counter"]["packets"].as_u64().unwrap();
            elements("dropped_mac").iter().map(packets).collect()
        };
        // A change of what it may send leaves them.
        host.apply(&set(port, DEVICE, &guarded(port, &["192.0.2.7/32"])));
        assert_eq!((counted(), elements("logged").len()), (vec![7], 1));
        // A new device counts on, and another port's at its place begins anew.
        host.apply(&set(port, DEVICE + 2, &filter));
        assert_eq!((counted(), elements("logged").len()), (vec![7], 0));
        host.apply(&set(other, DEVICE + 2, &guarded(other, &["192.0.2.6/32"])));
        assert_eq!(counted(), [0; 0]);
        for port in [port, other] {
            host.apply(&Op::SetFilter { port, filter: None, before_device: true });
        }
        assert!(["guarded", "logged", "dropped_mac"].iter().all(|set| elements(set).is_empty()));
    });
}

#[test]
fn a_change_meets_whatever_another_program_has_made_of_the_table() {
    in_netns(|| {
        let mut host = LinuxFixture::open();
        let port = port(1);
        for (number, change) in (1u8..).zip([
            "nft list ruleset",
            "nft flush set bridge nicd hosts4",
            "nft flush ruleset",
            "nft flush chain bridge nicd guard",
            "nft add element bridge nicd hosts4 { 16777220 . 02:00:00:00:00:01 . 192.0.2.9 }",
        ]) {
            let _ = try_run(change);
            let address = format!("192.0.2.{number}/32");
            host.apply(&set(port, DEVICE, &guarded(port, &[&address])));
            let shown = elements("hosts4");
            assert!(
                shown.len() <= 2 && shown.iter().any(|one| one.to_string().contains(&address[..address.len() - 3])),
                "{shown:?}"
            );
        }
        run("nft flush ruleset");
    });
}

#[test]
fn all_ports_filters_are_made_in_one_transaction() {
    in_netns(|| {
        let mut host = LinuxFixture::open();
        let wanted = |number: u32| {
            let port = PortId(uuid::Uuid::from_u128(u128::from(number)));
            let [_, _, high, low] = number.to_be_bytes();
            let mut guard = Guard::default();
            let mac = nicd::model::Mac([0xfa, 0x16, 0x3e, 0, high, low]);
            guard.allow_mac(mac);
            guard.allow(mac, std::net::IpAddr::from([10, 0, high, low]).into());
            PortFilter { port, index: DEVICE + number, filter: Filter { guard: Some(guard), ..Filter::default() } }
        };
        let all = PortFilters { ports: (0..4000).map(wanted).collect(), ..PortFilters::default() };
        assert!(host.kernel.keep_filters(all.clone()).unwrap(), "it was not there");
        let named: HashSet<String> = elements("guarded").iter().map(|one| one["elem"]["comment"].to_string()).collect();
        assert_eq!(named.len(), 4000);
        assert!(!host.kernel.keep_filters(all).unwrap(), "it is there");
        assert!(!LinuxFixture::open().kernel.keep_filters(PortFilters::default()).unwrap(), "for another process too");
    });
}

/// What changes of the ruleset within a while, as `nft` tells it.
fn changes_within(seconds: &str) -> String {
    let told = Command::new("timeout").args([seconds, "nft", "monitor"]).output().unwrap();
    String::from_utf8_lossy(&told.stdout).into_owned()
}

#[test]
fn two_nicds_put_back_what_was_flushed_and_leave_each_others() {
    in_netns(|| {
        let nicds = [1, 2].map(|number: u8| {
            let linux = Linux::default();
            let (sender, notices) = tokio::sync::mpsc::channel(1024);
            linux.watch(sender).unwrap();
            let mut host = LinuxFixture { kernel: linux.open().unwrap(), context: ExecContext::default() };
            let port = port(number.into());
            let address = format!("192.0.2.{number}/32");
            host.attach_tap(port, DEVICE + u32::from(number), 0);
            host.apply(&set(port, DEVICE + u32::from(number), &guarded(port, &[&address])));
            (host, notices)
        });
        let sets = ["guarded", "macs", "hosts4", "hosts6"];
        let table = || sets.map(|set| try_run(&format!("nft -j list set bridge nicd {set}")).map(|_| elements(set)).ok());
        let before = table();
        assert_eq!(before.clone().map(|set| set.unwrap().len()), [2, 2, 2, 2]);
        for change in ["nft flush ruleset", "nft flush set bridge nicd hosts4", "nft flush chain bridge nicd guard"] {
            run(change);
            let taken = Instant::now();
            while table() != before || run("nft list chain bridge nicd guard").lines().count() < 6 {
                assert!(taken.elapsed() < Duration::from_secs(2), "{change}: {:?}", table());
                std::thread::sleep(Duration::from_millis(2));
            }
            // Once both have seen what the other did, nobody changes anything more.
            let mut told = String::new();
            let quiet = (0..10).any(|_| {
                told = changes_within("0.3");
                told.is_empty()
            });
            assert!(quiet, "{change}: {told}");
            assert_eq!(table(), before, "{change}");
        }
        drop(nicds);
    });
}
