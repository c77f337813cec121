//! The last acts: everything goes, and others than nicd say that it has.

use hyper::Method;
use nix::sys::signal::Signal;

use crate::demo::failure::{Failure, trouble};
use crate::demo::guest::Guest;
use crate::demo::machine::Machine;
use crate::demo::proof::{self, named};

use super::{Bare, Nic, Stage, called, interfaces};

/// What stays in the daemon's directories: the demo's own files, locks, and the database.
const STAYS: [&str; 5] = ["nicd.toml", "nicd.log", "notify.sock", "state", "nicd.sock.lock"];

/// Both NICs, then servers and network.
pub(super) fn detach(stage: &mut Stage<'_>, vm: &mut Machine, nics: [&Nic; 2], network: &str) -> Result<(), Failure> {
    stage.page.chapter("Both are detached: DELETE /v2.1/servers/{id}/os-interface/{port}")?;
    stage
        .page
        .note("An answer means: traffic is cut, and it will be gone. The addresses are free again when the kernel let go.")?;
    vm.unplug()?;
    stage.page.claim(Ok("the VM stand-in closed its tap first: nothing is deleted under a process that holds it".to_owned()))?;
    for nic in nics {
        let answer = stage.client.call(Method::DELETE, &format!("{}/{}", interfaces(nic.server), nic.port), None)?;
        let gone = stage.until(answer.at, |event| event.event == "port.deleted")?.since(answer.at);
        let name = called(Some(nic.server));
        stage
            .page
            .claim(Ok(format!("{name}: answered {} after {}; the device was gone after {gone}", answer.status, answer.took)))?;
    }
    for nic in nics {
        stage.client.call(Method::DELETE, &format!("/nicd/v1/servers/{}", nic.server), None)?;
    }
    let answer = stage.client.call(Method::DELETE, &format!("/v2.0/networks/{network}"), None)?;
    stage.page.claim(Ok(format!("both servers are forgotten; the network went with its bridge in {}", answer.took)))
}

/// Nothing is left.
pub(super) fn prove(mut stage: Stage<'_>, guest: &Guest, bare: &Bare) -> Result<(), Failure> {
    stage.page.chapter("Nothing is left, as /proc, SQLite and the directory say")?;
    let (node, inside) = (proof::links()?, guest.inside(proof::links)?);
    stage.page.claim(match node == bare.node && inside == bare.guest {
        true => Ok(format!("links as before: {} on the node, {} in the guest", named(&node), named(&inside))),
        false => Err(format!("links are left: {} on the node, {} in the guest", named(&node), named(&inside))),
    })?;
    let listed = stage.listed()?;
    stage.page.claim(none_of("the API lists", &listed.iter().map(|(name, count)| (*name, *count as i64)).collect::<Vec<_>>()))?;
    end(&mut stage)?;
    let rows = proof::rows(&stage.place.database())?;
    stage.page.claim(none_of("the database, read without nicd, has", &rows))?;
    let left: Vec<String> =
        proof::files(&stage.place.directory)?.into_iter().filter(|file| !STAYS.contains(&file.as_str())).collect();
    stage.page.claim(match left.is_empty() {
        true => Ok("both sockets are gone from the directory; the database and the locks stay, as they should".to_owned()),
        false => Err(format!("files are left: {}", left.join(", "))),
    })
}

fn end(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let Some(daemon) = stage.daemon.take() else { return Err(trouble("ending the daemon")("it does not run")) };
    let (status, took) = daemon.end(Signal::SIGTERM)?;
    stage.page.claim(match status.code() {
        Some(0) => Ok(format!("SIGTERM ended nicd in {took}, with exit code 0")),
        _ => Err(format!("SIGTERM ended nicd with {status}; exit code 0 is right")),
    })
}

fn none_of(whose: &str, counts: &[(&str, i64)]) -> Result<String, String> {
    let counted: Vec<String> = counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let seen = format!("{whose} {}", counted.join(", "));
    if counts.iter().all(|(_, count)| *count == 0) { Ok(seen) } else { Err(seen) }
}
