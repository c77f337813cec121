//! Nova's and OTC's `os-interface`.

use serde_json::{Value, json};

use crate::fixture::{Fixture, interfaces, text};
use crate::netns::{in_netns, run};
use crate::{NOBODY, post_with, told};

/// What the refusals are about.
struct World {
    fixture: Fixture,
    /// With a small pool.
    network: String,
    /// Without a subnet.
    bare: String,
    /// All its addresses are in use.
    full: String,
    server: String,
    /// It has all the NICs it may have.
    sated: String,
    /// A port that is attached to `server`, at 192.0.2.9.
    taken: String,
}

impl World {
    fn new() -> Self {
        let mut fixture = Fixture::start();
        let network = fixture.network(json!({"name": "blue"}));
        fixture.subnet(&network, "192.0.2.0/24");
        let bare = fixture.network(json!({"name": "bare"}));
        let full = fixture.network(json!({"name": "full"}));
        fixture.subnet(&full, "198.51.100.0/30");
        fixture.create_port(json!({ "network_id": full }));
        let (server, sated) = (fixture.vm(), "9c1f5d6e-1111-4000-8000-000000000000".to_owned());
        let limited = json!({"server": {"guest": {"kind": "vm"}, "nic_limit": 0}});
        fixture.api.put(&format!("/nicd/v1/servers/{sated}"), &limited).expect(201);
        let taken = fixture.attach(&server, json!({"net_id": network, "fixed_ips": [{"ip_address": "192.0.2.9"}]}));
        Self { fixture, network, bare, full, server, sated, taken }
    }

    fn attach(&mut self, server: &str, how: Value) -> crate::daemon::Answer {
        self.fixture.api.post(&interfaces(server), &json!({ "interfaceAttachment": how }))
    }
}

#[test]
fn each_condition_of_an_attach_is_refused_with_novas_status_key_and_words() {
    in_netns(|| {
        let mut world = World::new();
        let (network, bare, full) = (world.network.clone(), world.bare.clone(), world.full.clone());
        let (server, sated, taken) = (world.server.clone(), world.sated.clone(), world.taken.clone());
        let ip = |ip: &str| json!([{ "ip_address": ip }]);
        let invalid = "Invalid input for field/attribute";
        let bad = "badRequest";
        for (on, how, status, key, reason, words) in [
            // 5
            (&server, json!({"net_id": "blue"}), 400, bad, "invalid_value", format!("{invalid} net_id. Value: blue.")),
            (
                &server,
                json!({"port_id": 7}),
                400,
                bad,
                "invalid_value",
                format!("{invalid} port_id. Value: 7. 7 is not of type 'string'"),
            ),
            (&server, json!({"net_id": network, "fixed_ips": []}), 400, bad, "invalid_value", "[] is too short".to_owned()),
            (
                &server,
                json!({"net_id": network, "fixed_ips": [{"ip_address": "10.0.0.1"}, {"ip_address": "10.0.0.2"}]}),
                400,
                bad,
                "invalid_value",
                "is too long".to_owned(),
            ),
            (
                &server,
                json!({"net_id": network, "fixed_ips": ip("192.0.2")}),
                400,
                bad,
                "invalid_value",
                format!("{invalid} ip_address. Value: 192.0.2."),
            ),
            (
                &server,
                json!({"colour": 1}),
                400,
                bad,
                "invalid_value",
                "Additional properties are not allowed ('colour' was unexpected)".to_owned(),
            ),
            // 6
            (
                &NOBODY.to_owned(),
                json!({"net_id": network}),
                404,
                "itemNotFound",
                "no_such_server",
                format!("Instance {NOBODY} could not be found."),
            ),
            // 8, 9
            (
                &server,
                json!({"net_id": network, "port_id": taken}),
                400,
                bad,
                "network_and_port",
                "Must not input both network_id and port_id".to_owned(),
            ),
            (
                &server,
                json!({"fixed_ips": ip("192.0.2.5")}),
                400,
                bad,
                "address_without_network",
                "Must input network_id when request IP address".to_owned(),
            ),
            // 12, 15
            (
                &server,
                json!({"port_id": NOBODY}),
                404,
                "itemNotFound",
                "no_such_port",
                format!("Port id {NOBODY} could not be found."),
            ),
            (
                &server,
                json!({"port_id": taken}),
                409,
                "conflictingRequest",
                "port_in_use",
                format!("Port {taken} is still in use."),
            ),
            (
                &sated,
                json!({"port_id": taken}),
                409,
                "conflictingRequest",
                "port_in_use",
                format!("Port {taken} is still in use."),
            ),
            // 16, 18
            (
                &server,
                json!({"net_id": NOBODY}),
                404,
                "itemNotFound",
                "no_such_network",
                format!("Network {NOBODY} could not be found."),
            ),
            (
                &server,
                json!({}),
                400,
                bad,
                "several_networks",
                "Multiple possible networks found, use a Network ID to be more specific.".to_owned(),
            ),
            // 21, 22, 23
            (
                &server,
                json!({"net_id": network, "fixed_ips": ip("192.0.2.9")}),
                409,
                "conflictingRequest",
                "address_in_use",
                "Fixed IP 192.0.2.9 is already in use".to_owned(),
            ),
            (
                &server,
                json!({"net_id": full}),
                400,
                bad,
                "pool_empty",
                format!("No fixed IP addresses available for network: {full}"),
            ),
            (&sated, json!({"net_id": network}), 403, "forbidden", "too_many_nics", "0 interfaces".to_owned()),
            // 25, 26: the last is Nova's 500, and a bad request with us.
            (&server, json!({"net_id": bare}), 400, bad, "no_subnet", "requires a subnet".to_owned()),
            (
                &server,
                json!({"net_id": network, "fixed_ips": ip("203.0.113.1")}),
                400,
                bad,
                "address_outside_subnet",
                "192.0.2.0/24".to_owned(),
            ),
        ] {
            told(&world.attach(on, how), status, key, reason, &words);
        }
    });
}

