//! Keeps a server's ports on a network attached through restarts of nicd, of this program and of the host's network: a template for a control
//! plane's own code.
//!
//! ```sh
//! cargo run --example keep_ports -- /run/nicd/nicd.sock SERVER NETWORK COUNT
//! ```
//!
//! It follows the events, lists once, attaches what is missing and detaches what is too much, and then does so again for each event
//! that says that a port came or went. Ports on other networks are left alone. The stream goes on by itself after a restart of nicd;
//! its `Lost` means: list again. What is listed is the truth, so this program remembers nothing. The first error of an outage is
//! printed on stderr, and again one with another reason.

use std::process::ExitCode;
use std::time::Duration;

use nicd_client::{Attachment, Client, Error, EventKind, Events, Phase, Port, Retry};
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

/// The pause after a refusal, which a repeat may not mend.
const PAUSE: Duration = Duration::from_secs(1);

struct Keeper {
    nicd: Client,
    server: Uuid,
    network: Uuid,
    count: usize,
}

impl Keeper {
    /// Follows the events for ever; fails when nicd refuses something.
    async fn keep(&self) -> Result<(), Error> {
        // Opened before the list is read, so that no change is missed between the two.
        let mut events = self.nicd.events().await?;
        loop {
            self.settle().await?;
            self.change(&mut events).await?;
        }
    }

    /// Waits for an event after which the list may be another.
    async fn change(&self, events: &mut Events) -> Result<(), Error> {
        loop {
            let event = events.next().await?;
            let is_ours = event.server_id == Some(self.server);
            match event.kind {
                EventKind::Lost => return Ok(()),
                EventKind::PortCreated | EventKind::PortDeleted if is_ours => return Ok(()),
                EventKind::PortStatus if is_ours && matches!(event.phase, Some(Phase::Detaching | Phase::Unbound)) => {
                    return Ok(());
                }
                _ => {}
            }
        }
    }

    /// Attaches what is missing, and detaches what is too much.
    async fn settle(&self) -> Result<(), Error> {
        let (server, network) = (self.server.to_string(), self.network.to_string());
        let listed = self.nicd.ports(&[("device_id", &server), ("network_id", &network)]).await?;
        let attached: Vec<Port> = listed.into_iter().filter(|port| port.phase != Phase::Detaching).collect();
        for port in attached.iter().skip(self.count) {
            self.nicd.detach(self.server, port.id).await?;
            println!("detached {}", port.id);
        }
        for _ in attached.len()..self.count {
            // Repeated by the client under one idempotency key until it is answered: never two ports for one.
            let nic = self.nicd.attach(self.server, &Attachment::to_network(self.network)).await?;
            println!("attached {} {} {}", nic.port_id, nic.mac_addr, nic.port_state);
        }
        Ok(())
    }
}

/// The command line: socket, server, network, count.
fn keeper() -> Option<Keeper> {
    let mut arguments = std::env::args().skip(1);
    let nicd = Client::new(arguments.next()?).with_retry(Retry::FOREVER).with_notice(|error| eprintln!("{error}; tried again"));
    let (server, network) = (arguments.next()?.parse().ok()?, arguments.next()?.parse().ok()?);
    Some(Keeper { nicd, server, network, count: arguments.next()?.parse().ok()? })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Some(keeper) = keeper() else {
        eprintln!("usage: keep_ports SOCKET SERVER NETWORK COUNT");
        return ExitCode::from(64);
    };
    let Ok(mut stop) = signal(SignalKind::terminate()) else { return ExitCode::FAILURE };
    loop {
        tokio::select! {
            _ = stop.recv() => return ExitCode::SUCCESS,
            result = keeper.keep() => if let Err(error) = result {
                eprintln!("{error}; again in {} s", PAUSE.as_secs());
            },
        }
        tokio::select! {
            _ = stop.recv() => return ExitCode::SUCCESS,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}
