//! Sockets, groups and helpers that go missing: what is lost is made anew, and what is not stays.

use serde_json::json;

use crate::guests::{attach_namespace, network};
use crate::machine::{Machine, Wishes, on_a_machine};

#[test]
fn sockets_that_systemd_has_lost_or_that_were_stopped_come_back_and_repairs_with_them() {
    on_a_machine(Wishes::default(), |machine| {
        machine.install();
        let mut api = machine.client();
        let network = network(&mut api);
        let nic = attach_namespace(&machine, &mut api, "web", &network);
        // Its unit's file is away for a moment, as while a package is upgraded: systemd has no descriptors then.
        let unit = "/usr/lib/systemd/system/nicd.socket";
        machine.run(&format!(
            "mv {unit} /root && systemctl daemon-reload && mv /root/nicd.socket {unit} && systemctl daemon-reload"
        ));
        let _ = machine.try_run("systemctl restart nicd.service");
        machine.comes_true("nicctl version");
        assert!(machine.units().contains("systemctl restart nicd.socket"), "{}", machine.units());
        // Nobody connects: the device is the only one to be asked.
        machine.run("systemctl stop nicd.socket");
        machine.run(&format!("ip link del {}", nic.device));
        machine.run("systemctl start nicd.socket");
        machine.comes_true(&format!("ip link show dev {}", nic.device));
        // Its files are removed while it runs, and while it does not.
        for away in ["rm /run/nicd/nicd.sock", "rm /run/nicd/nicd-view.sock", "rm -r /run/nicd"] {
            let pid = machine.property("nicd", "MainPID");
            machine.run(away);
            machine.comes_true(&format!(
                "! systemctl show --property=MainPID nicd | grep -qx MainPID={pid}; nicctl version; \
                nicctl --socket /run/nicd/nicd-view.sock version"
            ));
        }
        a_wrong_configuration_is_told_and_takes_no_socket_away(&machine);
    });
}

fn a_wrong_configuration_is_told_and_takes_no_socket_away(machine: &Machine) {
    let pid = machine.property("nicd", "MainPID");
    machine.run("mkdir -p /etc/nicd; echo 'unknown = 1' >/etc/nicd/nicd.toml");
    machine.try_run("systemctl reload nicd.service").unwrap_err();
    assert_eq!((machine.property("nicd", "MainPID"), machine.property("nicd", "ActiveState")), (pid, "active".to_owned()));
    assert!(machine.units().contains("unknown = 1"), "{}", machine.units());
    machine.comes_true("nicctl status | grep -q 'unknown = 1'");
    // What another try does not mend is not tried again by itself.
    machine.try_run("systemctl restart nicd.service").unwrap_err();
    machine.comes_true("systemctl show --property=ActiveState nicd-sockets | grep -qx ActiveState=inactive");
    assert_eq!(machine.property("nicd", "ActiveState"), "failed");
    // More clients than systemd gives a socket starts in its two seconds.
    for _ in 0..60 {
        let error = machine.client().get("/v2.0/networks").refused(503, "cannot_start");
        assert!(error["message"].as_str().unwrap().contains("unknown = 1"), "{error}");
    }
    machine.run("systemctl is-active nicd.socket; rm /etc/nicd/nicd.toml");
    machine.comes_true("nicctl version");
}

#[test]
fn a_group_that_is_missing_takes_no_socket_away() {
    on_a_machine(Wishes::default(), |machine| {
        machine.install();
        let modes = |machine: &Machine| machine.run("stat --format='%n %a %U %G' /run/nicd/nicd.sock /run/nicd/nicd-view.sock");
        machine.run("groupdel nicd-view; systemctl restart nicd.socket");
        machine.client().get("/nicd/v1/health").expect(200);
        machine.run("setpriv --reuid=mail --regid=mail --groups=nicd nicctl version");
        assert_eq!(modes(&machine), "/run/nicd/nicd.sock 660 root nicd\n/run/nicd/nicd-view.sock 660 root root");
        // Its user stays, with a number that no group has.
        machine.run("sed -i '/^nicd:/d' /etc/group; systemctl restart nicd.socket");
        machine.client().get("/nicd/v1/health").expect(200);
        machine.try_run("setpriv --reuid=mail --regid=mail --clear-groups nicctl version").unwrap_err();
        assert_eq!(modes(&machine), "/run/nicd/nicd.sock 660 root root\n/run/nicd/nicd-view.sock 660 root root");
        machine.run("systemd-sysusers nicd.conf; systemctl restart nicd.socket");
        machine.client().get("/nicd/v1/health").expect(200);
        assert_eq!(modes(&machine), "/run/nicd/nicd.sock 660 root nicd\n/run/nicd/nicd-view.sock 660 root nicd-view");
        // A reader needs not name the socket for reading, and changes nothing.
        machine.run("setpriv --reuid=mail --regid=mail --groups=nicd-view nicctl version");
        let refused = machine.try_run("setpriv --reuid=mail --regid=mail --groups=nicd-view nicctl network create x");
        assert!(refused.unwrap_err().contains("Permission denied"));
    });
}

#[test]
fn the_remedy_for_a_lost_helper_helps() {
    on_a_machine(Wishes::default(), |machine| {
        machine.install();
        let mut api = machine.client();
        machine.run("ip netns add web");
        let guest = json!({"server": {"guest": {"kind": "netns", "path": "/run/netns/web"}}});
        // A link for the program that systemd cannot start, until its socket is given up.
        let give_up = "mv /usr/bin/nicd /root; systemctl stop nicd-netns.service
            until systemctl is-failed --quiet nicd-netns.socket; do nicctl server add x --netns /run/netns/web || :; done 2>/dev/null
            mv /root/nicd /usr/bin";
        for trouble in ["rm /run/nicd/nicd-netns.sock", "systemctl stop nicd-netns.socket nicd-netns.service", give_up] {
            machine.run(trouble);
            let path = format!("/nicd/v1/servers/{}", uuid::Uuid::new_v4());
            let error = api.put(&path, &guest).refused(503, "netns_helper_unreachable");
            let message = error["message"].as_str().unwrap();
            let (_, remedy) = message.split_once("); ").unwrap();
            let (remedy, _) = remedy.split_once(", or run nicd with").unwrap();
            // systemd gives a socket no more starts within 2 s.
            machine.comes_true(&format!(
                "{remedy}; nicctl server add again --netns /run/netns/web >/dev/null && nicctl server delete again"
            ));
            api.put(&path, &guest).expect(201);
        }
    });
}
