//! The steps of `nicd demo --fleet`, in order: an etcd and hosts, a network of all, guests that talk, failures under traffic, and
//! nothing again.

mod lab;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use hyper::Method;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use self::lab::{Host, etcd_url, keys};
use super::api::{Answer, text};
use super::left;
use super::namespace::Namespace;
use super::nic::{self, Nic};
use super::notices::Notices;
use super::page::{Context, Failure, Page, links, named, span};
use super::ping::{PINGS, Pinger, RATE, check_answered, check_lossless, while_pinging};
use super::process::Process;
use super::programs::{far_end, mtu, tunnels};
use super::steps::PAUSE;

pub(super) use self::lab::Lab;

/// The network's subnet.
const SUBNET: &str = "10.77.0.0/24";

/// How long another host may take to know of something. A host that lost etcd tries it again after at most twelve seconds.
const LIMIT: Duration = Duration::from_secs(30);

/// How many addresses a host has ahead.
const AHEAD: u64 = 16;

/// How long a guest may not be reached while it is moved: some milliseconds, and more on a busy machine.
const MOVED: Duration = Duration::from_millis(250);

/// What VXLAN over IPv4 adds to a frame of a guest.
const OVERHEAD: u64 = 50;

/// Every step.
pub(super) fn run(lab: &Lab) -> Result<(), Failure> {
    let page = Page::default();
    page.line(&format!("nicd {}: a fleet in miniature", env!("CARGO_PKG_VERSION")))?;
    page.line("Hosts that name the same etcd are one fleet: a network that is made at one is there at all of them. Here each of three\nhosts is a network namespace with a daemon of its own, and a bridge is the cable between them. All of it happens in private\nnamespaces, which end with this program.")?;
    page.line("What stands behind a ✓ was measured just now; times are a client's, from the request to what it sees.")?;
    let mut demo = Demo::start(page, lab)?;
    demo.make_network()?;
    for host in 0..demo.hosts.len() {
        demo.attach(host, host)?;
    }
    demo.check_tunnels()?;
    demo.ping_all()?;
    demo.lose_etcd()?;
    demo.restart()?;
    demo.attach_one_more()?;
    demo.move_guest()?;
    demo.delete()?;
    demo.check_gone()
}

/// What the steps work with.
struct Demo<'a> {
    page: Page,
    lab: &'a Lab,
    etcd: Process,
    hosts: Vec<Host<'a>>,
    guests: Vec<Guest>,
    /// Where guests were that have moved.
    left: Vec<Namespace>,
    /// The network's id.
    network: String,
    /// The links of each host before anything was done.
    bare: Vec<BTreeSet<String>>,
}

/// A guest of a host's.
struct Guest {
    name: String,
    /// Which host.
    host: usize,
    namespace: Namespace,
    nic: Nic,
    address: IpAddr,
}

impl<'a> Demo<'a> {
    /// Etcd, then the hosts.
    fn start(mut page: Page, lab: &'a Lab) -> Result<Self, Failure> {
        let bare = lab.sites.iter().map(|site| site.namespace.inside(links)).collect::<Result<_, _>>()?;
        let site = &lab.sites[0];
        let what = format!(
            "In {}'s nicd.toml: [fleet] endpoints = [\"{}\"], host = \"{}\"; [tunnel] address = \"{}\".",
            site.name,
            etcd_url(),
            site.name,
            site.address
        );
        page.chapter("An etcd, and three hosts that name it", &what)?;
        let (etcd, version, took) = lab.start_etcd()?;
        page.held(&format!("etcd {version}: answers {} after its start (pid {})", span(took), etcd.pid()))?;
        let mut hosts = Vec::new();
        for site in &lab.sites {
            let (host, joined) = site.start()?;
            let (ready, joined) = (span(host.ready), span(joined));
            let seen = format!(
                "{} ({}): ready for requests {ready} after its start, in the fleet after {joined}",
                site.name, site.address
            );
            page.held(&seen)?;
            hosts.push(host);
        }
        let mut demo = Self { page, lab, etcd, hosts, guests: Vec::new(), left: Vec::new(), network: String::new(), bare };
        let alive = demo.alive(2)?;
        demo.page.check(alive == ["host-1", "host-2", "host-3"], &format!("host-3 lists as alive: {}", alive.join(", ")))?;
        Ok(demo)
    }

