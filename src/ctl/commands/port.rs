//! `nicctl port …`, and `list` and `show`, which are about ports too.

use nicd_client::http::with_query;
use serde_json::{Value, json};
use uuid::Uuid;

use super::group::of_port;
use super::{Session, forced, members, switch, unless_empty};
use crate::ctl::args::{ChangedPort, Filters, Format, NewPort, PortCommand};
use crate::ctl::client::{self, ClientError};
use crate::ctl::failure::Failure;
use crate::ctl::names::Kind;
use crate::ctl::values::{AllowedAddress, DhcpOption, Isolation, Rate};
use crate::ctl::views::{BINDING, PORT, passed, times};

/// Runs a command about ports.
pub async fn run(session: &mut Session, command: PortCommand) -> Result<(), Failure> {
    match command {
        PortCommand::Create(new) => create(session, new).await,
        PortCommand::List { network, server } => list(session, network.as_deref(), server.as_deref()).await,
        PortCommand::Show { port } => show_counted(session, &port).await,
        PortCommand::Set(changed) => set(session, changed).await,
        PortCommand::Bindings { port } => {
            let id = session.id_of(Kind::Port, &port).await?;
            let all = bindings(session, id).await?;
            session.print_list(&BINDING, all).await
        }
        PortCommand::Move { port, host, prepare } => move_to(session, &port, &host, prepare).await,
        PortCommand::Delete { port, force } => {
            let id = session.id_of(Kind::Port, &port).await?;
            session.client.delete(&with_query(&Kind::Port.item(id), &forced(force))).await?;
            session.out.say(&format!("port {id} is deleted"))
        }
    }
}

async fn bindings(session: &Session, port: Uuid) -> Result<Vec<Value>, Failure> {
    match client::member(session.client.get(&bindings_of(port)).await?, "bindings")? {
        Value::Array(all) => Ok(all),
        _ => Err(ClientError::Incomplete { key: "bindings" }.into()),
    }
}

fn bindings_of(port: Uuid) -> String {
    format!("{}/bindings", Kind::Port.item(port))
}

/// Moves a port. A device that is there already is used.
async fn move_to(session: &mut Session, port: &str, host: &str, prepare: bool) -> Result<(), Failure> {
    let id = session.id_of(Kind::Port, port).await?;
    let path = bindings_of(id);
    let there = bindings(session, id).await?;
    if there.iter().all(|binding| binding["host"] != host) {
        let _: Value = session.client.post(&path, &json!({"binding": {"host": host}})).await?;
    }
    if prepare {
        return session
            .out
            .say(&format!("port {id} has a silent device on host {host}; nicctl port move {id} {host} moves it there"));
    }
    let _: Value = session.client.put(&format!("{path}/{host}/activate"), &json!({})).await?;
    for left in there.iter().filter(|binding| binding["status"] == "ACTIVE").filter_map(|binding| binding["host"].as_str()) {
        session.client.delete(&format!("{path}/{left}")).await?;
    }
    session.out.say(&format!("port {id} is active on host {host}"))
}

/// Lists the ports of a network, of a server, of both at once, or all.
pub async fn list(session: &mut Session, network: Option<&str>, server: Option<&str>) -> Result<(), Failure> {
    let mut filters = vec![];
    for (key, kind, name) in [("network_id", Kind::Network, network), ("device_id", Kind::Server, server)] {
        if let Some(name) = name {
            filters.push((key, session.id_of(kind, name).await?.to_string()));
        }
    }
    let query: Vec<(&str, &str)> = filters.iter().map(|(key, id)| (*key, id.as_str())).collect();
    let ports = Kind::Port.list(&session.client, &query).await?;
    session.print_list(&PORT, ports).await
}

/// Shows a port that was attached, with the times of the attach's steps if there are any.
pub async fn show_attached(session: &mut Session, id: Uuid, receipt: Option<Value>) -> Result<(), Failure> {
    let mut port = client::member(session.client.get(&Kind::Port.item(id)).await?, "port")?;
    let below = receipt.as_ref().map(times);
    if let Some(receipt) = receipt {
        port["nicd:receipt"] = receipt;
    }
    session.print_with(&PORT, &port, below).await
}

/// The same, to people with what passed it and what was dropped.
pub async fn show_counted(session: &mut Session, port: &str) -> Result<(), Failure> {
    let id = session.id_of(Kind::Port, port).await?;
    let port = client::member(session.client.get(&Kind::Port.item(id)).await?, "port")?;
    let attached = port["device_id"].as_str().is_some_and(|server| !server.is_empty());
    let counted = match session.out.format() {
        Format::Table | Format::Wide if attached => session.client.get(&format!("/nicd/v1/ports/{id}/counters")).await.ok(),
        _ => None,
    };
    session.print_with(&PORT, &port, counted.as_ref().map(passed)).await
}

