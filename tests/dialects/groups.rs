//! Neutron's security groups and their rules, as records: what the kernel does of them has suites of its own.

use std::fs;

use serde_json::{Value, json};

use crate::NOBODY;
use crate::fixture::{Fixture, text};
use crate::netns::in_netns;
use crate::post_with;

const GROUPS: &str = "/v2.0/security-groups";
const RULES: &str = "/v2.0/security-group-rules";

fn group(fixture: &mut Fixture, body: Value) -> Value {
    fixture.api.post(GROUPS, &json!({ "security_group": body })).expect(201)["security_group"].clone()
}

fn rule_of(group: &str, rest: Value) -> Value {
    let mut rule = json!({"security_group_id": group, "direction": "ingress"});
    rule.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    rule
}

fn rule(fixture: &mut Fixture, group: &str, rest: Value) -> Value {
    let body = json!({ "security_group_rule": rule_of(group, rest) });
    fixture.api.post(RULES, &body).expect(201)["security_group_rule"].clone()
}

/// The ids that a list answers with.
fn ids(fixture: &mut Fixture, path: &str) -> Vec<String> {
    let answer = fixture.api.get(path).expect(200);
    let all = answer.as_object().unwrap().values().next().unwrap().as_array().unwrap().clone();
    all.iter().map(|one| text(&one["id"])).collect()
}

fn show(fixture: &mut Fixture, id: &str) -> Value {
    fixture.api.get(&format!("{GROUPS}/{id}")).expect(200)["security_group"].clone()
}

#[test]
fn groups_and_rules_are_made_shown_changed_and_kept() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let web = group(&mut fixture, json!({"name": "web", "project_id": "demo"}));
        let id = text(&web["id"]);
        assert_eq!((&web["stateful"], &web["shared"], &web["tenant_id"]), (&json!(true), &json!(false), &json!("demo")));
        let first: Vec<(String, String)> = web["security_group_rules"]
            .as_array()
            .unwrap()
            .iter()
            .map(|rule| (text(&rule["direction"]), text(&rule["ethertype"])))
            .collect();
        assert_eq!(first, [("egress", "IPv4"), ("egress", "IPv6")].map(|(a, b)| (a.to_owned(), b.to_owned())));
        let made = rule(
            &mut fixture,
            &id,
            json!({"protocol": "TCP", "port_range_min": "80", "port_range_max": 81, "remote_ip_prefix": "192.0.2.7/24"}),
        );
        let wanted = json!({"protocol": "tcp", "port_range_min": 80, "port_range_max": 81, "remote_ip_prefix": "192.0.2.7/24",
            "normalized_cidr": "192.0.2.0/24", "remote_group_id": null, "remote_address_group_id": null, "ethertype": "IPv4",
            "direction": "ingress", "security_group_id": id, "project_id": "demo", "description": ""});
        for (attribute, value) in wanted.as_object().unwrap() {
            assert_eq!(&made[attribute], value, "{attribute}");
        }
        let ping = rule(
            &mut fixture,
            &id,
            json!({"ethertype": "ipv6", "protocol": "icmp", "port_range_min": 128, "remote_group_id": id}),
        );
        assert_eq!(
            (&ping["protocol"], &ping["port_range_max"], &ping["remote_group_id"]),
            (&json!("ipv6-icmp"), &Value::Null, &json!(id))
        );
        let number = rule(&mut fixture, &id, json!({"protocol": 112, "remote_ip_prefix": "192.0.2.7"}));
        assert_eq!((&number["protocol"], &number["remote_ip_prefix"]), (&json!("112"), &json!("192.0.2.7/32")));
        let any = rule(&mut fixture, &id, json!({"protocol": "any", "remote_ip_prefix": null}));
        assert_eq!(any["protocol"], Value::Null);
        let before = show(&mut fixture, &id);
        assert_eq!((before["security_group_rules"].as_array().unwrap().len(), &before["revision_number"]), (6, &json!(5)));
        fixture.daemon.kill();
        fixture.launch();
        assert_eq!(show(&mut fixture, &id), before, "also after a restart");
        let change = json!({"security_group": {"name": "front", "description": "the web", "stateful": true}});
        let path = format!("{GROUPS}/{id}");
        let stale = fixture.api.call(
            "PUT",
            &path,
            &[("Content-Type", "application/json"), ("If-Match", "revision_number=1")],
            change.to_string().as_bytes(),
        );
        stale.refused(412, "revision_mismatch");
        let changed = fixture.api.put(&path, &change).expect(200)["security_group"].clone();
        assert_eq!((&changed["name"], &changed["description"]), (&json!("front"), &json!("the web")));
        let path_of_rule = format!("{RULES}/{}", text(&any["id"]));
        fixture.api.call("DELETE", &path_of_rule, &[("If-Match", "revision_number=2")], b"").refused(412, "revision_mismatch");
        fixture.api.delete(&path_of_rule).expect(204);
        fixture.api.get(&format!("{RULES}/{}", text(&any["id"]))).refused(404, "no_such_rule");
        assert_eq!(show(&mut fixture, &id)["security_group_rules"].as_array().unwrap().len(), 5);
        fixture.api.delete(&path).expect(204);
        fixture.api.get(&path).refused(404, "no_such_group");
        assert!(ids(&mut fixture, RULES).is_empty());
    });
}