    /// The hosts that are alive, as one of them has it.
    fn alive(&mut self, host: usize) -> Result<Vec<String>, Failure> {
        let body = self.hosts[host].api.get("/nicd/v1/hosts")?;
        let hosts = body["hosts"].as_array().into_iter().flatten().filter(|host| host["alive"] == true);
        hosts.map(|host| text(host, "/id")).collect()
    }

    /// A network of all hosts, made at the first.
    fn make_network(&mut self) -> Result<(), Failure> {
        self.page
            .chapter("A network of all hosts, made at host-1", "POST /v2.0/networks, \"provider:network_type\": \"vxlan\"")?;
        let body = json!({"network": {"name": "demo", "provider:network_type": "vxlan"}});
        let api = &mut self.hosts[0].api;
        let made = api.call(Method::POST, "/v2.0/networks", Some(&body))?;
        self.network = text(&made.body, "/network/id")?;
        let subnet = json!({"subnet": {"network_id": self.network, "cidr": SUBNET, "ip_version": 4}});
        let last = api.call(Method::POST, "/v2.0/subnets", Some(&subnet))?;
        let number = &made.body["network"]["provider:segmentation_id"];
        self.page
            .held(&format!("made in {}, in etcd, with the number (VNI) {number} and the subnet {SUBNET}", span(made.took)))?;
        let path = format!("/v2.0/networks/{}", self.network);
        for host in &mut self.hosts[1..] {
            soon(LIMIT, &format!("{} has the network", host.site.name), || {
                let answer = host.api.attempt(Method::GET, &path, None)?;
                let subnets = answer.body.pointer("/network/subnets").and_then(Value::as_array).map_or(0, Vec::len);
                Ok((answer.is_success() && subnets == 1).then_some(()))
            })?;
        }
        let known = span(last.at.elapsed().saturating_sub(last.took));
        self.page.held(&format!("host-2 and host-3 have both, {known} after the second answer"))?;
        self.page.chapter(
            "A guest on each host: POST /v2.1/servers/{id}/os-interface",
            "With its first one a host claims addresses and MACs in etcd, and has some ahead from then on.",
        )
    }

    /// One more guest, of a host's, which is asked for at this one or at another.
    fn attach(&mut self, at: usize, asked: usize) -> Result<Answer, Failure> {
        let number = self.guests.len() + 1;
        let (name, server) = (format!("guest-{number}"), format!("6e696364-0000-4000-8000-{number:012}"));
        let namespace = Namespace::make(&self.lab.directory.join("netns"), &name)?;
        nic::register(&mut self.hosts[at].api, &server, &name, json!({"kind": "netns", "path": namespace.path}))?;
        let api = &mut self.hosts[asked].api;
        soon(LIMIT, &format!("the server of {name} is known where it is asked for"), || {
            Ok(api.attempt(Method::GET, &nic::at(&server), None)?.is_success().then_some(()))
        })?;
        let answer = nic::attach(api, &server, &self.network)?;
        let host = &mut self.hosts[at];
        let nic = Nic::read(&mut host.api, &server, &answer)?;
        let given = text(&answer.body, "/interfaceAttachment/port_state")?;
        let seen =
            format!("{}: {name}, answered after {}, {given}: {}, {}", host.site.name, span(answer.took), nic.listed(), nic.mac);
        self.page.check(given == "ACTIVE", &seen)?;
        let address = *nic.addresses.first().ok_or("it has no address").context(&name)?;
        self.guests.push(Guest { name, host: at, namespace, nic, address });
        Ok(answer)
    }

    /// The tunnels' devices and their entries, as the kernels have them.
    fn check_tunnels(&mut self) -> Result<(), Failure> {
        let distinct = |each: &dyn Fn(&Guest) -> String| self.guests.iter().map(each).collect::<BTreeSet<_>>().len();
        let (addresses, macs) = (distinct(&|guest| guest.address.to_string()), distinct(&|guest| guest.nic.mac.clone()));
        self.page.check(
            addresses == self.guests.len() && macs == addresses,
            &format!("{addresses} addresses and {macs} MACs for {} guests", self.guests.len()),
        )?;
        for (at, host) in self.hosts.iter().enumerate() {
            let devices = host.site.namespace.inside(tunnels)?;
            let mut ways = Vec::new();
            for guest in self.guests.iter().filter(|guest| guest.host != at) {
                self.way(host, guest)?;
                ways.push(format!("{} at {}", guest.name, self.hosts[guest.host].site.address));
            }
            let shown: Vec<String> =
                devices.iter().map(|(name, number, local)| format!("{name}, VNI {number} from {local}")).collect();
            let own = host.site.address.to_string();
            let is_own = matches!(&devices[..], [(_, _, local)] if *local == own);
            let seen = format!("{}'s kernel has {}: {}", host.site.name, shown.join("; "), ways.join(", "));
            self.page.check(is_own, &seen)?;
        }
        Ok(())
    }

