//! A small server that speaks Keystone's API v3, Nova's `os-server-external-events` and a webhook as their references say, and
//! misbehaves as it is told.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned, crypto};
use uuid::Uuid;

use crate::daemon::PATIENCE;

/// What a server does with one request.
#[derive(Debug, Clone, PartialEq)]
pub enum Deed {
    /// Reads it, and never answers while the connection lasts.
    Hang,
    /// Does what it asks, and closes the connection without an answer.
    DoAndClose,
    /// Closes the connection in the middle of the answer, without having done anything.
    CloseInside,
    /// Answers with this status, these headers and this body, without having done anything.
    Answer(u16, &'static str, String),
    /// Answers 207 with these codes for the events of the servers named; the others are accepted.
    Codes(BTreeMap<String, u16>),
    /// Answers right, one byte at a time.
    Slowly,
}

/// What was seen and is to be done.
#[derive(Debug, Default)]
pub struct Seen {
    /// The next deeds, of Nova and of the webhook.
    pub deeds: VecDeque<Deed>,
    /// The next deeds of Keystone.
    pub keystone: VecDeque<Deed>,
    /// The bodies of the requests for tokens.
    pub logins: Vec<Value>,
    /// The tokens given out; the last one counts.
    pub tokens: Vec<String>,
    /// How many requests with events there were, whatever became of them.
    pub requests: usize,
    /// The events accepted, in their order: server, port, name with status.
    pub events: Vec<(String, String, String)>,
    /// The events that the webhook has seen, accepted or not.
    pub hook_seen: Vec<Value>,
    /// The events that the webhook has accepted.
    pub hook: Vec<Value>,
    /// The last `Authorization` that the webhook got.
    pub authorization: Option<String>,
}

/// The server. It ends with the test's process.
#[derive(Debug, Clone)]
pub struct Cloud {
    port: u16,
    tls: bool,
    shared: Arc<(Mutex<Seen>, Condvar)>,
}

/// A request as read.
struct Request {
    path: String,
    headers: BTreeMap<String, String>,
    body: Value,
}

/// The directory of the certificates.
pub fn certificates() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls")
}

impl Cloud {
    /// Listens in the namespace of the calling thread.
    pub fn start(tls: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let cloud = Self { port: listener.local_addr().unwrap().port(), tls, shared: Arc::default() };
        cloud.serve(listener);
        cloud
    }

    /// A server that is not there yet: connections are refused until [`Cloud::open`].
    pub fn closed() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { port: listener.local_addr().unwrap().port(), tls: false, shared: Arc::default() }
    }

    /// Begins to listen.
    pub fn open(&self) {
        self.serve(TcpListener::bind(("127.0.0.1", self.port)).unwrap());
    }

    fn serve(&self, listener: TcpListener) {
        let cloud = self.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (cloud, stream) = (cloud.clone(), stream.unwrap());
                thread::spawn(move || {
                    if cloud.tls {
                        let secured = StreamOwned::new(ServerConnection::new(tls()).unwrap(), stream);
                        cloud.answer(secured);
                    } else {
                        cloud.answer(stream);
                    }
                });
            }
        });
    }

    /// The address of Keystone.
    pub fn auth_url(&self) -> String {
        self.url("identity/v3")
    }

    /// An address of this server.
    pub fn url(&self, path: &str) -> String {
        format!("{}://127.0.0.1:{}/{path}", if self.tls { "https" } else { "http" }, self.port)
    }

    /// What was seen.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.shared.0.lock().unwrap()
    }

    /// Waits until what was seen meets a condition.
    pub fn wait(&self, what: &str, met: impl Fn(&Seen) -> bool) -> MutexGuard<'_, Seen> {
        let (deadline, mut seen) = (Instant::now() + PATIENCE, self.seen());
        while !met(&seen) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what} did not come: {seen:#?}");
            seen = self.shared.1.wait_timeout(seen, left).unwrap().0;
        }
        seen
    }

    /// Waits until the last event about a port is this one.
    pub fn wait_last(&self, port: &str, name: &str) {
        drop(self.wait(&format!("{name} of {port}"), |seen| seen.last(port) == Some(name)));
    }

    fn answer(&self, mut stream: impl Read + Write) {
        // A client that does not accept the certificate sends nothing.
        let Some(request) = read(&mut stream) else { return };
        let (answer, deed) = self.handle(&request);
        self.shared.1.notify_all();
        let bytes = answer.into_bytes();
        let _ = match deed {
            Some(Deed::Hang) => stream.read(&mut [0]).map(drop),
            Some(Deed::DoAndClose) => Ok(()),
            Some(Deed::CloseInside) => stream.write_all(&bytes[..bytes.len() / 2]),
            Some(Deed::Slowly) => bytes.chunks(1).try_for_each(|byte| {
                thread::sleep(Duration::from_millis(1));
                stream.write_all(byte)
            }),
            _ => stream.write_all(&bytes),
        };
        let _ = stream.flush();
    }

    fn handle(&self, request: &Request) -> (String, Option<Deed>) {
        let mut seen = self.seen();
        match request.path.as_str() {
            "/identity/v3/auth/tokens" => {
                seen.logins.push(request.body.clone());
                let deed = seen.keystone.pop_front();
                (self.keystone(&mut seen, &request.body, deed.as_ref()), deed)
            }
            "/compute/v2.1/os-server-external-events" => {
                seen.requests += 1;
                let deed = seen.deeds.pop_front();
                (nova(&mut seen, request, deed.as_ref()), deed)
            }
            "/hook" => {
                seen.requests += 1;
                seen.authorization = request.headers.get("authorization").cloned();
                let events = request.body["events"].as_array().unwrap().clone();
                seen.hook_seen.extend(events.clone());
                let deed = seen.deeds.pop_front();
                if let Some(Deed::Answer(status, headers, body)) = &deed {
                    return (http(*status, headers, body), deed);
                }
                if deed != Some(Deed::CloseInside) && deed != Some(Deed::Hang) {
                    seen.hook.extend(events);
                }
                (http(204, "", ""), deed)
            }
            _ => (http(404, "", "{}"), None),
        }
    }

    /// Keystone v3, "Password authentication with scoped authorization" and "Authenticating with an Application Credential".
    fn keystone(&self, seen: &mut Seen, body: &Value, deed: Option<&Deed>) -> String {
        if let Some(Deed::Answer(status, headers, body)) = deed {
            return http(*status, headers, body);
        }
        let identity = &body["auth"]["identity"];
        let user = json!({"name": "nicd", "domain": {"name": "Default"}, "password": "pass word"});
        let by_password = identity["methods"] == json!(["password"])
            && identity["password"]["user"] == user
            && body["auth"]["scope"] == json!({"project": {"name": "service", "domain": {"name": "Default"}}});
        let by_credential = identity["methods"] == json!(["application_credential"])
            && identity["application_credential"] == json!({"id": "423f19a4", "secret": "cred secret"})
            && body["auth"]["scope"].is_null();
        if !by_password && !by_credential {
            return http(
                401,
                "",
                r#"{"error": {"code": 401, "title": "Unauthorized", "message": "The request you have made requires authentication."}}"#,
            );
        }
        let token = format!("token-{}", seen.tokens.len());
        seen.tokens.push(token.clone());
        let endpoint = |interface: &str, region: &str, path: &str| json!({"id": "e", "interface": interface, "region": region, "region_id": region, "url": self.url(path)});
        let catalog = json!([
            {"type": "identity", "name": "keystone", "id": "a", "endpoints": [endpoint("public", "one", "identity")]},
            {"type": "compute", "name": "nova", "id": "b", "endpoints": [
                endpoint("internal", "one", "wrong"), endpoint("public", "zero", "wrong"), endpoint("public", "one", "compute/v2.1")
            ]},
        ]);
        let body = json!({"token": {"methods": ["password"], "expires_at": "2999-01-01T00:00:00.000000Z", "catalog": catalog}});
        http(201, &format!("X-Subject-Token: {token}\r\n"), &body.to_string())
    }
}

