//! `nicctl doctor`.

use serde_json::json;

use super::Session;
use super::agent::print;
use crate::ctl::client::{Client, ClientError};
use crate::ctl::doctor::{Agent, Level, findings, read_host};
use crate::ctl::failure::Failure;
use crate::ctl::names::Kind;
use crate::ctl::views;

/// Prints the findings, the worst first; fails if there are any that stop attaches.
pub async fn run(session: &mut Session) -> Result<(), Failure> {
    if session.client.is_remote() {
        return Err(Failure::LocalOnly);
    }
    let host = read_host().await.map_err(Failure::Host)?;
    let agent = ask(&session.client).await.map_err(|error| Failure::from(error).sentence());
    let found = findings(&host, agent.as_ref().map_err(String::as_str));
    print(session, &json!({ "findings": found }), views::findings)?;
    match found.iter().filter(|finding| finding.level == Level::Fail).count() {
        0 => Ok(()),
        number => Err(Failure::Findings(number)),
    }
}

async fn ask(client: &Client) -> Result<Agent, ClientError> {
    let health = client.get("/nicd/v1/health").await?;
    let networks = Kind::Network.list(client, &[]).await?;
    let subnets = Kind::Subnet.list(client, &[]).await?;
    Ok(Agent { health, networks, subnets, ports: Kind::Port.list(client, &[]).await? })
}
