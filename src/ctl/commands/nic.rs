//! `nicctl attach` and `nicctl detach`: a server gets a NIC, a server loses one.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Session, forced, members, port};
use crate::ctl::args::{Attach, Detach};
use crate::ctl::client::{self, Client, ClientError};
use crate::ctl::events::EventStream;
use crate::ctl::failure::Failure;
use crate::ctl::names::{self, Kind};
use crate::ctl::uri;
use crate::ctl::values::WaitTime;
use crate::ctl::wait::{Goal, Wait};

/// Gives a server a NIC and prints the port.
pub async fn attach(session: &mut Session, attach: Attach) -> Result<(), Failure> {
    let server = names::resolve(&session.client, Kind::Server, &attach.server).await?;
    let body = attachment(&session.client, &attach).await?;
    let following = follow(&session.client, attach.wait).await?;
    let answer = session.client.post(&interfaces(server), &body).await?;
    let id = client::id_of(&client::member(answer, "interfaceAttachment")?, "port_id")?;
    let port = names::full_uuid(&id).ok_or(ClientError::Incomplete { key: "port_id" })?;
    let waited = wait(&session.client, following, port, Goal::Active).await;
    // Shown whatever came of the waiting: the port is attached, and its id is needed to look into it or detach it.
    let shown = port::show(session, &id).await;
    waited.and(shown)
}

/// Takes a NIC from a server.
pub async fn detach(session: &mut Session, detach: Detach) -> Result<(), Failure> {
    let server = names::resolve(&session.client, Kind::Server, &detach.server).await?;
    let port = names::resolve_port_of(&session.client, server, &detach.port).await?;
    let following = follow(&session.client, detach.wait).await?;
    session.client.delete(&uri::with_query(&format!("{}/{port}", interfaces(server)), &forced(detach.force))).await?;
    let done = if following.is_some() { "is detached" } else { "is being detached" };
    wait(&session.client, following, port, Goal::Released { from: server }).await?;
    session.out.say(&format!("port {port} {done}"))
}

/// The path of a server's NICs.
fn interfaces(server: Uuid) -> String {
    format!("/v2.1/servers/{server}/os-interface")
}

async fn attachment(client: &Client, attach: &Attach) -> Result<Value, Failure> {
    let net_id = match &attach.network {
        Some(network) => Some(json!(names::resolve(client, Kind::Network, network).await?)),
        None => None,
    };
    let port_id = match &attach.port {
        Some(port) => Some(json!(names::resolve(client, Kind::Port, port).await?)),
        None => None,
    };
    let fixed_ips = attach.ip.map(|ip| json!([{ "ip_address": ip }]));
    let asked = members([("net_id", net_id), ("port_id", port_id), ("fixed_ips", fixed_ips)]);
    Ok(json!({ "interfaceAttachment": asked }))
}

/// The event stream, if there is to be a wait: opened before the change, so that the change is in it.
async fn follow(client: &Client, time: Option<WaitTime>) -> Result<Option<(EventStream, WaitTime)>, ClientError> {
    match time {
        Some(time) => Ok(Some((client.events().await?, time))),
        None => Ok(None),
    }
}

async fn wait(client: &Client, following: Option<(EventStream, WaitTime)>, port: Uuid, goal: Goal) -> Result<(), Failure> {
    let Some((stream, WaitTime(limit))) = following else { return Ok(()) };
    Ok(Wait { client, stream, port, goal }.run(limit).await?)
}
