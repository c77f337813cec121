//! systemd-networkd and udev beside nicd: with the shipped files they leave its links alone, and without them a link ends
//! with the right MAC, name and bridge all the same.

use std::time::Instant;

use serde_json::{Value, json};

use crate::daemon::PATIENCE;
use crate::guests::{Nic, attach, attach_namespace, network};
use crate::machine::{Machine, Wishes, on_a_machine};

/// An administrator's file that takes whatever no other takes.
const GREEDY: &str = "mkdir -p /etc/systemd/network
    printf '[Match]\\nName=*\\n[Network]\\nDHCP=yes\\nLinkLocalAddressing=ipv6\\n' >/etc/systemd/network/90-all.network
    systemctl restart systemd-udevd systemd-networkd";

/// A tap and a veth, when the neighbours have done with them.
fn links(machine: &Machine) -> [Nic; 2] {
    let mut api = machine.client();
    let network = network(&mut api);
    let nics = [attach(&mut api, &json!({"kind": "vm"}), &network), attach_namespace(machine, &mut api, "web", &network)];
    machine.run("udevadm settle");
    nics
}

/// A link as `ip` shows it inside.
fn link(machine: &Machine, name: &str) -> Value {
    let shown: Value = serde_json::from_str(&machine.run(&format!("ip -j -d link show dev {name}"))).unwrap();
    shown[0].clone()
}

/// Whether it is as nicd makes it.
fn is_right(machine: &Machine, nic: &Nic) -> bool {
    let mut api = machine.client();
    let port = api.get(&format!("/v2.0/ports/{}", nic.port)).expect(200)["port"].clone();
    let guest = port["mac_address"].as_str().unwrap();
    let found = link(machine, &nic.device);
    found["address"] == format!("fe{}", &guest[2..])
        && found["master"].as_str().is_some_and(|master| master.starts_with("nbr"))
        && found["altnames"] == json!([format!("nicd-{}", nic.port)])
}

/// It becomes so, whoever is still at it.
fn ends_right(machine: &Machine, nic: &Nic) {
    let deadline = Instant::now() + PATIENCE;
    while !is_right(machine, nic) {
        assert!(Instant::now() < deadline, "{}\n{}", link(machine, &nic.device), machine.log());
    }
}

/// What networkd makes of a link.
fn managed(machine: &Machine, name: &str) -> String {
    let listed = machine.run(&format!("networkctl --no-legend --no-pager list {name}"));
    listed.split_whitespace().last().unwrap_or_default().to_owned()
}

/// The file that udev has set a link up by.
fn link_file(machine: &Machine, name: &str) -> String {
    machine.run(&format!("udevadm info --query=property --property=ID_NET_LINK_FILE --value /sys/class/net/{name}"))
}

#[test]
fn with_the_shipped_files_the_neighbours_leave_its_links_alone() {
    on_a_machine(Wishes { udev: true, ..Wishes::default() }, |machine| {
        machine.install();
        machine.run(GREEDY);
        let nics = links(&machine);
        let bridge = link(&machine, &nics[0].device)["master"].as_str().unwrap().to_owned();
        for name in [&nics[0].device, &nics[1].device, &bridge] {
            assert_eq!(link_file(&machine, name), "/usr/lib/systemd/network/10-nicd.link", "{name}");
            assert_eq!(managed(&machine, name), "unmanaged", "{name}");
            let addresses = machine.run(&format!("ip -o addr show dev {name}"));
            assert_eq!(addresses, "", "{name}");
        }
        assert!(nics.iter().all(|nic| is_right(&machine, nic)));
    });
}

#[test]
fn without_them_a_link_ends_right_all_the_same() {
    on_a_machine(Wishes { udev: true, ..Wishes::default() }, |machine| {
        machine.install();
        machine.run("rm /usr/lib/systemd/network/10-nicd.*");
        machine.run(GREEDY);
        let nics = links(&machine);
        for nic in &nics {
            assert_eq!(link_file(&machine, &nic.device), "/usr/lib/systemd/network/99-default.link");
            ends_right(&machine, nic);
        }
    });
}