    /// Waits until a host's kernel has the entry that leads to a guest of another.
    fn way(&self, host: &Host<'_>, guest: &Guest) -> Result<(), Failure> {
        let far = self.hosts[guest.host].site.address;
        soon(LIMIT, &format!("{}'s kernel has an entry for {} towards {far}", host.site.name, guest.name), || {
            Ok((host.site.namespace.inside(|| far_end(&guest.nic.mac))? == Some(far)).then_some(()))
        })
    }

    /// Pings between each two guests.
    fn ping_all(&mut self) -> Result<(), Failure> {
        self.page.chapter(
            "They talk, through the tunnels of VXLAN that nicd made",
            "guest eth0 ── veth ── bridge ── VXLAN ══ underlay ══ VXLAN ── bridge ── veth ── eth0 guest",
        )?;
        for (at, from) in self.guests.iter().enumerate() {
            for to in &self.guests[at + 1..] {
                self.ping(from, to)?;
            }
        }
        let underlay = self.lab.sites[0].namespace.inside(|| mtu("uplink"))?;
        let guest = &self.guests[0];
        let inside = guest.namespace.inside(|| mtu(guest.nic.detail("guest_device")))?;
        self.page.check(
            inside + OVERHEAD == underlay,
            &format!("the guests' MTU is {inside}: the underlay's, {underlay}, less the {OVERHEAD} bytes of VXLAN"),
        )
    }

    fn ping(&self, from: &Guest, to: &Guest) -> Result<(), Failure> {
        let answered = from.namespace.inside(|| Pinger::open(to.address))?.ping(PINGS, &AtomicBool::new(false)).answered;
        check_answered(&self.page, &format!("{} → {} {}", from.name, to.name, to.address), answered)
    }

    /// Pings of the first guest to another, which go on meanwhile.
    fn pinger(&self, to: usize) -> Result<[Pinger; 1], Failure> {
        let to = self.guests[to].address;
        Ok([self.guests[0].namespace.inside(|| Pinger::open(to))?])
    }

    /// Etcd is killed, and started again.
    fn lose_etcd(&mut self) -> Result<(), Failure> {
        self.page.chapter(
            &format!("etcd is killed, while guest-1 pings guest-3 {RATE} times a second"),
            "No host needs it for its traffic, nor for an attach: host-2 has addresses reserved.",
        )?;
        let host = &mut self.hosts[1];
        let free = soon(LIMIT, "host-2 has addresses ahead", || Ok(Some(host.reserved()?).filter(|free| *free >= AHEAD)))?;
        self.page.held(&format!("host-2 has {free} free addresses of the network reserved"))?;
        let pinger = self.pinger(2)?;
        let ((), tallies) = while_pinging(&pinger, || self.without_etcd())?;
        check_lossless(&self.page, &tallies)
    }

    fn without_etcd(&mut self) -> Result<(), Failure> {
        thread::sleep(PAUSE);
        let (status, _) = self.etcd.end(Signal::SIGKILL)?;
        let said = self.wait_connected(false)?;
        self.page.held(&format!("etcd ended with {status}; all hosts said so within {}: connected is false", span(said)))?;
        self.attach(1, 1)?;
        let [from, to] = [&self.guests[1], &self.guests[3]];
        self.ping(from, to)?;
        thread::sleep(PAUSE);
        let (etcd, _, took) = self.lab.start_etcd()?;
        self.etcd = etcd;
        let connected = span(self.wait_connected(true)?);
        self.page.held(&format!(
            "etcd is started again, with its data: answers after {}; all hosts connected {connected} later",
            span(took)
        ))?;
        for host in [0, 2] {
            self.way(&self.hosts[host], &self.guests[3])?;
        }
        self.page.held("host-1 and host-3 were told of guest-4: their kernels have its entry")?;
        self.ping(&self.guests[0], &self.guests[3])
    }

