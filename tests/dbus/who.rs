//! Who may call: other users and groups, by setpriv, against the shipped policy and against nicd alone.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bus::{Lines, NAME, PORT, Policy, ROOT, busctl_as, path, with_bus};
use crate::fixture::{Fixture, server_path};
use crate::netns::in_netns;

/// Groups that every Debian has, and nobody here is in by chance.
const GROUPS: &str = "[socket]\ngroup = \"daemon\"\nview_group = \"games\"\n";

/// Users that every Debian has: dbus-daemon lets nobody in whom the host does not know.
const STRANGER: [&str; 3] = ["--reuid=mail", "--regid=mail", "--clear-groups"];
const MEMBER: [&str; 3] = ["--reuid=mail", "--regid=mail", "--groups=daemon"];
const MEMBER_BY_GID: [&str; 3] = ["--reuid=mail", "--regid=daemon", "--clear-groups"];
const VIEWER: [&str; 3] = ["--reuid=mail", "--regid=mail", "--groups=games"];
const OWNER: [&str; 3] = ["--reuid=news", "--regid=news", "--clear-groups"];

/// The uid of `news`.
const OWNER_UID: u32 = 9;

/// Whether a call is let through; if not, it was for want of rights and nothing else.
fn may(who: &[&str], call: &str) -> bool {
    let output = busctl_as(who, &format!("call {NAME} {call}"));
    let said = String::from_utf8_lossy(&output.stderr);
    let denied = ["may not", "Access denied", "Permission denied", "cannot be told"].iter().any(|word| said.contains(word));
    assert!(output.status.success() || denied, "{who:?} {call}: {said}");
    output.status.success()
}

#[test]
fn reading_is_for_whom_the_view_socket_is_for_and_descriptors_for_fewer() {
    in_netns(|| {
        let (_bus, mut fixture) = with_bus(Policy::Open, GROUPS);
        let network = fixture.usual_network();
        let own = fixture.server(json!({"kind": "vm", "owner": {"uid": OWNER_UID}}));
        let own = fixture.attach_to(&own, &network);
        let vm = fixture.vm();
        let others = fixture.attach_to(&vm, &network);
        let reading = [
            format!("{ROOT} org.nicd.Agent1.Manager ListPorts uu 0 10"),
            format!("{ROOT} org.freedesktop.DBus.ObjectManager GetManagedObjects"),
            format!("{ROOT} org.freedesktop.DBus.Introspectable Introspect"),
            "/org/nicd/Agent1/port org.freedesktop.DBus.Introspectable Introspect".to_owned(),
            format!("{} org.freedesktop.DBus.Properties GetAll s {PORT}", path(&own)),
            format!("{} org.freedesktop.DBus.Properties Get ss {PORT} Mac", path(&own)),
        ];
        for call in &reading {
            for (who, expected) in [(&STRANGER, false), (&OWNER, false), (&VIEWER, true), (&MEMBER, true), (&MEMBER_BY_GID, true)]
            {
                assert_eq!(may(who, call), expected, "{who:?} {call}");
            }
            assert!(may(&[], call), "root {call}");
        }
        let open = |port: &str| format!("{} {PORT} OpenTap", path(port));
        for (who, port, expected) in [
            (&STRANGER, &own, false),
            (&VIEWER, &own, false),
            (&OWNER, &others, false),
            (&OWNER, &own, true),
            (&MEMBER, &others, true),
            (&MEMBER_BY_GID, &own, true),
        ] {
            assert_eq!(may(who, &open(port)), expected, "{who:?} {port}");
            // Whoever got it has ended, and with it the carrier.
            fixture.wait_status(port, "DOWN");
        }
        // A stranger is not told what is there.
        let nobody = path("11111111-2222-4333-8444-555555555555");
        assert!(!may(&STRANGER, &format!("{nobody} {PORT} OpenTap")));
        assert!(may(&STRANGER, &format!("{ROOT} org.freedesktop.DBus.Peer Ping")));
    });
}

