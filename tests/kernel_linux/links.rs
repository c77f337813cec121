//! Changes and deletions reach ours alone.

use nicd::kernel::{Host, LinkSelector, OpErrorKind};
use nicd::model::Mac;
use nicd::plan::{At, LinkChange, Op, Switch, TokenBucket};

use crate::host::{BRIDGE, DEVICE, LinuxFixture, changes, delete_group, ip_link, mac, port, tag, v6_addresses};
use crate::netns::{in_netns, json, run};

#[test]
fn drift_is_put_back_by_altname() {
    in_netns(|| {
        let mut host = LinuxFixture::open();
        host.bridge(1500);
        let port = port(1);
        let name = host.attach_tap(port, DEVICE, BRIDGE);
        run(&format!("bridge fdb del {} dev {name} master", mac(port)));
        run(&format!("bridge link set dev {name} learning on"));
        run(&format!("ip link set {name} nomaster mtu 1400 address 02:00:00:00:00:05 addrgenmode eui64 down"));
        run(&format!("ip link set {name} name elsewhere"));
        host.twice(&Op::Configure { port, at: At::Altname, changes: changes(port, BRIDGE) });
        host.twice(&Op::SetLink { port, switch: Switch::Up });
        let seen = host.get_link(port).unwrap();
        assert_eq!((seen.master, seen.mtu, seen.mac), (Some(BRIDGE), 1500, Some(mac(port).host_side())));
        assert!(seen.up && !seen.v6_autoconf && !seen.bridge_port.unwrap().learning);
        let fdb = json("bridge -j fdb show dev elsewhere");
        assert!(fdb.as_array().unwrap().iter().any(|entry| entry["mac"] == mac(port).to_string() && entry["state"] == "static"));
        host.twice(&Op::Configure { port, at: At::Altname, changes: [LinkChange::Master(0)].into() });
        assert_eq!(host.get_link(port).unwrap().master, None);
    });
}

#[test]
fn a_group_with_lo_is_refused_and_nothing_of_it_deleted() {
    in_netns(|| {
        let mut host = LinuxFixture::open();
        let port = port(1);
        host.attach_tap(port, DEVICE, 0);
        host.apply(&Op::SetGroup { port, group: 5 });
        run("ip link set lo group 5");
        let error = host.refused(&delete_group(5, &[port]), OpErrorKind::Other);
        assert!(error.said.starts_with("lo "), "{error}");
    });
}

#[test]
fn what_is_refused_keeps_a_device_from_being_tagged() {
    in_netns(|| {
        let mut host = LinuxFixture::open();
        let port = port(1);
        let device = host.attach_tap(port, DEVICE, 0);
        run(&format!("ip link set {device} down alias unfinished mtu 1000"));
        let finish = |master: Option<u32>| {
            let link = [LinkChange::Mtu(1500), LinkChange::HostIpOff, tag("store 2", Switch::Up)];
            let changes = link.into_iter().chain(master.map(LinkChange::Master)).collect();
            Op::Configure { port, at: At::Altname, changes }
        };
        // Address generation cannot be switched off before the MTU has brought IPv6 back, and nothing may be up by then.
        assert_eq!(host.try_apply(&finish(Some(4711))).unwrap_err().kind, OpErrorKind::NoBridge);
        let seen = host.get_link(port).unwrap();
        assert_eq!((seen.alias.as_deref(), seen.up), (Some("unfinished"), false));
        host.twice(&finish(None));
        let shown = ip_link(device.as_str());
        assert_eq!((&shown["ifalias"], &shown["inet6_addr_gen_mode"]), (&"store 2".into(), &"none".into()));
        assert_eq!(v6_addresses(), 0);
    });
}

#[test]
fn the_mac_the_kernel_refuses_is_told() {
    in_netns(|| {
        let mut host = LinuxFixture::open();
        let port = port(1);
        host.attach_tap(port, DEVICE, 0);
        let changes = [LinkChange::Mac(Mac([1, 0, 0x5e, 0, 0, 1]))].into();
        let error = host.refused(&Op::Configure { port, at: At::Altname, changes }, OpErrorKind::Other);
        assert!(error.said.contains("EADDRNOTAVAIL"), "{error}");
        assert!(host.kernel.get_link(LinkSelector::Index(DEVICE)).unwrap().is_some());
    });
}

#[test]
fn a_rate_is_changed_in_place_and_an_operators_is_left() {
    in_netns(|| {
        let mut host = LinuxFixture::open();
        let port = port(1);
        let device = host.attach_tap(port, DEVICE, 0);
        let qdisc = || json(&format!("tc -s -j qdisc show dev {device} root"))[0].clone();
        let set = |bucket| Op::Configure { port, at: At::Altname, changes: [LinkChange::ToGuest(bucket)].into() };
        let rate = |rate| Some(TokenBucket { rate, burst: 10_000 });
        host.apply(&set(rate(8_000)));
        assert_eq!((&qdisc()["kind"], &qdisc()["handle"]), (&"tbf".into(), &"6e69:".into()));
        // What is at its root now is counted by the same instance after the change.
        run(&format!("tc qdisc add dev {device} parent 6e69:1 handle 99: pfifo"));
        host.apply(&set(rate(16_000)));
        assert_eq!(host.get_link(port).unwrap().to_guest, rate(16_000));
        assert!(json(&format!("tc -j qdisc show dev {device}")).to_string().contains("99:"), "it was made anew");
        for theirs in ["handle 5: tbf rate 1mbit burst 10kb latency 50ms", "handle 5: pfifo limit 7"] {
            run(&format!("tc qdisc replace dev {device} root {theirs}"));
            assert_eq!(host.get_link(port).unwrap().to_guest, None, "{theirs}");
            host.twice(&set(None));
            assert_eq!(qdisc()["handle"], "5:", "{theirs}");
            host.twice(&set(rate(8_000)));
            assert_eq!(host.get_link(port).unwrap().to_guest, rate(8_000), "{theirs}");
        }
        for change in ["rate 64kbit burst 10001 limit 10400", "rate 64kbit burst 10000 limit 10401"] {
            host.apply(&set(rate(8_000)));
            run(&format!("tc qdisc change dev {device} root handle 6e69: tbf {change}"));
            assert_ne!(host.get_link(port).unwrap().to_guest, rate(8_000), "{change}");
        }
    });
}