async fn create(session: &mut Session, new: NewPort) -> Result<(), Failure> {
    let port = make(session, new).await?;
    session.print_one(&PORT, &port).await
}

/// Makes a port; the port as the daemon shows it.
pub async fn make(session: &Session, new: NewPort) -> Result<Value, Failure> {
    let network = session.id_of(Kind::Network, &new.network).await?;
    let profile =
        members([("interface_name", new.ifname.map(Value::from)), ("vnet_hdr", new.no_vnet_hdr.then_some(Value::Bool(false)))]);
    let filters = new.filters;
    let groups = of_port(session, &Value::Null, &filters.groups, filters.no_group).await?;
    let port = members([
        ("network_id", Some(json!(network))),
        ("name", new.name.map(Value::from)),
        ("mac_address", new.mac.map(Value::from)),
        ("fixed_ips", unless_empty(new.ips.iter().map(|ip| json!({ "ip_address": ip })).collect())),
        ("admin_state_up", new.admin_down.then_some(Value::Bool(false))),
        ("nicd:unknown_unicast", new.unknown_unicast.then_some(Value::Bool(true))),
        ("port_security_enabled", switch(filters.enable_port_security, filters.disable_port_security)),
        ("allowed_address_pairs", unless_empty(filters.allowed_addresses.iter().map(AllowedAddress::to_json).collect())),
        ("security_groups", groups),
        ("nicd:limits", limits(&filters, &Value::Null)),
        ("nicd:isolated", filters.isolated.map(Isolation::to_json)),
        ("nicd:dhcp", new.told.dhcp.map(Value::Bool)),
        ("dns_name", new.told.dns_name.map(Value::from)),
        ("extra_dhcp_opts", unless_empty(new.told.dhcp_options.iter().map(DhcpOption::to_json).collect())),
        ("binding:profile", (!profile.is_empty()).then_some(Value::Object(profile))),
    ]);
    let answer = session.client.post(Kind::Port.collection(), &json!({ "port": port })).await?;
    Ok(client::member(answer, "port")?)
}

async fn set(session: &mut Session, changed: ChangedPort) -> Result<(), Failure> {
    let id = session.id_of(Kind::Port, &changed.port).await?;
    let filters = changed.filters;
    let adds = !filters.allowed_addresses.is_empty() && !changed.no_allowed_address;
    // The API takes all pairs and all groups at once, and both directions.
    let joins = !filters.groups.is_empty() && !filters.no_group;
    let before = match adds || joins || filters.limit_to_guest.is_some() != filters.limit_from_guest.is_some() {
        true => client::member(session.client.get(&Kind::Port.item(id)).await?, "port")?,
        false => Value::Null,
    };
    let had = before["allowed_address_pairs"].as_array().filter(|_| adds).cloned().unwrap_or_default();
    let pairs = had.into_iter().chain(filters.allowed_addresses.iter().map(AllowedAddress::to_json)).collect();
    let pairs = if changed.no_allowed_address { Some(Value::Array(pairs)) } else { unless_empty(pairs) };
    let groups = of_port(session, &before["security_groups"], &filters.groups, filters.no_group).await?;
    let port = members([
        ("name", changed.name.map(Value::from)),
        ("mac_address", changed.mac.map(Value::from)),
        ("fixed_ips", unless_empty(changed.ips.iter().map(|ip| json!({ "ip_address": ip })).collect())),
        ("admin_state_up", switch(changed.admin_up, changed.admin_down)),
        ("nicd:unknown_unicast", changed.unknown_unicast.map(Value::Bool)),
        ("port_security_enabled", switch(filters.enable_port_security, filters.disable_port_security)),
        ("allowed_address_pairs", pairs),
        ("security_groups", groups),
        ("nicd:limits", limits(&filters, &before["nicd:limits"])),
        ("nicd:isolated", filters.isolated.map(Isolation::to_json)),
        ("nicd:dhcp", changed.told.dhcp.map(Value::Bool)),
        ("dns_name", changed.told.dns_name.map(Value::from)),
        ("extra_dhcp_opts", unless_empty(changed.told.dhcp_options.iter().map(DhcpOption::to_json).collect())),
    ]);
    let answer = session.client.put(&Kind::Port.item(id), &json!({ "port": port })).await?;
    let port = client::member(answer, "port")?;
    session.print_one(&PORT, &port).await
}

/// `nicd:limits` if a direction is given; the other one stays as it was.
fn limits(filters: &Filters, before: &Value) -> Option<Value> {
    let (to_guest, from_guest) = (&filters.limit_to_guest, &filters.limit_from_guest);
    (to_guest.is_some() || from_guest.is_some()).then(|| {
        let of = |rate: &Option<Rate>, direction| rate.as_ref().map_or_else(|| before[direction].clone(), Rate::to_json);
        json!({"to_guest": of(to_guest, "to_guest"), "from_guest": of(from_guest, "from_guest")})
    })
}
