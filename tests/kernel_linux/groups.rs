//! The rules of security groups. A kernel that does not track the connections of bridges refuses them; those of one that does are
//! looked at where `NICD_TRACKS` says that this one is to.

#[cfg(debug_assertions)]
use nicd::failpoints::Registry;
use nicd::kernel::linux::{ExecContext, Linux};
use nicd::kernel::{Host, Kernel, OpErrorKind};
use nicd::model::group::What;
use nicd::model::{Allows, Direction, Family, GroupId, PortId, Remote};
use nicd::plan::filter::{Filter, Guard, PortFilter, PortFilters};
use nicd::plan::groups::{InGroups, Profile};
use nicd::plan::{IndexFilter, NumberedProfile, Op};
use serde_json::Value;
use uuid::Uuid;

use crate::filters::elements;
use crate::host::{DEVICE, LinuxFixture, mac, port};
use crate::netns::{in_netns, json, run, try_run};

fn group(number: u128) -> GroupId {
    GroupId(Uuid::from_u128(number))
}

fn allows(direction: Direction, protocol: Option<u8>, what: What, remote: Remote) -> Allows {
    Allows { direction, family: Family::V4, protocol, what, remote }
}

fn grouped(port: PortId, address: &str, profile: u32) -> Filter {
    let mut guard = Guard::default();
    guard.allow_mac(mac(port));
    guard.allow(mac(port), address.parse().unwrap());
    let groups = InGroups { profile, zone: 5000, bridge: "nbr0".parse().unwrap(), host: None };
    Filter { guard: Some(guard), groups: Some(groups), ..Filter::default() }
}

fn profile(groups: &[u128], allows: impl IntoIterator<Item = Allows>) -> Profile {
    Profile { groups: groups.iter().map(|number| group(*number)).collect(), allows: allows.into_iter().collect() }
}

fn set_profile(number: u32, profile: Option<Profile>) -> Op {
    Op::SetProfiles { profiles: vec![NumberedProfile { number, profile }] }
}

fn set(port: PortId, index: u32, filter: &Filter) -> Op {
    Op::SetFilter { port, filter: Some(IndexFilter { index, filter: filter.clone() }), before_device: true }
}

/// What a map has, as `nft` shows it.
fn map(name: &str) -> Vec<Value> {
    let shown = json(&format!("nft -j list map bridge nicd {name}"));
    shown["nftables"].as_array().unwrap().iter().find_map(|one| one["map"]["elem"].as_array().cloned()).unwrap_or_default()
}

fn tracks() -> bool {
    std::env::var_os("NICD_TRACKS").is_some()
}

fn ssh(remote: Remote) -> Allows {
    allows(Direction::Ingress, Some(6), What::Ports { first: 22, last: 22 }, remote)
}

fn out() -> Allows {
    allows(Direction::Egress, None, What::All, Remote::Any)
}

#[test]
fn a_kernel_that_does_not_track_bridges_is_said_to_and_the_port_is_closed() {
    if tracks() {
        return;
    }
    in_netns(|| {
        let mut host = LinuxFixture::open();
        let (port, filter) = (port(1), grouped(port(1), "192.0.2.5/32", 1));
        host.apply(&set_profile(1, Some(profile(&[1], [out()]))));
        let refused = host.try_apply(&set(port, DEVICE, &filter)).unwrap_err();
        assert_eq!(refused.kind, OpErrorKind::ConntrackUnavailable, "{refused}");
        assert!(["guarded", "closed", "hosts4"].iter().all(|set| elements(set).is_empty()), "nothing is made");
        // A port without groups is as before.
        host.apply(&set(port, DEVICE, &Filter { groups: None, ..filter.clone() }));
        assert_eq!(elements("guarded").len(), 1);
        // What had been let in before this kernel was booted is closed.
        let mut other = Linux::default().open().unwrap();
        run("nft delete table bridge nicd");
        let ports = vec![PortFilter { port, index: DEVICE, filter }];
        other
            .keep_filters(PortFilters {
                ports,
                profiles: [(1, profile(&[1], [out()]))].into(),
                members: Vec::new(),
                connections: None,
            })
            .unwrap();
        assert_eq!((elements("guarded").len(), elements("closed").len()), (0, 1));
        assert!(other.missing_requirements().iter().any(|lack| format!("{lack:?}").contains("Conntrack")));
    });
}

