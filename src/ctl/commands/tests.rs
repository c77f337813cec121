//! Command lines against a scripted daemon: which requests they make, what they print, how they end.

use serde_json::{Value, json};

use crate::ctl::scripted::{Exchange, answer, bare, play, stream};

const SERVER: &str = "99999999-1699-4588-a4b1-b87f96708bc6";
const NETWORK: &str = "3cb9bc59-5699-4588-a4b1-b87f96708bc6";
const PORT: &str = "ce531f90-199f-48c0-816c-13e38010b442";

const ACTIVE: &str = r#"{"event":"port.status","port_id":"ce531f90-199f-48c0-816c-13e38010b442","old":"BUILD","new":"ACTIVE"}"#;
const ERROR: &str = concat!(
    r#"{"event":"port.status","port_id":"ce531f90-199f-48c0-816c-13e38010b442","old":"BUILD","new":"ERROR","#,
    r#""phase":"error","reason":"bridge_full"}"#
);
const OTHERS: &str = r#"{"event":"port.status","port_id":"11111111-199f-48c0-816c-13e38010b442","old":"BUILD","new":"ACTIVE"}"#;
const DEGRADED: &str =
    r#"{"event":"agent.degraded","port_id":"ce531f90-199f-48c0-816c-13e38010b442","reason":"no_permission","seq":9}"#;
const LOST: &str = r#"{"event":"lost","seq":10}"#;
const DELETED: &str = r#"{"event":"port.deleted","port_id":"ce531f90-199f-48c0-816c-13e38010b442"}"#;
const UNBOUND: &str =
    r#"{"event":"port.status","port_id":"ce531f90-199f-48c0-816c-13e38010b442","new":"DOWN","phase":"unbound"}"#;

fn port(status: &str, phase: &str) -> Value {
    json!({"port": {"id": PORT, "status": status, "nicd:phase": phase, "device_id": SERVER, "network_id": NETWORK,
        "mac_address": "fa:16:3e:4c:2c:30", "fixed_ips": [{"subnet_id": NETWORK, "ip_address": "192.0.2.7"}],
        "binding:vif_details": {"device": "nicdce531f90199"}}})
}

fn attached() -> Value {
    json!({"interfaceAttachment": {"port_id": PORT, "net_id": NETWORK, "port_state": "DOWN", "fixed_ips": []}})
}

fn servers() -> Exchange {
    answer(200, json!({"servers": [{"id": SERVER, "name": "web"}, {"id": PORT, "name": "db"}]}))
}

fn networks() -> Exchange {
    answer(200, json!({"networks": [{"id": NETWORK, "name": "blue"}]}))
}

fn groups() -> Exchange {
    answer(200, json!({"security_groups": []}))
}

fn attach_wait(script: Vec<Exchange>) -> crate::ctl::scripted::Outcome {
    play(&format!("nicctl -o json attach {SERVER} --wait=1"), script)
}

#[test]
fn a_list_has_names_for_ids() {
    let ports = json!({"ports": [port("ACTIVE", "active")["port"]]});
    let done = play("nicctl list web", vec![servers(), answer(200, ports), networks(), servers()]);
    assert_eq!(done.end(), (0, String::new()));
    assert_eq!(done.requests[1], format!("GET /v2.0/ports?device_id={SERVER}"));
    assert_eq!(
        done.printed,
        "ID        NAME  SERVER  NETWORK  MAC                ADDRESSES  STATUS  REASON\n\
         ce531f90  -     web     blue     fa:16:3e:4c:2c:30  192.0.2.7  ACTIVE  -\n"
    );
}

#[test]
fn a_list_for_scripts_is_one_array() {
    let done = play("nicctl network list -o json", vec![networks()]);
    assert_eq!(serde_json::from_str::<Value>(&done.printed).unwrap(), json!([{"id": NETWORK, "name": "blue"}]));
}

#[test]
fn a_refusal_is_repeated() {
    let error = json!({"NeutronError": {"type": "NetworkNotFound", "message": "Network x could not be found.", "detail": "",
        "reason": "no_such_network"}});
    let done = play(&format!("nicctl network show {NETWORK}"), vec![answer(404, error)]);
    assert_eq!(done.end(), (1, "Network x could not be found. (no_such_network)".to_owned()));
}

