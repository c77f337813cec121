//! What the fleet's steps work with: an underlay, an etcd, and hosts on both.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::super::api::Api;
use super::super::daemon::Place;
use super::super::namespace::Namespace;
use super::super::page::{Context, Failure};
use super::super::process::{LIMIT, Process};
use super::super::programs::{find, run};
use super::soon;

/// The hosts.
const HOSTS: [&str; 3] = ["host-1", "host-2", "host-3"];

/// Where etcd serves clients: the namespace of the demo's inner process, on the underlay's bridge.
const ETCD: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 9, 0, 1), 2379);

/// Where it would serve other members, of which there are none.
const PEERS: &str = "http://127.0.0.1:2380";

/// How long etcd may take for an answer.
const ANSWER: Duration = Duration::from_secs(2);

/// Everything that is there before the first step, and nothing of it runs.
pub(in super::super) struct Lab {
    pub(super) directory: PathBuf,
    pub(super) sites: Vec<Site>,
    etcd: PathBuf,
    etcd_log: PathBuf,
}

/// A host's namespace, and its daemon's directory.
pub(super) struct Site {
    pub(super) name: &'static str,
    /// On the underlay.
    pub(super) address: IpAddr,
    pub(super) namespace: Namespace,
    pub(super) place: Place,
}

/// A host whose daemon runs.
pub(super) struct Host<'a> {
    pub(super) site: &'a Site,
    pub(super) daemon: Process,
    pub(super) api: Api,
    /// How long its daemon took to be ready for requests.
    pub(super) ready: Duration,
}

impl Lab {
    /// Makes the underlay: a bridge, and a veth from it into each host's namespace.
    pub(in super::super) fn make(directory: &Path) -> Result<Self, Failure> {
        let etcd = find("etcd").ok_or("it is not in PATH any more").context("etcd")?;
        let address = ETCD.0;
        for line in [
            "ip link set lo up",
            "ip link add underlay type bridge",
            &format!("ip address add {address}/24 dev underlay"),
            "ip link set underlay up",
        ] {
            run(line)?;
        }
        let sites = HOSTS.iter().zip(11..).map(|(name, last)| Site::make(directory, name, last)).collect::<Result<_, _>>()?;
        Ok(Self { directory: directory.to_owned(), sites, etcd, etcd_log: directory.join("etcd.log") })
    }

    /// The logs, and whose each is.
    pub(in super::super) fn logs(&self) -> Vec<(&str, &Path)> {
        let hosts = self.sites.iter().map(|site| (site.name, site.place.log.as_path()));
        hosts.chain([("etcd", self.etcd_log.as_path())]).collect()
    }

    /// Starts etcd with what it has, and waits until it answers; answers its version and how long it took.
    pub(super) fn start_etcd(&self) -> Result<(Process, String, Duration), Failure> {
        let (url, began) = (etcd_url(), Instant::now());
        let data = self.directory.join("etcd");
        let mut command = Command::new(&self.etcd);
        command.args(["--name", "demo", "--data-dir"]).arg(&data);
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        command.args(["--listen-peer-urls", PEERS, "--initial-advertise-peer-urls", PEERS]);
        command.arg("--initial-cluster").arg(format!("demo={PEERS}"));
        // The only member need not wait long for others.
        command.args(["--heartbeat-interval", "50", "--election-timeout", "400"]);
        // etcd 3.4 asks for this on such processors, and reads it nowhere else.
        command.env_clear().env("ETCD_UNSUPPORTED_ARCH", "arm64");
        let mut etcd = Process::start("etcd", &mut command, &self.etcd_log)?;
        let doing = "starting etcd";
        soon(LIMIT, doing, || {
            etcd.check_runs()?;
            Ok(ask("GET", "/health", &Value::Null).is_ok_and(|health| health["health"] == "true").then_some(()))
        })?;
        let took = began.elapsed();
        let version = ask("GET", "/version", &Value::Null)?["etcdserver"].as_str().unwrap_or("?").to_owned();
        Ok((etcd, version, took))
    }
}

impl Site {
    fn make(directory: &Path, name: &'static str, last: u8) -> Result<Self, Failure> {
        let [first, second, third, _] = ETCD.0.octets();
        let address = Ipv4Addr::new(first, second, third, last);
        let namespace = Namespace::make(&directory.join("netns"), name)?;
        run(&format!("ip link add to-{name} type veth peer name uplink netns {}", namespace.path.display()))?;
        run(&format!("ip link set to-{name} master underlay up"))?;
        namespace.inside(|| {
            run("ip link set lo up")?;
            run(&format!("ip address add {address}/24 dev uplink"))?;
            run("ip link set uplink up")
        })?;
        let place = Place::prepare(directory.join(name), &configuration(name, address))?;
        Ok(Self { name, address: address.into(), namespace, place })
    }

    /// Starts its daemon in its namespace, and waits until it is one of the fleet; answers also how long that took.
    pub(super) fn start(&self) -> Result<(Host<'_>, Duration), Failure> {
        let began = Instant::now();
        let (daemon, ready) = self.namespace.inside(|| self.place.start())?;
        let mut host = Host { site: self, daemon, api: Api::connect(&self.place.socket)?, ready };
        soon(LIMIT, &format!("{} joins the fleet", self.name), || Ok(host.is_connected()?.then_some(())))?;
        Ok((host, began.elapsed()))
    }
}

impl Host<'_> {
    /// Whether it says that it reaches etcd.
    pub(super) fn is_connected(&mut self) -> Result<bool, Failure> {
        Ok(self.api.get("/nicd/v1/fleet")?["fleet"]["connected"] == true)
    }

    /// How many addresses it has reserved that no port has.
    pub(super) fn reserved(&mut self) -> Result<u64, Failure> {
        let fleet = self.api.get("/nicd/v1/fleet")?;
        Ok(fleet["fleet"]["reserved"].as_array().into_iter().flatten().filter_map(|one| one["free"].as_u64()).sum())
    }
}

/// What a host has in its nicd.toml.
pub(super) fn configuration(name: &str, address: Ipv4Addr) -> String {
    let url = etcd_url();
    format!(
        "[fleet]\nendpoints = [\"{url}\"]\nhost = \"{name}\"\n\n[tunnel]\naddress = \"{address}\"\n\n[segments]\nvxlan = \"4096-8191\"\n"
    )
}

/// Where etcd serves clients.
pub(super) fn etcd_url() -> String {
    format!("http://{}:{}", ETCD.0, ETCD.1)
}

/// How many keys etcd has whose names begin like this, asked without nicd.
pub(super) fn keys(prefix: &str) -> Result<i64, Failure> {
    let mut behind = prefix.as_bytes().to_vec();
    if let Some(last) = behind.last_mut() {
        *last += 1;
    }
    let range = json!({"key": STANDARD.encode(prefix), "range_end": STANDARD.encode(behind), "count_only": true});
    let answer = ask("POST", "/v3/kv/range", &range)?;
    // Zero is left out.
    answer["count"].as_str().map_or(Ok(0), |count| count.parse().context("etcd's count"))
}

/// Asks etcd something.
fn ask(method: &str, path: &str, body: &Value) -> Result<Value, Failure> {
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from(ETCD), ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        let body = if body.is_null() { String::new() } else { body.to_string() };
        // By HTTP/1.0 the answer is one piece, and ends with the connection.
        write!(stream, "{method} {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        Ok::<_, std::io::Error>(serde_json::from_str(body)?)
    };
    ask().context(&format!("{method} {}{path}", etcd_url()))
}