impl Seen {
    /// The last event about a port.
    pub fn last(&self, port: &str) -> Option<&str> {
        self.events.iter().rev().find(|event| event.1 == port).map(|event| event.2.as_str())
    }

    /// The events about a port.
    pub fn of(&self, port: &str) -> Vec<&str> {
        self.events.iter().filter(|event| event.1 == port).map(|event| event.2.as_str()).collect()
    }
}

/// Nova's "Create External Events".
fn nova(seen: &mut Seen, request: &Request, deed: Option<&Deed>) -> String {
    if request.headers.get("x-auth-token") != seen.tokens.last() {
        return http(401, "WWW-Authenticate: Keystone uri=\"x\"\r\n", r#"{"error": {"code": 401, "title": "Unauthorized"}}"#);
    }
    if let Some(Deed::Answer(status, headers, body)) = deed {
        return http(*status, headers, body);
    }
    let mut events = request.body["events"].as_array().unwrap().clone();
    let mut all_accepted = true;
    for event in &mut events {
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let (name, server, tag, status) = (text("name"), text("server_uuid"), text("tag"), text("status"));
        let known = ["network-changed", "network-vif-plugged", "network-vif-unplugged", "network-vif-deleted"];
        let right = known.contains(&name.as_str())
            && Uuid::try_parse(&server).is_ok()
            && (1..=255).contains(&tag.len())
            && ["failed", "completed"].contains(&status.as_str())
            && event.as_object().unwrap().len() == 4;
        assert!(right, "{event}");
        let code = match deed {
            Some(Deed::Codes(codes)) => codes.get(&server).copied().unwrap_or(200),
            _ => 200,
        };
        event["code"] = code.into();
        if code == 200 {
            let name = if status == "completed" { name } else { format!("{name} {status}") };
            if !matches!(deed, Some(Deed::Hang | Deed::CloseInside)) {
                seen.events.push((server, tag, name));
            }
        } else {
            all_accepted = false;
            event["status"] = "failed".into();
        }
    }
    http(if all_accepted { 200 } else { 207 }, "", &json!({ "events": events }).to_string())
}

fn http(status: u16, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} Status\r\nContent-Type: application/json\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
}

fn read(stream: &mut impl Read) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    assert!(line.starts_with("POST "), "{line}");
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    assert_eq!(headers["content-type"], "application/json");
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    reader.read_exact(&mut body).ok()?;
    Some(Request { path, headers, body: serde_json::from_slice(&body).unwrap() })
}

fn tls() -> Arc<ServerConfig> {
    let (chain, key) = (certificates().join("server.pem"), certificates().join("server.key"));
    let chain = CertificateDer::pem_file_iter(chain).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()));
    Arc::new(builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap())
}