#[test]
fn the_leases_of_a_port_that_was_deleted_meanwhile_are_left_out() {
    let ports = json!({"ports": [{"id": NETWORK}, {"id": PORT}]});
    let gone = json!({"NeutronError": {"type": "PortNotFound", "message": "Port x could not be found.", "detail": ""}});
    let lease = json!({"leases": [{"family": "ipv4", "state": "bound", "address": "10.0.0.3", "message": "request",
        "at": "2026-01-01T00:00:00Z", "client_id": null, "hostname": null}]});
    let done = play("nicctl leases -o json", vec![answer(200, ports), answer(404, gone), answer(200, lease)]);
    let printed: Value = serde_json::from_str(&done.printed).unwrap();
    assert!(printed.to_string().contains("10.0.0.3"), "{printed}");
}

#[test]
fn a_name_for_two_things_lists_both() {
    let twins = json!({"servers": [{"id": SERVER, "name": "web"}, {"id": NETWORK, "name": "web"}]});
    let done = play("nicctl server show web", vec![answer(200, twins)]);
    let (code, sentence) = done.end();
    assert_eq!(code, 1);
    assert!(sentence.contains(SERVER) && sentence.contains(NETWORK), "{sentence}");
}

#[test]
fn a_port_is_shown_with_its_counters_and_without_them_where_there_are_none() {
    let counted = json!({"port_id": PORT, "from_guest": {"packets": 3, "bytes": 200}, "to_guest": {"packets": 1, "bytes": 60},
        "dropped": {"arp": 2, "mac": 0}, "last_dropped": []});
    let refused = json!({"serviceUnavailable": {"code": 503, "message": "late", "reason": "kernel_timeout"}});
    for (told, ends) in [(answer(200, counted), "dropped     arp 2\n"), (answer(503, refused), "profile           -\n")] {
        let done = play(
            &format!("nicctl show {PORT}"),
            vec![answer(200, port("ACTIVE", "active")), told, networks(), servers(), groups()],
        );
        assert_eq!(done.end(), (0, String::new()));
        assert_eq!(done.requests[1], format!("GET /nicd/v1/ports/{PORT}/counters"));
        assert!(done.printed.ends_with(ends), "{}", done.printed);
    }
}

#[test]
fn attaching_shows_the_port() {
    let script =
        vec![servers(), networks(), answer(200, attached()), answer(200, port("DOWN", "wired")), networks(), servers(), groups()];
    let done = play("nicctl attach web --network blue --ip 192.0.2.7", script);
    assert_eq!(done.end(), (0, String::new()));
    let body = json!({"interfaceAttachment": {"net_id": NETWORK, "fixed_ips": [{"ip_address": "192.0.2.7"}]}});
    assert_eq!(done.requests[2], format!("POST /v2.1/servers/{SERVER}/os-interface {body}"));
    for part in [PORT, "nicdce531f90199", "fa:16:3e:4c:2c:30", "192.0.2.7", "DOWN"] {
        assert!(done.printed.contains(part), "{part} in {}", done.printed);
    }
}

#[test]
fn a_refusal_that_an_operator_must_mend_is_not_repeated() {
    let refused = json!({"computeFault": {"code": 503, "message": "not permitted", "reason": "no_permission"}});
    let done = play(&format!("nicctl attach {SERVER}"), vec![answer(503, refused), answer(200, attached())]);
    assert_eq!(done.end(), (1, "not permitted (no_permission)".to_owned()));
    assert_eq!(done.requests.len(), 1, "{:?}", done.requests);
}

#[test]
fn waiting_ends_with_the_event_and_not_before() {
    let script = vec![
        stream(),
        answer(200, attached()).then(&["", OTHERS]),
        answer(200, port("BUILD", "building")).then(&[ACTIVE]),
        answer(200, port("ACTIVE", "active")),
    ];
    let done = attach_wait(script);
    assert_eq!(done.end(), (0, String::new()));
    assert_eq!(done.requests[0], "GET /nicd/v1/events");
    assert_eq!(serde_json::from_str::<Value>(&done.printed).unwrap()["status"], "ACTIVE");
}

