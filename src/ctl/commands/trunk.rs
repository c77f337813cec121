//! `nicctl trunk …`.

use serde_json::{Value, json};

use super::{Session, members, switch, unless_empty};
use crate::ctl::args::{ChangedTrunk, NewTrunk, TrunkCommand};
use crate::ctl::client;
use crate::ctl::failure::Failure;
use crate::ctl::names::Kind;
use crate::ctl::values::SubPort;
use crate::ctl::views::TRUNK;

/// Runs a command about trunks.
pub async fn run(session: &mut Session, command: TrunkCommand) -> Result<(), Failure> {
    match command {
        TrunkCommand::Create(new) => create(session, new).await,
        TrunkCommand::List => {
            let trunks = Kind::Trunk.list(&session.client, &[]).await?;
            session.print_list(&TRUNK, trunks).await
        }
        TrunkCommand::Show { trunk } => {
            let id = session.id_of(Kind::Trunk, &trunk).await?;
            let trunk = client::member(session.client.get(&Kind::Trunk.item(id)).await?, "trunk")?;
            session.print_one(&TRUNK, &trunk).await
        }
        TrunkCommand::Set(changed) => set(session, changed).await,
        TrunkCommand::Delete { trunk } => {
            let id = session.id_of(Kind::Trunk, &trunk).await?;
            session.client.delete(&Kind::Trunk.item(id)).await?;
            session.out.say(&format!("trunk {id} is deleted"))
        }
        TrunkCommand::Add { trunk, subports } => {
            let subports = named(session, &subports).await?;
            change(session, &trunk, "add_subports", subports).await
        }
        TrunkCommand::Remove { trunk, ports } => {
            let mut gone = Vec::new();
            for port in &ports {
                gone.push(json!({"port_id": session.id_of(Kind::Port, port).await?}));
            }
            change(session, &trunk, "remove_subports", gone).await
        }
    }
}

async fn create(session: &mut Session, new: NewTrunk) -> Result<(), Failure> {
    let parent = session.id_of(Kind::Port, &new.parent).await?;
    let subports = named(session, &new.subports).await?;
    let trunk = members([
        ("port_id", Some(json!(parent))),
        ("name", new.name.map(Value::from)),
        ("admin_state_up", new.admin_down.then_some(Value::Bool(false))),
        ("sub_ports", unless_empty(subports)),
    ]);
    let answer = session.client.post(Kind::Trunk.collection(), &json!({ "trunk": trunk })).await?;
    session.print_one(&TRUNK, &client::member(answer, "trunk")?).await
}

async fn set(session: &mut Session, changed: ChangedTrunk) -> Result<(), Failure> {
    let id = session.id_of(Kind::Trunk, &changed.trunk).await?;
    let trunk =
        members([("name", changed.name.map(Value::from)), ("admin_state_up", switch(changed.admin_up, changed.admin_down))]);
    let answer = session.client.put(&Kind::Trunk.item(id), &json!({ "trunk": trunk })).await?;
    session.print_one(&TRUNK, &client::member(answer, "trunk")?).await
}

/// Adds subports or removes them. The answer is the trunk itself.
async fn change(session: &mut Session, trunk: &str, how: &str, subports: Vec<Value>) -> Result<(), Failure> {
    let id = session.id_of(Kind::Trunk, trunk).await?;
    let path = format!("{}/{how}", Kind::Trunk.item(id));
    let trunk: Value = session.client.put(&path, &json!({ "sub_ports": subports })).await?;
    session.print_one(&TRUNK, &trunk).await
}

/// Subports as Neutron takes them, each port by its id.
async fn named(session: &Session, subports: &[SubPort]) -> Result<Vec<Value>, Failure> {
    let mut named = Vec::new();
    for subport in subports {
        let port = session.id_of(Kind::Port, &subport.port).await?;
        named.push(json!({"port_id": port, "segmentation_type": "vlan", "segmentation_id": subport.vlan}));
    }
    Ok(named)
}
