//! `nicctl graph`.

use super::Session;
use crate::ctl::args::GraphFormat;
use crate::ctl::doctor;
use crate::ctl::failure::Failure;
use crate::ctl::graph::Graph;
use crate::ctl::names::Kind;
use crate::ctl::views::plain;

/// Draws what is attached to what, in all networks or in one.
pub async fn draw(session: &mut Session, format: GraphFormat, network: Option<&str>) -> Result<(), Failure> {
    let mut networks = Kind::Network.list(&session.client, &[]).await?;
    if let Some(network) = network {
        let id = session.id_of(Kind::Network, network).await?.to_string();
        networks.retain(|network| network["id"] == id.as_str());
    }
    networks.sort_by_cached_key(|network| plain(&network["name"]));
    let ports = Kind::Port.list(&session.client, &[]).await?;
    let servers = Kind::Server.list(&session.client, &[]).await?;
    // Without them the picture has no uplinks, and is right else.
    let members = doctor::members().await.unwrap_or_default();
    let of = |bridge: &str| members.get(bridge).cloned().unwrap_or_default();
    session.out.raw(Graph::of(&networks, &ports, &servers, of).render(format).as_bytes())
}