#[test]
fn a_port_that_is_active_at_once_needs_no_event() {
    let script =
        vec![stream(), answer(200, attached()), answer(200, port("ACTIVE", "active")), answer(200, port("ACTIVE", "active"))];
    assert_eq!(attach_wait(script).end(), (0, String::new()));
}

#[test]
fn lost_events_are_a_reason_to_look() {
    let script = vec![
        stream(),
        answer(200, attached()),
        answer(200, port("BUILD", "building")).then(&[LOST]),
        answer(200, port("ACTIVE", "active")),
        answer(200, port("ACTIVE", "active")),
    ];
    assert_eq!(attach_wait(script).end(), (0, String::new()));
}

#[test]
fn an_error_ends_the_wait_and_the_port_is_still_shown() {
    let script = vec![
        stream(),
        answer(200, attached()),
        answer(200, port("BUILD", "building")).then(&[ERROR]),
        answer(200, port("ERROR", "error")),
    ];
    let done = attach_wait(script);
    let (code, sentence) = done.end();
    assert_eq!(code, 1);
    assert!(sentence.starts_with(&format!("port {PORT} is in ERROR (bridge_full);")), "{sentence}");
    assert!(done.printed.contains(PORT));
}

#[test]
fn time_that_runs_out_is_exit_code_3() {
    let script = vec![
        stream(),
        answer(200, attached()),
        answer(200, port("DOWN", "wired")).then(&[OTHERS, DEGRADED]),
        answer(200, port("DOWN", "wired")),
    ];
    let done = attach_wait(script);
    let (code, sentence) = done.end();
    assert_eq!(code, 3);
    assert!(sentence.starts_with(&format!("port {PORT} is still DOWN (wired) after 1 s;")), "{sentence}");
    assert!(done.printed.contains(PORT));
}

#[test]
fn detaching_waits_for_the_device_to_go() {
    for event in [DELETED, UNBOUND] {
        let script = vec![stream(), bare(202), answer(200, port("DOWN", "detaching")).then(&[event])];
        let done = play(&format!("nicctl detach {SERVER} {PORT} --wait"), script);
        assert_eq!(done.end(), (0, String::new()));
        assert_eq!(done.requests[1], format!("DELETE /v2.1/servers/{SERVER}/os-interface/{PORT}"));
        assert_eq!(done.printed, format!("port {PORT} is detached\n"));
    }
}

#[test]
fn a_port_gone_at_the_first_look_is_detached() {
    let gone = json!({"NeutronError": {"type": "PortNotFound", "message": "Port x could not be found.", "detail": ""}});
    let done = play(&format!("nicctl detach {SERVER} {PORT} --wait"), vec![stream(), bare(202), answer(404, gone)]);
    assert_eq!(done.end(), (0, String::new()));
}

#[test]
fn a_port_to_detach_is_looked_for_among_the_servers_own() {
    let ports = json!({"ports": [{"id": PORT, "name": "eth0"}]});
    let done = play(&format!("nicctl detach {SERVER} eth0"), vec![answer(200, ports), bare(202)]);
    assert_eq!(done.requests[0], format!("GET /v2.0/ports?device_id={SERVER}"));
    assert_eq!(done.printed, format!("port {PORT} is being detached\n"));
}

#[test]
fn a_port_that_is_not_the_servers_is_not_said_to_be_nowhere() {
    let (code, sentence) = play(&format!("nicctl detach {SERVER} eth0"), vec![answer(200, json!({"ports": []}))]).end();
    assert_eq!(code, 1);
    assert!(sentence.starts_with(&format!("no port of server {SERVER} is called 'eth0'")), "{sentence}");
}

#[test]
fn a_network_whose_subnet_is_refused_is_taken_back() {
    let error = json!({"NeutronError": {"type": "InvalidInput", "message": "ranges overlap", "detail": ""}});
    let script = vec![
        answer(201, json!({"network": {"id": NETWORK, "name": "blue"}})),
        answer(201, json!({"subnet": {"id": PORT}})),
        answer(400, error),
        bare(204),
        bare(204),
    ];
    let done = play("nicctl network create blue --subnet 192.0.2.0/24 --subnet 192.0.2.0/25", script);
    assert_eq!(done.end(), (1, "ranges overlap".to_owned()));
    assert_eq!(done.printed, "");
    assert_eq!(done.requests[3..], [format!("DELETE /v2.0/subnets/{PORT}"), format!("DELETE /v2.0/networks/{NETWORK}")]);
}

