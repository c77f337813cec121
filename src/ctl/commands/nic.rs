//! `nicctl attach` and `nicctl detach`: a server gets a NIC, a server loses one. `nicctl plan`: what they would do.

use nicd_client::Events;
use nicd_client::http::with_query;
use serde_json::{Value, json};
use uuid::Uuid;

use super::agent::print;
use super::{Session, forced, members, port};
use crate::ctl::args::{Attach, Detach, Filters, NewPort, Nic, Planned};
use crate::ctl::client::{self, Client, ClientError};
use crate::ctl::failure::Failure;
use crate::ctl::names::{self, Kind};
use crate::ctl::values::WaitTime;
use crate::ctl::views;
use crate::ctl::wait::{Goal, Wait};

/// Gives a server a NIC and prints the port.
pub async fn attach(session: &mut Session, attach: Attach) -> Result<(), Failure> {
    let server = session.id_of(Kind::Server, &attach.nic.server).await?;
    let following = follow(&session.client, attach.wait).await?;
    let query: &[(&str, &str)] = if attach.receipt { &[("receipt", "true")] } else { &[] };
    let path = with_query(&interfaces(server), query);
    let is_special = attach.mac.is_some() || attach.ifname.is_some() || attach.name.is_some() || !attach.groups.is_empty();
    let answer: Value = match attach.nic.network.as_ref().filter(|_| is_special) {
        Some(network) => {
            let ips = attach.nic.ip.into_iter().collect();
            let (network, name, mac, ifname) = (network.clone(), attach.name, attach.mac, attach.ifname);
            let filters = Filters { groups: attach.groups, ..Filters::default() };
            attach_new(session, &path, NewPort { network, name, mac, ips, ifname, filters, ..NewPort::default() }).await?
        }
        None => {
            let body = attachment(session, &attach.nic).await?;
            session.client.post(&path, &body).await?
        }
    };
    let receipt = answer.get("nicd:receipt").cloned();
    let id = client::id_of(&client::member(answer, "interfaceAttachment")?, "port_id")?;
    let port = names::full_uuid(&id).ok_or(ClientError::Incomplete { key: "port_id" })?;
    let waited = wait(session, following, port, Goal::Active).await;
    // Shown whatever came of the waiting: the port is attached, and its id is needed to look into it or detach it.
    let shown = port::show_attached(session, port, receipt).await;
    waited.and(shown)
}

/// Makes a port and attaches it, or leaves none.
async fn attach_new(session: &Session, path: &str, new: NewPort) -> Result<Value, Failure> {
    let port = client::id_of(&port::make(session, new).await?, "id")?;
    let body = json!({ "interfaceAttachment": { "port_id": port } });
    let attached = session.client.post(path, &body).await;
    match attached {
        Ok(answer) => Ok(answer),
        Err(source) => match session.client.delete(&format!("{}/{port}", Kind::Port.collection())).await {
            Ok(_) => Err(source.into()),
            Err(undo) => Err(Failure::PortLeft { port, undo: Box::new(undo), source }),
        },
    }
}

/// Takes a NIC from a server.
pub async fn detach(session: &mut Session, detach: Detach) -> Result<(), Failure> {
    let (server, port) = match detach.names.as_slice() {
        [server, port, ..] => {
            let server = session.id_of(Kind::Server, server).await?;
            let id = names::resolve_port_of(&session.client, server, port).await?;
            session.note(id, port);
            (server, id)
        }
        names => {
            let port = session.id_of(Kind::Port, names.first().map_or("", String::as_str)).await?;
            match server_of(&session.client, port).await? {
                Some(server) => (server, port),
                None => return session.out.say(&format!("port {port} is attached to no server")),
            }
        }
    };
    let following = follow(&session.client, detach.wait).await?;
    session.client.delete(&with_query(&format!("{}/{port}", interfaces(server)), &forced(detach.force))).await?;
    let done = if following.is_some() { "is detached" } else { "is being detached" };
    wait(session, following, port, Goal::Released { from: server }).await?;
    session.out.say(&format!("port {port} {done}"))
}

/// The server that has a port, if one does.
async fn server_of(client: &Client, port: Uuid) -> Result<Option<Uuid>, ClientError> {
    let shown = client::member(client.get(&Kind::Port.item(port)).await?, "port")?;
    Ok(shown["device_id"].as_str().and_then(names::full_uuid))
}

/// Prints what an attach or a detach would do.
pub async fn plan(session: &mut Session, planned: Planned) -> Result<(), Failure> {
    let asked = match planned {
        Planned::Attach(nic) => {
            let server = session.id_of(Kind::Server, &nic.server).await?;
            let mut asked = attachment(session, &nic).await?;
            asked["server_id"] = json!(server);
            asked
        }
        Planned::Detach { port } => json!({ "detach": session.id_of(Kind::Port, &port).await? }),
    };
    let said = session.client.post("/nicd/v1/plan", &asked).await?;
    print(session, &said, views::steps)
}

/// The path of a server's NICs.
fn interfaces(server: Uuid) -> String {
    format!("/v2.1/servers/{server}/os-interface")
}

async fn attachment(session: &Session, nic: &Nic) -> Result<Value, Failure> {
    let net_id = match &nic.network {
        Some(network) => Some(json!(session.id_of(Kind::Network, network).await?)),
        None => None,
    };
    let port_id = match &nic.port {
        Some(port) => Some(json!(session.id_of(Kind::Port, port).await?)),
        None => None,
    };
    let fixed_ips = nic.ip.map(|ip| json!([{ "ip_address": ip }]));
    let asked = members([("net_id", net_id), ("port_id", port_id), ("fixed_ips", fixed_ips)]);
    Ok(json!({ "interfaceAttachment": asked }))
}

/// The event stream, if there is to be a wait: opened before the change, so that the change is in it.
async fn follow(client: &Client, time: Option<WaitTime>) -> Result<Option<(Events, WaitTime)>, ClientError> {
    match time {
        Some(time) => Ok(Some((client.events().await?, time))),
        None => Ok(None),
    }
}

async fn wait(session: &Session, following: Option<(Events, WaitTime)>, port: Uuid, goal: Goal) -> Result<(), Failure> {
    let Some((stream, WaitTime(limit))) = following else { return Ok(()) };
    Ok(Wait { client: &session.client, progress: session.out.progress(), stream, port, goal }.run(limit).await?)
}
