//! Real members of etcd in the test's own namespace, with their data in its memory.

#![allow(dead_code)] // each test target uses its part

use std::fs::{self, File};
use std::process::{Child, Command};
use std::time::Duration;

use nicd::config::{FleetSettings, Overrides, Settings};
use nicd::fleet::etcd::Etcd;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::netns::{comes_true, in_netns};
use crate::programs;

/// Within this everything that a test waits for has to happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test in a namespace of its own, on an event loop, if etcd is there.
pub fn with_etcd<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    if programs::has("etcd") {
        in_netns(|| block_on(test()));
    }
}

/// Runs asynchronous code on this thread.
pub fn block_on<T>(code: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(code)
}

/// A client of these endpoints, with more lines of `[fleet]`.
pub fn client(endpoints: &[&str], more: &str) -> Etcd {
    Etcd::new(&settings(endpoints, more))
}

/// `[fleet]`
pub fn settings(endpoints: &[&str], more: &str) -> FleetSettings {
    let text = format!("[fleet]\nendpoints = {endpoints:?}\n{more}");
    Settings::from_text("nicd.toml".as_ref(), &text, &Overrides::default()).unwrap().fleet.unwrap()
}

/// A member.
#[derive(Debug)]
pub struct Node {
    command: Vec<String>,
    child: Child,
    log: String,
    data: String,
    /// Where it serves clients.
    pub url: String,
}

impl Node {
    /// The only member of its cluster, with its flags.
    pub async fn alone(port: u16, flags: &[&str]) -> Self {
        Self::secured(port, "http", flags).await.up("").await
    }

    /// The same, which nobody has waited for yet, by `http` or `https`.
    pub async fn secured(port: u16, scheme: &str, flags: &[&str]) -> Self {
        let name = format!("alone-{port}");
        let cluster = format!("{name}=http://127.0.0.1:{}", port + 1000);
        Self::start(&name, port, &cluster, scheme, flags)
    }

    /// Three members, once they have a leader.
    pub async fn three() -> Vec<Self> {
        Self::three_at("127.0.0.1").await
    }

    /// The same; they serve clients at this address of this namespace.
    pub async fn three_at(address: &str) -> Vec<Self> {
        Self::three_with(address, &[]).await
    }

    /// The same, with more flags.
    pub async fn three_with(address: &str, flags: &[&str]) -> Vec<Self> {
        let cluster = (1..=3).map(|n| format!("n{n}=http://127.0.0.1:{}", 4000 + n)).collect::<Vec<_>>().join(",");
        let serving = |port: u16| format!("http://{address}:{port}");
        let start = |n: u16| Self::serving(&format!("n{n}"), serving(3000 + n), 3000 + n, &cluster, flags);
        let mut nodes = Vec::new();
        for node in (1..=3).map(start).collect::<Vec<_>>() {
            nodes.push(node.up("").await);
        }
        nodes
    }

    /// The only member, once it serves clients at this address of this namespace.
    pub async fn at(address: &str, port: u16) -> Self {
        let cluster = format!("alone=http://127.0.0.1:{}", port + 1000);
        Self::serving("alone", format!("http://{address}:{port}"), port, &cluster, &[]).up("").await
    }

    fn start(name: &str, port: u16, cluster: &str, scheme: &str, flags: &[&str]) -> Self {
        Self::serving(name, format!("{scheme}://127.0.0.1:{port}"), port, cluster, flags)
    }

    fn serving(name: &str, url: String, port: u16, cluster: &str, flags: &[&str]) -> Self {
        let peer = format!("http://127.0.0.1:{}", port + 1000);
        let command = format!(
            "--name {name} --data-dir /run/{name} --unsafe-no-fsync --heartbeat-interval 50 --election-timeout 400 \
             --listen-client-urls {url} --advertise-client-urls {url} --listen-peer-urls {peer} --initial-advertise-peer-urls {peer} \
             --initial-cluster {cluster}"
        );
        let command: Vec<String> = command.split_whitespace().chain(flags.iter().copied()).map(str::to_owned).collect();
        let log = format!("/run/{name}.log");
        Self { child: spawn(&command, &log), command, log, data: format!("/run/{name}"), url }
    }

    /// Waits until it answers a client with these lines of `[fleet]`.
    pub async fn up(self, more: &str) -> Self {
        self.answers(more).await;
        self
    }

    /// The same.
    pub async fn answers(&self, more: &str) {
        let client = client(&[&self.url], more);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let (_, status) = client.status().await.remove(0);
            if status.as_ref().is_ok_and(|status| status.leader != 0) {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{status:?}: {}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Kills it, as a power cut does.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again with its data.
    pub fn restart(&mut self) {
        self.kill();
        self.child = spawn(&self.command, &self.log);
    }

    /// Kills it and takes its data away.
    pub fn empty(&mut self) {
        self.kill();
        fs::remove_dir_all(&self.data).unwrap();
    }

    /// Has it do nothing until it continues.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Has it continue.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(command: &[String], log: &str) -> Child {
    let log = File::options().create(true).append(true).open(log).unwrap();
    // It ends with the thread that starts it, also where that is killed.
    let line = ["--pdeathsig", "KILL", "--", "etcd"];
    Command::new("setpriv").args(line).args(command).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

/// Waits for something of which no event tells.
pub fn wait_until(holds: impl FnMut() -> bool, instead: impl FnOnce() -> String) {
    comes_true(PATIENCE, holds, instead);
}
