//! `explain`, `counters`, `leases`, `verify`, `gc` and `status`: what the daemon says of itself and of this host.

use serde_json::{Value, json};

use super::Session;
use crate::ctl::args::Format;
use crate::ctl::client::VERIFY;
use crate::ctl::failure::Failure;
use crate::ctl::names::Kind;
use crate::ctl::table::Table;
use crate::ctl::views;

/// Why a port has the status it has.
pub async fn explain(session: &mut Session, port: &str) -> Result<(), Failure> {
    let id = session.id_of(Kind::Port, port).await?;
    let said = session.client.get(&format!("/nicd/v1/ports/{id}/explain")).await?;
    print(session, &said, views::facts)
}

/// What passed a port, and what was dropped.
pub async fn counters(session: &mut Session, port: &str) -> Result<(), Failure> {
    let id = session.id_of(Kind::Port, port).await?;
    let said = session.client.get(&format!("/nicd/v1/ports/{id}/counters")).await?;
    print(session, &said, views::counters)
}

/// What the guest of a port, or of each, asked last by DHCP.
pub async fn leases(session: &mut Session, port: Option<&str>) -> Result<(), Failure> {
    let ports = match port {
        Some(port) => vec![session.id_of(Kind::Port, port).await?.to_string()],
        None => {
            Kind::Port.list(&session.client, &[]).await?.iter().filter_map(|port| Some(port["id"].as_str()?.to_owned())).collect()
        }
    };
    let is_each = port.is_none();
    let mut leases = Vec::new();
    for id in ports {
        let mut said: Value = match session.client.get(&format!("/nicd/v1/ports/{id}/leases")).await {
            // It was deleted since it was listed.
            Err(error) if is_each && error.is_not_found() => continue,
            said => said?,
        };
        for lease in said["leases"].as_array_mut().into_iter().flatten() {
            lease["port_id"] = id.as_str().into();
            leases.push(lease.take());
        }
    }
    print(session, &json!({ "leases": leases }), |said| vec![views::leases(said)])
}

/// Prints the deviations between records and kernel; fails if there are any.
pub async fn verify(session: &mut Session) -> Result<(), Failure> {
    let said = session.client.clone().with_read_limit(VERIFY).get("/nicd/v1/verify").await?;
    print(session, &said, views::deviations)?;
    match said["deviations"].as_array().map_or(0, Vec::len) {
        0 => Ok(()),
        number => Err(Failure::Deviations(number)),
    }
}

/// What to do with what nicd built and no longer needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leftovers {
    /// Say what there is.
    List,
    /// Remove it.
    Remove,
}

/// What nicd built and no longer needs; with a store's id what the nicd with that store left.
pub async fn gc(session: &mut Session, leftovers: Leftovers, store: Option<String>) -> Result<(), Failure> {
    let mut asked = json!({ "apply": leftovers == Leftovers::Remove });
    if let Some(store) = store {
        asked["store"] = store.into();
    }
    let said = session.client.post("/nicd/v1/gc", &asked).await?;
    print(session, &said, |said| vec![views::leftovers(said)])
}

/// The daemon's health.
pub async fn status(session: &mut Session) -> Result<(), Failure> {
    let said = session.client.get("/nicd/v1/health").await?;
    print(session, &said, views::health)?;
    match said["problems"].as_array().map_or(0, Vec::len) {
        0 => Ok(()),
        number => Err(Failure::Degraded(number)),
    }
}

/// The versions of this program and of the daemon, which may be another after an upgrade.
pub async fn version(session: &mut Session) -> Result<(), Failure> {
    let health = session.client.health().await?;
    let versions = json!({ "nicctl": env!("CARGO_PKG_VERSION"), "nicd": health.version });
    print(session, &versions, views::versions)
}

/// Prints what the daemon said: itself, or as tables.
pub fn print(session: &mut Session, said: &Value, view: impl FnOnce(&Value) -> Vec<Table>) -> Result<(), Failure> {
    match session.out.format() {
        Format::Json | Format::Yaml => session.out.object(said),
        _ => session.out.tables(view(said)),
    }
}
