//! What clients of Neutron ask before they start: extensions, each with what it adds; quotas; and lists that are empty.

use serde_json::{Value, json};

use crate::NOBODY;
use crate::fixture::{Fixture, text};
use crate::netns::in_netns;

/// Where what an extension adds is seen.
#[derive(Debug, Clone, Copy)]
enum Seen {
    /// In every network.
    Network(&'static str),
    /// In every port.
    Port(&'static str),
    /// In the answer to a GET.
    Get(&'static str, u16),
}

/// Every extension that may be listed.
const EXTENSIONS: [(&str, Seen); 24] = {
    use Seen::{Get, Network, Port};
    [
        ("allowed-address-pairs", Port("allowed_address_pairs")),
        ("availability_zone", Get("/v2.0/availability_zones", 200)),
        ("binding", Port("binding:vif_details")),
        ("binding-extended", Get("/v2.0/ports/PORT/bindings", 200)),
        ("external-net", Network("router:external")),
        ("extra_dhcp_opt", Port("extra_dhcp_opts")),
        ("filter-validation", Get("/v2.0/networks?colour=red", 400)),
        ("net-mtu", Network("mtu")),
        ("net-mtu-writable", Network("mtu")),
        ("pagination", Get("/v2.0/networks?limit=1&page_reverse=True", 200)),
        ("port-security", Port("port_security_enabled")),
        ("project-id", Network("project_id")),
        ("provider", Network("provider:network_type")),
        ("quotas", Get("/v2.0/quotas/demo", 200)),
        ("revision-if-match", Network("revision_number")),
        ("security-group", Get("/v2.0/security-groups", 200)),
        ("security-groups-normalized-cidr", Get("/v2.0/security-group-rules?normalized_cidr=10.0.0.0/8", 200)),
        ("sorting", Get("/v2.0/networks?sort_key=mtu&sort_dir=desc", 200)),
        ("standard-attr-description", Network("description")),
        ("standard-attr-revisions", Port("revision_number")),
        ("standard-attr-timestamp", Port("updated_at")),
        ("subnet_allocation", Get("/v2.0/subnetpools", 200)),
        ("trunk", Get("/v2.0/trunks", 200)),
        ("trunk-details", Port("trunk_details")),
    ]
};

#[test]
fn every_extension_that_is_listed_is_there_and_no_other() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let id = fixture.usual_network();
        let port = fixture.create_port(json!({"network_id": id}));
        let network = fixture.api.get(&format!("/v2.0/networks/{id}")).expect(200)["network"].clone();
        let shown = fixture.port(&port);
        let listed = fixture.api.get("/v2.0/extensions").expect(200)["extensions"].as_array().unwrap().clone();
        let aliases: Vec<String> = listed.iter().map(|one| text(&one["alias"])).collect();
        let unknown: Vec<&String> = aliases.iter().filter(|one| EXTENSIONS.iter().all(|(known, _)| known != one)).collect();
        assert!(unknown.is_empty(), "say here where these are seen: {unknown:?}");
        for (alias, seen) in EXTENSIONS {
            let is_there = match seen {
                Seen::Network(attribute) => network.get(attribute).is_some(),
                Seen::Port(attribute) => shown.get(attribute).is_some(),
                Seen::Get(path, status) => fixture.api.get(&path.replace("PORT", &port)).status == status,
            };
            assert_eq!(aliases.contains(&alias.to_owned()), is_there, "{alias}");
            let page = fixture.api.get(&format!("/v2.0/extensions/{alias}"));
            match listed.iter().find(|one| one["alias"] == alias) {
                Some(one) => assert_eq!(page.expect(200), json!({ "extension": one })),
                None => _ = page.refused(404, "no_such_extension"),
            }
        }
        let refusal = fixture.api.get("/v2.0/extensions/router");
        assert_eq!(refusal.refused(404, "no_such_extension")["type"], "ExtensionNotFound");
    });
}

#[test]
fn projects_may_have_any_number_of_things_and_there_are_no_pools_and_zones() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        for path in ["/v2.0/quotas/demo", "/v2.0/quotas/demo/default", "/v2.0/quotas/demo.json"] {
            let quota = fixture.api.get(path).expect(200)["quota"].clone();
            assert!(quota.as_object().unwrap().values().all(|most| *most == -1), "{quota}");
            assert!(["network", "subnet", "port"].iter().all(|kind| quota.get(kind).is_some()), "{quota}");
        }
        for (path, whole) in [
            ("/v2.0/quotas", json!({"quotas": []})),
            ("/v2.0/subnetpools?name=kuryr&fields=id", json!({"subnetpools": []})),
            ("/v2.0/availability_zones?state=available", json!({"availability_zones": []})),
        ] {
            assert_eq!(fixture.api.get(path).expect(200), whole);
        }
        let refusal = fixture.api.get(&format!("/v2.0/subnetpools/{NOBODY}"));
        assert_eq!(refusal.refused(404, "no_such_subnetpool")["type"], "SubnetPoolNotFound");
        fixture.api.get("/v2.0/subnetpools?colour=red").refused(400, "bad_query");
        for (path, body) in [("/v2.0/subnetpools", json!({"subnetpool": {}})), ("/v2.0/quotas", Value::Null)] {
            fixture.api.post(path, &body).refused(405, "bad_method");
        }
        fixture.api.put("/v2.0/quotas/demo", &json!({"quota": {"port": 1}})).refused(405, "bad_method");
    });
}