    /// Waits until all hosts say whether they reach etcd; answers how long that took.
    fn wait_connected(&mut self, connected: bool) -> Result<Duration, Failure> {
        let began = Instant::now();
        for host in &mut self.hosts {
            let doing = format!("{} says connected: {connected}", host.site.name);
            soon(LIMIT, &doing, || Ok((host.is_connected()? == connected).then_some(())))?;
        }
        Ok(began.elapsed())
    }

    /// A host's daemon is killed, and started again.
    fn restart(&mut self) -> Result<(), Failure> {
        self.page.chapter(
            &format!("host-2's nicd is killed, while guest-1 pings guest-2 {RATE} times a second"),
            "Devices and entries are the kernel's, not the daemon's.",
        )?;
        let notices = self.hosts[1].site.namespace.inside(Notices::listen)?;
        let pinger = self.pinger(1)?;
        let (seen, tallies) = while_pinging(&pinger, || {
            thread::sleep(PAUSE);
            let (status, _) = self.hosts[1].daemon.end(Signal::SIGKILL)?;
            thread::sleep(PAUSE);
            let (host, joined) = self.hosts[1].site.start()?;
            let (away, ready, joined) = (PAUSE.as_millis(), span(host.ready), span(joined));
            self.hosts[1] = host;
            thread::sleep(PAUSE);
            Ok(format!(
                "ended with {status}; not running for {away} ms; ready again {ready} after its start, in the fleet after {joined}"
            ))
        })?;
        self.page.held(&seen)?;
        check_lossless(&self.page, &tallies)?;
        notices.check_none(&self.page)
    }

    /// A second guest of the last host's.
    fn attach_one_more(&mut self) -> Result<(), Failure> {
        self.page.chapter(
            "A second guest on host-3, asked for at host-1",
            "Each host answers for the fleet; what is another's is done there.",
        )?;
        let answer = self.attach(2, 0)?;
        let guest = &self.guests[4];
        self.way(&self.hosts[0], guest)?;
        let known = span(answer.at.elapsed().saturating_sub(answer.took));
        self.page.held(&format!("host-1's kernel had the entry of {} at most {known} after that answer", guest.name))?;
        self.ping(&self.guests[0], guest)
    }

    /// A guest is moved while another one pings it. What it runs is not nicd's to move: a second namespace stands for it where it goes.
    fn move_guest(&mut self) -> Result<(), Failure> {
        self.page.chapter(
            &format!("guest-2 is moved from host-2 to host-3, while guest-1 pings it {RATE} times a second"),
            "POST /v2.0/ports/{id}/bindings, PUT …/host-3/activate, DELETE …/host-2. The guest waits there already, in another namespace.",
        )?;
        let pinger = self.pinger(1)?;
        let (namespace, tallies) = while_pinging(&pinger, || self.moved())?;
        let guest = &mut self.guests[1];
        self.left.push(std::mem::replace(&mut guest.namespace, namespace));
        guest.host = 2;
        for tally in &tallies {
            let (sent, lost, gap) = (tally.sent, tally.sent - tally.answered, tally.longest_gap);
            let seen = format!("{sent} pings sent, {lost} lost; longest time between two answers {}", span(gap));
            self.page.check(sent > 0 && gap < MOVED, &seen)?;
        }
        let gone = || {
            Ok((self.hosts[1].site.namespace.inside(|| far_end(&self.guests[1].nic.mac))? == Some(self.hosts[2].site.address))
                .then_some(()))
        };
        soon(LIMIT, "host-2's kernel has an entry for guest-2 towards host-3", gone)?;
        self.ping(&self.guests[3], &self.guests[1])
    }

    fn moved(&mut self) -> Result<Namespace, Failure> {
        let (server, port) = (self.guests[1].nic.server.clone(), self.guests[1].nic.port.clone());
        let namespace = Namespace::make(&self.lab.directory.join("netns"), "guest-2-moved")?;
        nic::register(&mut self.hosts[2].api, &server, "guest-2", json!({"kind": "netns", "path": namespace.path}))?;
        thread::sleep(PAUSE);
        let bindings = format!("/v2.0/ports/{port}/bindings");
        let body = json!({"binding": {"host": "host-3"}});
        let prepared = self.hosts[0].api.call(Method::POST, &bindings, Some(&body))?;
        let before = text(&prepared.body, "/binding/status")?;
        let moved = self.hosts[0].api.call(Method::PUT, &format!("{bindings}/host-3/activate"), Some(&json!({})))?;
        let after = text(&moved.body, "/binding/status")?;
        let seen = format!("at host-3: built in {}, {before}; moved in {}, {after}", span(prepared.took), span(moved.took));
        self.page.check((&*before, &*after) == ("INACTIVE", "ACTIVE"), &seen)?;
        thread::sleep(PAUSE);
        self.hosts[0].api.call(Method::DELETE, &format!("{bindings}/host-2"), None)?;
        Ok(namespace)
    }