#[test]
fn without_a_name_for_it_the_only_network_is_taken_and_none_is_told() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let server = fixture.vm();
        let none = fixture.api.post(&interfaces(&server), &json!({}));
        told(&none, 400, "badRequest", "no_network", "No specific network was requested and none are available for project");
        let network = fixture.usual_network();
        for body in [json!({}), json!({"interfaceAttachment": {}})] {
            let made = fixture.api.post(&interfaces(&server), &body).expect(200);
            assert_eq!(made["interfaceAttachment"]["net_id"], network.as_str());
        }
    });
}

#[test]
fn a_host_that_cannot_build_it_says_why_and_frees_the_port() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        crate::fixture::foreign_bridge("theirs", 1500);
        let network = fixture.network_on("theirs");
        let server = fixture.vm();
        run("ip link del theirs");
        let refused = fixture.api.post(&interfaces(&server), &json!({"interfaceAttachment": {"net_id": network}}));
        told(&refused, 409, "conflictingRequest", "no_such_bridge", "theirs");
        assert!(fixture.ports().is_empty());
        let port = fixture.create_port(json!({ "network_id": network }));
        let by_port = json!({"interfaceAttachment": {"port_id": port}});
        told(&fixture.api.post(&interfaces(&server), &by_port), 409, "conflictingRequest", "no_such_bridge", "theirs");
        assert_eq!(fixture.port(&port)["device_id"], "");
    });
}

#[test]
fn showing_and_detaching_tell_an_unknown_port_from_another_servers() {
    in_netns(|| {
        let mut world = World::new();
        let (server, taken, sated) = (world.server.clone(), world.taken.clone(), world.sated.clone());
        for method in ["GET", "DELETE"] {
            for (on, port, reason, words) in [
                (NOBODY, taken.as_str(), "no_such_server", format!("Instance {NOBODY} could not be found.")),
                (server.as_str(), NOBODY, "no_such_port", format!("Port id {NOBODY} could not be found.")),
                (server.as_str(), "eth0", "no_such_port", "Port id eth0 could not be found.".to_owned()),
                (sated.as_str(), &taken, "port_not_on_server", format!("Instance {sated} does not have a port with id {taken}")),
            ] {
                let answer = world.fixture.api.call(method, &format!("{}/{port}", interfaces(on)), &[], b"");
                told(&answer, 404, "itemNotFound", reason, &words);
            }
        }
    });
}

