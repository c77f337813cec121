//! The acts, in order: a node without anything, a network, two NICs, a VM, traffic, restarts, and nothing again.

mod build;
mod end;
mod run;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use serde_json::{Value, json};

use super::client::Client;
use super::clock::Moment;
use super::daemon::{Daemon, Place};
use super::failure::Failure;
use super::follower::{Event, Follower};
use super::guest::Guest;
use super::page::Page;
use super::proof;

/// The server that is a network namespace.
const GUEST: &str = "6e696364-0000-4000-8000-000000000001";

/// The server that is a VM.
const VM: &str = "6e696364-0000-4000-8000-000000000002";

/// The prefix of the network's older family.
const V4: &str = "10.77.0.0/24";

/// The prefix of its newer one.
const V6: &str = "fd77::/64";

/// The whole demo, but for what the host says.
pub(super) fn all(directory: &Path, place: &Place, ready: UnixDatagram) -> Result<(), Failure> {
    let mut page = Page::new();
    introduce(&mut page)?;
    let guest = Guest::make(directory.join("netns/guest"))?;
    let bare = Bare { node: proof::links()?, guest: guest.inside(proof::links)? };
    let mut stage = build::start(page, place, ready, &bare)?;
    let network = build::network(&mut stage, &bare)?;
    let (nic, vm_nic) = build::attach(&mut stage, &network, &guest)?;
    let mut vm = build::boot(&mut stage, &vm_nic)?;
    run::talk(&mut stage, &guest, &mut vm, [&nic, &vm_nic])?;
    run::restart(&mut stage, &guest, [&nic, &vm_nic])?;
    end::detach(&mut stage, &mut vm, [&nic, &vm_nic], &network)?;
    end::prove(stage, &guest, &bare)
}

fn introduce(page: &mut Page) -> Result<(), Failure> {
    page.title(&format!("nicd {}: a compute node in miniature", env!("CARGO_PKG_VERSION")))?;
    page.line("nicd gives guests their network interfaces. Here the real daemon serves two: a network namespace, as containers\nhave, and a stand-in for a VM. All of it happens in private namespaces, which end with this program.")?;
    page.line("What stands behind a ✓ was measured just now; times are a client's, from the request to what it sees.")
}

/// The links before anything was done.
struct Bare {
    node: BTreeSet<String>,
    guest: BTreeSet<String>,
}

/// What the acts work with.
struct Stage<'a> {
    page: Page,
    place: &'a Place,
    ready: UnixDatagram,
    /// None only while it is restarted, and at the end.
    daemon: Option<Daemon>,
    client: Client,
    follower: Follower,
}

/// A NIC, as the API tells of it.
struct Nic {
    server: &'static str,
    port: String,
    device: String,
    details: Value,
    mac: String,
    addresses: Vec<IpAddr>,
}

impl Stage<'_> {
    /// Shows events as they come, until one that is waited for; answers when that came.
    fn until(&mut self, since: Moment, wanted: impl Fn(&Event) -> bool) -> Result<Moment, Failure> {
        loop {
            let (at, event) = self.follower.next()?;
            self.page.event(&describe(&event, at, since))?;
            if wanted(&event) {
                return Ok(at);
            }
        }
    }

    /// Every list the API has, with how many entries each.
    fn listed(&mut self) -> Result<Vec<(&'static str, usize)>, Failure> {
        let lists = [
            ("networks", "/v2.0/networks"),
            ("subnets", "/v2.0/subnets"),
            ("ports", "/v2.0/ports"),
            ("servers", "/nicd/v1/servers"),
        ];
        let mut listed = Vec::new();
        for (name, target) in lists {
            let body = self.client.get(target)?;
            let entries = body[name].as_array().ok_or_else(|| Failure::Claim(format!("GET {target} answers {body}")))?;
            listed.push((name, entries.len()));
        }
        Ok(listed)
    }
}

/// The target of a server's NICs.
fn interfaces(server: &str) -> String {
    format!("/v2.1/servers/{server}/os-interface")
}

fn called(server: Option<&str>) -> &'static str {
    match server {
        Some(GUEST) => "guest",
        Some(VM) => "VM",
        _ => "",
    }
}

fn describe(event: &Event, at: Moment, since: Moment) -> String {
    let change = match (&event.old, &event.new) {
        (Some(old), Some(new)) => format!("{old} → {new}"),
        (None, Some(new)) => format!("→ {new}"),
        (Some(old), None) => format!("{old} →"),
        (None, None) => String::new(),
    };
    let who = called(event.server_id.as_deref());
    let phase = event.phase.as_deref().unwrap_or("gone");
    let reason = event.reason.as_deref().map(|reason| format!(", {reason}")).unwrap_or_default();
    format!("{:>10}  {:<12} {who:<5} {change} ({phase}{reason})", at.since(since).to_string(), event.event)
}

/// A server as it is told to nicd.
fn server(name: &str, guest: Value) -> Value {
    json!({"server": {"name": name, "guest": guest}})
}
