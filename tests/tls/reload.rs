//! A reload changes certificates, authorities and allowed names, and ends no connection.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use serde_json::{Value, json};

use crate::daemon::PATIENCE;
use crate::fixture::Fixture;
use crate::netns::in_netns;
use crate::pki::{ADDRESS, Pki, Said};
use crate::serving;

fn read(output: ChildStdout) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    lines
}

/// One connection of openssl's client, on which requests are written by hand.
struct Kept {
    client: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Kept {
    fn open(pki: &Pki, client: &str) -> Self {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-quiet", "-verify_quiet", "-connect", ADDRESS]).arg("-CAfile").arg(pki.file("ca.pem"));
        command.arg("-cert").arg(pki.file(&format!("{client}.pem"))).arg("-key").arg(pki.file(&format!("{client}.key")));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (input, lines) = (child.stdin.take().unwrap(), read(child.stdout.take().unwrap()));
        Self { client: child, input, lines }
    }

    /// The status of one more request.
    fn status(&mut self, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nAccept: application/x-ndjson\r\n\r\n");
        self.input.write_all(request.as_bytes()).unwrap();
        loop {
            let line = self.lines.recv_timeout(PATIENCE).expect("an answer");
            if let Some((_, rest)) = line.split_once("HTTP/1.1 ") {
                return rest[..3].to_owned();
            }
        }
    }

    /// Waits for a line of which this holds.
    fn wait_for(&self, what: &str, holds: impl Fn(&str) -> bool) {
        while !holds(&self.lines.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("no {what}: {error}"))) {}
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

/// The subject of the certificate that a new connection is shown.
fn shown_by_the_server() -> String {
    let mut command = Command::new("openssl");
    Said::of(command.args(["s_client", "-connect", ADDRESS]).stdin(Stdio::null())).out
}

fn problem(fixture: &mut Fixture, reason: &str) -> Option<Value> {
    let health = fixture.api.get("/nicd/v1/health").expect(200);
    health["problems"].as_array().unwrap().iter().find(|problem| problem["reason"] == reason).cloned()
}

#[test]
fn a_reload_takes_new_files_and_names_and_ends_no_connection() {
    in_netns(|| {
        let pki = Pki::new();
        pki.authority("ca2");
        pki.certificate("server2", "ca", "host-1-renewed", "subjectAltName=IP:127.0.0.1", 365);
        pki.certificate("cloud-2", "ca2", "cloud-2", "extendedKeyUsage=clientAuth", 365);
        let mut fixture = serving(&pki, &["cloud-1"]);
        let [mut stream, mut kept] = [(); 2].map(|()| Kept::open(&pki, "cloud-1"));
        assert_eq!(stream.status("/nicd/v1/events"), "200");
        assert_eq!(kept.status("/v2.0/ports"), "200");
        assert!(shown_by_the_server().contains("host-1\n"));
        assert_ne!(pki.get("cloud-2", "/v2.0/ports").code, 0);
        // Everything anew: the files in place, as a program that renews certificates does.
        fs::copy(pki.file("server2.pem"), pki.file("server.pem")).unwrap();
        fs::copy(pki.file("server2.key"), pki.file("server.key")).unwrap();
        let both = ["ca.pem", "ca2.pem"].map(|name| fs::read_to_string(pki.file(name)).unwrap()).concat();
        fs::write(pki.file("both.pem"), both).unwrap();
        let config = pki.listen(&["cloud-1", "cloud-2"]).replace("/ca.pem", "/both.pem");
        fs::write(fixture.daemon.config(), &config).unwrap();
        fixture.daemon.reload();
        assert!(shown_by_the_server().contains("host-1-renewed\n"));
        pki.get("cloud-2", "/v2.0/ports").expect(200);
        assert_eq!(kept.status("/v2.0/ports"), "200");
        let network = fixture.usual_network();
        let port = fixture.create_port(json!({"network_id": network}));
        stream.wait_for("event of the port", |line| line.contains(&port));
        // What is broken changes nothing, and is told.
        for (file, text, said) in [
            ("server.pem", "no PEM".to_owned(), "it has no certificate in PEM"),
            ("server.key", fs::read_to_string(pki.file("cloud-1.key")).unwrap(), "not the key of the certificate"),
            ("both.pem", String::new(), "it has no certificate in PEM"),
        ] {
            let right = fs::read(pki.file(file)).unwrap();
            fs::write(pki.file(file), text).unwrap();
            fixture.daemon.reload();
            let problem = problem(&mut fixture, "config_invalid").unwrap();
            assert!(problem["detail"].as_str().unwrap().contains(said), "{problem}");
            assert!(shown_by_the_server().contains("host-1-renewed\n"));
            pki.get("cloud-2", "/v2.0/ports").expect(200);
            fs::write(pki.file(file), right).unwrap();
        }
        assert_eq!(fixture.daemon.log().matches("stays as it was").count(), 3);
        fixture.daemon.reload();
        assert_eq!(problem(&mut fixture, "config_invalid"), None);
        // A name that is taken out: its next request is refused, and its stream ends.
        fs::write(fixture.daemon.config(), config.replace("\"cloud-1\", ", "")).unwrap();
        fixture.daemon.reload();
        assert_eq!(kept.status("/v2.0/ports"), "403");
        stream.wait_for("last chunk", |line| line == "0");
        assert_eq!(pki.get("cloud-1", "/v2.0/ports").refused(403), "client_not_allowed");
        pki.get("cloud-2", "/v2.0/ports").expect(200);
    });
}

#[test]
fn a_certificate_that_ends_soon_is_told_until_a_newer_one_is_there() {
    in_netns(|| {
        let pki = Pki::new();
        let lasting = ["server.pem", "server.key"].map(|name| fs::read(pki.file(name)).unwrap());
        pki.certificate("server", "ca", "host-1", "subjectAltName=IP:127.0.0.1", 20);
        let mut fixture = serving(&pki, &["cloud-1"]);
        let seen = problem(&mut fixture, "certificate_ends").unwrap();
        let detail = seen["detail"].as_str().unwrap();
        assert!(detail.contains("'host-1' in listen.cert") && detail.contains(" ends at "), "{seen}");
        let metrics = pki.get("cloud-1", "/metrics").out;
        let ends = |file: &str| -> i64 {
            let name = format!("nicd_tls_certificate_expiry_timestamp_seconds{{file=\"{file}\"}} ");
            metrics.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
        };
        assert!(ends("client_ca") - ends("cert") > 300 * 86_400 && ends("cert") > 0, "{metrics}");
        for (name, bytes) in ["server.pem", "server.key"].iter().zip(lasting) {
            fs::write(pki.file(name), bytes).unwrap();
        }
        fixture.daemon.reload();
        fixture.events.wait_for("the end of the problem", |event| {
            event["event"] == "agent.recovered" && event["reason"] == "certificate_ends"
        });
        assert_eq!(problem(&mut fixture, "certificate_ends"), None);
    });
}
