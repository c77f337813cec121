//! `nicctl host …` and `nicctl fleet …`.

use serde_json::Value;

use super::Session;
use crate::ctl::args::{FleetCommand, HostCommand};
use crate::ctl::client::{self, ClientError};
use crate::ctl::failure::Failure;
use crate::ctl::views::{FLEET, HOST};

const HOSTS: &str = "/nicd/v1/hosts";

/// Runs a command about the hosts of the fleet.
pub async fn run(session: &mut Session, command: HostCommand) -> Result<(), Failure> {
    match command {
        HostCommand::List => {
            let Value::Array(hosts) = client::member(session.client.get(HOSTS).await?, "hosts")? else {
                return Err(ClientError::Incomplete { key: "hosts" }.into());
            };
            session.print_list(&HOST, hosts).await
        }
        HostCommand::Show { name } => {
            let shown = client::member(session.client.get(&path(&name)).await?, "host")?;
            session.print_one(&HOST, &shown).await
        }
        HostCommand::Forget { name } => {
            session.client.delete(&path(&name)).await?;
            session.out.say(&format!("host {name} is forgotten"))
        }
    }
}

/// Runs a command about the fleet.
pub async fn fleet(session: &mut Session, command: FleetCommand) -> Result<(), Failure> {
    let FleetCommand::Status = command;
    let fleet = client::member(session.client.get("/nicd/v1/fleet").await?, "fleet")?;
    if fleet.is_null() {
        return session.out.say("this host is of no fleet: its configuration has no [fleet]");
    }
    session.print_one(&FLEET, &fleet).await?;
    match fleet["connected"] == true {
        true => Ok(()),
        false => Err(Failure::FleetUnreached),
    }
}

fn path(host: &str) -> String {
    format!("{HOSTS}/{host}")
}