#[test]
fn lists_are_filtered_sorted_cut_and_paged() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let many = json!({"security_groups": [{"name": "a"}, {"name": "b"}, {"name": "c", "project_id": "p"}]});
        let made = fixture.api.post(GROUPS, &many).expect(201)["security_groups"].clone();
        let id = |n: usize| text(&made[n]["id"]);
        assert_eq!(ids(&mut fixture, &format!("{GROUPS}?name=b")), [id(1)]);
        assert_eq!(ids(&mut fixture, &format!("{GROUPS}?project_id=p&stateful=True&shared=false")), [id(2)]);
        assert_eq!(ids(&mut fixture, &format!("{GROUPS}?sort_key=name&sort_dir=desc")), [id(2), id(1), id(0)]);
        let page = fixture.api.get(&format!("{GROUPS}?sort_key=name&limit=1&fields=name&fields=id")).expect(200);
        assert_eq!(page["security_groups"], json!([{"name": "a", "id": id(0)}]));
        let next = text(&page["security_groups_links"][0]["href"]);
        assert!(next.contains("/v2.0/security-groups?"), "{next}");
        let ssh = rule(&mut fixture, &id(0), json!({"protocol": "tcp", "port_range_min": 22, "port_range_max": 22}));
        rule(&mut fixture, &id(1), json!({"protocol": "udp", "remote_group_id": id(0)}));
        let of = |filter: &str| format!("{RULES}?{filter}");
        assert_eq!(ids(&mut fixture, &of(&format!("security_group_id={}", id(0)))).len(), 3);
        assert_eq!(ids(&mut fixture, &of("direction=ingress&protocol=tcp&port_range_min=22")), [text(&ssh["id"])]);
        assert_eq!(ids(&mut fixture, &of(&format!("id={}", text(&ssh["id"])))), [text(&ssh["id"])]);
        assert_eq!(ids(&mut fixture, &of(&format!("remote_group_id={}", id(0)))).len(), 1);
        assert_eq!(ids(&mut fixture, &of("security_group_id=x")), [""; 0]);
        fixture.api.get(&of("colour=red")).refused(400, "bad_query");
    });
}

