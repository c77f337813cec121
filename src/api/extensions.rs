//! Neutron's extensions: what clients read before they use an attribute or a route. An extension is listed exactly while what it
//! adds is there.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use axum::Json;
use axum::extract::Path;
use axum::response::Response;
use serde_json::{Value, json};

use super::answer::answer;
use super::dialect::NETWORK;
use super::error::{ApiError, ObjectKind};
use super::openapi::schema::{empty_list, time, words};
use super::versions::UPDATED;
use super::{networks, ports, respond, routes};

/// An extension, and by what it is there.
#[derive(Debug, Clone, Copy)]
struct Extension {
    alias: &'static str,
    name: &'static str,
    description: &'static str,
    adds: Adds,
}

/// What an extension adds.
#[derive(Debug, Clone, Copy)]
enum Adds {
    /// A route under `/v2.0`.
    Route(&'static str),
    /// An attribute of networks.
    OfNetworks(&'static str),
    /// An attribute of ports.
    OfPorts(&'static str),
    /// Something that all of nicd's lists or changes do.
    Everywhere,
}

use Adds::{Everywhere, OfNetworks, OfPorts, Route};

const fn extension(alias: &'static str, name: &'static str, description: &'static str, adds: Adds) -> Extension {
    Extension { alias, name, description, adds }
}

/// Those that nicd has or may have.
const TABLE: [Extension; 24] = [
    extension(
        "allowed-address-pairs",
        "Allowed Address Pairs",
        "Addresses a guest may send from beside its port's own.",
        OfPorts("allowed_address_pairs"),
    ),
    extension("availability_zone", "Availability Zone", "A list of zones; nicd has none.", Route("/availability_zones")),
    extension("binding", "Port Binding", "How a port is given to its guest.", OfPorts("binding:vif_type")),
    extension("binding-extended", "Port Bindings Extended", "Several bindings of a port.", Route("/ports/{id}/bindings")),
    extension(
        "external-net",
        "Neutron external network",
        "Whether a network is external; none is.",
        OfNetworks("router:external"),
    ),
    extension("extra_dhcp_opt", "Neutron Extra DHCP options", "DHCP options of one port.", OfPorts("extra_dhcp_opts")),
    extension("filter-validation", "Filter parameters validation", "A filter that nicd does not know is refused.", Everywhere),
    extension("net-mtu", "Network MTU", "The MTU of a network's guests.", OfNetworks("mtu")),
    extension("net-mtu-writable", "Network MTU (writable)", "It can be changed.", OfNetworks("mtu")),
    extension("pagination", "Pagination support", "Lists are given page by page.", Everywhere),
    extension(
        "port-security",
        "Port Security",
        "Whether a guest is held to its port's MAC and addresses.",
        OfPorts("port_security_enabled"),
    ),
    extension("project-id", "project_id field enabled", "The project, also by this name.", OfNetworks("project_id")),
    extension("provider", "Provider Network", "How a network is realised.", OfNetworks("provider:network_type")),
    extension(
        "quotas",
        "Quota management support",
        "How many things a project may have: any number.",
        Route("/quotas/{project}"),
    ),
    extension("revision-if-match", "If-Match constraints based on revision_number", "Changes of one revision only.", Everywhere),
    extension(
        "security-group",
        "security-group",
        "Groups of rules for what a guest may send and get.",
        Route("/security-groups"),
    ),
    extension(
        "security-groups-normalized-cidr",
        "Normalized CIDR field for security group rules",
        "normalized_cidr of a rule.",
        Route("/security-group-rules"),
    ),
    extension("sorting", "Sorting support", "Lists are sorted as asked.", Everywhere),
    extension("standard-attr-description", "standard-attr-description", "Free text about a thing.", OfNetworks("description")),
    extension(
        "standard-attr-revisions",
        "Resource revision numbers",
        "A count of a thing's changes.",
        OfNetworks("revision_number"),
    ),
    extension("standard-attr-timestamp", "Resource timestamps", "When a thing was made and changed.", OfNetworks("created_at")),
    extension("subnet_allocation", "Subnet Allocation", "A list of subnet pools; nicd has none.", Route("/subnetpools")),
    extension("trunk", "Trunk Extension", "A port that carries other ports' traffic by VLAN.", Route("/trunks")),
    extension("trunk-details", "Trunk port details", "A trunk's ports, shown in its parent port.", OfPorts("trunk_details")),
];

/// The paths under `/v2.0` that there are.
static PATHS: LazyLock<BTreeSet<&'static str>> = LazyLock::new(routes::network_paths);

/// Whether there is a route under `/v2.0`.
pub(super) fn has_route(path: &str) -> bool {
    PATHS.contains(path)
}

impl Extension {
    fn is_there(&self) -> bool {
        match self.adds {
            Route(path) => has_route(path),
            OfNetworks(attribute) => networks::Shown::shape().has(attribute),
            OfPorts(attribute) => ports::Shown::shape().has(attribute),
            Everywhere => true,
        }
    }

    fn shown(&self) -> Value {
        Shown::of(self.alias, self.name, self.description)
    }
}

/// All that are there.
pub(super) fn all() -> Vec<Value> {
    TABLE.iter().filter(|extension| extension.is_there()).map(Extension::shown).collect()
}

pub(super) async fn list() -> Json<Value> {
    Json(json!({ "extensions": all() }))
}

pub(super) async fn show(Path(alias): Path<String>) -> Response {
    let found = TABLE.iter().find(|extension| extension.alias == alias && extension.is_there());
    let unknown = || ApiError::Unknown { what: ObjectKind::Extension, id: alias.chars().take(64).collect() };
    respond(found.map(|one| Json(json!({"extension": one.shown()}))).ok_or_else(unknown), NETWORK)
}

answer! {
    /// An extension of the network API.
    pub(super) Shown(alias: &str, name: &str, description: &str) {
        /// Its name for programs.
        "alias": alias => words(),
        /// Its name for people.
        "name": name => words(),
        /// What it adds.
        "description": description => words(),
        /// When it was last changed.
        "updated": UPDATED => time(),
        /// Always empty.
        "links": Value::Array(Vec::new()) => empty_list(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_are_sorted_and_those_without_a_route_are_not_listed() {
        assert!(TABLE.is_sorted_by_key(|extension| extension.alias));
        let listed: Vec<Value> = all().iter().map(|one| one["alias"].clone()).collect();
        assert!(listed.contains(&json!("port-security")) && !listed.contains(&json!("router")), "{listed:?}");
        for (alias, path) in [("security-group", "/security-groups"), ("trunk", "/trunks"), ("quotas", "/quotas/{project}")] {
            assert_eq!(listed.contains(&json!(alias)), has_route(path), "{alias}");
        }
    }
}
