//! How guests of an IPv6 subnet get their addresses (`ipv6_address_mode`, `ipv6_ra_mode`).

use std::net::Ipv6Addr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::mac::Mac;
use super::subnet::{Subnet, SubnetError};

/// A way to get an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The guest makes it of its MAC (RFC 4862).
    Slaac,
    /// The same, and it is told the rest by DHCPv6.
    Dhcpv6Stateless,
    /// It is told the address by DHCPv6.
    Dhcpv6Stateful,
}

impl Mode {
    /// All.
    pub const ALL: [Self; 3] = [Self::Slaac, Self::Dhcpv6Stateless, Self::Dhcpv6Stateful];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Slaac => "slaac",
            Self::Dhcpv6Stateless => "dhcpv6-stateless",
            Self::Dhcpv6Stateful => "dhcpv6-stateful",
        }
    }

    /// Whether the guest makes its address itself.
    pub fn is_auto(self) -> bool {
        self != Self::Dhcpv6Stateful
    }
}

/// Who guides guests to their addresses, and how. Without either nicd does both, as `dhcpv6-stateful`; with one of them another router or server
/// does the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guidance {
    /// How DHCPv6 of nicd's is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Mode>,
    /// How router advertisements of nicd's are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ra: Option<Mode>,
}

impl Guidance {
    /// Whether nothing is said.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Refuses modes that do not fit the subnet, as Neutron does (`_validate_ipv6_attributes`, neutron/db/db_base_plugin_v2.py).
    ///
    /// # Errors
    /// What does not fit.
    pub fn check(&self, cidr: IpNetwork, dhcp: bool) -> Result<(), SubnetError> {
        let refuse = |why| Err(SubnetError::Guidance { cidr, why });
        let Some(mode) = self.address.or(self.ra) else { return Ok(()) };
        if cidr.is_ipv4() {
            return refuse("they are of IPv6 subnets alone");
        }
        if !dhcp {
            return refuse("they go with enable_dhcp true");
        }
        if self.address.zip(self.ra).is_some_and(|(address, ra)| address != ra) {
            return refuse("both are to be the same, or one of them null");
        }
        if mode.is_auto() && cidr.prefix() != 64 {
            return refuse("an address that a guest makes of its MAC needs a /64");
        }
        Ok(())
    }
}

impl Subnet {
    /// How nicd's router advertisements for it are; none where it sends none.
    pub fn advertised(&self) -> Option<Mode> {
        self.guided(self.guidance.ra)
    }

    /// How nicd's answers by DHCPv6 for it are; none where it gives none.
    pub fn answered(&self) -> Option<Mode> {
        self.guided(self.guidance.address).filter(|mode| *mode != Mode::Slaac)
    }

    fn guided(&self, by: Option<Mode>) -> Option<Mode> {
        let mode = if self.guidance.is_default() { Some(Mode::Dhcpv6Stateful) } else { by };
        mode.filter(|_| self.enable_dhcp && self.cidr.is_ipv6())
    }

    /// The address that a guest with this MAC makes itself; none where it is given one.
    pub fn made_of(&self, mac: Mac) -> Option<Ipv6Addr> {
        let IpNetwork::V6(net) = self.cidr else { return None };
        let made = Ipv6Addr::from_bits(net.network().to_bits() | mac.link_local().to_bits() & u128::from(u64::MAX));
        self.is_auto().then_some(made)
    }

    /// Whether its guests make their addresses themselves.
    pub fn is_auto(&self) -> bool {
        self.guidance.address.or(self.guidance.ra).is_some_and(Mode::is_auto)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_neutron_refuses_is_refused() {
        use Mode::{Dhcpv6Stateful, Dhcpv6Stateless, Slaac};
        let check = |cidr: &str, dhcp, address, ra| Guidance { address, ra }.check(cidr.parse().unwrap(), dhcp).is_ok();
        for mode in Mode::ALL {
            assert!(check("fd00::/64", true, Some(mode), Some(mode)), "{mode:?}");
            assert!(check("fd00::/64", true, None, Some(mode)) && check("fd00::/64", true, Some(mode), None));
            assert!(!check("fd00::/64", false, Some(mode), None) && !check("fd00::/64", false, None, Some(mode)));
            assert!(!check("192.0.2.0/24", true, Some(mode), Some(mode)));
            assert_eq!(check("fd00::/80", true, Some(mode), Some(mode)), mode == Dhcpv6Stateful);
        }
        assert!(!check("fd00::/64", true, Some(Slaac), Some(Dhcpv6Stateless)));
        assert!(check("fd00::/80", false, None, None) && check("192.0.2.0/24", false, None, None));
    }
}