#[test]
fn microversions_are_read_from_either_header_and_told_back_in_both() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let path = interfaces(&fixture.vm());
        let (ours, standard) = ("X-OpenStack-Nova-API-Version", "OpenStack-API-Version");
        for (headers, status, spoken) in [
            (vec![], 200, "2.1"),
            (vec![(ours, "2.1")], 200, "2.1"),
            (vec![(ours, "2.70")], 200, "2.70"),
            (vec![(standard, "compute 2.49")], 200, "2.49"),
            (vec![(standard, "compute 2.50"), (ours, "2.3")], 200, "2.50"),
            (vec![(standard, "network 9.9")], 200, "2.1"),
            (vec![(ours, "latest")], 200, "2.70"),
            (vec![(ours, "2.0")], 406, "2.1"),
            (vec![(ours, "2.71")], 406, "2.1"),
            (vec![(standard, "compute 3.0")], 406, "2.1"),
            (vec![(ours, "2")], 400, "2.1"),
            (vec![(ours, "two")], 400, "2.1"),
            (vec![(standard, "compute 2.01")], 400, "2.1"),
        ] {
            let answer = fixture.api.call("GET", &path, &headers, b"");
            assert_eq!(answer.status, status, "{headers:?}: {}", answer.text);
            assert_eq!(answer.header("x-openstack-nova-api-version"), Some(spoken), "{headers:?}");
            assert_eq!(answer.header("openstack-api-version"), Some(format!("compute {spoken}").as_str()), "{headers:?}");
            let vary: Vec<&str> =
                answer.headers.iter().filter(|(key, _)| key == "vary").map(|(_, value)| value.as_str()).collect();
            assert_eq!(vary.join(",").to_ascii_lowercase(), "openstack-api-version,x-openstack-nova-api-version");
        }
        let far = fixture.api.call("GET", &path, &[(ours, "2.71")], b"");
        told(
            &far,
            406,
            "computeFault",
            "unsupported_version",
            "Version 2.71 is not supported by the API. Minimum is 2.1 and maximum is 2.70.",
        );
        told(
            &fixture.api.call("GET", &path, &[(ours, "x")], b""),
            400,
            "badRequest",
            "malformed_version",
            "API Version String x is of invalid format",
        );
    });
}

#[test]
fn a_tag_is_taken_from_2_49_on_shown_from_2_70_on_and_gone_with_its_attach() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let server = fixture.vm();
        let path = interfaces(&server);
        let version = |minor: u32| format!("compute 2.{minor}");
        let mut attach = |minor: u32, tag: Value| {
            let body = json!({"interfaceAttachment": {"net_id": network, "tag": tag}});
            post_with(&mut fixture.api, &path, &[("OpenStack-API-Version", &version(minor))], &body)
        };
        told(&attach(48, json!("nic")), 400, "badRequest", "invalid_value", "('tag' was unexpected)");
        for bad in [json!(""), json!("a,b"), json!("a/b"), json!("x".repeat(61)), json!(1), json!(null)] {
            told(&attach(49, bad), 400, "badRequest", "invalid_value", "Invalid input for field/attribute tag.");
        }
        let made = attach(49, json!("é".repeat(60))).expect(200)["interfaceAttachment"].clone();
        assert!(made.get("tag").is_none(), "{made}");
        let port = text(&made["port_id"]);
        let show = format!("{path}/{port}");
        let shown = |fixture: &mut Fixture, minor| {
            fixture.api.call("GET", &show, &[("OpenStack-API-Version", &version(minor))], b"").expect(200)["interfaceAttachment"]
                .clone()
        };
        assert!(shown(&mut fixture, 69).get("tag").is_none());
        assert_eq!(shown(&mut fixture, 70)["tag"], "é".repeat(60));
        fixture.api.delete(&format!("{show}?reserve_port=True")).expect(202);
        fixture.wait_until(&port, "unbound", |port| port.is_some_and(|port| port["nicd:phase"] == "unbound"));
        fixture.attach(&server, json!({ "port_id": port }));
        assert_eq!(shown(&mut fixture, 70)["tag"], Value::Null);
    });
}

#[test]
fn reserve_port_decides_whether_a_made_port_outlives_its_detach() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let server = fixture.vm();
        for (query, stays) in
            [("", false), ("?reserve_port=False", false), ("?reserve_port=True", true), ("?reserve_port=true", true)]
        {
            let port = fixture.attach_to(&server, &network);
            fixture.api.delete(&format!("{}/{port}{query}", interfaces(&server))).expect(202);
            let after = fixture.wait_until(&port, "gone", |port| port.is_none_or(|port| port["nicd:phase"] == "unbound"));
            assert_eq!(after.is_some(), stays, "{query}");
            if let Some(after) = after {
                assert_eq!((&after["device_id"], &after["device_owner"]), (&json!(""), &json!("")));
            }
        }
        let port = fixture.attach_to(&server, &network);
        let odd = fixture.api.delete(&format!("{}/{port}?reserve_port=maybe", interfaces(&server)));
        told(&odd, 400, "badRequest", "bad_query", "reserve_port=maybe");
        assert_eq!(fixture.port(&port)["device_id"], server.as_str());
    });
}

