//! The table of all routes, with handler and documentation. A route is served and documented if and only if it is in this table.

use std::collections::BTreeSet;

use axum::handler::Handler;
use axum::routing::{self, MethodRouter};
use utoipa::openapi::HttpMethod;

use crate::model::{Group as SecurityGroup, Subnet};
use crate::service::{NetworkView, PortView, RuleView, TrunkView};

use super::openapi::{self as document, Entry};
use super::{
    AppState, absent, agent, bindings, extensions, flavors, hosts, maintenance, metrics, nova, otc, quotas, rackspace, resource,
    stream, trunks, versions,
};

/// One method of one path.
pub(super) struct Route {
    pub path: &'static str,
    pub method: HttpMethod,
    pub serve: MethodRouter<AppState>,
    pub describe: fn() -> Entry,
}

/// Routes that are served alike, under each of some prefixes.
pub(super) struct Group {
    pub prefixes: &'static [&'static str],
    pub layers: Layers,
    pub routes: Vec<Route>,
}

/// The layers between the router and a group's handlers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layers {
    /// Nothing.
    None,
    /// Idempotency keys.
    Idempotent,
    /// Idempotency keys, and microversions.
    IdempotentVersioned,
}

macro_rules! method {
    ($name:ident, $method:expr) => {
        fn $name<H, T>(path: &'static str, handler: H, describe: fn() -> Entry) -> Route
        where
            H: Handler<T, AppState>,
            T: 'static,
        {
            Route { path, method: $method, serve: routing::$name(handler), describe }
        }
    };
}

method!(get, HttpMethod::Get);
method!(post, HttpMethod::Post);
method!(put, HttpMethod::Put);
method!(delete, HttpMethod::Delete);

/// All of them.
pub(super) fn groups() -> [Group; 6] {
    [
        Group { prefixes: &[""], layers: Layers::None, routes: discovery() },
        Group {
            prefixes: &["/v2", "/v2.1", "/v2/{project}", "/v2.1/{project}"],
            layers: Layers::IdempotentVersioned,
            routes: compute(),
        },
        Group { prefixes: &["", "/v2/{project}"], layers: Layers::Idempotent, routes: rackspaces() },
        Group { prefixes: &["/v1/{project}"], layers: Layers::Idempotent, routes: otcs() },
        Group { prefixes: &["/v2.0"], layers: Layers::Idempotent, routes: network() },
        Group { prefixes: &["/nicd/v1"], layers: Layers::None, routes: own() },
    ]
}

fn discovery() -> Vec<Route> {
    use document::versions as page;
    vec![
        get("/", versions::all, page::all),
        get("/v2", versions::v2, page::v2),
        get("/v2/", versions::v2, page::v2),
        get("/v2.1", versions::v21, page::v21),
        get("/v2.1/", versions::v21, page::v21),
        get("/v2.0", versions::network, page::network),
        get("/v2.0/", versions::network, page::network),
        get("/metrics", metrics::show, document::agent::metrics_at_root),
        get("/openapi.json", document::serve, document::agent::document_at_root),
    ]
}

fn compute() -> Vec<Route> {
    use document::{flavors as flavor_page, nova as page};
    vec![
        get("/servers", nova::servers, page::servers),
        get("/servers/detail", nova::details, page::details),
        get("/servers/{server}", nova::server, page::server),
        get("/flavors", flavors::list, flavor_page::list_all),
        get("/flavors/detail", flavors::details, flavor_page::details),
        get("/flavors/{flavor}", flavors::show, flavor_page::show),
        get("/flavors/{flavor}/os-extra_specs", flavors::extra_specs, flavor_page::extra_specs),
        get("/servers/{server}/os-interface", nova::list, page::list_interfaces),
        post("/servers/{server}/os-interface", nova::attach, page::attach),
        get("/servers/{server}/os-interface/{port}", nova::show, page::show_interface),
        delete("/servers/{server}/os-interface/{port}", nova::detach, page::detach),
    ]
}

fn rackspaces() -> Vec<Route> {
    use document::rackspace as page;
    vec![
        get("/servers/{server}/os-virtual-interfacesv2", rackspace::list, page::list_interfaces),
        post("/servers/{server}/os-virtual-interfacesv2", rackspace::create, page::create),
        delete("/servers/{server}/os-virtual-interfacesv2/{port}", rackspace::delete, page::delete),
        get("/os-networksv2", rackspace::networks, page::list_networks),
        get("/os-networksv2/{network}", rackspace::network, page::show_network),
    ]
}

fn otcs() -> Vec<Route> {
    use document::otc as page;
    vec![
        post("/cloudservers/{server}/nics", otc::add, page::add),
        post("/cloudservers/{server}/nics/delete", otc::delete, page::delete),
        get("/cloudservers/{server}/os-interface", otc::list, page::list_interfaces),
        get("/jobs/{job}", otc::job, page::job),
    ]
}

fn network() -> Vec<Route> {
    use document::discovery as page;
    use document::{
        bindings as binding_page, groups as group_page, networks as network_page, ports as port_page, subnets as subnet_page,
        trunks as trunk_page,
    };
    vec![
        get("/extensions", extensions::list, page::extensions),
        get("/extensions/{alias}", extensions::show, page::extension),
        get("/quotas", quotas::list, page::quotas),
        get("/quotas/{project}", quotas::show, page::quota),
        get("/quotas/{project}/default", quotas::show, page::default_quota),
        get("/subnetpools", absent::pools, page::pools),
        get("/subnetpools/{id}", absent::pool, page::pool),
        get("/availability_zones", absent::zones, page::zones),
        get("/networks", resource::list::<NetworkView>, network_page::list_all),
        post("/networks", resource::create::<NetworkView>, network_page::create),
        get("/networks/{id}", resource::show::<NetworkView>, network_page::show),
        put("/networks/{id}", resource::update::<NetworkView>, network_page::update),
        delete("/networks/{id}", resource::delete::<NetworkView>, network_page::delete),
        get("/subnets", resource::list::<Subnet>, subnet_page::list_all),
        post("/subnets", resource::create::<Subnet>, subnet_page::create),
        get("/subnets/{id}", resource::show::<Subnet>, subnet_page::show),
        put("/subnets/{id}", resource::update::<Subnet>, subnet_page::update),
        delete("/subnets/{id}", resource::delete::<Subnet>, subnet_page::delete),
        get("/security-groups", resource::list::<SecurityGroup>, group_page::list_all),
        post("/security-groups", resource::create::<SecurityGroup>, group_page::create),
        get("/security-groups/{id}", resource::show::<SecurityGroup>, group_page::show),
        put("/security-groups/{id}", resource::update::<SecurityGroup>, group_page::update),
        delete("/security-groups/{id}", resource::delete::<SecurityGroup>, group_page::delete),
        get("/security-group-rules", resource::list::<RuleView>, group_page::list_rules),
        post("/security-group-rules", resource::create::<RuleView>, group_page::create_rules),
        get("/security-group-rules/{id}", resource::show::<RuleView>, group_page::show_rule),
        delete("/security-group-rules/{id}", resource::delete::<RuleView>, group_page::delete_rule),
        get("/ports", resource::list::<PortView>, port_page::list_all),
        post("/ports", resource::create::<PortView>, port_page::create),
        get("/ports/{id}", resource::show::<PortView>, port_page::show),
        put("/ports/{id}", resource::update::<PortView>, port_page::update),
        delete("/ports/{id}", resource::delete::<PortView>, port_page::delete),
        get("/ports/{id}/bindings", bindings::list, binding_page::list_all),
        post("/ports/{id}/bindings", bindings::create, binding_page::create),
        get("/ports/{id}/bindings/{host}", bindings::show, binding_page::show),
        delete("/ports/{id}/bindings/{host}", bindings::delete, binding_page::delete),
        put("/ports/{id}/bindings/{host}/activate", bindings::activate, binding_page::activate),
        get("/trunks", resource::list::<TrunkView>, trunk_page::list_all),
        post("/trunks", resource::create::<TrunkView>, trunk_page::create),
        get("/trunks/{id}", resource::show::<TrunkView>, trunk_page::show),
        put("/trunks/{id}", resource::update::<TrunkView>, trunk_page::update),
        delete("/trunks/{id}", resource::delete::<TrunkView>, trunk_page::delete),
        get("/trunks/{id}/get_subports", trunks::sub_ports, trunk_page::sub_ports),
        put("/trunks/{id}/add_subports", trunks::add, trunk_page::add),
        put("/trunks/{id}/remove_subports", trunks::remove, trunk_page::remove),
    ]
}

/// The paths under `/v2.0`.
pub(super) fn network_paths() -> BTreeSet<&'static str> {
    network().into_iter().map(|route| route.path).collect()
}

fn own() -> Vec<Route> {
    use document::{agent as page, hosts as hosts_page, maintenance as maintenance_page};
    vec![
        get("/servers", agent::servers, page::servers),
        get("/servers/{id}", agent::server, page::server),
        put("/servers/{id}", agent::put_server, page::put_server),
        delete("/servers/{id}", agent::delete_server, page::delete_server),
        get("/events", stream::events, page::events),
        get("/health", agent::health, page::health),
        get("/ports/{id}/explain", agent::explain, page::explain),
        get("/ports/{id}/counters", agent::counters, page::counters),
        get("/ports/{id}/leases", agent::leases, page::leases),
        post("/plan", maintenance::plan, maintenance_page::plan),
        get("/verify", maintenance::verify, maintenance_page::verify),
        post("/gc", maintenance::gc, maintenance_page::gc),
        get("/hosts", hosts::list, hosts_page::all),
        get("/hosts/{host}", hosts::show, hosts_page::show),
        delete("/hosts/{host}", hosts::forget, hosts_page::forget),
        get("/fleet", hosts::fleet, hosts_page::fleet),
        get("/metrics", metrics::show, page::metrics),
        get("/openapi.json", document::serve, page::document),
    ]
}