#[test]
fn a_port_is_in_groups_and_a_group_with_ports_stays() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (web, db) = (group(&mut fixture, json!({"name": "web"})), group(&mut fixture, json!({"name": "db"})));
        let (web, db) = (text(&web["id"]), text(&db["id"]));
        let bare = fixture.create_port(json!({ "network_id": network }));
        assert_eq!(fixture.port(&bare)["security_groups"], json!([]), "without a default group it is in none");
        let port = fixture.create_port(json!({"network_id": network, "security_groups": [web, web]}));
        assert_eq!(fixture.port(&port)["security_groups"], json!([web]));
        assert_eq!(ids(&mut fixture, &format!("/v2.0/ports?security_groups={web}")), [port.as_str()]);
        let refused = fixture.api.delete(&format!("{GROUPS}/{web}")).refused(409, "group_in_use");
        assert_eq!(refused["type"], "SecurityGroupInUse");
        let path = format!("/v2.0/ports/{port}");
        let put = |fixture: &mut Fixture, body: Value| fixture.api.put(&path, &json!({ "port": body }));
        put(&mut fixture, json!({"security_groups": [web, NOBODY]})).refused(404, "no_such_group");
        put(&mut fixture, json!({"port_security_enabled": false})).refused(409, "port_security_off");
        let both = put(&mut fixture, json!({"security_groups": [web, db]})).expect(200)["port"]["security_groups"].clone();
        assert_eq!(both.as_array().unwrap().len(), 2);
        fixture.daemon.kill();
        fixture.launch();
        assert_eq!(fixture.port(&port)["security_groups"], both, "also after a restart");
        fixture.api.delete(&format!("{GROUPS}/{db}")).refused(409, "group_in_use");
        // Together they fit: no groups, and no port security.
        let open = json!({"port_security_enabled": false, "security_groups": []});
        assert_eq!(put(&mut fixture, open).expect(200)["port"]["security_groups"], json!([]));
        put(&mut fixture, json!({"security_groups": [web]})).refused(409, "port_security_off");
        put(&mut fixture, json!({"port_security_enabled": true, "security_groups": [web]})).expect(200);
        fixture.api.delete(&path).expect(204);
        fixture.api.delete(&format!("{GROUPS}/{web}")).expect(204);
    });
}

#[test]
fn rules_that_refer_to_a_deleted_group_go_with_it() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let (web, db) = (group(&mut fixture, json!({"name": "web"})), group(&mut fixture, json!({"name": "db"})));
        let (web, db) = (text(&web["id"]), text(&db["id"]));
        rule(&mut fixture, &db, json!({"protocol": "tcp", "remote_group_id": web}));
        rule(&mut fixture, &web, json!({"remote_group_id": web}));
        rule(&mut fixture, &web, json!({"remote_group_id": db}));
        fixture.api.delete(&format!("{GROUPS}/{web}")).expect(204);
        let left = show(&mut fixture, &db);
        assert_eq!(left["security_group_rules"].as_array().unwrap().len(), 2);
        fixture.daemon.kill();
        fixture.launch();
        assert_eq!(show(&mut fixture, &db), left);
        fixture.api.delete(&format!("{GROUPS}/{db}")).expect(204);
    });
}

