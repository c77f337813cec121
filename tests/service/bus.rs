//! The service on its machine's bus and, by a drop-in, on loopback TCP: what confines it lets it do that.

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
        // As docs/metrics.md says.
        machine.run("printf '[metrics]\\nlisten = \"127.0.0.1:9632\"\\n' | install -Dm644 /dev/stdin /etc/nicd/nicd.toml");
        let drop_in = "[Service]\\nRestrictAddressFamilies=AF_INET AF_INET6\\nIPAddressAllow=localhost\\n";
        machine.run(&format!(
            "mkdir -p /etc/systemd/system/nicd.service.d && printf '{drop_in}' >/etc/systemd/system/nicd.service.d/tcp.conf"
        ));
        machine.run("ip link set lo up; systemctl daemon-reload; systemctl restart nicd.service");
        let script = "exec 3<>/dev/tcp/127.0.0.1/9632; printf \"GET /metrics HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n\" >&3; cat <&3";
        let answer = machine.run(&format!("bash -c '{script}'"));
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("nicd_ports{status=\"ACTIVE\"} 1"), "{answer}");
    });
}
