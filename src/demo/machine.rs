//! The VM stand-in as the stage sees it: a process that is told things and reports.

use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::model::{LinkName, Mac};

use super::clock::Moment;
use super::failure::{Failure, trouble};
use super::host::SELF;
use super::traffic::Tally;

/// How long a report is waited for.
const LIMIT: Duration = Duration::from_secs(10);

/// What it is told: a line of JSON each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    /// Comes first: open this NIC.
    Open(Card),
    /// Ping an address so many times.
    Ping(IpAddr, u16),
    /// Close the NIC.
    Unplug,
}

/// A NIC as a VMM is told of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Card {
    /// The tap.
    pub(super) device: LinkName,
    /// Whether its frames carry virtio-net headers.
    pub(super) vnet_hdr: bool,
    /// The guest's MAC.
    pub(super) mac: Mac,
    /// The guest's addresses.
    pub(super) addresses: Vec<IpNetwork>,
    /// The guest's MTU, in bytes.
    pub(super) mtu: usize,
}

/// What it reports: a line of JSON each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Report {
    /// The tap is open; it began to open it then.
    Opened(Moment),
    /// What became of the pings.
    Pinged(Tally),
    /// The tap is closed, or was deleted while it was open.
    Unplugged,
}

/// The running stand-in. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Machine {
    child: Child,
    orders: ChildStdin,
    reports: Receiver<Report>,
}

impl Machine {
    /// Starts one, which opens nothing yet.
    pub(super) fn start() -> Result<Self, Failure> {
        let failed = || trouble::<std::io::Error>("starting the VM stand-in");
        let mut child = Command::new(SELF)
            .arg0("nicd-demo-vm")
            .args(["demo", "--role", "vmm"])
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed())?;
        let (Some(orders), Some(said)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed()(std::io::ErrorKind::BrokenPipe.into()));
        };
        let (sender, reports) = sync_channel(4);
        let listen = move || {
            let lines = BufReader::new(said).lines().map_while(Result::ok);
            for report in lines.filter_map(|line| serde_json::from_str(&line).ok()) {
                if sender.send(report).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("vm".to_owned()).spawn(listen).map_err(failed())?;
        Ok(Self { child, orders, reports })
    }

    /// Has it open its NIC; answers when it began to.
    pub(super) fn open(&mut self, card: Card) -> Result<Moment, Failure> {
        match self.order(&Order::Open(card))? {
            Report::Opened(at) => Ok(at),
            other => Err(unexpected(&other)),
        }
    }

    /// Has it ping.
    pub(super) fn ping(&mut self, to: IpAddr, count: u16) -> Result<Tally, Failure> {
        match self.order(&Order::Ping(to, count))? {
            Report::Pinged(tally) => Ok(tally),
            other => Err(unexpected(&other)),
        }
    }

    /// Has it close its NIC.
    pub(super) fn unplug(&mut self) -> Result<(), Failure> {
        match self.order(&Order::Unplug)? {
            Report::Unplugged => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    fn order(&mut self, order: &Order) -> Result<Report, Failure> {
        let failed = || trouble::<std::io::Error>("telling the VM stand-in");
        let mut line = serde_json::to_vec(order).map_err(|error| failed()(error.into()))?;
        line.push(b'\n');
        self.orders.write_all(&line).map_err(failed())?;
        self.report()
    }

    fn report(&self) -> Result<Report, Failure> {
        self.reports.recv_timeout(LIMIT).map_err(trouble("waiting for the VM stand-in"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Whether it ran still or had ended by itself does not matter here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn unexpected(report: &Report) -> Failure {
    Failure::Trouble { doing: "the VM stand-in".to_owned(), said: format!("{report:?} was not expected now") }
}