#[test]
fn a_server_by_name_gets_a_uuid_and_its_name() {
    let script = vec![servers(), answer(201, json!({"server": {"id": PORT, "name": "new", "guest": {"kind": "vm"}}}))];
    let done = play("nicctl server add new --vm --queues 2 --owner 107:36 --qmp /run/q", script);
    assert_eq!(done.end(), (0, String::new()));
    let (call, body) = done.requests[1].split_once(" {").unwrap();
    assert_eq!(uuid::Uuid::try_parse(call.trim_start_matches("PUT /nicd/v1/servers/")).unwrap().get_version_num(), 4);
    let guest = json!({"kind": "vm", "queues": 2, "owner": {"uid": 107, "gid": 36}, "monitor": {"qmp": "/run/q"}});
    assert_eq!(serde_json::from_str::<Value>(&format!("{{{body}")).unwrap(), json!({"server": {"name": "new", "guest": guest}}));
    assert!(done.printed.contains(PORT));
}

#[test]
fn a_servers_name_is_not_given_twice() {
    let (code, sentence) = play("nicctl server add web --netns /run/netns/web", vec![servers()]).end();
    assert_eq!(code, 1);
    assert!(sentence.contains(SERVER), "{sentence}");
    assert_eq!(play("nicctl server add web --vm --name other", vec![]).end().0, 2);
}

#[test]
fn a_port_is_asked_for_as_neutron_words_it() {
    let script = vec![answer(201, port("DOWN", "unbound"))];
    let done = play(
        &format!(
            "nicctl -o json port create {NETWORK} --ip 192.0.2.7 --ifname eth0 --no-vnet-hdr --admin-down --unknown-unicast"
        ),
        script,
    );
    let body = json!({"port": {"network_id": NETWORK, "fixed_ips": [{"ip_address": "192.0.2.7"}], "admin_state_up": false,
        "nicd:unknown_unicast": true,
        "binding:profile": {"interface_name": "eth0", "vnet_hdr": false}}});
    assert_eq!(done.requests, [format!("POST /v2.0/ports {body}")]);
}

#[test]
fn filters_and_limits_are_asked_for_as_openstack_words_them() {
    let script = || vec![answer(201, port("DOWN", "unbound"))];
    let done = play(
        &format!(
            "nicctl -o json port create {NETWORK} --disable-port-security --allowed-address ip-address=192.0.2.9 \
             --limit-from-guest 64:8 --isolated true"
        ),
        script(),
    );
    let body = json!({"port": {"network_id": NETWORK, "port_security_enabled": false,
        "allowed_address_pairs": [{"ip_address": "192.0.2.9"}],
        "nicd:limits": {"to_guest": null, "from_guest": {"rate_kbps": 64, "burst_kb": 8}}, "nicd:isolated": true}});
    assert_eq!(done.requests, [format!("POST /v2.0/ports {body}")]);
    let put = |body: Value| format!("PUT /v2.0/ports/{PORT} {}", json!({ "port": body }));
    let line = |flags: &str| format!("nicctl -o json port set {PORT} {flags}");
    let done = play(&line("--no-allowed-address --allowed-address ip-address=192.0.2.9 --enable-port-security"), script());
    let body = json!({"port_security_enabled": true, "allowed_address_pairs": [{"ip_address": "192.0.2.9"}]});
    assert_eq!(done.requests, [put(body)]);
    let done = play(&line("--no-allowed-address --isolated network --limit-to-guest none --limit-from-guest none"), script());
    let body = json!({"allowed_address_pairs": [], "nicd:limits": {"to_guest": null, "from_guest": null}, "nicd:isolated": null});
    assert_eq!(done.requests, [put(body)]);
}

