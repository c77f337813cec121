//! Files that cannot be used: `nicd check-config` and a start say why.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::daemon::Daemon;
use crate::netns::in_netns;
use crate::pki::{ADDRESS, Pki, Said};

#[test]
fn each_file_that_cannot_be_used_is_told_in_a_sentence() {
    in_netns(|| {
        let pki = Pki::new();
        pki.authority("other");
        let daemon = Daemon::prepared("/run/nicd");
        let right = pki.listen(&["cloud-1"]);
        let check = |config: &str| {
            fs::write(daemon.config(), config).unwrap();
            Said::of(Command::new(env!("CARGO_BIN_EXE_nicd")).args(["check-config", "--config"]).arg(daemon.config()))
        };
        let said = check(&right);
        assert!(said.code == 0 && said.out.contains(&format!("tls = \"{ADDRESS}\"")), "{said:?}");
        let open = pki.file("open.key");
        fs::copy(pki.file("server.key"), &open).unwrap();
        fs::set_permissions(open, Permissions::from_mode(0o644)).unwrap();
        fs::write(pki.file("garbage.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        fs::write(pki.file("empty.pem"), "").unwrap();
        for (from, to, key, why) in [
            ("server.pem", "none.pem", "listen.cert", "No such file"),
            ("server.pem", "empty.pem", "listen.cert", "no certificate in PEM"),
            ("server.pem", "server.key", "listen.cert", "no certificate in PEM"),
            ("server.pem", "garbage.pem", "listen.cert", "cannot be read (X.509)"),
            ("server.key", "none.key", "listen.key", "No such file"),
            ("server.key", "ca.pem", "listen.key", "every user of this host can read"),
            ("server.key", "open.key", "listen.key", "chmod o="),
            ("server.key", "cloud-1.key", "listen.key", "not the key of the certificate in listen.cert"),
            ("/ca.pem", "/none.pem", "listen.client_ca", "No such file"),
            ("/ca.pem", "/empty.pem", "listen.client_ca", "no certificate in PEM"),
            ("/ca.pem", "/garbage.pem", "listen.client_ca", "cannot be read (X.509)"),
            ("allow = [\"cloud-1\"]", "", "listen.allow", "the names of clients"),
        ] {
            let config = right.replace(from, to);
            let said = check(&config);
            assert_eq!(said.code, 78, "{to}: {said:?}");
            assert!(said.err.contains(key) && said.err.contains(why) && said.err.lines().count() == 1, "{to}: {said:?}");
            let (code, log) = daemon.second(&daemon.socket(), &daemon.state());
            assert_eq!(code, 78, "{log}");
            assert!(log.contains(why), "{log}");
        }
        // Another program's port.
        let taken = TcpListener::bind(ADDRESS).unwrap();
        fs::write(daemon.config(), &right).unwrap();
        let (code, log) = daemon.second(&daemon.socket(), &daemon.state());
        assert!(code == 69 && log.contains(&format!("listen.tls = {ADDRESS} cannot be listened on")), "{code}: {log}");
        drop(taken);
    });
}

/// As at boot, when the network may be set up later than nicd starts.
#[test]
fn an_address_that_the_host_gets_later_is_served_then() {
    in_netns(|| {
        let pki = Pki::new();
        pki.certificate("server", "ca", "host-1", "subjectAltName=IP:192.0.2.10,IP:2001:db8::10", 365);
        for (address, shown, prefix) in [("192.0.2.10", "192.0.2.10", "32"), ("[2001:db8::10]", "2001:db8::10", "128")] {
            let mut daemon = Daemon::prepared("/run/nicd");
            fs::write(daemon.config(), pki.listen(&["cloud-1"]).replace("127.0.0.1", address)).unwrap();
            daemon.launch();
            let target = format!("https://{address}:8443/nicd/v1/health");
            assert_ne!(pki.curl(Some("cloud-1"), &[&target]).code, 0);
            crate::netns::run(&format!("ip address add {shown}/{prefix} dev lo nodad"));
            pki.curl(Some("cloud-1"), &[&target]).expect(200);
            daemon.term();
        }
    });
}