#[test]
fn whom_the_bus_does_not_name_may_do_nothing_be_it_root() {
    in_netns(|| {
        let (_bus, mut fixture) = with_bus(Policy::Mute, GROUPS);
        let network = fixture.usual_network();
        let own = fixture.server(json!({"kind": "vm", "owner": {"uid": OWNER_UID}}));
        let own = fixture.attach_to(&own, &network);
        for call in [format!("{} {PORT} OpenTap", path(&own)), format!("{ROOT} org.nicd.Agent1.Manager ListPorts uu 0 10")] {
            for who in [&[][..], &MEMBER, &VIEWER, &OWNER] {
                assert!(!may(who, &call), "{who:?} {call}");
            }
        }
        assert!(may(&[], &format!("{ROOT} org.freedesktop.DBus.Peer Ping")));
    });
}

#[test]
fn the_shipped_policy_keeps_strangers_from_name_objects_and_signals() {
    in_netns(|| {
        let (_bus, mut fixture) = with_bus(Policy::Shipped, "");
        let network = fixture.usual_network();
        assert!(!may(&STRANGER, &format!("{ROOT} org.nicd.Agent1.Manager ListPorts uu 0 10")));
        let name = "org.freedesktop.DBus RequestName su org.nicd.Agent1 0";
        let output = busctl_as(&STRANGER, &format!("call org.freedesktop.DBus /org/freedesktop/DBus {name}"));
        assert!(String::from_utf8_lossy(&output.stderr).contains("Access denied"), "{output:?}");
        // The one thing that is for everybody reaches nicd, which then says who may.
        let vm = fixture.server(json!({"kind": "vm", "owner": {"uid": OWNER_UID}}));
        let port = fixture.attach_to(&vm, &network);
        assert!(!may(&STRANGER, &format!("{} {PORT} OpenTap", path(&port))));
        assert!(may(&OWNER, &format!("{} {PORT} OpenTap", path(&port))));
        let listen = |who: &[&str]| {
            let mut command = Command::new("setpriv");
            command.args(who).args(["--", "dbus-monitor", "--system", "--profile", "type=signal,sender=org.nicd.Agent1"]);
            Lines::of(&mut command)
        };
        let (stranger, mut root) = (listen(&STRANGER), listen(&["--reuid=0"]));
        root.wait_for("root listens", |line| line.contains("NameAcquired") || line.contains("NameLost"));
        fixture.create_port(json!({"network_id": network}));
        root.wait_for("root hears", |line| line.contains("InterfacesAdded"));
        let mut stranger = stranger;
        let heard = stranger.drain(Duration::from_millis(200));
        assert!(!heard.iter().any(|line| line.contains("InterfacesAdded")), "{heard:#?}");
    });
}

#[test]
fn a_tap_is_for_whom_it_was_made_whatever_its_server_says_since() {
    in_netns(|| {
        let (_bus, mut fixture) = with_bus(Policy::Open, GROUPS);
        let network = fixture.usual_network();
        let made = |fixture: &mut Fixture, owner: Value| {
            let server = fixture.server(json!({"kind": "vm", "owner": owner}));
            let port = fixture.attach_to(&server, &network);
            (server, port)
        };
        let open = |port: &str| format!("{} {PORT} OpenTap", path(port));
        let mail = ["--reuid=mail", "--regid=mail", "--clear-groups"];
        let (server, port) = made(&mut fixture, json!({"uid": OWNER_UID}));
        fixture.api.put(&server_path(&server), &json!({"server": {"guest": {"kind": "vm", "owner": {"uid": 8}}}})).expect(200);
        assert!(!may(&mail, &open(&port)), "whom the server names by now");
        assert!(may(&OWNER, &open(&port)), "whom the tap was made for");
        fixture.wait_status(&port, "DOWN");
        // A tap that is made from now on is for the new one.
        let second = fixture.network(json!({"name": "red"}));
        fixture.subnet(&second, "198.51.100.0/24");
        let later = fixture.attach_to(&server, &second);
        assert!(may(&mail, &open(&later)) && !may(&OWNER, &open(&later)));
        fixture.wait_status(&later, "DOWN");
        // With a group both are needed, and a group alone lets nobody in over the bus.
        let (_, both) = made(&mut fixture, json!({"uid": OWNER_UID, "gid": 1}));
        assert!(!may(&OWNER, &open(&both)));
        assert!(may(&["--reuid=news", "--regid=daemon", "--clear-groups"], &open(&both)));
        fixture.wait_status(&both, "DOWN");
        let (_, group) = made(&mut fixture, json!({"gid": 9}));
        assert!(!may(&OWNER, &open(&group)));
    });
}
