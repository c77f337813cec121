//! The steps, in order: a node without anything, a network, two NICs, a VM, traffic, restarts, and nothing again.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use hyper::Method;
use nix::net::if_::if_nametoindex;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::api::{Api, text};
use super::daemon::Place;
use super::left;
use super::namespace::Namespace;
use super::nic::{self, Nic};
use super::notices::Notices;
use super::page::{Context, Failure, Page, links, micros, named};
use super::ping::{PINGS, Pinger, RATE, check_answered, check_lossless, while_pinging};
use super::process::Process;
use super::vm::{RunningVm, Vm};

/// The server that is a network namespace.
const GUEST: &str = "6e696364-0000-4000-8000-000000000001";

/// The server that is a VM.
const VM: &str = "6e696364-0000-4000-8000-000000000002";

/// The subnets, with their IP version.
const SUBNETS: [(&str, u8); 2] = [("10.77.0.0/24", 4), ("fd77::/64", 6)];

/// How long traffic runs before, between and after restarts, and how long the daemon stays away.
pub(super) const PAUSE: Duration = Duration::from_millis(400);

/// Every step.
pub(super) fn run(directory: &Path, place: &Place) -> Result<(), Failure> {
    let mut page = Page::default();
    page.line(&format!("nicd {}: a compute node in miniature", env!("CARGO_PKG_VERSION")))?;
    page.line("nicd gives guests their network interfaces. Here the real daemon serves two: a network namespace, as containers\nhave, and a stand-in for a VM. All of it happens in private namespaces, which end with this program.")?;
    page.line("What stands behind a ✓ was measured just now; times are a client's, from the request to what it sees.")?;
    let guest = Namespace::make(&directory.join("netns"), "guest")?;
    let bare = [links()?, guest.inside(links)?];

    let command = format!("nicd --socket {} --state-dir {}", place.socket.display(), place.state.display());
    page.chapter("The daemon starts", &command)?;
    let (daemon, took) = place.start()?;
    page.held(&format!("ready for requests {} after its start (pid {})", micros(took), daemon.pid()))?;
    let mut demo = Demo { page, place, daemon, api: Api::connect(&place.socket)?, guest, bare };
    demo.check_untouched("starting changes nothing")?;
    let network = demo.make_network()?;
    let nics = demo.attach_both(&network)?;
    let vm = demo.boot(&nics[1])?;
    let vm = demo.ping(vm, &nics)?;
    demo.restart(&nics)?;
    demo.detach(vm, &nics, &network)?;
    demo.check_gone()
}

/// What the steps work with.
struct Demo<'a> {
    page: Page,
    place: &'a Place,
    daemon: Process,
    api: Api,
    guest: Namespace,
    /// The links before anything was done: of the node and in the guest.
    bare: [BTreeSet<String>; 2],
}

