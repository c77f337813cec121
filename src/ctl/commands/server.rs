//! `nicctl server …`.

use nicd_client::http::with_query;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Session, forced, members};
use crate::ctl::args::{ChangedServer, NewServer, ServerCommand};
use crate::ctl::client;
use crate::ctl::failure::Failure;
use crate::ctl::names::{self, Kind};
use crate::ctl::values::Owner;
use crate::ctl::views::SERVER;

/// Runs a command about servers.
pub async fn run(session: &mut Session, command: ServerCommand) -> Result<(), Failure> {
    match command {
        ServerCommand::Add(new) => add(session, new).await,
        ServerCommand::List => {
            let servers = Kind::Server.list(&session.client, &[]).await?;
            session.print_list(&SERVER, servers).await
        }
        ServerCommand::Show { server } => {
            let id = session.id_of(Kind::Server, &server).await?;
            let server = client::member(session.client.get(&Kind::Server.item(id)).await?, "server")?;
            session.print_one(&SERVER, &server).await
        }
        ServerCommand::Set(changed) => set(session, changed).await,
        ServerCommand::Delete { server, detach, force } => {
            let id = session.id_of(Kind::Server, &server).await?;
            let mut query = forced(force);
            query.extend(detach.then_some(("detach", "true")));
            session.client.delete(&with_query(&Kind::Server.item(id), &query)).await?;
            session.out.say(&format!("server {id} is deleted"))
        }
    }
}

async fn add(session: &mut Session, new: NewServer) -> Result<(), Failure> {
    let (id, name) = identity(session, &new).await?;
    let server =
        members([("name", name.map(Value::from)), ("guest", Some(guest(&new))), ("nic_limit", new.nic_limit.map(Value::from))]);
    let answer = session.client.put(&Kind::Server.item(id), &json!({ "server": server })).await?;
    let server = client::member(answer, "server")?;
    session.print_one(&SERVER, &server).await
}

/// Registers a server again with what it has, but for what changes.
async fn set(session: &mut Session, changed: ChangedServer) -> Result<(), Failure> {
    let id = session.id_of(Kind::Server, &changed.server).await?;
    let mut server = client::member(session.client.get(&Kind::Server.item(id)).await?, "server")?;
    // The daemon keeps a guest that nothing is said of, and then looks up no namespace.
    let is_same_guest = changed.netns.is_none() && changed.queues.is_none() && changed.owner.is_none() && changed.qmp.is_none();
    let changes = [
        ("/name", changed.name.map(Value::from)),
        ("/nic_limit", changed.nic_limit.map(Value::from)),
        ("/guest/path", changed.netns.map(Value::from)),
        ("/guest/queues", changed.queues.map(Value::from)),
        ("/guest/owner", changed.owner.map(Owner::to_json)),
        ("/guest/monitor", changed.qmp.map(|path| json!({ "qmp": path }))),
    ];
    for (pointer, value) in changes {
        let (parent, key) = pointer.rsplit_once('/').unwrap_or_default();
        if let (Some(Value::Object(parent)), Some(value)) = (server.pointer_mut(parent), value) {
            parent.insert(key.to_owned(), value);
        }
    }
    let registered = ["name", "project_id", "guest", "nic_limit"];
    if let Value::Object(members) = &mut server {
        members.retain(|key, value| registered.contains(&key.as_str()) && !value.is_null());
        if is_same_guest {
            members.insert("guest".to_owned(), Value::Null);
        }
    }
    let answer = session.client.put(&Kind::Server.item(id), &json!({ "server": server })).await?;
    let server = client::member(answer, "server")?;
    session.print_one(&SERVER, &server).await
}

/// The server's id and name: a UUID is the id, anything else the name of a server that has yet to exist.
async fn identity(session: &Session, new: &NewServer) -> Result<(Uuid, Option<String>), Failure> {
    if let Some(id) = names::full_uuid(&new.id) {
        return Ok((id, new.name.clone()));
    }
    if new.name.is_some() {
        return Err(Failure::NamedTwice { given: new.id.clone() });
    }
    match names::servers_called(&session.client, &new.id).await?.first() {
        Some(id) => Err(Failure::ServerExists { name: new.id.clone(), id: id.to_string() }),
        None => Ok((Uuid::new_v4(), Some(new.id.clone()))),
    }
}

fn guest(new: &NewServer) -> Value {
    if !new.vm {
        return json!({"kind": "netns", "path": new.netns});
    }
    let vm = members([
        ("kind", Some(json!("vm"))),
        ("queues", new.queues.map(Value::from)),
        ("owner", new.owner.map(Owner::to_json)),
        ("monitor", new.qmp.as_ref().map(|path| json!({ "qmp": path }))),
    ]);
    Value::Object(vm)
}