#[test]
fn a_server_is_found_by_its_name_and_lists_of_servers_are_paged() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        for (n, name) in ["web-1", "web-2", "db", ""].into_iter().enumerate() {
            let body = json!({"server": {"name": name, "guest": {"kind": "vm"}}});
            fixture.api.put(&format!("/nicd/v1/servers/9c1f5d6e-0000-4000-8000-00000000000{n}"), &body).expect(201);
        }
        let names = |answer: &Value| {
            let servers = answer["servers"].as_array().unwrap().clone();
            servers.iter().map(|server| text(&server["name"])).collect::<Vec<_>>()
        };
        for (query, expected) in [
            ("", vec!["web-1", "web-2", "db", ""]),
            ("?name=web", vec!["web-1", "web-2"]),
            ("?name=%5Eweb-1%24", vec!["web-1"]),
            ("?name=%5Eeb", vec![]),
            ("?name=-2$", vec!["web-2"]),
            ("?name=nobody", vec![]),
            // Known to Nova, and no use here.
            ("?all_tenants=1&status=ACTIVE&sort_key=created_at&name=db", vec!["db"]),
            ("?limit=2", vec!["web-1", "web-2"]),
            ("?limit=0", vec!["web-1", "web-2", "db", ""]),
            ("?limit=2&marker=9c1f5d6e-0000-4000-8000-000000000001", vec!["db", ""]),
            ("?marker=9c1f5d6e-0000-4000-8000-000000000003", vec![]),
        ] {
            for list in ["/v2.1/servers", "/v2.1/servers/detail", "/v2/7/servers/"] {
                assert_eq!(names(&fixture.api.get(&format!("{list}{query}")).expect(200)), expected, "{list}{query}");
            }
        }
        // As a client walks a list: to the end, by the links.
        let (mut next, mut seen) = (Some("/v2.1/servers/detail?name=e&limit=1".to_owned()), Vec::new());
        while let Some(path) = next {
            let page = fixture.api.get(&path).expect(200);
            seen.extend(names(&page));
            let links = page["servers_links"].as_array().into_iter().flatten();
            let link = links.filter(|link| link["rel"] == "next").map(|link| text(&link["href"])).next();
            next = link.map(|link| link.strip_prefix("http://nicd").unwrap().to_owned());
            assert!(seen.len() <= 2);
        }
        assert_eq!(seen, ["web-1", "web-2"]);
        for bad in ["limit=x", "limit=-1", "marker=nobody"] {
            told(&fixture.api.get(&format!("/v2.1/servers?{bad}")), 400, "badRequest", "bad_query", bad);
        }
    });
}

#[test]
fn a_slash_at_the_end_of_a_path_means_nothing() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let server = fixture.vm();
        let body = json!({"interfaceAttachment": {"net_id": network}});
        let path = interfaces(&server);
        let keyed =
            |fixture: &mut Fixture, path: &str| post_with(&mut fixture.api, path, &[("Idempotency-Key", "k")], &body).expect(200);
        let made = keyed(&mut fixture, &format!("{path}/"));
        assert_eq!(keyed(&mut fixture, &path), made, "it is the same request");
        let port = text(&made["interfaceAttachment"]["port_id"]);
        for path in [
            "/v2.0/networks".to_owned(),
            format!("/v2.0/networks/{network}"),
            "/v2.0/ports?fields=id".to_owned(),
            path.clone(),
            format!("{path}/{port}"),
            format!("/servers/{server}/os-virtual-interfacesv2"),
            format!("/v2.1/servers/{server}"),
            "/v2.1/servers".to_owned(),
            format!("/nicd/v1/ports/{port}/explain"),
        ] {
            let with = match path.split_once('?') {
                Some((path, query)) => format!("{path}/?{query}"),
                None => format!("{path}/"),
            };
            assert_eq!(fixture.api.get(&with).expect(200), fixture.api.get(&path).expect(200), "{with}");
        }
        fixture.api.get("/v2.0/nothing/").refused(404, "no_such_route");
        told(&fixture.api.call("PATCH", &format!("{path}/"), &[], b""), 405, "badMethod", "bad_method", "PATCH");
        fixture.api.delete(&format!("{path}/{port}/")).expect(202);
    });
}

