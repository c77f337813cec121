//! Thousands of connections that ask for nothing.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto};

use crate::fixture::Fixture;
use crate::netns::in_netns;
use crate::pki::{ADDRESS, Pki};
use crate::serving;

/// How many are open at the same time.
const HERD: usize = 5_000;

/// How many of them have done their handshake.
const SECURE: usize = 400;

type Secure = StreamOwned<ClientConnection, TcpStream>;

/// Opens a connection as a client, up to the end of the handshake.
fn connect(config: &Arc<ClientConfig>) -> Secure {
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream =
        StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), TcpStream::connect(ADDRESS).unwrap());
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).unwrap();
    }
    stream.flush().unwrap();
    stream
}

fn config(pki: &Pki, client: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.file("ca.pem")).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let certificate = CertificateDer::from_pem_file(pki.file(&format!("{client}.pem"))).unwrap();
    let key = PrivateKeyDer::from_pem_file(pki.file(&format!("{client}.key"))).unwrap();
    Arc::new(builder.with_client_auth_cert(vec![certificate], key).unwrap())
}

/// The memory of the daemon, in KiB.
fn memory(fixture: &Fixture) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", fixture.daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn five_thousand_idle_connections_cost_little_and_keep_nobody_out() {
    in_netns(|| {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(16_384), hard).unwrap();
        let pki = Pki::new();
        pki.client("greedy");
        let mut fixture = serving(&pki, &["cloud-1", "greedy"]);
        let network = fixture.usual_network();
        pki.get("cloud-1", "/v2.0/ports").expect(200);
        let (before, greedy) = (memory(&fixture), config(&pki, "greedy"));
        let secure: Vec<Secure> = (0..SECURE).map(|_| connect(&greedy)).collect();
        let silent: Vec<TcpStream> = (SECURE..HERD).map(|_| TcpStream::connect(ADDRESS).unwrap()).collect();
        assert_eq!(secure.len() + silent.len(), HERD);
        // Another client and the socket are served as ever.
        let began = Instant::now();
        pki.get("cloud-1", "/v2.0/ports").expect(200);
        let (_guest, _, port) = fixture.active_guest("a", &network);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(3), "{took:?}");
        let shown = pki.get("cloud-1", &format!("/v2.0/ports/{port}")).expect(200);
        assert_eq!(shown["port"]["status"], json!("ACTIVE"));
        let metrics = fixture.api.get("/metrics").text;
        let value = |name: &str| -> u64 {
            let line = metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().parse().unwrap()
        };
        // Three quarters are what one client may have.
        assert!(value("nicd_tls_connections ") <= 192, "{metrics}");
        assert!(value("nicd_http_connections ") < 10, "{metrics}");
        let grown = memory(&fixture).saturating_sub(before);
        assert!(grown < 40 << 10, "{grown} KiB for {HERD} connections");
        let descriptors = fs::read_dir(format!("/proc/{}/fd", fixture.daemon.pid())).unwrap().count();
        assert!(descriptors < 800, "{descriptors} descriptors");
        drop((secure, silent));
        // What they held is free again.
        let again: Vec<Secure> = (0..20).map(|_| connect(&greedy)).collect();
        pki.get("greedy", "/v2.0/ports").expect(200);
        drop(again);
        println!("{grown} KiB and {descriptors} descriptors with {HERD} connections; others served in {took:?}");
    });
}