#[test]
fn an_allowed_address_and_a_limit_are_put_beside_those_there_are() {
    let pair = json!({"ip_address": "192.0.2.8", "mac_address": "00:00:5e:00:01:07"});
    let mut before = port("DOWN", "unbound");
    before["port"]["allowed_address_pairs"] = json!([pair]);
    before["port"]["nicd:limits"] = json!({"to_guest": {"rate_kbps": 64}});
    let script = vec![answer(200, before), answer(200, port("DOWN", "unbound"))];
    let flags = "--allowed-address ip-address=192.0.2.9 --limit-from-guest 128";
    let done = play(&format!("nicctl -o json port set {PORT} {flags}"), script);
    let body = json!({"port": {"allowed_address_pairs": [pair, {"ip_address": "192.0.2.9"}],
        "nicd:limits": {"to_guest": {"rate_kbps": 64}, "from_guest": {"rate_kbps": 128}}}});
    assert_eq!(done.requests, [format!("GET /v2.0/ports/{PORT}"), format!("PUT /v2.0/ports/{PORT} {body}")]);
}

#[test]
fn a_network_is_changed() {
    let done = play(
        &format!("nicctl -o json network set {NETWORK} --mtu 1400 --enable-port-security --isolated false"),
        vec![answer(200, json!({"network": {"id": NETWORK}}))],
    );
    let body = json!({"network": {"mtu": 1400, "port_security_enabled": true, "nicd:isolated": false}});
    assert_eq!(done.requests, [format!("PUT /v2.0/networks/{NETWORK} {body}")]);
}

#[test]
fn a_subnet_without_a_gateway_says_null() {
    let script = vec![answer(201, json!({"subnet": {"id": PORT}}))];
    let done = play(
        &format!("nicctl -o json subnet create {NETWORK} 2001:db8::/64 --gateway none --pool 2001:db8::5-2001:db8::9"),
        script,
    );
    let body = json!({"subnet": {"network_id": NETWORK, "cidr": "2001:db8::/64", "ip_version": 6, "gateway_ip": null,
        "allocation_pools": [{"start": "2001:db8::5", "end": "2001:db8::9"}]}});
    assert_eq!(done.requests, [format!("POST /v2.0/subnets {body}")]);
}

#[test]
fn a_gateway_outside_of_the_range_is_said_to_be_so() {
    for (gateway, said) in
        [("10.9.9.9", "\nthe gateway 10.9.9.9 is outside of 10.0.0.8/29: guests get a route to it on the link"), ("10.0.0.9", "")]
    {
        let subnet = json!({"subnet": {"id": PORT, "network_id": NETWORK, "cidr": "10.0.0.8/29", "gateway_ip": gateway}});
        let line = format!("nicctl subnet create {NETWORK} 10.0.0.8/29 --gateway {gateway}");
        let done = play(&line, vec![answer(201, subnet), networks()]);
        assert_eq!(done.end(), (0, String::new()));
        assert!(done.printed.contains(said) && done.printed.contains("outside") != said.is_empty(), "{}", done.printed);
    }
}

fn list(flags: &str) -> String {
    let networks = json!({"networks": [
        {"id": PORT, "name": "", "mtu": 9000, "created_at": "2026-01-02T00:00:00Z"},
        {"id": SERVER, "name": "red, \"old\"", "mtu": 1500, "created_at": "2026-01-03T00:00:00Z"},
        {"id": NETWORK, "name": "blue", "mtu": 1400, "created_at": "2026-01-04T00:00:00Z"},
    ]});
    let done = play(&format!("nicctl network ls {flags}"), vec![answer(200, networks), answer(200, json!({"subnets": []}))]);
    assert_eq!(done.end(), (0, String::new()), "{flags}");
    done.printed
}

#[test]
fn lists_have_the_columns_and_the_order_that_are_asked_for() {
    assert_eq!(list("--columns name,mtu"), "NAME        MTU\nblue        1400\nred, \"old\"  1500\n-           9000\n");
    assert_eq!(list("--columns MTU --sort -mtu --no-header"), "9000\n1500\n1400\n");
    assert_eq!(list("--columns port-security,mtu --sort mtu -o value"), " 1400\n 1500\n 9000\n");
    assert_eq!(list("--columns name,mtu -o csv"), "NAME,MTU\nblue,1400\n\"red, \"\"old\"\"\",1500\n,9000\n");
    assert!(list("-o yaml").contains("  name: blue\n"), "the objects are the daemon's");
    let done = play("nicctl network ls --columns colour", vec![answer(200, json!({"networks": []}))]);
    let (code, sentence) = done.end();
    assert_eq!(code, 2);
    assert!(sentence.starts_with("there is no column 'colour'; there are: ID, NAME, TYPE"), "{sentence}");
}

