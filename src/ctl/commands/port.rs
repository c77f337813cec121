//! `nicctl port …`, and `list` and `show`, which are about ports too.

use serde_json::{Value, json};

use super::{Session, forced, members, unless_empty};
use crate::ctl::args::{ChangedPort, NewPort, PortCommand};
use crate::ctl::client;
use crate::ctl::failure::Failure;
use crate::ctl::names::{self, Kind};
use crate::ctl::uri;
use crate::ctl::views::PORT;

/// Runs a command about ports.
pub async fn run(session: &mut Session, command: PortCommand) -> Result<(), Failure> {
    match command {
        PortCommand::Create(new) => create(session, new).await,
        PortCommand::List { network, server } => list(session, network.as_deref(), server.as_deref()).await,
        PortCommand::Show { port } => show(session, &port).await,
        PortCommand::Set(changed) => set(session, changed).await,
        PortCommand::Delete { port, force } => {
            let id = names::resolve(&session.client, Kind::Port, &port).await?;
            session.client.delete(&uri::with_query(&Kind::Port.item(id), &forced(force))).await?;
            session.out.say(&format!("port {id} is deleted"))
        }
    }
}

/// Lists the ports of a network, of a server, of both at once, or all.
pub async fn list(session: &mut Session, network: Option<&str>, server: Option<&str>) -> Result<(), Failure> {
    let mut filters = vec![];
    for (key, kind, name) in [("network_id", Kind::Network, network), ("device_id", Kind::Server, server)] {
        if let Some(name) = name {
            filters.push((key, names::resolve(&session.client, kind, name).await?.to_string()));
        }
    }
    let query: Vec<(&str, &str)> = filters.iter().map(|(key, id)| (*key, id.as_str())).collect();
    let ports = Kind::Port.list(&session.client, &query).await?;
    session.print_list(&PORT, ports).await
}

/// Shows a port.
pub async fn show(session: &mut Session, port: &str) -> Result<(), Failure> {
    let id = names::resolve(&session.client, Kind::Port, port).await?;
    let port = client::member(session.client.get(&Kind::Port.item(id)).await?, "port")?;
    session.print_one(&PORT, &port).await
}

async fn create(session: &mut Session, new: NewPort) -> Result<(), Failure> {
    let network = names::resolve(&session.client, Kind::Network, &new.network).await?;
    let profile =
        members([("interface_name", new.ifname.map(Value::from)), ("vnet_hdr", new.no_vnet_hdr.then_some(Value::Bool(false)))]);
    let port = members([
        ("network_id", Some(json!(network))),
        ("name", new.name.map(Value::from)),
        ("mac_address", new.mac.map(Value::from)),
        ("fixed_ips", unless_empty(new.ips.iter().map(|ip| json!({ "ip_address": ip })).collect())),
        ("admin_state_up", new.admin_down.then_some(Value::Bool(false))),
        ("nicd:unknown_unicast", new.unknown_unicast.then_some(Value::Bool(true))),
        ("binding:profile", (!profile.is_empty()).then_some(Value::Object(profile))),
    ]);
    let answer = session.client.post(Kind::Port.collection(), &json!({ "port": port })).await?;
    let port = client::member(answer, "port")?;
    session.print_one(&PORT, &port).await
}

async fn set(session: &mut Session, changed: ChangedPort) -> Result<(), Failure> {
    let id = names::resolve(&session.client, Kind::Port, &changed.port).await?;
    let admin_up = (changed.admin_up || changed.admin_down).then_some(Value::Bool(changed.admin_up));
    let port = members([
        ("name", changed.name.map(Value::from)),
        ("admin_state_up", admin_up),
        ("nicd:unknown_unicast", changed.unknown_unicast.map(Value::Bool)),
    ]);
    let answer = session.client.put(&Kind::Port.item(id), &json!({ "port": port })).await?;
    let port = client::member(answer, "port")?;
    session.print_one(&PORT, &port).await
}
