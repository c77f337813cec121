//! Neutron's subnets.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::Value;
use uuid::Uuid;

use crate::model::action::{Action, SubnetChange};
use crate::model::pools::Range;
use crate::model::subnet::{Gateway, NewSubnet};
use crate::model::{Guidance, HostRoute, Mode, Subnet, SubnetId};
use crate::service::{Error, Reply};

use super::AppState;
use super::agent::NAME;
use super::answer::answer;
use super::error::{ApiError, ObjectKind};
use super::fields::{BodyError, Fields, Ip, parse_value, wrong};
use super::listing::Listing;
use super::networks::project;
use super::openapi::schema::{
    Record, empty_list, ip, list, mode, number, one_of_numbers, or_null, range, time, truth, uuid, words,
};
use super::resource::{Changeable, Resource};

/// The most entries of any list in a body.
pub(super) const ENTRIES: usize = 64;

impl Resource for Subnet {
    const ONE: &'static str = "subnet";
    const MANY: &'static str = "subnets";
    const WHAT: ObjectKind = ObjectKind::Subnet;
    const KNOWN: &'static [&'static str] = &[
        "id",
        "name",
        "description",
        "network_id",
        "cidr",
        "ip_version",
        "gateway_ip",
        "enable_dhcp",
        "tenant_id",
        "project_id",
        "dns_nameservers",
        "ipv6_address_mode",
        "ipv6_ra_mode",
        "revision_number",
        "created_at",
        "updated_at",
    ];
    type Id = SubnetId;

    fn all(state: &AppState, _: &Listing) -> Vec<Self> {
        state.subnets()
    }

    fn find(state: &AppState, id: SubnetId) -> Result<Self, Error> {
        state.subnet(id)
    }

    fn shown(&self) -> Value {
        Shown::of(self)
    }

    fn create(_: &AppState, bodies: Vec<Fields>) -> Result<Action, ApiError> {
        let new = bodies.into_iter().map(read_new).collect::<Result<_, _>>()?;
        Ok(Action::CreateSubnets(new))
    }

    fn delete(id: SubnetId) -> Action {
        Action::DeleteSubnet(id)
    }

    fn of(reply: Reply) -> Option<Vec<Self>> {
        match reply {
            Reply::Subnet(one) => Some(vec![one]),
            Reply::Subnets(many) => Some(many),
            _ => None,
        }
    }
}

impl Changeable for Subnet {
    fn change(state: &AppState, id: SubnetId, body: Fields) -> Result<Action, ApiError> {
        Ok(Action::UpdateSubnet(id, read_change(&state.subnet(id)?, body)?))
    }
}

answer! {
    /// A subnet as Neutron shows it.
    pub(super) Shown(subnet: &Subnet) {
        /// The subnet's id.
        "id": subnet.id.to_string() => uuid(),
        /// Its network.
        "network_id": subnet.network_id.to_string() => uuid(),
        /// Its name, which need not be unique.
        "name": subnet.name => words(),
        /// Free text.
        "description": subnet.description => words(),
        /// The family of its range.
        "ip_version": if subnet.cidr.is_ipv6() { 6 } else { 4 } => one_of_numbers([4, 6]),
        /// Its range.
        "cidr": subnet.cidr => range(),
        /// The guests' router; null: none.
        "gateway_ip": subnet.gateway_ip => or_null(ip()),
        /// The ranges from which addresses are chosen.
        "allocation_pools": subnet.allocation_pools
            => list(Record::new().must("start", "The first address.", ip()).must("end", "The last address.", ip())),
        /// Whether nicd answers the guests' DHCP; for IPv6 as the modes say.
        "enable_dhcp": subnet.enable_dhcp => truth(),
        /// The name servers that guests are told.
        "dns_nameservers": subnet.dns_nameservers => list(ip()),
        /// The routes that guests are told.
        "host_routes": subnet.host_routes => list(
            Record::new().must("destination", "The range that the route leads to.", range()).must("nexthop", "The router.", ip())
        ),
        /// How guests get their IPv6 address; null: it is not said.
        "ipv6_address_mode": shown(subnet.guidance.address) => mode(),
        /// What nicd's router advertisements say; null beside an `ipv6_address_mode`: it sends none; with both null and
        /// `enable_dhcp` it sends them as with `dhcpv6-stateful`.
        "ipv6_ra_mode": shown(subnet.guidance.ra) => mode(),
        /// The same as `project_id`.
        "tenant_id": subnet.project_id => words(),
        /// The project; nicd only stores it.
        "project_id": subnet.project_id => words(),
        /// Always empty.
        "tags": Value::Array(Vec::new()) => empty_list(),
        /// Counts its changes, for `If-Match`.
        "revision_number": subnet.revision_number => number(1..=u32::MAX),
        /// When it was created.
        "created_at": subnet.created_at => time(),
        /// When it was last changed.
        "updated_at": subnet.updated_at => time(),
    }
}

