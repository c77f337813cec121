//! Who is not served, and what else is tried on the port.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::daemon::PATIENCE;
use crate::netns::in_netns;
use crate::pki::{ADDRESS, Pki, Said, url};
use crate::serving;

/// openssl's client as `cloud-1`, which is told `input`.
fn s_client(pki: &Pki, arguments: &str, input: &str) -> Said {
    let mut command = Command::new("timeout");
    command.args(["20", "openssl", "s_client", "-connect", ADDRESS]).args(arguments.split_whitespace());
    command.arg("-CAfile").arg(pki.file("ca.pem"));
    command.arg("-cert").arg(pki.file("cloud-1.pem")).arg("-key").arg(pki.file("cloud-1.key"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may end before it has read this.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Said { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

#[test]
fn nobody_is_served_without_a_certificate_that_is_right() {
    in_netns(|| {
        let pki = Pki::new();
        pki.authority("foreign");
        pki.certificate("stranger", "foreign", "cloud-1", "extendedKeyUsage=clientAuth", 365);
        pki.certificate("old", "ca", "cloud-1", "extendedKeyUsage=clientAuth", -1);
        pki.certificate("host-2", "ca", "cloud-1", "extendedKeyUsage=serverAuth", 365);
        pki.client("cloud-2");
        let mut fixture = serving(&pki, &["cloud-1"]);
        for (client, alert) in [
            (None, "certificate required"),
            (Some("stranger"), "unknown ca"),
            (Some("old"), "certificate expired"),
            (Some("host-2"), "alert"),
        ] {
            let said = pki.curl(client, &[&url("/nicd/v1/health")]);
            assert!(said.code != 0 && said.status() == 0 && said.out.is_empty(), "{client:?}: {said:?}");
            assert!(said.err.contains(alert), "{client:?}: {said:?}");
        }
        // Vouched for, and not allowed: it is told so, in the dialect of its request, and the connection closes.
        let said = pki.curl(Some("cloud-2"), &["-i", &url("/v2.0/networks")]);
        assert_eq!(said.status(), 403);
        for part in ["connection: close", "NeutronError", "client_not_allowed", "cloud-2", "allow of [listen]"] {
            assert!(said.out.contains(part), "{part}: {said:?}");
        }
        let said = pki.curl(Some("cloud-2"), &["-X", "DELETE", &url("/nicd/v1/servers/x")]);
        assert_eq!(said.refused(403), "client_not_allowed");
        // The server is checked too.
        let said = pki.curl(Some("cloud-1"), &["--cacert", pki.file("foreign.pem").to_str().unwrap(), &url("/")]);
        assert_eq!(said.code, 60, "{said:?}");
        // The first failure is in the log; of the others their number will be.
        let log = fixture.daemon.log();
        assert_eq!(log.matches("a client could not be served over TLS").count(), 1, "{log}");
        let metrics = fixture.api.get("/metrics").text;
        assert!(metrics.contains("nicd_tls_handshakes_total{result=\"failed\"} 5"), "{metrics}");
    });
}

#[test]
fn plain_http_old_versions_and_renegotiation_get_nowhere() {
    in_netns(|| {
        let pki = Pki::new();
        let mut fixture = serving(&pki, &["cloud-1"]);
        let said = pki.curl(None, &["--http0.9", &format!("http://{ADDRESS}/nicd/v1/health")]);
        assert!(!said.out.contains("status") && said.status() < 200, "{said:?}");
        let mut plain = TcpStream::connect(ADDRESS).unwrap();
        plain.set_read_timeout(Some(PATIENCE)).unwrap();
        plain.write_all(b"GET /nicd/v1/health HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut bytes = Vec::new();
        plain.read_to_end(&mut bytes).unwrap();
        // One alert, and nothing in plain text.
        assert!(bytes.len() <= 7 && bytes.first().is_none_or(|kind| *kind == 21), "{bytes:?}");
        let get = "GET /nicd/v1/health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        for version in ["-tls1", "-tls1_1"] {
            let said = s_client(&pki, &format!("{version} -cipher ALL:@SECLEVEL=0 -quiet -ign_eof"), get);
            assert!(said.code != 0 && said.err.contains(" alert ") && said.out.is_empty(), "{said:?}");
        }
        let ciphers = "-tls1_2 -quiet -ign_eof -cipher";
        for weak in ["AES128-SHA:AES256-SHA", "AES128-GCM-SHA256", "aNULL:eNULL:@SECLEVEL=0"] {
            let said = s_client(&pki, &format!("{ciphers} {weak}"), get);
            assert!(said.code != 0 && said.out.is_empty(), "{weak}: {said:?}");
        }
        for version in ["-tls1_2", "-tls1_3"] {
            let said = s_client(&pki, &format!("{version} -quiet -ign_eof"), get);
            assert!(said.out.starts_with("HTTP/1.1 200") && said.out.contains("\"status\":\"ok\""), "{said:?}");
        }
        // R asks for another handshake on the connection; in TLS 1.3 there is none.
        let said = s_client(&pki, "-tls1_2", "R\n");
        assert!(said.err.contains("no renegotiation") || said.out.contains("no renegotiation"), "{said:?}");
        // k sends new keys, which TLS 1.3 allows.
        let said = s_client(&pki, "-tls1_3", "k\n");
        assert!(said.out.contains("KEYUPDATE") || said.err.contains("KEYUPDATE"), "{said:?}");
        let said = s_client(&pki, "-alpn h2 -quiet", get);
        assert!(said.code != 0 && said.out.is_empty(), "HTTP/2 alone: {said:?}");
        pki.get("cloud-1", "/nicd/v1/health").expect(200);
        assert_eq!(fixture.api.get("/nicd/v1/health").expect(200)["status"], "ok");
    });
}

#[test]
fn peers_that_say_nothing_or_nonsense_do_not_keep_others_out() {
    in_netns(|| {
        let pki = Pki::new();
        let fixture = serving(&pki, &["cloud-1"]);
        let mut silent: Vec<TcpStream> = (0..600).map(|_| TcpStream::connect(ADDRESS).unwrap()).collect();
        for (number, stream) in silent.iter_mut().enumerate().filter(|(number, _)| number % 3 > 0) {
            // Half of a record of a ClientHello, and a record that is none.
            let begun: &[u8] = if number % 3 == 1 { &[22, 3, 1, 2, 0, 1, 0] } else { &[0xff; 64] };
            let _ = stream.write_all(begun);
        }
        pki.get("cloud-1", "/nicd/v1/health").expect(200);
        // The oldest made room.
        silent[0].set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        assert!(matches!(silent[0].read(&mut [0; 8]), Ok(0) | Err(_)), "it is closed");
        let metrics = pki.get("cloud-1", "/metrics").out;
        let replaced = metrics.lines().find_map(|line| line.strip_prefix("nicd_tls_handshakes_total{result=\"replaced\"} "));
        assert!(replaced.unwrap().parse::<u32>().unwrap() > 0, "{metrics}");
        drop(fixture);
    });
}
