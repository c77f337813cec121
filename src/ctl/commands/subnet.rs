//! `nicctl subnet …`.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::{Map, Value, json};

use super::{Session, members, unless_empty};
use crate::ctl::args::{ChangedSubnet, NewSubnet, SubnetCommand, SubnetSettings};
use crate::ctl::client;
use crate::ctl::failure::Failure;
use crate::ctl::names::Kind;
use crate::ctl::values::{Cidr, Gateway, Pool, Route};
use crate::ctl::views::SUBNET;

/// Runs a command about subnets.
pub async fn run(session: &mut Session, command: SubnetCommand) -> Result<(), Failure> {
    match command {
        SubnetCommand::Create(new) => create(session, new).await,
        SubnetCommand::List { network } => list(session, network.as_deref()).await,
        SubnetCommand::Show { subnet } => {
            let id = session.id_of(Kind::Subnet, &subnet).await?;
            let subnet = client::member(session.client.get(&Kind::Subnet.item(id)).await?, "subnet")?;
            session.print_one(&SUBNET, &subnet).await
        }
        SubnetCommand::Set(changed) => set(session, changed).await,
        SubnetCommand::Delete { subnet } => {
            let id = session.id_of(Kind::Subnet, &subnet).await?;
            session.client.delete(&Kind::Subnet.item(id)).await?;
            session.out.say(&format!("subnet {id} is deleted"))
        }
    }
}

async fn list(session: &mut Session, network: Option<&str>) -> Result<(), Failure> {
    let mut query = vec![];
    let id = match network {
        Some(network) => session.id_of(Kind::Network, network).await?.to_string(),
        None => String::new(),
    };
    if network.is_some() {
        query.push(("network_id", id.as_str()));
    }
    let subnets = Kind::Subnet.list(&session.client, &query).await?;
    session.print_list(&SUBNET, subnets).await
}

async fn create(session: &mut Session, new: NewSubnet) -> Result<(), Failure> {
    let network = session.id_of(Kind::Network, &new.network).await?;
    let mut more = members([
        ("enable_dhcp", new.no_dhcp.then_some(Value::Bool(false))),
        ("ipv6_address_mode", new.ipv6_address_mode.map(Value::from)),
        ("ipv6_ra_mode", new.ipv6_ra_mode.map(Value::from)),
    ]);
    more.extend(asked(new.settings));
    let answer = session.client.post(Kind::Subnet.collection(), &body(&network.to_string(), &new.cidr, more)).await?;
    show_changed(session, &client::member(answer, "subnet")?).await
}

async fn set(session: &mut Session, changed: ChangedSubnet) -> Result<(), Failure> {
    let id = session.id_of(Kind::Subnet, &changed.subnet).await?;
    let mut subnet = members([("enable_dhcp", changed.dhcp.map(Value::Bool))]);
    subnet.extend(asked(changed.settings));
    let answer = session.client.put(&Kind::Subnet.item(id), &json!({ "subnet": subnet })).await?;
    show_changed(session, &client::member(answer, "subnet")?).await
}

/// Shows a subnet, and says what its gateway means that is outside its range.
async fn show_changed(session: &mut Session, subnet: &Value) -> Result<(), Failure> {
    session.print_one(&SUBNET, subnet).await?;
    let (gateway, range) = (subnet["gateway_ip"].as_str().unwrap_or_default(), subnet["cidr"].as_str().unwrap_or_default());
    match (gateway.parse::<IpAddr>(), range.parse::<IpNetwork>()) {
        (Ok(at), Ok(cidr)) if !cidr.contains(at) => session.out.say(&format!(
            "\nthe gateway {gateway} is outside of {range}: guests get a route to it on the link, where it has to be"
        )),
        _ => Ok(()),
    }
}

/// The members of a request that create and set have in common.
fn asked(settings: SubnetSettings) -> Map<String, Value> {
    members([
        ("name", settings.name.map(Value::from)),
        ("gateway_ip", settings.gateway.map(Gateway::to_json)),
        ("allocation_pools", unless_empty(settings.pools.iter().map(Pool::to_json).collect())),
        ("dns_nameservers", unless_empty(settings.dns.iter().map(|address| json!(address)).collect())),
        ("host_routes", unless_empty(settings.routes.iter().map(Route::to_json).collect())),
    ])
}

/// The request for a subnet: what it must have, and `more`. Neutron wants the version said although the range shows it.
pub fn body(network: &str, cidr: &Cidr, more: Map<String, Value>) -> Value {
    let mut subnet = more;
    subnet.insert("network_id".to_owned(), json!(network));
    subnet.insert("cidr".to_owned(), json!(cidr.to_string()));
    subnet.insert("ip_version".to_owned(), json!(cidr.version()));
    json!({ "subnet": subnet })
}
