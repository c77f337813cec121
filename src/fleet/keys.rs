//! The names of the fleet's keys. All of a fleet's are under `nicd/<name>/`; the module's page says what each is for.

use std::net::IpAddr;

use uuid::Uuid;

use crate::model::definition::DefinitionName as Name;
use crate::model::{Claim, GroupId, Mac, NetworkId, PortId, PublishedId, ServerId, SubnetId};

/// The names of one fleet's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    root: String,
}

/// The rest of a claim's key: in the order of addresses.
fn path(claim: &Claim) -> String {
    match claim {
        Claim::Addresses { network, first: IpAddr::V4(first) } => format!("block/{network}/4/{:08x}", u32::from(*first)),
        Claim::Addresses { network, first: IpAddr::V6(first) } => format!("block/{network}/6/{:032x}", u128::from(*first)),
        Claim::Macs(octets) => format!("mac/{}/all", hex(octets)),
        Claim::Mac(Mac(octets)) => format!("mac/{}/{:02x}", hex(&octets[..5]), octets[5]),
        Claim::Address(network, IpAddr::V4(ip)) => format!("one/{network}/4/{:08x}", u32::from(*ip)),
        Claim::Address(network, IpAddr::V6(ip)) => format!("one/{network}/6/{:032x}", u128::from(*ip)),
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

impl Names {
    /// Those of the fleet with this name.
    pub fn new(fleet: &str) -> Self {
        Self { root: format!("nicd/{fleet}/") }
    }

    /// The epoch of etcd's data: another one after a backup was put back.
    pub fn epoch(&self) -> String {
        format!("{}epoch", self.root)
    }

    /// A host's record.
    pub fn host(&self, host: &str) -> String {
        format!("{}host/{host}", self.root)
    }

    /// All hosts' records.
    pub fn hosts(&self) -> String {
        format!("{}host/", self.root)
    }

    /// What is there while a host is alive.
    pub fn alive(&self, host: &str) -> String {
        format!("{}alive/{host}", self.root)
    }

    /// Those of all hosts.
    pub fn all_alive(&self) -> String {
        format!("{}alive/", self.root)
    }

    /// When a host was last heard of.
    pub fn last_seen(&self, host: &str) -> String {
        format!("{}seen/{host}", self.root)
    }

    /// The same of all hosts.
    pub fn all_last_seen(&self) -> String {
        format!("{}seen/", self.root)
    }

    /// The last part of a key: a host's name in those that end with it.
    pub fn last<'a>(&self, key: &'a str) -> &'a str {
        key.rsplit('/').next().unwrap_or(key)
    }

    /// What is defined for all hosts.
    pub fn definitions(&self) -> String {
        format!("{}def/", self.root)
    }

    /// A definition.
    pub fn definition(&self, name: Name) -> String {
        match name {
            Name::Network(network) => format!("{}net/{network}", self.definitions()),
            Name::Subnet(network, subnet) => format!("{}{subnet}", self.subnets(network)),
            Name::Group(group) => format!("{}{group}", self.groups()),
        }
    }

    /// The definitions of security groups.
    pub fn groups(&self) -> String {
        format!("{}group/", self.definitions())
    }

    /// Which security group is a project's own.
    pub fn default_group(&self, project: &str) -> String {
        format!("{}default/{project}", self.root)
    }

    /// The ports that are in a security group.
    pub fn members(&self, group: GroupId) -> String {
        format!("{}member/{group}/", self.root)
    }

    /// That a port is in a security group.
    pub fn member(&self, group: GroupId, host: &str, port: PortId) -> String {
        format!("{}{host}/{port}", self.members(group))
    }

    /// The host of a port that is in a security group; none for a key of another form.
    pub fn host_of_member<'a>(&self, group: GroupId, key: &'a str) -> Option<&'a str> {
        key.strip_prefix(&self.members(group))?.split('/').next()
    }

    /// The definitions of a network's subnets.
    pub fn subnets(&self, network: NetworkId) -> String {
        format!("{}subnet/{network}/", self.definitions())
    }

    /// Which definition a key is of; none for a key of another form.
    pub fn definition_of(&self, key: &str) -> Option<Name> {
        let path = key.strip_prefix(&self.definitions())?;
        match path.split('/').collect::<Vec<_>>()[..] {
            ["net", network] => Some(Name::Network(NetworkId(network.parse().ok()?))),
            ["group", group] => Some(Name::Group(GroupId(group.parse().ok()?))),
            ["subnet", network, subnet] => Some(Name::Subnet(NetworkId(network.parse().ok()?), SubnetId(subnet.parse().ok()?))),
            _ => None,
        }
    }

    /// Which network has a number of VXLAN.
    pub fn vxlan(&self, vni: u32) -> String {
        format!("{}segment/vxlan/{vni}", self.root)
    }

    /// Which network has a VLAN of a physical network; 0 for its untagged side.
    pub fn vlan(&self, physical: &str, vlan: u32) -> String {
        format!("{}segment/vlan/{vlan}/{physical}", self.root)
    }

    /// The ports of a network.
    pub fn ports(&self, network: NetworkId) -> String {
        format!("{}{network}/", self.all_ports())
    }

    /// All ports.
    pub fn all_ports(&self) -> String {
        format!("{}port/", self.root)
    }

    /// A port.
    pub fn port(&self, network: NetworkId, host: &str, port: PortId) -> String {
        format!("{}{host}/{port}", self.ports(network))
    }

    /// The host and the id of a port of a network; none for a key of another form.
    pub fn port_of(&self, network: NetworkId, key: &str) -> Option<(String, PortId)> {
        let (host, port) = key.strip_prefix(&self.ports(network))?.split_once('/')?;
        Some((host.to_owned(), PortId(port.parse().ok()?)))
    }

    /// The network, the host and the id of a port; none for a key of another form.
    pub fn port_at(&self, key: &str) -> Option<(NetworkId, String, PortId)> {
        let network = NetworkId(key.strip_prefix(&self.all_ports())?.split('/').next()?.parse().ok()?);
        let (host, port) = self.port_of(network, key)?;
        Some((network, host, port))
    }

    /// Where a port is.
    pub fn place(&self, port: PortId) -> String {
        format!("{}where/{port}", self.root)
    }

    /// The silent devices of a port that is moved.
    pub fn bindings(&self, port: PortId) -> String {
        format!("{}binding/{port}/", self.root)
    }

    /// That of one host.
    pub fn binding(&self, port: PortId, host: &str) -> String {
        format!("{}{host}", self.bindings(port))
    }

    /// Where a server is: the hosts that have one of this id.
    pub fn servers_with(&self, server: Uuid) -> String {
        format!("{}{server}/", self.all_servers())
    }

    /// All servers.
    pub fn all_servers(&self) -> String {
        format!("{}server/", self.root)
    }

    /// A server of a host's.
    pub fn server(&self, host: &str, server: ServerId) -> String {
        format!("{}{host}", self.servers_with(server.0))
    }

    /// The list of what a host has told of.
    pub fn own(&self, host: &str) -> String {
        format!("{}own/{host}/", self.root)
    }

    /// A port or server in the list of its host.
    pub fn own_entry(&self, host: &str, id: PublishedId) -> String {
        match id {
            PublishedId::Port(port) => format!("{}port/{port}", self.own(host)),
            PublishedId::Server(server) => format!("{}server/{server}", self.own(host)),
        }
    }

    /// The port or server that an entry of a host's list is of; none for a key of another form.
    pub fn own_entry_of(&self, host: &str, key: &str) -> Option<PublishedId> {
        let (kind, id) = key.strip_prefix(&self.own(host))?.split_once('/')?;
        let id = id.parse().ok()?;
        match kind {
            "port" => Some(PublishedId::Port(PortId(id))),
            "server" => Some(PublishedId::Server(ServerId(id))),
            _ => None,
        }
    }

    /// What a host is asked to do.
    pub fn calls(&self, host: &str) -> String {
        format!("{}{host}/", self.all_calls())
    }

    /// What all hosts are asked to do.
    pub fn all_calls(&self) -> String {
        format!("{}call/", self.root)
    }

    /// One call of a host.
    pub fn call(&self, host: &str, call: Uuid) -> String {
        format!("{}{call}", self.calls(host))
    }

    /// The answers to what a host has asked others.
    pub fn answers(&self, host: &str) -> String {
        format!("{}answer/{host}/", self.root)
    }

    /// One of them.
    pub fn answer(&self, host: &str, call: Uuid) -> String {
        format!("{}{call}", self.answers(host))
    }

    /// A claim.
    pub fn claim(&self, claim: &Claim) -> String {
        format!("{}{}", self.root, path(claim))
    }

    /// The mark that one of a block may be another host's than the block's.
    pub fn lent(&self, one: &Claim) -> String {
        format!("{}lent/{}", self.root, path(one))
    }

    /// The claims of blocks of a network's addresses of one family.
    pub fn blocks(&self, network: NetworkId, v6: bool) -> String {
        format!("{}block/{network}/{}/", self.root, if v6 { 6 } else { 4 })
    }

    /// The first address, as a number, of the block that a claim's key is of; none for a key of another form.
    pub fn block_of(&self, key: &str) -> Option<u128> {
        u128::from_str_radix(self.last(key), 16).ok()
    }

    /// The claims of single addresses of a network.
    pub fn singles(&self, network: NetworkId) -> String {
        format!("{}one/{network}/", self.root)
    }

    /// All claims of MACs that begin with these octets.
    pub fn macs(&self, octets: &[u8; 5]) -> String {
        format!("{}mac/{}/", self.root, hex(octets))
    }

    /// The same claim in the list of its host.
    pub fn held(&self, host: &str, claim: &Claim) -> String {
        format!("{}{}", self.all_held(host), path(claim))
    }

    /// The list of a host's claims.
    pub fn all_held(&self, host: &str) -> String {
        format!("{}held/{host}/", self.root)
    }

    /// The claim that an entry of a host's list is of; none for a key of another form.
    pub fn claim_of(&self, host: &str, key: &str) -> Option<Claim> {
        read_path(key.strip_prefix(&self.all_held(host))?)
    }

    /// The claim that a key is of; none for a key of another form.
    pub fn claim_at(&self, key: &str) -> Option<Claim> {
        read_path(key.strip_prefix(&self.root)?)
    }
}