#[test]
fn one_value_of_an_object_is_printed_alone() {
    let script = vec![answer(200, port("DOWN", "unbound"))];
    let done = play(&format!("nicctl port show {PORT} -o value --columns mac"), script);
    assert_eq!(done.printed, "fa:16:3e:4c:2c:30\n");
}

#[test]
fn a_port_alone_tells_which_server_loses_it() {
    let done = play(&format!("nicctl detach {PORT}"), vec![answer(200, port("ACTIVE", "active")), bare(202)]);
    assert_eq!(done.requests[1], format!("DELETE /v2.1/servers/{SERVER}/os-interface/{PORT}"));
    let mut free = port("DOWN", "unbound");
    free["port"]["device_id"] = json!("");
    let done = play(&format!("nicctl detach {PORT} --wait"), vec![answer(200, free)]);
    assert_eq!((done.end(), done.printed), ((0, String::new()), format!("port {PORT} is attached to no server\n")));
}

#[test]
fn a_nic_with_a_mac_is_a_port_made_first_and_taken_back() {
    let error = json!({"conflictingRequest": {"code": 409, "message": "no", "reason": "too_many_nics"}});
    let line = format!("nicctl -o json attach {SERVER} --network {NETWORK} --mac fa:16:3e:00:00:01 --ip 192.0.2.7 --name a");
    let made = || answer(201, port("DOWN", "unbound"));
    let done = play(&line, vec![made(), answer(200, attached()), answer(200, port("DOWN", "wired"))]);
    assert_eq!(done.end(), (0, String::new()));
    let body = json!({"port": {"network_id": NETWORK, "name": "a", "mac_address": "fa:16:3e:00:00:01",
        "fixed_ips": [{"ip_address": "192.0.2.7"}]}});
    assert_eq!(done.requests[0], format!("POST /v2.0/ports {body}"));
    let body = json!({"interfaceAttachment": {"port_id": PORT}});
    assert_eq!(done.requests[1], format!("POST /v2.1/servers/{SERVER}/os-interface {body}"));
    let done = play(&line, vec![made(), answer(409, error), bare(204)]);
    assert_eq!(done.end().0, 1);
    assert_eq!(done.requests[2], format!("DELETE /v2.0/ports/{PORT}"));
}

#[test]
fn a_server_keeps_what_is_not_changed() {
    let guest = json!({"kind": "vm", "queues": 2, "owner": {"uid": 107, "gid": 36}, "monitor": {"qmp": "/run/q"}});
    let before = json!({"server": {"id": SERVER, "name": "web", "project_id": "p", "guest": guest, "nic_limit": null}});
    let script = vec![answer(200, before.clone()), answer(200, before)];
    let done = play(&format!("nicctl -o json server set {SERVER} --nic-limit 3 --queues 4"), script);
    let guest = json!({"kind": "vm", "queues": 4, "owner": {"uid": 107, "gid": 36}, "monitor": {"qmp": "/run/q"}});
    let body = json!({"server": {"name": "web", "project_id": "p", "guest": guest, "nic_limit": 3}});
    assert_eq!(done.requests[1], format!("PUT /nicd/v1/servers/{SERVER} {body}"));
}

#[test]
fn problems_are_exit_code_1() {
    let problem = json!({"reason": "store_full", "detail": "d", "remedy": "r"});
    let health = json!({"status": "degraded", "version": "1", "uptime_s": 1, "host": "h", "ports": {}, "problems": [problem]});
    let done = play("nicctl status", vec![answer(200, health)]);
    assert_eq!(done.end(), (1, "nicd is degraded; problems: 1, each listed with its remedy".to_owned()));
    assert!(done.printed.contains("store_full"), "{}", done.printed);
}

