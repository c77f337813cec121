//! The service on its machine's bus: what confines it lets it do that.

use serde_json::json;

use crate::guests::{attach, attach_namespace, network};
use crate::machine::{Wishes, on_a_machine};

const NAME: &str = "org.nicd.Agent1";

/// The path of a port's object.
fn object(port: &str) -> String {
    format!("/org/nicd/Agent1/port/{}", port.replace('-', "_"))
}

#[test]
fn busctl_shows_every_port_of_the_installed_service_and_hands_out_a_tap() {
    on_a_machine(Wishes::default(), |machine| {
        machine.install();
        let mut api = machine.client();
        let network = network(&mut api);
        let web = attach_namespace(&machine, &mut api, "web", &network);
        let vm = attach(&mut api, &json!({"kind": "vm", "queues": 2, "owner": {"uid": 9}}), &network);
        let named = "until busctl call org.freedesktop.DBus / org.freedesktop.DBus GetNameOwner s org.nicd.Agent1; do :; done";
        machine.run(&format!("timeout 20 sh -c '{named}' 2>/dev/null"));
        let tree = machine.run(&format!("busctl tree --list {NAME}"));
        for port in [&web.port, &vm.port] {
            assert!(tree.lines().any(|line| line == object(port)), "{port} in {tree}");
        }
        let get =
            |port: &str, name: &str| machine.run(&format!("busctl get-property {NAME} {} {NAME}.Port {name}", object(port)));
        assert_eq!(
            (get(&web.port, "Status"), get(&web.port, "Device")),
            ("s \"ACTIVE\"".to_owned(), format!("s \"{}\"", web.device))
        );
        let open = |who: &str, port: &str| {
            machine.try_run(&format!("setpriv {who} --clear-groups busctl call {NAME} {} {NAME}.Port OpenTap", object(port)))
        };
        assert!(open("--reuid=news --regid=news", &vm.port).unwrap().starts_with("ah 2 "));
        let refused = open("--reuid=mail --regid=mail", &vm.port).unwrap_err();
        assert!(refused.contains("Access denied"), "{refused}");
        let list = "org.nicd.Agent1.Manager ListPorts uu 0 0";
        let list = |groups: &str| {
            machine.try_run(&format!("setpriv --reuid=mail --regid=mail {groups} busctl call {NAME} /org/nicd/Agent1 {list}"))
        };
        assert!(list("--groups=nicd-view").unwrap().starts_with("a(oss) 2 "));
        assert!(list("--clear-groups").unwrap_err().contains("Access denied"));
    });
}
