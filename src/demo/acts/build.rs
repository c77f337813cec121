//! The first acts: from a bare node to two NICs in one network.

use std::os::unix::net::UnixDatagram;

use hyper::Method;
use serde_json::{Value, json};

use crate::demo::client::{Client, text};
use crate::demo::daemon::{Daemon, Place};
use crate::demo::failure::{Failure, trouble};
use crate::demo::follower::Follower;
use crate::demo::guest::Guest;
use crate::demo::machine::{Card, Machine};
use crate::demo::page::Page;
use crate::demo::proof::{self, named};

use super::{Bare, GUEST, Nic, Stage, V4, V6, VM, called, interfaces, server};

/// The daemon, on a node that has nothing.
pub(super) fn start<'a>(mut page: Page, place: &'a Place, ready: UnixDatagram, bare: &Bare) -> Result<Stage<'a>, Failure> {
    page.chapter("The daemon starts")?;
    page.note(&format!("nicd --socket {} --state-dir {}", place.socket.display(), place.state.display()))?;
    let (daemon, took) = Daemon::start(place, &ready)?;
    page.claim(Ok(format!("ready for requests {took} after its start (pid {})", daemon.pid())))?;
    page.claim(untouched(bare, "starting changes nothing")?)?;
    let client = Client::new(&place.socket)?;
    let follower = Follower::start(&place.socket)?;
    Ok(Stage { page, place, ready, daemon: Some(daemon), client, follower })
}

/// A network of both families; answers its id.
pub(super) fn network(stage: &mut Stage<'_>, bare: &Bare) -> Result<String, Failure> {
    stage.page.chapter("A network, asked for in OpenStack Neutron's words: POST /v2.0/networks, POST /v2.0/subnets")?;
    let made = stage.client.call(Method::POST, "/v2.0/networks", Some(&json!({"network": {"name": "demo"}})))?;
    let id = text(&made.body, "/network/id")?;
    for (cidr, version) in [(V4, 4), (V6, 6)] {
        let body = json!({"subnet": {"network_id": id, "cidr": cidr, "ip_version": version}});
        stage.client.call(Method::POST, "/v2.0/subnets", Some(&body))?;
    }
    stage.page.claim(Ok(format!("made in {}, with the subnets {V4} and {V6}", made.took)))?;
    stage.page.claim(untouched(bare, "nothing is built before it is needed")?)?;
    Ok(id)
}

fn untouched(bare: &Bare, why: &str) -> Result<Result<String, String>, Failure> {
    let links = proof::links()?;
    Ok(match links == bare.node {
        true => Ok(format!("{why}: the node's links are {}", named(&links))),
        false => Err(format!("the node's links are {}, and were {}", named(&links), named(&bare.node))),
    })
}

/// A NIC for each server.
pub(super) fn attach(stage: &mut Stage<'_>, network: &str, guest: &Guest) -> Result<(Nic, Nic), Failure> {
    stage.page.chapter("Two NICs, asked for in Nova's words: POST /v2.1/servers/{id}/os-interface")?;
    stage
        .page
        .note("An answer means: built in the kernel, recorded in the state (which is in memory here; a disk adds a flush).")?;
    let netns = json!({"kind": "netns", "path": guest.path});
    let nic = attach_one(stage, GUEST, netns, network, "ACTIVE")?;
    let inside = nic.detail("guest_device");
    stage.page.claim(Ok(format!(
        "its veth is {inside} inside, up, with its addresses; outside {} on {}",
        nic.device,
        nic.detail("bridge")
    )))?;
    let vm = attach_one(stage, VM, json!({"kind": "vm"}), network, "DOWN")?;
    stage.page.claim(Ok(format!("its tap is {}, on the same bridge; it waits for the VM's VMM", vm.device)))?;
    Ok((nic, vm))
}

fn attach_one(
    stage: &mut Stage<'_>,
    id: &'static str,
    guest: Value,
    network: &str,
    wanted: &'static str,
) -> Result<Nic, Failure> {
    let name = called(Some(id));
    stage.client.call(Method::PUT, &format!("/nicd/v1/servers/{id}"), Some(&server(name, guest)))?;
    let body = json!({"interfaceAttachment": {"net_id": network}});
    let answer = stage.client.call(Method::POST, &interfaces(id), Some(&body))?;
    stage.until(answer.at, |event| event.event == "port.status")?;
    let nic = Nic::read(stage, id, &text(&answer.body, "/interfaceAttachment/port_id")?)?;
    let status = text(&answer.body, "/interfaceAttachment/port_state")?;
    let seen = format!("{name}: answered {} after the request, {status}: {}", answer.took, nic.addressed());
    stage.page.claim(if status == wanted { Ok(seen) } else { Err(format!("{seen}; {wanted} is right")) })?;
    Ok(nic)
}

/// The VM: a process opens its tap.
pub(super) fn boot(stage: &mut Stage<'_>, nic: &Nic) -> Result<Machine, Failure> {
    stage.page.chapter("The VM starts: a stand-in with an IP stack of its own opens the tap, as QEMU would")?;
    stage.page.note("Only now can frames pass, and only now is the NIC called ACTIVE. The kernel tells; nothing is polled.")?;
    let (vm, at) = Machine::start(nic.card()?)?;
    let active = stage.until(at, |event| event.new.as_deref() == Some("ACTIVE"))?;
    stage.page.claim(Ok(format!("a client knew of it {} after the VM began to open its tap", active.since(at))))?;
    Ok(vm)
}

impl Nic {
    fn read(stage: &mut Stage<'_>, server: &'static str, port: &str) -> Result<Self, Failure> {
        let body = stage.client.get(&format!("/v2.0/ports/{port}"))?;
        let mut addresses = Vec::new();
        for at in 0..2 {
            let address = text(&body, &format!("/port/fixed_ips/{at}/ip_address"))?;
            addresses.push(address.parse().map_err(trouble(address))?);
        }
        Ok(Self {
            server,
            port: port.to_owned(),
            device: text(&body, "/port/binding:vif_details/device")?,
            details: body["port"]["binding:vif_details"].clone(),
            mac: text(&body, "/port/mac_address")?,
            addresses,
        })
    }

    pub(super) fn detail(&self, key: &str) -> &str {
        self.details[key].as_str().unwrap_or("?")
    }

    fn addressed(&self) -> String {
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        format!("{}, {}", addresses.join(", "), self.mac)
    }

    fn card(&self) -> Result<Card, Failure> {
        let mut addresses = Vec::new();
        for address in &self.addresses {
            let prefix = if address.is_ipv4() { 24 } else { 64 };
            addresses.push(ipnetwork::IpNetwork::new(*address, prefix).map_err(trouble(address.to_string()))?);
        }
        let mtu = self.details["mtu"].as_u64().and_then(|mtu| usize::try_from(mtu).ok());
        Ok(Card {
            device: self.device.parse().map_err(trouble(self.device.clone()))?,
            vnet_hdr: self.details["vnet_hdr"] == true,
            mac: self.mac.parse().map_err(trouble(self.mac.clone()))?,
            addresses,
            mtu: mtu.ok_or_else(|| trouble("the VM's MTU")(format!("{} has none", self.details)))?,
        })
    }
}