    /// All NICs, servers and the network.
    fn delete(&mut self) -> Result<(), Failure> {
        self.page.chapter("All is deleted", "DELETE /v2.1/servers/{id}/os-interface/{port}, then the network, at host-2")?;
        for guest in &self.guests {
            let api = &mut self.hosts[guest.host].api;
            guest.nic.detach(api)?;
            guest.nic.forget(api)?;
        }
        self.page.held(&format!("{} NICs are detached, their servers forgotten", self.guests.len()))?;
        let (path, began) = (format!("/v2.0/networks/{}", self.network), Instant::now());
        // It is refused while etcd has a port of it, of which hosts tell after their answers.
        let api = &mut self.hosts[1].api;
        soon(LIMIT, "the network is deleted", || Ok(api.attempt(Method::DELETE, &path, None)?.is_success().then_some(())))?;
        for host in &mut self.hosts {
            let doing = format!("the network is gone at {}", host.site.name);
            soon(LIMIT, &doing, || Ok((host.api.attempt(Method::GET, &path, None)?.status == 404).then_some(())))?;
        }
        self.page.held(&format!("the network is gone at all hosts, {} later", span(began.elapsed())))
    }

    /// Nothing is left; ends the daemons and etcd.
    fn check_gone(mut self) -> Result<(), Failure> {
        self.page.chapter(
            "Nothing is left",
            "As libc, etcd, SQLite and the directories say. The addresses that a host has ahead it gives back after a minute.",
        )?;
        let mut lists = Vec::new();
        for (host, bare) in self.hosts.iter_mut().zip(&self.bare) {
            let gone = || Ok((host.site.namespace.inside(links)? == *bare).then_some(()));
            soon(LIMIT, &format!("{} has the links as before: {}", host.site.name, named(bare)), gone)?;
            lists.push(left::lists(&mut host.api)?);
        }
        let now = self.guests.iter().map(|guest| (guest.name.as_str(), &guest.namespace));
        for (name, namespace) in now.chain(self.left.iter().map(|namespace| ("a guest that has moved", namespace))) {
            let left = namespace.inside(links)?;
            if left.iter().any(|link| link != "lo") {
                return Err(Failure::Check(format!("{name} has no links but lo: it has {}", named(&left))));
            }
        }
        self.page.held(&format!("links as before: {} on each host, lo in the guests", named(&self.bare[0])))?;
        left::check_none(&self.page, "the APIs of all hosts list", &left::sum(&lists))?;
        let mut kinds = Vec::new();
        for (kind, prefix) in [("networks and subnets", "def/"), ("numbers of networks", "segment/"), ("ports", "port/")] {
            kinds.push((kind, keys(&format!("nicd/default/{prefix}"))?));
        }
        left::check_none(&self.page, "etcd, asked without nicd, has", &kinds)?;
        let mut rows = Vec::new();
        for host in &mut self.hosts {
            let (name, place) = (host.site.name, &host.site.place);
            let (status, _) = host.daemon.end(Signal::SIGTERM)?;
            if !status.success() {
                return Err(Failure::Check(format!("SIGTERM ends {name}'s nicd: {status}")));
            }
            let left = left::files(place)?;
            if !left.is_empty() {
                return Err(Failure::Check(format!("no files are left at {name}, but {}", left.join(", "))));
            }
            rows.push(left::rows(place)?);
        }
        self.page.held("SIGTERM ended the daemons, each with exit status: 0; the sockets are gone from their directories")?;
        left::check_none(&self.page, "their databases, read without nicd, have", &left::sum(&rows))
    }
}

/// Looks again and again until something is there.
fn soon<T>(limit: Duration, doing: &str, mut look: impl FnMut() -> Result<Option<T>, Failure>) -> Result<T, Failure> {
    let began = Instant::now();
    while began.elapsed() < limit {
        if let Some(found) = look()? {
            return Ok(found);
        }
        thread::sleep(Duration::from_millis(2));
    }
    Err(Failure::new(doing, format!("it is not so after {} s", limit.as_secs())))
}
