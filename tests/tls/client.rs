//! nicctl and the crate `nicd-client` over TLS.

use std::process::Command;
use std::sync::mpsc::channel;
use std::thread;

use nicd_client::{Attachment, Client, Credentials, Event, EventKind, Remote};
use serde_json::json;
use uuid::Uuid;

use crate::netns::{Guest, in_netns};
use crate::pki::{ADDRESS, Pki, Said};
use crate::serving;

/// nicctl as a client with these files.
fn nicctl(pki: &Pki, client: &str, cacert: &str, arguments: &str) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nicctl"));
    command.env_clear().arg("--host").arg(format!("https://{ADDRESS}"));
    command.arg("--cert").arg(pki.file(&format!("{client}.pem"))).arg("--key").arg(pki.file(&format!("{client}.key")));
    Said::of(command.arg("--cacert").arg(pki.file(cacert)).args(arguments.split_whitespace()))
}

#[test]
fn nicctl_does_everything_from_another_host() {
    in_netns(|| {
        let pki = Pki::new();
        pki.authority("foreign");
        pki.certificate("stranger", "foreign", "cloud-1", "extendedKeyUsage=clientAuth", 365);
        pki.client("cloud-2");
        let mut fixture = serving(&pki, &["cloud-1"]);
        let guest = Guest::new("web");
        for (arguments, shown) in [
            ("status", "ok"),
            ("network create blue --subnet 192.0.2.0/24", "blue"),
            ("server add web --netns /run/netns/web", "web"),
            ("attach web --network blue --wait", "ACTIVE"),
            ("list web", "192.0.2."),
            ("verify", ""),
        ] {
            let said = nicctl(&pki, "cloud-1", "ca.pem", arguments);
            assert!(said.code == 0 && said.out.contains(shown), "{arguments}: {said:?}");
        }
        assert!(guest.ip("address").contains("192.0.2."));
        for (client, cacert, arguments, code, words) in [
            ("cloud-2", "ca.pem", "list", 1, &["client_not_allowed", "cloud-2"][..]),
            ("stranger", "ca.pem", "list", 4, &["UnknownCA", "is --cert of an authority in its client_ca?"]),
            ("stranger", "ca.pem", "network create red", 4, &["UnknownCA"]),
            ("cloud-1", "foreign.pem", "list", 4, &["invalid peer certificate", "has --cacert the authority"]),
            ("cloud-1", "none.pem", "list", 2, &["none.pem cannot be used: No such file"]),
            ("cloud-1", "cloud-1.key", "list", 2, &["it has no certificate in PEM"]),
            ("cloud-1", "ca.pem", "doctor", 2, &["run it there"]),
            ("cloud-1", "ca.pem", "list --socket /run/nicd/nicd.sock", 2, &["two daemons"]),
        ] {
            let said = nicctl(&pki, client, cacert, arguments);
            assert_eq!(said.code, code, "{arguments}: {said:?}");
            assert!(words.iter().all(|word| said.err.contains(word)), "{arguments}: {said:?}");
        }
        assert_eq!(fixture.api.get("/v2.0/networks").expect(200)["networks"].as_array().unwrap().len(), 1);
        by_environment(&pki);
        let said = nicctl(&pki, "cloud-1", "ca.pem", "server delete web --detach");
        assert_eq!(said.code, 0, "{said:?}");
        fixture.daemon.term();
        let said = nicctl(&pki, "cloud-1", "ca.pem", "list");
        assert!(said.code == 4 && said.err.contains("does nicd run there"), "{said:?}");
    });
}

fn by_environment(pki: &Pki) {
    let run = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nicctl"));
        command.env_clear().env("NICD_HOST", format!("https://{ADDRESS}")).env("NICD_CERT", pki.file("cloud-1.pem"));
        Said::of(command.env("NICD_KEY", pki.file("cloud-1.key")).envs(variables.iter().copied()).args(arguments))
    };
    let authority = pki.file("ca.pem");
    let authority = [("NICD_CACERT", authority.to_str().unwrap())];
    let said = run(&["network", "list"], &authority);
    assert!(said.code == 0 && said.out.contains("blue"), "{said:?}");
    // NICD_HOST wins over NICD_SOCKET, and what is typed over both.
    let said = run(&["network", "list"], &[authority[0], ("NICD_SOCKET", "/run/none")]);
    assert_eq!(said.code, 0, "{said:?}");
    let said = run(&["--socket", "/run/none", "network", "list"], &authority);
    assert!(said.code == 4 && said.err.contains("/run/none"), "{said:?}");
    let said = run(&["network", "list"], &[]);
    assert!(said.code == 2 && said.err.contains("NICD_CACERT"), "{said:?}");
    // A shell completes names of the other host.
    let words = ["--", "nicctl", "network", "show", "bl"];
    let said = run(&words, &[authority[0], ("NICCTL_COMPLETE", "bash"), ("_CLAP_COMPLETE_INDEX", "3")]);
    assert_eq!(said.out.trim(), "blue", "{said:?}");
}

#[test]
fn a_client_goes_on_after_a_restart_of_the_daemon() {
    in_netns(|| {
        let pki = Pki::new();
        let mut fixture = serving(&pki, &["cloud-1"]);
        let network: Uuid = fixture.usual_network().parse().unwrap();
        let server: Uuid = fixture.server(json!({"kind": "vm"})).parse().unwrap();
        let [cert, key, cacert] = ["cloud-1.pem", "cloud-1.key", "ca.pem"].map(|name| pki.file(name));
        let client = Client::remote(Remote::new(&format!("https://{ADDRESS}"), &Credentials { cert, key, cacert }).unwrap());
        let (began, begun) = channel();
        let (stopped, stop) = channel();
        let caller = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut events = client.events().await.unwrap();
                let first = client.attach(server, &Attachment::to_network(network)).await.unwrap();
                while events.next().await.unwrap().port_id != Some(first.port_id) {}
                began.send(()).unwrap();
                stop.recv().unwrap();
                // Nothing listens now.
                let second = client.attach(server, &Attachment::to_network(network)).await.unwrap();
                // The new process has no earlier events, and says so.
                let seen = |event: &Event| event.kind == EventKind::Lost || event.port_id == Some(second.port_id);
                while !seen(&events.next().await.unwrap()) {}
                [first.port_id, second.port_id].map(|port| port.to_string())
            })
        });
        begun.recv().unwrap();
        fixture.daemon.kill();
        stopped.send(()).unwrap();
        fixture.launch();
        let mut attached = caller.join().unwrap();
        let ports = fixture.api.get("/v2.0/ports").expect(200);
        let mut there: Vec<_> = ports["ports"].as_array().unwrap().iter().map(|port| port["id"].as_str().unwrap()).collect();
        attached.sort();
        there.sort_unstable();
        assert_eq!(there, attached, "each is there once");
    });
}