#[test]
fn a_plan_is_printed_step_by_step() {
    let create = json!({"op": "create_tap", "name": "x", "queues": 1});
    let steps = json!([{"op": create, "undo": {"op": "delete_link"}}, {"op": {"op": "persist"}, "undo": null}]);
    let plan = json!({"plan": {"reason": "attach", "steps": steps}});
    let done = play(&format!("nicctl plan attach {SERVER} --network {NETWORK}"), vec![answer(200, plan)]);
    let body = json!({"interfaceAttachment": {"net_id": NETWORK}, "server_id": SERVER});
    let (call, sent) = done.requests[0].split_once(" {").unwrap();
    assert_eq!((call, serde_json::from_str::<Value>(&format!("{{{sent}")).unwrap()), ("POST /nicd/v1/plan", body));
    let table = "STEP  OP                          UNDO\n\
                 1     create_tap name=x queues=1  delete_link\n\
                 2     persist                     -\n";
    assert_eq!(done.printed, table);
}

#[test]
fn nobody_at_the_socket_is_exit_code_4() {
    let (code, sentence) = play("nicctl status", vec![]).end();
    assert_eq!(code, 4);
    assert!(sentence.contains("nicd.sock: Connection refused (os error 111); the socket is there"), "{sentence}");
}

#[test]
fn an_error_has_names_as_they_were_typed_and_no_words_of_http() {
    let said = format!("Instance {SERVER} has 2 interfaces; detach them first, or use ?detach=true");
    let error = json!({"conflictingRequest": {"code": 409, "message": said, "reason": "server_has_nics"}});
    let done = play("nicctl server delete web", vec![servers(), answer(409, error.clone())]);
    let said = "has 2 interfaces; detach them first, or delete it with --detach (server_has_nics)";
    assert_eq!(done.end(), (1, format!("Instance web {said}")));
    let done = play(&format!("nicctl server delete {SERVER}"), vec![answer(409, error)]);
    assert_eq!(done.end(), (1, format!("Instance {SERVER} {said}")), "an id as typed");
}

#[test]
fn a_guest_that_stays_is_not_registered_again() {
    let guest = json!({"kind": "netns", "path": "/proc/4711/ns/net"});
    let before = json!({"server": {"id": SERVER, "name": "web", "project_id": "p", "guest": guest, "nic_limit": null}});
    let done = play(
        &format!("nicctl -o json server set {SERVER} --nic-limit 3"),
        vec![answer(200, before.clone()), answer(200, before)],
    );
    let body = json!({"server": {"name": "web", "project_id": "p", "guest": null, "nic_limit": 3}});
    let sent = done.requests[1].strip_prefix(&format!("PUT /nicd/v1/servers/{SERVER} ")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(sent).unwrap(), body);
}

#[test]
fn a_network_shows_the_bridge_that_there_is() {
    let network = |device: Value| json!({"network": {"id": NETWORK, "name": "blue", "nicd:bridge": null, "nicd:device": device}});
    let shown = |device: Value| {
        let line = format!("nicctl network show {NETWORK} -o value --columns bridge");
        play(&line, vec![answer(200, network(device)), answer(200, json!({"subnets": []}))]).printed
    };
    assert_eq!(shown(json!("nbr3cb9bc595699")), "nbr3cb9bc595699\n");
    assert_eq!(shown(Value::Null), "\n");
}

#[test]
fn a_receipt_is_asked_for_and_printed_below_the_port() {
    let mut told = attached();
    told["nicd:receipt"] =
        json!([{"step": "reserve", "at_us": 0, "took_us": 31}, {"step": "create_tap", "at_us": 40, "took_us": 125}]);
    let script = |told: Value| vec![answer(200, told), answer(200, port("DOWN", "wired"))];
    let line = format!("attach {SERVER} --network {NETWORK} --receipt");
    let done =
        play(&format!("nicctl {line}"), script(told.clone()).into_iter().chain([networks(), servers(), groups()]).collect());
    assert_eq!(done.end(), (0, String::new()));
    assert!(
        done.requests[0].starts_with(&format!("POST /v2.1/servers/{SERVER}/os-interface?receipt=true ")),
        "{:?}",
        done.requests
    );
    let table = "\nSTEP        AT µs  TOOK µs\nreserve     0      31\ncreate_tap  40     125\n";
    assert!(done.printed.ends_with(table), "{}", done.printed);
    let done = play(&format!("nicctl -o json {line}"), script(told));
    assert_eq!(serde_json::from_str::<Value>(&done.printed).unwrap()["nicd:receipt"][1]["took_us"], 125);
}