fn read_new(mut fields: Fields) -> Result<NewSubnet, BodyError> {
    let id = fields.parsed("id")?;
    let network_id = fields.parsed("network_id")?;
    let network_id = fields.required("network_id", network_id)?;
    let given = fields.value("cidr");
    let given = fields.required("cidr", given)?;
    let cidr: IpNetwork = match &given {
        // Without a prefix the address would silently be a whole subnet of one.
        Value::String(text) if !text.contains('/') => {
            return Err(wrong("cidr", &given, "a range such as 192.168.1.0/24 is expected"));
        }
        value => parse_value("cidr", value)?,
    };
    if let Some(version) = fields.number_or_text("ip_version", 4..=6)?
        && version != if cidr.is_ipv6() { 6 } else { 4 }
    {
        return Err(wrong("ip_version", &version.into(), &format!("does not fit the cidr {cidr}")));
    }
    let name = fields.text("name", NAME)?.unwrap_or_default();
    let description = fields.text("description", NAME)?.unwrap_or_default();
    let project_id = project(&mut fields)?;
    let gateway = match fields.parsed_or_null::<Ip>("gateway_ip")? {
        None => Gateway::FirstHost,
        Some(None) => Gateway::None,
        Some(Some(Ip(gateway))) => Gateway::At(gateway),
    };
    let allocation_pools = read_pools(&mut fields)?;
    let (dns_nameservers, host_routes) = read_told(&mut fields)?;
    let guidance = Guidance { address: read_mode(&mut fields, ADDRESS_MODE)?, ra: read_mode(&mut fields, RA_MODE)? };
    let enable_dhcp = fields.truth("enable_dhcp")?.unwrap_or(true);
    fields.end()?;
    Ok(NewSubnet {
        id: id.unwrap_or_else(|| SubnetId(Uuid::new_v4())),
        network_id,
        name,
        description,
        project_id,
        cidr,
        gateway,
        allocation_pools,
        dns_nameservers: dns_nameservers.unwrap_or_default(),
        host_routes: host_routes.unwrap_or_default(),
        enable_dhcp,
        guidance,
    })
}

fn read_change(subnet: &Subnet, mut fields: Fields) -> Result<SubnetChange, BodyError> {
    let (name, description) = (fields.text("name", NAME)?, fields.text("description", NAME)?);
    let gateway_ip = fields.parsed_or_null("gateway_ip")?.map(|gateway| gateway.map(|Ip(gateway)| gateway));
    let allocation_pools = read_pools(&mut fields)?;
    let (dns_nameservers, host_routes) = read_told(&mut fields)?;
    let enable_dhcp = fields.truth("enable_dhcp")?;
    for (name, mode) in [(ADDRESS_MODE, subnet.guidance.address), (RA_MODE, subnet.guidance.ra)] {
        fields.must_be(name, &[shown(mode)], "it cannot be changed; delete the subnet and make it anew")?;
    }
    fields.end_of_change(Subnet::KNOWN)?;
    Ok(SubnetChange { name, description, dns_nameservers, host_routes, gateway_ip, allocation_pools, enable_dhcp })
}

type ErrorAnswer = (Option<Vec<IpAddr>>, Option<Vec<HostRoute>>);

/// The settings for guests of the subnet.
fn read_told(fields: &mut Fields) -> Result<ErrorAnswer, BodyError> {
    let resolvers = fields.list_or_null("dns_nameservers", ENTRIES)?;
    let resolvers = resolvers.map(|all| all.into_iter().map(|(at, value)| parse_value(&at, &value).map(|Ip(ip)| ip)).collect());
    let routes = fields.list_or_null("host_routes", ENTRIES)?;
    let routes = routes.map(|all| all.into_iter().map(read_route).collect());
    Ok((resolvers.transpose()?, routes.transpose()?))
}

