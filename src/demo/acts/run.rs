//! The acts in which the NICs are used: pings, and restarts under traffic.

use std::thread;
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use nix::sys::signal::Signal;

use crate::demo::clock::grouped;
use crate::demo::daemon::Daemon;
use crate::demo::failure::{Failure, trouble};
use crate::demo::follower::Follower;
use crate::demo::guest::Guest;
use crate::demo::machine::Machine;
use crate::demo::proof::Witness;
use crate::demo::traffic::{Flow, Flown, Line, RATE, Tally};

use super::{Nic, Stage};

/// How many pings each way and family gets.
const PINGS: u16 = 20;

/// How long traffic runs before, between and after restarts, and how long the daemon stays away.
const PAUSE: Duration = Duration::from_millis(400);

/// Pings both ways, both families.
pub(super) fn talk(stage: &mut Stage<'_>, guest: &Guest, vm: &mut Machine, [nic, vm_nic]: [&Nic; 2]) -> Result<(), Failure> {
    stage.page.chapter("They talk, through the bridge that nicd made")?;
    let (bridge, inside) = (nic.detail("bridge"), nic.detail("guest_device"));
    stage.page.note(&format!("guest {inside} ── {} ── {bridge} ── {} VM", nic.device, vm_nic.device))?;
    for address in &vm_nic.addresses {
        let tally = guest.inside(|| Line::open(*address))?.ping(PINGS)?;
        stage.page.claim(answered(&format!("guest → VM {address}"), tally))?;
    }
    for address in &nic.addresses {
        let tally = vm.ping(*address, PINGS)?;
        stage.page.claim(answered(&format!("VM → guest {address}"), tally))?;
    }
    Ok(())
}

fn answered(way: &str, tally: Tally) -> Result<String, String> {
    let Tally { sent, answered, median } = tally;
    let seen = format!("{way}: {answered} of {sent} pings answered, median {median}");
    if sent == answered { Ok(seen) } else { Err(seen) }
}

/// Restarts the daemon twice, once gently and once not, while pings go on.
pub(super) fn restart(stage: &mut Stage<'_>, guest: &Guest, nics: [&Nic; 2]) -> Result<(), Failure> {
    let title = format!("The daemon is restarted, while the guest pings the VM {} times a second", grouped((2 * RATE).into()));
    stage.page.chapter(&title)?;
    stage.page.note("Half IPv4, half IPv6. The NICs are the kernel's, not the daemon's: nobody is to notice.")?;
    let before = indexes(nics)?;
    let witness = Witness::listen()?;
    let mut flows = Vec::new();
    for address in &nics[1].addresses {
        flows.push(Flow::start(guest.inside(|| Line::open(*address))?)?);
    }
    thread::sleep(PAUSE);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        restart_by(stage, signal)?;
        thread::sleep(PAUSE);
    }
    let mut flown = Flown::default();
    for flow in flows {
        flown = flown.and(flow.finish()?);
    }
    stage.page.claim(unharmed(flown))?;
    stage.page.claim(match witness.heard() {
        0 => Ok("the kernel told of no change to any link or address meanwhile".to_owned()),
        heard => Err(format!("the kernel told of {heard} changes to links or addresses meanwhile; 0 is right")),
    })?;
    let after = indexes(nics)?;
    stage.page.claim(match before == after {
        true => Ok(format!("both devices are the same as before (index {} and {})", after[0], after[1])),
        false => Err(format!("devices were made anew: index {before:?} before, {after:?} after")),
    })?;
    still_active(stage, nics)
}

fn restart_by(stage: &mut Stage<'_>, signal: Signal) -> Result<(), Failure> {
    let Some(daemon) = stage.daemon.take() else { return Err(trouble("restarting the daemon")("it does not run")) };
    let (_, ended) = daemon.end(signal)?;
    thread::sleep(PAUSE);
    let (daemon, ready) = Daemon::start(stage.place, &stage.ready)?;
    stage.daemon = Some(daemon);
    stage.client.reconnect();
    stage.follower = Follower::start(&stage.place.socket)?;
    let away = PAUSE.as_millis();
    stage.page.note(&format!("{signal}: ended after {ended}; nobody there for {away} ms; ready again {ready} after its start"))
}

fn indexes(nics: [&Nic; 2]) -> Result<[u32; 2], Failure> {
    let index = |nic: &Nic| if_nametoindex(nic.device.as_str()).map_err(trouble(nic.device.clone()));
    Ok([index(nics[0])?, index(nics[1])?])
}

fn unharmed(flown: Flown) -> Result<String, String> {
    let Flown { sent, longest_gap, .. } = flown;
    let lost = flown.lost();
    let seen = format!("{} pings sent, {lost} lost; longest time between two answers {longest_gap}", grouped(sent.into()));
    if lost == 0 && sent > 0 { Ok(seen) } else { Err(seen) }
}

fn still_active(stage: &mut Stage<'_>, nics: [&Nic; 2]) -> Result<(), Failure> {
    let mut states = Vec::new();
    for nic in nics {
        let body = stage.client.get(&format!("/v2.0/ports/{}", nic.port))?;
        states.push(body["port"]["status"].as_str().unwrap_or("unknown").to_owned());
    }
    let events = stage.follower.waiting().count();
    let seen = format!("nicd lists both as {}, and told of {events} events", states.join(" and "));
    let right = states.iter().all(|state| state == "ACTIVE") && events == 0;
    stage.page.claim(if right { Ok(seen) } else { Err(seen) })
}