#[test]
fn each_refusal_names_neutrons_exception() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let web = group(&mut fixture, json!({"name": "web", "project_id": "demo"}));
        let web = text(&web["id"]);
        let other = text(&group(&mut fixture, json!({}))["id"]);
        let there = rule(&mut fixture, &web, json!({"protocol": "tcp", "port_range_min": 22, "port_range_max": 22}));
        let before = fixture.api.get(GROUPS).text;
        let new = |rest: Value| (RULES.to_owned(), json!({ "security_group_rule": rule_of(&web, rest) }));
        let several = |rules: &[Value]| (RULES.to_owned(), json!({ "security_group_rules": rules }));
        let ports = |protocol: &str, min: Value, max: Value| {
            new(json!({"protocol": protocol, "port_range_min": min, "port_range_max": max}))
        };
        let named = |body: Value| (GROUPS.to_owned(), json!({ "security_group": body }));
        let none = Value::Null;
        for ((path, body), status, kind, reason) in [
            (new(json!({"protocol": "tpc"})), 400, "SecurityGroupRuleInvalidProtocol", "bad_protocol"),
            (new(json!({"protocol": 256})), 400, "SecurityGroupRuleInvalidProtocol", "bad_protocol"),
            (new(json!({"protocol": "ipv6-icmp"})), 400, "SecurityGroupEthertypeConflictWithProtocol", "family_mismatch"),
            (new(json!({"remote_ip_prefix": "2001:db8::/64"})), 400, "SecurityGroupRuleParameterConflict", "family_mismatch"),
            (ports("tcp", 81.into(), 80.into()), 400, "SecurityGroupInvalidPortRange", "bad_port_range"),
            (ports("udp", 81.into(), none.clone()), 400, "SecurityGroupInvalidPortRange", "bad_port_range"),
            (ports("any", 80.into(), 80.into()), 400, "SecurityGroupProtocolRequiredWithPorts", "bad_port_range"),
            (ports("gre", 80.into(), 80.into()), 400, "SecurityGroupInvalidProtocolForPortRange", "bad_port_range"),
            (ports("icmp", 256.into(), none.clone()), 400, "SecurityGroupInvalidIcmpValue", "bad_icmp"),
            (ports("icmp", none.clone(), 0.into()), 400, "SecurityGroupMissingIcmpType", "bad_icmp"),
            (ports("tcp", 80.into(), 65_536.into()), 400, "InvalidInput", "invalid_value"),
            (new(json!({"direction": "up"})), 400, "InvalidInput", "invalid_value"),
            (new(json!({"ethertype": "IPX"})), 400, "InvalidInput", "invalid_value"),
            (new(json!({"remote_ip_prefix": "192.0.2.0/33"})), 400, "InvalidInput", "invalid_value"),
            (new(json!({"remote_address_group_id": NOBODY})), 501, "HTTPNotImplemented", "not_built"),
            (
                new(json!({"remote_ip_prefix": "192.0.2.0/24", "remote_group_id": web})),
                400,
                "SecurityGroupRemoteGroupAndRemoteIpPrefix",
                "two_remotes",
            ),
            (new(json!({"remote_group_id": NOBODY})), 404, "SecurityGroupNotFound", "no_such_group"),
            (new(json!({"security_group_id": NOBODY})), 404, "SecurityGroupNotFound", "no_such_group"),
            (new(json!({"project_id": "another"})), 400, "SecurityGroupRulesNotSingleTenant", "other_project"),
            (ports("6", 22.into(), 22.into()), 409, "SecurityGroupRuleExists", "rule_exists"),
            (new(json!({"protocol": "tcp", "id": there["id"]})), 409, "Conflict", "id_in_use"),
            (
                several(&[rule_of(&web, json!({"protocol": "udp"})), rule_of(&other, json!({}))]),
                400,
                "SecurityGroupNotSingleGroupRules",
                "several_groups",
            ),
            (
                several(&[rule_of(&web, json!({"remote_ip_prefix": "0.0.0.0/0"})), rule_of(&web, json!({}))]),
                409,
                "SecurityGroupRuleExists",
                "rule_exists",
            ),
            (named(json!({"name": "default"})), 409, "SecurityGroupDefaultAlreadyExists", "default_group"),
            (named(json!({"stateful": false})), 501, "HTTPNotImplemented", "not_built"),
            (named(json!({ "id": web })), 409, "Conflict", "id_in_use"),
            (named(json!({"name": "x".repeat(256)})), 400, "InvalidInput", "invalid_value"),
        ] {
            let answer = fixture.api.post(&path, &body);
            let error = answer.refused(status, reason);
            assert_eq!(error["type"], kind, "{body}: {}", answer.text);
        }
        fixture.api.get(&format!("{GROUPS}/{NOBODY}")).refused(404, "no_such_group");
        fixture.api.delete(&format!("{RULES}/{NOBODY}")).refused(404, "no_such_rule");
        fixture.api.delete(&format!("{RULES}/x")).refused(404, "no_such_rule");
        assert_eq!(fixture.api.get(GROUPS).text, before, "nothing was made");
    });
}

#[test]
fn a_group_has_500_rules_and_a_port_16_groups_at_most() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let web = text(&group(&mut fixture, json!({"name": "web"}))["id"]);
        let of = |from: u32, to: u32| {
            let rules =
                (from..to).map(|port| rule_of(&web, json!({"protocol": "tcp", "port_range_min": port, "port_range_max": port})));
            json!({ "security_group_rules": rules.collect::<Vec<_>>() })
        };
        // Neutron's two rules are there.
        fixture.api.post(RULES, &of(1, 251)).expect(201);
        fixture.api.post(RULES, &of(251, 451)).expect(201);
        fixture.api.post(RULES, &of(451, 500)).refused(409, "too_many_rules");
        fixture.api.post(RULES, &of(451, 499)).expect(201);
        fixture.api.post(RULES, &of(499, 500)).refused(409, "too_many_rules");
        assert_eq!(show(&mut fixture, &web)["security_group_rules"].as_array().unwrap().len(), 500);
        let groups: Vec<Value> = (0..17).map(|n| json!({ "name": format!("g{n}") })).collect();
        let made = fixture.api.post(GROUPS, &json!({ "security_groups": groups })).expect(201)["security_groups"].clone();
        let groups: Vec<Value> = made.as_array().unwrap().iter().map(|group| group["id"].clone()).collect();
        let port = |groups: &[Value]| json!({"port": {"network_id": network, "security_groups": groups}});
        fixture.api.post("/v2.0/ports", &port(&groups)).refused(400, "too_many_groups");
        fixture.api.post("/v2.0/ports", &port(&groups[1..])).expect(201);
    });
}

