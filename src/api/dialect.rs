//! What differs between the dialects, as data: everything else they share.

use std::net::IpAddr;

use crate::model::Mac;
use crate::model::action::SecondOnNetwork;

/// One way of speaking to nicd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// How a refusal is wrapped.
    pub envelope: Envelope,
    /// Whether a server may have two NICs on one network.
    pub second_on_network: SecondOnNetwork,
    /// How a MAC is written.
    pub mac: MacText,
    /// How an IPv6 address is written.
    pub v6: V6Text,
}

/// How a refusal is wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Envelope {
    /// `{"<key>": {"code", "message", "reason"}}`
    Compute,
    /// `{"NeutronError": {"type", "message", "detail", "reason"}}`
    Network,
    /// `{"error": {"code": "Ecs.NNNN", "message", "reason", "details"}}`
    Otc,
}

/// How a MAC is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MacText {
    /// `fa:16:3e:63:75:b2`
    Lower,
    /// `FA:16:3E:63:75:B2`
    Upper,
}

/// How an IPv6 address is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum V6Text {
    /// Compressed (RFC 5952).
    Short,
    /// All eight groups of four digits.
    Full,
}

/// Nova, what OTC takes from it, and the agent's own routes.
pub const COMPUTE: Dialect =
    Dialect { envelope: Envelope::Compute, second_on_network: SecondOnNetwork::Allowed, mac: MacText::Lower, v6: V6Text::Short };

/// Rackspace's `os-virtual-interfacesv2` and `os-networksv2`.
pub const RACKSPACE: Dialect =
    Dialect { second_on_network: SecondOnNetwork::Refused, mac: MacText::Upper, v6: V6Text::Full, ..COMPUTE };

/// Neutron's networks, subnets and ports.
pub const NETWORK: Dialect = Dialect { envelope: Envelope::Network, ..COMPUTE };

/// OTC's own calls, under `/v1`.
pub const OTC: Dialect = Dialect { envelope: Envelope::Otc, ..COMPUTE };

impl Dialect {
    /// The dialect a path is of.
    pub fn of(path: &str) -> Self {
        if path == "/v2.0" || path.starts_with("/v2.0/") {
            NETWORK
        } else if path.starts_with("/v1/") {
            OTC
        } else if is_rackspaces(path) {
            RACKSPACE
        } else {
            COMPUTE
        }
    }

    /// The word for the dialect a path is of, for what is counted; `none` for a path of no dialect.
    pub fn word(path: &str) -> &'static str {
        let first = path.split('/').find(|part| !part.is_empty()).unwrap_or_default();
        match first {
            _ if is_rackspaces(path) => "rackspace",
            "v2" | "v2.1" => "nova",
            "v2.0" => "neutron",
            "v1" => "otc",
            "nicd" | "metrics" | "openapi.json" => "agent",
            _ => "none",
        }
    }

    /// A MAC as this dialect writes it.
    pub fn mac(&self, mac: Mac) -> String {
        match self.mac {
            MacText::Lower => mac.to_string(),
            MacText::Upper => mac.to_string().to_ascii_uppercase(),
        }
    }

    /// An address as this dialect writes it.
    pub fn ip(&self, ip: IpAddr) -> String {
        match (self.v6, ip) {
            (V6Text::Full, IpAddr::V6(v6)) => v6.segments().map(|group| format!("{group:04x}")).join(":"),
            (_, ip) => ip.to_string(),
        }
    }
}

fn is_rackspaces(path: &str) -> bool {
    path.split('/').any(|part| matches!(part, "os-virtual-interfacesv2" | "os-networksv2"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_has_its_dialect() {
        for (path, dialect) in [
            ("/v2.0/ports", NETWORK),
            ("/v2.0", NETWORK),
            ("/v2.1/servers/x/os-interface", COMPUTE),
            ("/servers/x/os-virtual-interfacesv2", RACKSPACE),
            ("/v2/123/servers/x/os-virtual-interfacesv2/y", RACKSPACE),
            ("/os-networksv2", RACKSPACE),
            ("/v2/123/os-networksv2/x", RACKSPACE),
            ("/nicd/v1/health", COMPUTE),
            ("/v1/123/jobs/x", OTC),
            ("/v2.00", COMPUTE),
        ] {
            assert_eq!(Dialect::of(path), dialect, "{path}");
        }
    }

    #[test]
    fn what_is_counted_has_few_words() {
        for (path, word) in [
            ("/v2.0/ports", "neutron"),
            ("/v2.1/servers/x/os-interface", "nova"),
            ("/v2/123/servers/x/os-virtual-interfacesv2/y", "rackspace"),
            ("/os-networksv2/x", "rackspace"),
            ("/nicd/v1/health", "agent"),
            ("/v1/123/jobs/x", "otc"),
            ("/metrics", "agent"),
            ("/", "none"),
            ("/wp-login.php", "none"),
        ] {
            assert_eq!(Dialect::word(path), word, "{path}");
        }
    }

    #[test]
    fn rackspace_shouts_macs_and_spells_v6_out() {
        let mac: Mac = "fa:16:3e:63:75:b2".parse().unwrap();
        assert_eq!(RACKSPACE.mac(mac), "FA:16:3E:63:75:B2");
        assert_eq!(RACKSPACE.ip("2001:4800::1".parse().unwrap()), "2001:4800:0000:0000:0000:0000:0000:0001");
        assert_eq!(COMPUTE.ip("2001:4800:0:0::1".parse().unwrap()), "2001:4800::1");
        assert_eq!(RACKSPACE.ip("10.0.0.1".parse().unwrap()), "10.0.0.1");
    }
}
