//! Looks and dumps.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use nicd::kernel::{self, Host, LinkSelector, NetnsError};
use nicd::plan::{Kind, Op};

use crate::host::{BRIDGE, DEVICE, LinuxFixture, port};
use crate::netns::{Guest, in_netns, run};

#[test]
fn a_dump_and_a_look_agree() {
    in_netns(|| {
        let mut host = LinuxFixture::open();
        host.bridge(1500);
        for number in 0..300_u32 {
            host.attach_tap(port(u128::from(number)), DEVICE + number, BRIDGE);
        }
        run("ip link add w0 type veth peer name w1");
        run("ip tuntap add mode tun name tun0");
        // A look makes the kernel process a pending carrier change, which a dump does not.
        for number in 0..300_u32 {
            host.get_link(port(u128::from(number)));
        }
        let all = host.kernel.dump_links().unwrap();
        assert_eq!(all.len(), 305);
        for link in &all {
            assert_eq!(host.kernel.get_link(LinkSelector::Index(link.index)).unwrap().as_ref(), Some(link));
            assert_eq!(host.kernel.get_link(LinkSelector::Name(&link.name)).unwrap().as_ref(), Some(link));
        }
        assert!(all.iter().filter(|link| link.kind == Kind::Veth).all(|link| link.v6_autoconf));
        assert!(all.iter().filter(|link| link.master.is_some()).all(|link| !link.v6_autoconf));
        let kinds = |kind: Kind| all.iter().filter(|link| link.kind == kind).count();
        assert_eq!((kinds(Kind::Tap), kinds(Kind::Veth), kinds(Kind::Bridge), kinds(Kind::Other)), (300, 2, 1, 2));
    });
}

/// Links come and go without end, so that no dump is complete: a group is seen all the same, and soon.
#[test]
fn a_group_is_seen_while_links_keep_changing() {
    in_netns(|| {
        let mut host = LinuxFixture::open();
        host.bridge(1500);
        let ports: Vec<_> = (0..64_u32).map(|number| port(u128::from(number))).collect();
        for (number, port) in (0..).zip(&ports) {
            host.attach_tap(*port, DEVICE + number, BRIDGE);
            host.apply(&Op::SetGroup { port: *port, group: 4711 });
        }
        // Long enough that each dump takes several datagrams. No bridges: each costs its namespace an RCU barrier under RTNL.
        let filler: String = (0..600).map(|number| format!("link add f{number} type ifb\n")).collect();
        std::fs::write("/run/filler", filler).unwrap();
        run("ip -batch /run/filler");
        let churn: String = (0..5_000).map(|number| format!("link add c{number} type ifb\n")).collect();
        std::fs::write("/run/churn", churn).unwrap();
        let mut changing = std::process::Command::new("ip").args(["-batch", "/run/churn"]).spawn().unwrap();
        let mut rounds = 0;
        let until = Instant::now() + Duration::from_secs(4);
        while changing.try_wait().unwrap().is_none() && Instant::now() < until {
            let began = Instant::now();
            let members = host.kernel.links_in_group(4711).unwrap();
            let took = began.elapsed();
            let seen: BTreeSet<u32> = members.iter().map(|link| link.index).collect();
            assert_eq!(seen, (0..64).map(|number| DEVICE + number).collect());
            assert!(took < Duration::from_secs(5), "{took:?}");
            rounds += 1;
        }
        let _ = changing.kill();
        changing.wait().unwrap();
        assert!(rounds >= 1, "{rounds}");
        assert!(host.kernel.links_in_group(4712).unwrap().is_empty());
    });
}

#[test]
fn only_a_guests_namespace_is_one() {
    in_netns(|| {
        let mut host = LinuxFixture::open();
        let guest = Guest::new("g");
        let pin = host.kernel.inspect(&guest.path).unwrap();
        assert_eq!(host.kernel.inspect(&guest.path).unwrap(), pin);
        assert_ne!(host.kernel.inspect(&Guest::new("h").path).unwrap(), pin);
        run("mkfifo /run/fifo");
        run("touch /run/file");
        run("ln -s /run/netns/g /run/link");
        assert_eq!(host.kernel.inspect(Path::new("/run/link")).unwrap(), pin);
        for other in ["/run/fifo", "/run/file", "/run", "/dev/null", "/proc/self/ns/mnt", "/proc/self/ns/user"] {
            assert!(matches!(host.kernel.inspect(Path::new(other)), Err(NetnsError::NotNetns(_))), "{other}");
        }
        for missing in ["/run/none", "/run/file/x", ""] {
            assert!(matches!(host.kernel.inspect(Path::new(missing)), Err(NetnsError::Missing(_))), "{missing}");
        }
        let own = format!("/proc/self/task/{}/ns/net", nix::unistd::gettid());
        assert!(matches!(host.kernel.inspect(Path::new(&own)), Err(NetnsError::OwnProcess(_))));
        let gone = guest.path.clone();
        guest.end();
        assert!(matches!(host.kernel.inspect(&gone), Err(NetnsError::Missing(_))));
    });
}

#[test]
fn default_routes_are_found_in_every_table_and_by_every_kind_of_next_hop() {
    in_netns(|| {
        let mut host = LinuxFixture::open();
        let mut by = || {
            let routes = host.kernel.broad_routes().unwrap();
            routes.into_iter().filter(|route| route.length < 8).map(|route| (route.link, route.table)).collect::<BTreeSet<_>>()
        };
        assert_eq!(by(), BTreeSet::new());
        for index in 11..=18 {
            run(&format!("ip link add n{index} index {index} type bridge"));
            run(&format!("ip link set n{index} up"));
            run(&format!("ip addr add 10.0.{index}.1/24 dev n{index}"));
        }
        run("ip route add default via 10.0.11.2");
        run("ip route add default metric 9 nexthop via 10.0.12.2 nexthop via 10.0.13.2");
        run("ip route add default table 77 via 10.0.14.2");
        run("ip route add 10.99.0.0/16 via 10.0.14.2");
        run("ip -6 route add default dev n15 metric 5");
        run("ip route add 0.0.0.0/1 table 1000 via 10.0.16.2");
        let named = [(11, 254), (12, 254), (13, 254), (14, 77), (15, 254), (16, 1000)];
        assert_eq!(by(), BTreeSet::from(named));
        run("ip route add unreachable default metric 99");
        assert_eq!(by(), BTreeSet::from(named));
        run("ip nexthop add id 7 via 10.0.17.2 dev n17");
        run("ip nexthop add id 8 via 10.0.18.2 dev n18");
        run("ip nexthop add id 9 group 7/8");
        run("ip route add default table 5 nhid 9");
        let with = |more: &[(u32, u32)]| named.iter().chain(more).copied().collect::<BTreeSet<_>>();
        assert_eq!(by(), with(&[(17, 5), (18, 5)]));
        // The objects alone are named then.
        run("sysctl -qw net.ipv4.nexthop_compat_mode=0");
        assert_eq!(by(), with(&[(17, 5), (18, 5)]));
    });
}

/// A class of its own as a process-wide counter is read: run alone it would still hold, as looks never count.
#[test]
fn looks_are_no_writes() {
    in_netns(|| {
        let mut host = LinuxFixture::open();
        host.kernel.dump_links().unwrap();
        host.kernel.get_link(LinkSelector::Index(1)).unwrap();
        host.kernel.broad_routes().unwrap();
        let before = kernel::writes();
        host.bridge(1500);
        assert!(kernel::writes() >= before + 4);
    });
}