/// The claim of which this is the rest of the key.
fn read_path(path: &str) -> Option<Claim> {
    let parts: Vec<&str> = path.split('/').collect();
    match parts[..] {
        ["block", network, "4", first] => {
            let first = u32::from_str_radix(first, 16).ok()?;
            Some(Claim::Addresses { network: NetworkId(network.parse().ok()?), first: IpAddr::V4(first.into()) })
        }
        ["block", network, "6", first] => {
            let first = u128::from_str_radix(first, 16).ok()?;
            Some(Claim::Addresses { network: NetworkId(network.parse().ok()?), first: IpAddr::V6(first.into()) })
        }
        ["one", network, "4", ip] => {
            let ip = u32::from_str_radix(ip, 16).ok()?;
            Some(Claim::Address(NetworkId(network.parse().ok()?), IpAddr::V4(ip.into())))
        }
        ["one", network, "6", ip] => {
            let ip = u128::from_str_radix(ip, 16).ok()?;
            Some(Claim::Address(NetworkId(network.parse().ok()?), IpAddr::V6(ip.into())))
        }
        ["mac", octets, last] => {
            let number = u64::from_str_radix(octets, 16).ok().filter(|_| octets.len() == 10)?;
            let [_, _, _, a, b, c, d, e] = number.to_be_bytes();
            match last {
                "all" => Some(Claim::Macs([a, b, c, d, e])),
                last => Some(Claim::Mac(Mac([a, b, c, d, e, u8::from_str_radix(last, 16).ok()?]))),
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_which_definition_it_has_and_whose_port_is_in_a_group() {
        let (names, id) = (Names::new("blue"), uuid::Uuid::from_u128);
        for name in
            [Name::Network(NetworkId(id(1))), Name::Subnet(NetworkId(id(1)), SubnetId(id(2))), Name::Group(GroupId(id(3)))]
        {
            let key = names.definition(name);
            assert!(key.starts_with(&names.definitions()));
            assert_eq!(names.definition_of(&key), Some(name));
        }
        let group = GroupId(id(3));
        assert_eq!(names.definition(Name::Group(group)), format!("nicd/blue/def/group/{group}"));
        assert_eq!(names.definition_of("nicd/blue/def/group/x"), None);
        let member = names.member(group, "compute-1", PortId(id(4)));
        assert_eq!(member, format!("nicd/blue/member/{group}/compute-1/{}", id(4)));
        assert_eq!(names.host_of_member(group, &member), Some("compute-1"));
        assert_eq!(names.host_of_member(GroupId(id(9)), &member), None);
        assert_eq!(names.default_group("a/b"), "nicd/blue/default/a/b");
    }

    #[test]
    fn an_entry_of_a_hosts_list_tells_its_claim() {
        let (names, network) = (Names::new("blue"), NetworkId(uuid::Uuid::from_u128(7)));
        let claims = [
            Claim::of_address(network, "192.0.2.77".parse().unwrap()),
            Claim::of_address(network, "2001:db8::12".parse().unwrap()),
            Claim::of_mac(Mac([0xfa, 0x16, 0x3e, 1, 2, 3])),
            Claim::Mac(Mac([2, 0, 0, 0, 0, 9])),
            Claim::Address(network, "192.0.2.77".parse().unwrap()),
            Claim::Address(network, "2001:db8::12".parse().unwrap()),
        ];
        for claim in claims {
            assert_eq!(names.claim_of("a", &names.held("a", &claim)), Some(claim));
        }
        assert_eq!(names.held("a", &claims[0]), format!("nicd/blue/held/a/block/{network}/4/c0000240"));
        for key in ["nicd/blue/held/a/mac/1/all", "nicd/blue/held/b/mac/0200000000/09", "nicd/blue/held/a/x"] {
            assert_eq!(names.claim_of("a", key), None);
        }
    }
}