impl Demo<'_> {
    /// A network of both families; answers its id.
    fn make_network(&mut self) -> Result<String, Failure> {
        self.page.chapter("A network, asked for in OpenStack Neutron's words", "POST /v2.0/networks, POST /v2.0/subnets")?;
        let made = self.api.call(Method::POST, "/v2.0/networks", Some(&json!({"network": {"name": "demo"}})))?;
        let id = text(&made.body, "/network/id")?;
        for (cidr, version) in SUBNETS {
            let body = json!({"subnet": {"network_id": id, "cidr": cidr, "ip_version": version}});
            self.api.call(Method::POST, "/v2.0/subnets", Some(&body))?;
        }
        let [(v4, _), (v6, _)] = SUBNETS;
        self.page.held(&format!("made in {}, with the subnets {v4} and {v6}", micros(made.took)))?;
        self.check_untouched("nothing is built before it is needed")?;
        Ok(id)
    }

    fn check_untouched(&self, why: &str) -> Result<(), Failure> {
        let now = links()?;
        self.page.check(now == self.bare[0], &format!("{why}: the node's links are {}", named(&now)))
    }

    /// A NIC for each server.
    fn attach_both(&mut self, network: &str) -> Result<[Nic; 2], Failure> {
        self.page.chapter(
            "Two NICs, asked for in Nova's words: POST /v2.1/servers/{id}/os-interface",
            "An answer means: built in the kernel, recorded in the state (which is in memory here; a disk adds a flush).",
        )?;
        let nic = self.attach(GUEST, json!({"kind": "netns", "path": self.guest.path}), network, "ACTIVE")?;
        let (inside, bridge) = (nic.detail("guest_device"), nic.detail("bridge"));
        let seen = format!("its veth is {inside} inside, up, with its addresses; outside {} on {bridge}", nic.device);
        self.page.held(&seen)?;
        let vm = self.attach(VM, json!({"kind": "vm"}), network, "DOWN")?;
        self.page.held(&format!("its tap is {}, on the same bridge; it waits for the VM's VMM", vm.device))?;
        Ok([nic, vm])
    }

    fn attach(&mut self, server: &str, guest: Value, network: &str, status: &str) -> Result<Nic, Failure> {
        let name = name_of(server);
        nic::register(&mut self.api, server, name, guest)?;
        let answer = nic::attach(&mut self.api, server, network)?;
        self.wait_for(answer.at, |event| event["event"] == "port.status")?;
        let nic = Nic::read(&mut self.api, server, &answer)?;
        let given = text(&answer.body, "/interfaceAttachment/port_state")?;
        let (took, addresses) = (micros(answer.took), nic.listed());
        self.page
            .check(given == status, &format!("{name}: answered {took} after the request, {given}: {addresses}, {}", nic.mac))?;
        Ok(nic)
    }

    /// Opens the tap.
    fn boot(&mut self, nic: &Nic) -> Result<RunningVm, Failure> {
        self.page.chapter(
            "The VM starts: a stand-in with an IP stack of its own opens the tap, as QEMU would",
            "Only now can frames pass, and only now is the NIC called ACTIVE. The kernel tells; nothing is polled.",
        )?;
        let began = Instant::now();
        let vm = Vm::boot(nic)?.run()?;
        let active = self.wait_for(began, |event| event["new"] == "ACTIVE")?;
        self.page.held(&format!("a client knew of it {} after the VM began to open its tap", micros(active)))?;
        Ok(vm)
    }

    /// Pings both ways, both families.
    fn ping(&mut self, vm: RunningVm, [nic, vm_nic]: &[Nic; 2]) -> Result<RunningVm, Failure> {
        let (bridge, inside) = (nic.detail("bridge"), nic.detail("guest_device"));
        let way = format!("guest {inside} ── {} ── {bridge} ── {} VM", nic.device, vm_nic.device);
        self.page.chapter("They talk, through the bridge that nicd made", &way)?;
        for address in &vm_nic.addresses {
            let answered = self.guest.inside(|| Pinger::open(*address))?.ping(PINGS, &AtomicBool::new(false)).answered;
            check_answered(&self.page, &format!("guest → VM {address}"), answered)?;
        }
        let mut vm = vm.stop()?;
        for address in &nic.addresses {
            check_answered(&self.page, &format!("VM → guest {address}"), vm.ping(*address, PINGS)?)?;
        }
        vm.run()
    }

    /// Restarts the daemon twice, once by SIGTERM and once by SIGKILL, while pings go on.
    fn restart(&mut self, nics: &[Nic; 2]) -> Result<(), Failure> {
        self.page.chapter(
            &format!("The daemon is restarted, while the guest pings the VM {} times a second", 2 * RATE),
            "Half IPv4, half IPv6. The NICs are the kernel's, not the daemon's: the guests notice nothing.",
        )?;
        let before = indexes(nics)?;
        let notices = Notices::listen()?;
        let pingers = self
            .guest
            .inside(|| nics[1].addresses.iter().map(|address| Pinger::open(*address)).collect::<Result<Vec<_>, _>>())?;
        let (_, tallies) = while_pinging(&pingers, || {
            thread::sleep(PAUSE);
            self.restart_by(Signal::SIGTERM).and_then(|()| self.restart_by(Signal::SIGKILL))
        })?;
        check_lossless(&self.page, &tallies)?;
        notices.check_none(&self.page)?;
        let after = indexes(nics)?;
        self.page
            .check(before == after, &format!("the devices' indexes were {before:?}, and are {after:?}: the same devices"))?;
        let mut states = Vec::new();
        for nic in nics {
            states.push(text(&self.api.get(&format!("/v2.0/ports/{}", nic.port))?, "/port/status")?);
        }
        let events = self.api.waiting_events();
        let active = states.iter().all(|state| state == "ACTIVE");
        let seen = format!("nicd lists both as {}, and told of {events} events", states.join(" and "));
        self.page.check(active && events == 0, &seen)
    }

    /// Restarts the daemon and lets it run for a moment.
    fn restart_by(&mut self, signal: Signal) -> Result<(), Failure> {
        let (_, ended) = self.daemon.end(signal)?;
        thread::sleep(PAUSE);
        let (daemon, ready) = self.place.start()?;
        self.daemon = daemon;
        self.api = Api::connect(&self.place.socket)?;
        let (ended, away, ready) = (micros(ended), PAUSE.as_millis(), micros(ready));
        let seen = format!("{signal}: ended after {ended}; not running for {away} ms; ready again {ready} after its start");
        self.page.line(&format!("    {seen}"))?;
        thread::sleep(PAUSE);
        Ok(())
    }

    /// Both NICs, then servers and network.
    fn detach(&mut self, vm: RunningVm, nics: &[Nic; 2], network: &str) -> Result<(), Failure> {
        self.page.chapter(
            "Both are detached: DELETE /v2.1/servers/{id}/os-interface/{port}",
            "An answer means: traffic is cut, and it will be gone. The addresses are free again when the kernel let go.",
        )?;
        drop(vm.stop()?);
        self.page.held("the VM stand-in closed its tap first: nothing is deleted under a process that holds it")?;
        for nic in nics {
            let answer = nic.detach(&mut self.api)?;
            let gone = self.wait_for(answer.at, |event| event["event"] == "port.deleted")?;
            let (name, took, gone) = (name_of(&nic.server), micros(answer.took), micros(gone));
            self.page.held(&format!("{name}: answered {} after {took}; the device was gone after {gone}", answer.status))?;
        }
        for nic in nics {
            nic.forget(&mut self.api)?;
        }
        let took = micros(self.api.call(Method::DELETE, &format!("/v2.0/networks/{network}"), None)?.took);
        self.page.held(&format!("both servers are forgotten; the network went with its bridge in {took}"))
    }

    /// Nothing is left; ends the daemon.
    fn check_gone(mut self) -> Result<(), Failure> {
        self.page.chapter("Nothing is left", "As libc, SQLite and the directory say.")?;
        let now = [links()?, self.guest.inside(links)?];
        let seen = format!("links as before: {} on the node, {} in the guest", named(&now[0]), named(&now[1]));
        self.page.check(now == self.bare, &seen)?;
        left::check_none(&self.page, "the API lists", &left::lists(&mut self.api)?)?;
        let (status, took) = self.daemon.end(Signal::SIGTERM)?;
        self.page.check(status.success(), &format!("SIGTERM ended nicd in {}, with {status}", micros(took)))?;
        left::check_none(&self.page, "the database, read without nicd, has", &left::rows(self.place)?)?;
        let left = left::files(self.place)?;
        let seen = match left.is_empty() {
            true => "both sockets are gone from the directory; the database and the locks stay, as they should".to_owned(),
            false => format!("no files are left, but {}", left.join(", ")),
        };
        self.page.check(left.is_empty(), &seen)
    }

    /// Shows events as they come, until one that is wanted; answers how long after `since` it came.
    fn wait_for(&mut self, since: Instant, wanted: impl Fn(&Value) -> bool) -> Result<Duration, Failure> {
        loop {
            let (at, event) = self.api.next_event()?;
            let passed = at.saturating_duration_since(since);
            self.page.line(&format!("      {}", show_event(&event, passed)))?;
            if wanted(&event) {
                return Ok(passed);
            }
        }
    }
}

fn name_of(server: &str) -> &'static str {
    if server == GUEST { "guest" } else { "VM" }
}

fn show_event(event: &Value, passed: Duration) -> String {
    let change = match (event["old"].as_str(), event["new"].as_str()) {
        (Some(old), Some(new)) => format!("{old} → {new}"),
        (None, Some(new)) => format!("→ {new}"),
        (Some(old), None) => format!("{old} →"),
        (None, None) => String::new(),
    };
    let (what, server) = (event["event"].as_str().unwrap_or_default(), event["server_id"].as_str().map_or("", name_of));
    let phase = event["phase"].as_str().unwrap_or("gone");
    let reason = event["reason"].as_str().map(|reason| format!(", {reason}")).unwrap_or_default();
    format!("{:>10}  {what:<12} {server:<5} {change} ({phase}{reason})", micros(passed))
}

fn indexes(nics: &[Nic; 2]) -> Result<[u32; 2], Failure> {
    let index = |nic: &Nic| if_nametoindex(nic.device.as_str()).context(&nic.device);
    Ok([index(&nics[0])?, index(&nics[1])?])
}