#[test]
fn a_head_is_the_head_of_a_get_and_a_delete_answers_nothing() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let server = fixture.vm();
        let port = fixture.attach_to(&server, &network);
        for path in [
            "/".to_owned(),
            "/v2.1".to_owned(),
            "/v2.0/ports".to_owned(),
            format!("/v2.0/networks/{network}"),
            format!("{}/{port}", interfaces(&server)),
            format!("/servers/{server}/os-virtual-interfacesv2"),
            "/nicd/v1/openapi.json".to_owned(),
            format!("/v2.0/networks/{NOBODY}"),
        ] {
            let (get, head) = (fixture.api.get(&path), fixture.api.call("HEAD", &path, &[], b""));
            assert_eq!((head.status, head.text.as_str()), (get.status, ""), "{path}");
            for name in ["content-type", "content-length"] {
                assert_eq!(head.header(name), get.header(name), "{path}: {name}");
            }
            assert!(get.header("date").is_some(), "{path}: no Date");
        }
        let gone = fixture.api.delete(&format!("{}/{port}", interfaces(&server)));
        assert_eq!((gone.status, gone.text.as_str(), gone.header("content-length")), (202, "", Some("0")));
        let other = fixture.network(json!({}));
        let gone = fixture.api.delete(&format!("/v2.0/networks/{other}"));
        assert_eq!((gone.status, gone.text.as_str()), (204, ""));
    });
}

#[test]
fn a_server_is_shown_with_what_clients_stop_without() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.network(json!({"name": "blue"}));
        fixture.subnet(&network, "192.0.2.0/24");
        let server = fixture.server_with(json!({"name": "web", "project_id": "demo", "guest": {"kind": "vm"}}));
        let port = fixture.attach_to(&server, &network);
        let mac = fixture.port(&port)["mac_address"].clone();
        let shown = fixture.api.get(&format!("/v2.1/servers/{server}")).expect(200)["server"].clone();
        let address = json!({"addr": "192.0.2.2", "version": 4, "OS-EXT-IPS:type": "fixed", "OS-EXT-IPS-MAC:mac_addr": mac});
        assert_eq!(shown["addresses"], json!({ "blue": [address] }));
        assert_eq!((&shown["tenant_id"], &shown["metadata"], &shown["image"]), (&json!("demo"), &json!({}), &json!("")));
        let flavor = json!([{"rel": "bookmark", "href": "http://nicd/v2.1/flavors/nicd"}]);
        assert_eq!(shown["flavor"], json!({"id": "nicd", "links": flavor}));
        assert_eq!(shown["hostId"].as_str().unwrap().len(), 56, "SHA-224 of project and host");
        // Tempest's schema of a server (tempest/lib/api_schema/response/compute/v2_1/servers.py) has these and no fewer.
        for name in ["id", "name", "status", "links", "created", "updated", "user_id"] {
            assert!(shown.get(name).is_some(), "{name}: {shown}");
        }
        // YYYY-MM-DDThh:mm:ssZ, which some clients read by its length.
        assert!(text(&shown["created"]).len() == 20 && text(&shown["updated"]).ends_with('Z'), "{shown}");
        assert_eq!(fixture.api.get("/v2.1/servers/detail?name=web").expect(200)["servers"], json!([shown]));
    });
}

#[test]
fn a_version_has_its_media_types_in_its_own_document() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        for (path, number) in [("/v2", "2"), ("/v2.1/", "2.1")] {
            let version = fixture.api.get(path).expect(200)["version"].clone();
            let kind = format!("application/vnd.openstack.compute+json;version={number}");
            assert_eq!(version["media-types"], json!([{"base": "application/json", "type": kind}]));
            assert_eq!((&version["links"][0]["rel"], &version["links"][1]["rel"]), (&json!("self"), &json!("describedby")));
        }
        let listed = fixture.api.get("/").expect(200)["versions"].clone();
        assert!(listed.as_array().unwrap().iter().all(|version| version.get("media-types").is_none()), "{listed}");
    });
}