#[test]
fn a_repeated_create_with_its_key_makes_nothing_twice() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let body = json!({"security_group": {"name": "web"}});
        let key = [("Idempotency-Key", "one")];
        let first = post_with(&mut fixture.api, GROUPS, &key, &body).expect(201);
        let web = text(&first["security_group"]["id"]);
        assert_eq!(post_with(&mut fixture.api, GROUPS, &key, &body).expect(201), first);
        assert_eq!(ids(&mut fixture, GROUPS), [web.as_str()]);
        let body = json!({ "security_group_rule": rule_of(&web, json!({"protocol": "tcp"})) });
        let key = [("Idempotency-Key", "two")];
        let first = post_with(&mut fixture.api, RULES, &key, &body).expect(201);
        assert_eq!(post_with(&mut fixture.api, RULES, &key, &body).expect(201), first);
    });
}

#[test]
fn with_default_groups_each_project_has_one_for_ports_that_name_none() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let free = fixture.create_port(json!({ "network_id": network }));
        fs::write(fixture.daemon.config(), "[filters]\ndefault_group = true\n").unwrap();
        fixture.daemon.reload();
        assert_eq!(fixture.port(&free)["security_groups"], json!([]), "ports that are there stay as they are");
        let port = fixture.create_port(json!({"network_id": network, "project_id": "demo"}));
        let own = fixture.port(&port)["security_groups"].as_array().unwrap().clone();
        assert_eq!(own.len(), 1);
        let own = text(&own[0]);
        let shown = show(&mut fixture, &own);
        assert_eq!((&shown["name"], &shown["project_id"]), (&json!("default"), &json!("demo")));
        let ingress: Vec<Value> = shown["security_group_rules"].as_array().unwrap().clone();
        let ingress: Vec<&Value> = ingress.iter().filter(|rule| rule["direction"] == "ingress").collect();
        assert!(ingress.len() == 2 && ingress.iter().all(|rule| rule["remote_group_id"] == own.as_str()), "{shown}");
        let second = fixture.create_port(json!({"network_id": network, "project_id": "demo"}));
        assert_eq!(fixture.port(&second)["security_groups"], json!([own]));
        let none = fixture.create_port(json!({"network_id": network, "project_id": "demo", "security_groups": []}));
        assert_eq!(fixture.port(&none)["security_groups"], json!([]), "none is none");
        let open = fixture.create_port(json!({"network_id": network, "project_id": "demo", "port_security_enabled": false}));
        assert_eq!(fixture.port(&open)["security_groups"], json!([]));
        let elsewhere = fixture.create_port(json!({"network_id": network, "project_id": "other"}));
        assert_ne!(fixture.port(&elsewhere)["security_groups"], json!([own]));
        group(&mut fixture, json!({"name": "web", "project_id": "third"}));
        assert_eq!(
            ids(&mut fixture, &format!("{GROUPS}?name=default")).len(),
            3,
            "a project's first group brings its default one"
        );
        let path = format!("{GROUPS}/{own}");
        for port in [&port, &second] {
            fixture.api.delete(&format!("/v2.0/ports/{port}")).expect(204);
        }
        let refused = fixture.api.delete(&path).refused(409, "default_group");
        assert_eq!(refused["type"], "SecurityGroupCannotRemoveDefault");
        let rename = json!({"security_group": {"name": "mine"}});
        assert_eq!(fixture.api.put(&path, &rename).refused(409, "default_group")["type"], "SecurityGroupCannotUpdateDefault");
        fixture.api.put(&path, &json!({"security_group": {"name": "default", "description": "ours"}})).expect(200);
        fs::write(fixture.daemon.config(), "").unwrap();
        fixture.daemon.reload();
        fixture.api.delete(&path).expect(204);
    });
}