/// Another program deletes the table, and it cannot be made anew with the rules of groups.
#[test]
#[cfg(debug_assertions)]
fn a_device_that_is_refused_leaves_no_element() {
    if !tracks() {
        return;
    }
    in_netns(|| {
        let mut host = LinuxFixture::open();
        host.kernel.keep_filters(PortFilters::default()).unwrap();
        host.apply(&set_profile(1, Some(profile(&[1], [out()]))));
        host.apply(&set(port(1), DEVICE, &grouped(port(1), "192.0.2.5/32", 1)));
        run("nft delete table bridge nicd");
        let registry = Registry::new();
        // The change; the table with the rules of groups; the table without; these rules; the same again; what is taken back.
        let fails = |hit: usize| format!("filter.commit:{hit}:fail=EOPNOTSUPP").parse().unwrap();
        registry.set_rules([2, 4, 5].map(fails).into());
        let refused = {
            let _entered = registry.enter();
            host.try_apply(&set(port(2), DEVICE + 1, &grouped(port(2), "192.0.2.6/32", 1))).unwrap_err()
        };
        assert_eq!((refused.kind, registry.injected().len()), (OpErrorKind::ConntrackUnavailable, 3), "{refused}");
        assert_eq!((elements("closed").len(), elements("guarded").len()), (1, 0), "that of the first port");
    });
}

#[test]
fn what_groups_allow_is_in_the_table_while_a_port_is_in_them() {
    if !tracks() {
        return;
    }
    in_netns(|| {
        let mut host = LinuxFixture::open();
        host.kernel.keep_filters(PortFilters::default()).unwrap();
        host.apply(&set_profile(1, Some(profile(&[1], [out(), ssh(Remote::Any)]))));
        host.apply(&set_profile(2, Some(profile(&[2], [out(), ssh(Remote::Group(group(1)))]))));
        host.apply(&set(port(1), DEVICE, &grouped(port(1), "192.0.2.5/32", 1)));
        assert_eq!((map("grouped").len(), map("zones").len(), elements("to4_ports").len()), (1, 1, 1));
        host.apply(&set(port(2), DEVICE + 1, &grouped(port(2), "192.0.2.6/32", 2)));
        assert_eq!((map("grouped").len(), elements("to4_profile_ports").len(), map("holders4").len()), (2, 1, 2));
        // An operator's programs can list all of it.
        let chains = json("nft -j list chains bridge");
        let chains = chains["nftables"].as_array().unwrap().iter().filter_map(|one| one["chain"]["name"].as_str());
        // The name of one is a word of its language.
        let unlisted = |chain: &&str| *chain != "igmp" && try_run(&format!("nft -j list chain bridge nicd {chain}")).is_err();
        assert_eq!(chains.filter(unlisted).collect::<Vec<_>>(), [""; 0]);
        host.apply(&set_profile(2, Some(profile(&[2], [out()]))));
        assert_eq!((elements("to4_profile_ports").len(), elements("from4_nets").len()), (0, 2));
        // A start finds it as it is to be.
        let profiles = [(1, profile(&[1], [out(), ssh(Remote::Any)])), (2, profile(&[2], [out()]))];
        let filter = |number: u32, address, profile| PortFilter {
            port: port(number.into()),
            index: DEVICE + number - 1,
            filter: grouped(port(number.into()), address, profile),
        };
        let ports = vec![filter(1, "192.0.2.5/32", 1), filter(2, "192.0.2.6/32", 2)];
        let wanted = PortFilters { ports, profiles: profiles.into(), members: Vec::new(), connections: None };
        let mut other = Linux::default().open().unwrap();
        assert!(!other.keep_filters(wanted.clone()).unwrap(), "nothing differs");
        run("nft delete table bridge nicd");
        let mut other = Linux::default().open().unwrap();
        assert!(other.keep_filters(wanted).unwrap());
        assert_eq!((map("grouped").len(), elements("to4_ports").len()), (2, 1));
        for number in [1, 2] {
            other
                .apply(&Op::SetFilter { port: port(number), filter: None, before_device: true }, &mut ExecContext::default())
                .unwrap();
        }
        assert!(["members", "hosts", "to4_ports", "from4_nets"].iter().all(|set| elements(set).is_empty()));
        assert!(["grouped", "zones", "holders4", "holders6"].iter().all(|one| map(one).is_empty()));
    });
}