fn read_pools(fields: &mut Fields) -> Result<Option<Vec<Range>>, BodyError> {
    let pools = fields.list("allocation_pools", ENTRIES)?;
    pools.map(|pools| pools.into_iter().map(read_pool).collect()).transpose()
}

fn read_pool((at, value): (String, Value)) -> Result<Range, BodyError> {
    let mut fields = Fields::object(&at, value)?;
    let (start, end) = (fields.parsed("start")?, fields.parsed("end")?);
    let (Ip(start), Ip(end)) = (fields.required("start", start)?, fields.required("end", end)?);
    let range = Range { start, end };
    fields.end()?;
    Ok(range)
}

fn read_route((at, value): (String, Value)) -> Result<HostRoute, BodyError> {
    let mut fields = Fields::object(&at, value)?;
    let (destination, nexthop) = (fields.parsed("destination")?, fields.parsed("nexthop")?);
    let Ip(nexthop) = fields.required("nexthop", nexthop)?;
    let route = HostRoute { destination: fields.required("destination", destination)?, nexthop };
    fields.end()?;
    Ok(route)
}

const ADDRESS_MODE: &str = "ipv6_address_mode";
const RA_MODE: &str = "ipv6_ra_mode";

fn shown(mode: Option<Mode>) -> Value {
    mode.map_or(Value::Null, |mode| mode.as_str().into())
}

fn read_mode(fields: &mut Fields, name: &str) -> Result<Option<Mode>, BodyError> {
    match fields.value(name) {
        None | Some(Value::Null) => Ok(None),
        Some(given) => match Mode::ALL.into_iter().find(|mode| given == mode.as_str()) {
            Some(mode) => Ok(Some(mode)),
            None => Err(wrong(name, &given, "slaac, dhcpv6-stateless, dhcpv6-stateful or null is expected")),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(subnet: Value) -> Result<NewSubnet, BodyError> {
        let mut subnet = subnet;
        subnet["network_id"] = "3cb9bc59-5699-4588-a4b1-b87f96708bc6".into();
        read_new(Fields::object("subnet", subnet)?)
    }

    #[test]
    fn null_means_no_gateway_and_absence_the_first_host() {
        assert_eq!(read(json!({"cidr": "10.0.0.0/24"})).unwrap().gateway, Gateway::FirstHost);
        assert_eq!(read(json!({"cidr": "10.0.0.0/24", "gateway_ip": null})).unwrap().gateway, Gateway::None);
    }

    #[test]
    fn dhcp_is_on_unless_it_is_said_to_be_off() {
        let dhcp = |subnet| read(subnet).map(|new| new.enable_dhcp);
        assert_eq!(dhcp(json!({"cidr": "10.0.0.0/24"})), Ok(true));
        assert_eq!(dhcp(json!({"cidr": "10.0.0.0/24", "enable_dhcp": false})), Ok(false));
        assert_eq!(dhcp(json!({"cidr": "fd00::/64"})), Ok(true));
        assert_eq!(dhcp(json!({"cidr": "fd00::/64", "enable_dhcp": false})), Ok(false));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for bad in [
            json!({}),
            json!({"cidr": "10.0.0.0"}),
            json!({"cidr": "10.0.0.0/33"}),
            json!({"cidr": 10}),
            json!({"cidr": "10.0.0.0/24", "ip_version": 6}),
            json!({"cidr": "10.0.0.0/24", "ip_version": 5}),
            json!({"cidr": "10.0.0.0/24", "gateway_ip": "x"}),
            json!({"cidr": "10.0.0.0/24", "allocation_pools": [{"start": "10.0.0.2"}]}),
            json!({"cidr": "10.0.0.0/24", "host_routes": [{"destination": "x", "nexthop": "10.0.0.1"}]}),
            json!({"cidr": "10.0.0.0/24", "dns_nameservers": "10.0.0.1"}),
            json!({"cidr": "10.0.0.0/24", "colour": "red"}),
        ] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }
}
