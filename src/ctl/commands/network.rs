//! `nicctl network …`.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Session, members, subnet, switch};
use crate::ctl::args::{ChangedNetwork, NetworkCommand, NewNetwork};
use crate::ctl::client::{self, Client, ClientError};
use crate::ctl::failure::Failure;
use crate::ctl::names::Kind;
use crate::ctl::values::{Cidr, SegmentId};
use crate::ctl::views::NETWORK;

/// Runs a command about networks.
pub async fn run(session: &mut Session, command: NetworkCommand) -> Result<(), Failure> {
    match command {
        NetworkCommand::Create(new) => create(session, new).await,
        NetworkCommand::List => {
            let networks = Kind::Network.list(&session.client, &[]).await?;
            session.print_list(&NETWORK, networks).await
        }
        NetworkCommand::Show { network } => {
            let id = session.id_of(Kind::Network, &network).await?;
            show(session, id).await
        }
        NetworkCommand::Set(changed) => set(session, changed).await,
        NetworkCommand::Delete { network } => {
            let id = session.id_of(Kind::Network, &network).await?;
            session.client.delete(&Kind::Network.item(id)).await?;
            session.out.say(&format!("network {id} is deleted"))
        }
    }
}

async fn show(session: &mut Session, id: Uuid) -> Result<(), Failure> {
    let network = client::member(session.client.get(&Kind::Network.item(id)).await?, "network")?;
    session.print_one(&NETWORK, &network).await
}

async fn create(session: &mut Session, new: NewNetwork) -> Result<(), Failure> {
    let kind = new.vlan.map(|_| "vlan").or(new.vxlan.map(|_| "vxlan")).or(new.flat.then_some("flat"));
    let segment = new.vlan.or(new.vxlan).and_then(SegmentId::id);
    let body = members([
        ("name", Some(json!(new.name))),
        ("nicd:bridge", new.bridge.map(Value::from)),
        ("provider:network_type", kind.map(Value::from)),
        ("provider:physical_network", new.physical.map(Value::from)),
        ("provider:segmentation_id", segment.map(Value::from)),
        ("mtu", new.mtu.map(Value::from)),
        ("port_security_enabled", switch(new.security.enable_port_security, new.security.disable_port_security)),
        ("nicd:isolated", new.isolated.then_some(Value::Bool(true))),
        ("nicd:scope", new.scope.map(Value::from)),
    ]);
    let answer = session.client.post(Kind::Network.collection(), &json!({"network": body})).await?;
    let network = client::member(answer, "network")?;
    let id = client::id_of(&network, "id")?;
    let mut made = vec![format!("{}/{id}", Kind::Network.collection())];
    for cidr in &new.subnets {
        match add_subnet(&session.client, &id, cidr).await {
            Ok(subnet) => made.push(format!("{}/{subnet}", Kind::Subnet.collection())),
            Err(source) => return Err(take_back(&session.client, id, made, source).await),
        }
    }
    if new.subnets.is_empty() {
        return session.print_one(&NETWORK, &network).await;
    }
    // Its subnets are part of it by now.
    let network = client::member(session.client.get(&made[0]).await?, "network")?;
    session.print_one(&NETWORK, &network).await
}

async fn set(session: &mut Session, changed: ChangedNetwork) -> Result<(), Failure> {
    let id = session.id_of(Kind::Network, &changed.network).await?;
    let body = members([
        ("name", changed.name.map(Value::from)),
        ("mtu", changed.mtu.map(Value::from)),
        ("port_security_enabled", switch(changed.security.enable_port_security, changed.security.disable_port_security)),
        ("nicd:isolated", changed.isolated.map(Value::Bool)),
    ]);
    let answer = session.client.put(&Kind::Network.item(id), &json!({ "network": body })).await?;
    let network = client::member(answer, "network")?;
    session.print_one(&NETWORK, &network).await
}

async fn add_subnet(client: &Client, network: &str, cidr: &Cidr) -> Result<String, ClientError> {
    let answer = client.post(Kind::Subnet.collection(), &subnet::body(network, cidr, Default::default())).await?;
    client::id_of(&client::member(answer, "subnet")?, "id")
}

/// Deletes what was made, last first, and says why: the cause alone if nothing is left, else both.
async fn take_back(client: &Client, network: String, made: Vec<String>, source: ClientError) -> Failure {
    let mut failed = None;
    for target in made.iter().rev() {
        // A subnet that stays does not keep the network from being tried.
        if let Err(undo) = client.delete(target).await {
            failed = Some(undo);
        }
    }
    match failed {
        None => source.into(),
        Some(undo) => Failure::HalfMade { network, undo: Box::new(undo), source },
    }
}
