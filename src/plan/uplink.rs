//! The links that were seen, as [`crate::uplink`] looks at them.

use super::observed::{Kind, Observed};
use crate::uplink::{Link, Links};

impl Links for Observed {
    fn link(&self, index: u32) -> Option<Link<'_>> {
        let link = Self::link(self, index)?;
        Some(Link { name: &link.name, is_veth: link.kind == Kind::Veth, master: link.master, lower: link.lower })
    }

    fn members(&self, master: u32) -> Vec<u32> {
        self.iter().filter(|member| member.master == Some(master)).map(|member| member.index).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::observed::LinkState;
    use super::*;
    use crate::uplink::{BroadRoute, carried};

    const BRIDGE: u32 = 10;

    fn host(others: &[LinkState]) -> Observed {
        let bridge = LinkState::bare(BRIDGE, "brx", Kind::Bridge);
        Observed::from([&[bridge], others].concat())
    }

    fn over(index: u32, name: &str, lower: u32) -> LinkState {
        LinkState { lower: Some(lower), ..LinkState::bare(index, name, Kind::Other) }
    }

    fn v4(link: u32, table: u32, first_octet: u8, length: u8) -> BroadRoute {
        BroadRoute { link, table, v6: false, first_octet, length }
    }

    fn v6(link: u32, first_octet: u8, length: u8) -> BroadRoute {
        BroadRoute { link, table: 254, v6: true, first_octet, length }
    }

    fn by(routes: &[BroadRoute], others: &[LinkState]) -> Option<(String, u32)> {
        carried(routes, BRIDGE, &host(others)).map(|carried| (carried.by, carried.table))
    }

    #[test]
    fn any_table_counts_and_is_named() {
        assert_eq!(by(&[v4(BRIDGE, 100, 0, 0)], &[]), Some(("brx".into(), 100)));
        assert_eq!(by(&[v4(BRIDGE, 100, 0, 0), v4(BRIDGE, 254, 0, 0)], &[]), Some(("brx".into(), 254)));
        assert_eq!(by(&[v4(3, 254, 0, 0)], &[LinkState::bare(3, "eth0", Kind::Other)]), None);
    }

    #[test]
    fn a_default_route_in_parts_is_one_and_a_private_range_is_none() {
        for routes in [
            vec![v4(BRIDGE, 254, 0, 1)],
            vec![v4(BRIDGE, 254, 128, 1)],
            vec![v4(BRIDGE, 254, 0, 2), v4(BRIDGE, 7, 64, 2)],
            vec![v6(BRIDGE, 0x20, 3)],
            vec![v6(BRIDGE, 0, 0)],
            vec![v6(BRIDGE, 0x20, 4), v6(BRIDGE, 0x30, 4)],
        ] {
            assert!(by(&routes, &[]).is_some(), "{routes:?}");
        }
        for routes in [vec![v4(BRIDGE, 254, 10, 8)], vec![v6(BRIDGE, 0xfc, 7)], vec![v4(BRIDGE, 254, 224, 4)], vec![]] {
            assert_eq!(by(&routes, &[]), None, "{routes:?}");
        }
    }

    #[test]
    fn links_above_the_bridge_count() {
        let member = |index, name: &str, master| LinkState { master: Some(master), ..LinkState::bare(index, name, Kind::Other) };
        let vlan = over(20, "brx.5", BRIDGE);
        let route = |link| [v4(link, 254, 0, 0)];
        assert_eq!(by(&route(20), std::slice::from_ref(&vlan)), Some(("brx.5".into(), 254)));
        assert!(by(&route(21), &[vlan.clone(), over(21, "mac0", 20)]).is_some(), "a macvlan on a VLAN");
        let bonded = LinkState { master: Some(22), ..vlan };
        assert!(by(&route(22), &[bonded, LinkState::bare(22, "bond0", Kind::Other)]).is_some());
        let in_vrf = LinkState { master: Some(30), ..LinkState::bare(BRIDGE, "brx", Kind::Bridge) };
        let vrf = Observed::from(vec![in_vrf, LinkState::bare(30, "vrf0", Kind::Other)]);
        assert!(carried(&route(30), BRIDGE, &vrf).is_some());
        let veth = |index, name: &str, peer| LinkState { kind: Kind::Veth, ..over(index, name, peer) };
        let plugged = LinkState { master: Some(BRIDGE), ..veth(41, "host0-br", 40) };
        assert!(by(&route(40), &[veth(40, "host0", 41), plugged]).is_some(), "a veth into the bridge");
        // Frames of a VLAN on the uplink do not go through the bridge that the uplink is in.
        assert_eq!(by(&route(50), &[member(49, "eth0", BRIDGE), over(50, "eth0.7", 49)]), None);
    }

    #[test]
    fn links_in_a_ring_are_walked_once() {
        assert_eq!(by(&[v4(60, 254, 0, 0)], &[over(60, "a", 61), over(61, "b", 60)]), None);
    }
}
