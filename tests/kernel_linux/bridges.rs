//! Bridges: ours as asked, others' never moved.

use std::collections::BTreeSet;

use nicd::kernel::{Host, LinkSelector};
use nicd::model::names;
use nicd::plan::{At, BridgeChange, Kind, LinkChange, Op, Switch};

use crate::host::{
    BRIDGE, BRIDGE_MAC, DEVICE, LinuxFixture, create_bridge, create_tap, ip_link, joined, network, port, up, v6_addresses,
};
use crate::netns::{in_netns, run};

#[test]
fn an_agent_made_bridge_is_quiet_and_stays_as_made() {
    in_netns(|| {
        let mut host = LinuxFixture::open();
        for mtu in [1450, 1500, 9000, 65_521] {
            host.twice(&create_bridge(mtu));
            assert!(!ip_link("nbr3cb9bc595699")["flags"].as_array().unwrap().contains(&"UP".into()), "not before it is closed");
            host.twice(&Op::CloseBridge { network: network() });
            host.twice(&up());
            let shown = ip_link("nbr3cb9bc595699");
            let data = &shown["linkinfo"]["info_data"];
            assert_eq!((&data["stp_state"], &data["mcast_snooping"], &data["forward_delay"]), (&0.into(), &0.into(), &0.into()));
            assert_eq!((&shown["mtu"], &shown["address"]), (&mtu.into(), &BRIDGE_MAC.to_string().into()));
            assert_eq!(shown["inet6_addr_gen_mode"], "none");
            assert!(shown["flags"].as_array().unwrap().contains(&"UP".into()));

            run("ip link add p0 mtu 1280 address 00:00:00:00:00:02 type veth peer name p1");
            run("ip link set p1 up");
            run("ip link set p0 up master nbr3cb9bc595699");
            let seen = host.kernel.get_link(LinkSelector::Index(BRIDGE)).unwrap().unwrap();
            assert_eq!((seen.mtu, seen.mac, seen.kind), (mtu, Some(BRIDGE_MAC), Kind::Bridge));
            run("ip link del p0");
            assert_eq!(v6_addresses(), 0);
            host.twice(&Op::DeleteBridge { network: network(), store: crate::host::STORE });
        }
    });
}

#[test]
fn a_changed_bridge_is_set_back() {
    in_netns(|| {
        let mut host = LinuxFixture::open();
        host.bridge(1500);
        run("ip link set nbr3cb9bc595699 down address 02:00:00:00:00:09 mtu 1400 addrgenmode eui64");
        run("ip link set nbr3cb9bc595699 type bridge stp_state 1 mcast_snooping 1");
        host.twice(&Op::SetBridge {
            network: network(),
            changes: BTreeSet::from([
                BridgeChange::Mac(BRIDGE_MAC),
                BridgeChange::Mtu(1500),
                BridgeChange::HostIpOff,
                BridgeChange::StpOff,
                BridgeChange::MulticastSnoopingOff,
                BridgeChange::Switch(Switch::Up),
            ]),
        });
        let seen = host.kernel.get_link(LinkSelector::Altname(&names::network_altname(network()))).unwrap().unwrap();
        assert_eq!((seen.mtu, seen.mac, seen.up, seen.v6_autoconf), (1500, Some(BRIDGE_MAC), true, false));
        assert!(seen.extras.is_none(), "{:?}", seen.extras);
        assert_eq!(v6_addresses(), 0);
    });
}

#[test]
fn a_foreign_bridge_keeps_its_mtu_at_every_instant() {
    in_netns(|| {
        let mut host = LinuxFixture::open();
        for mtu in [1400, 1500, 9000] {
            run(&format!("ip link add br0 index {BRIDGE} mtu {mtu} type bridge"));
            let mut events = std::process::Command::new("ip")
                .args(["-j", "monitor", "link"])
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            run("ip link set br0 up");
            for number in 1..3_u32 {
                let port = port(u128::from(number));
                host.apply(&create_tap(port, DEVICE + number));
                let link = [LinkChange::Altname, LinkChange::Mtu(mtu), LinkChange::HostIpOff];
                let changes = link.into_iter().chain(joined(port, BRIDGE)).collect();
                host.apply(&Op::Configure { port, at: At::Index(DEVICE + number), changes });
                assert_eq!(ip_link("br0")["mtu"], mtu);
            }
            assert_eq!(ip_link("br0")["mtu"], mtu);
            drop(std::mem::take(&mut host.context));
            events.kill().unwrap();
            let said = events.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&said.stdout);
            let other =
                said.lines().filter(|line| line.contains("\"ifname\":\"br0\"") && !line.contains(&format!("\"mtu\":{mtu},")));
            assert_eq!(other.count(), 0, "{said}");
            run("ip link del br0");
        }
    });
}
