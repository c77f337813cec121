//! The VM stand-in as the stage sees it: a thread that is told things and reports.

use std::io::Write;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use ipnetwork::IpNetwork;

use crate::model::{LinkName, Mac};

use super::clock::Moment;
use super::failure::{Failure, trouble};
use super::traffic::Tally;
use super::vmm;

/// How long a report is waited for.
const LIMIT: Duration = Duration::from_secs(10);

/// What it is told.
#[derive(Debug)]
pub(super) enum Order {
    /// Ping an address so many times.
    Ping(IpAddr, u16),
    /// Close the NIC.
    Unplug,
}

/// A NIC as a VMM is told of it.
#[derive(Debug)]
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

/// What it reports.
#[derive(Debug)]
pub(super) enum Report {
    /// The tap is open; it began to open it then.
    Opened(Moment),
    /// What became of the pings.
    Pinged(Tally),
    /// The tap is closed, or was deleted while it was open.
    Unplugged,
}

/// The stand-in's end: its orders, with an octet on the stream for each, and where it reports.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) orders: Receiver<Order>,
    pub(super) bell: UnixStream,
    pub(super) reports: Sender<Result<Report, Failure>>,
}

/// The running stand-in. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Machine {
    orders: Sender<Order>,
    bell: UnixStream,
    reports: Receiver<Result<Report, Failure>>,
}

impl Machine {
    /// Starts one, which opens its NIC; answers when it began to.
    pub(super) fn start(card: Card) -> Result<(Self, Moment), Failure> {
        let failed = || trouble::<std::io::Error>("starting the VM stand-in");
        let (bell, heard) = UnixStream::pair().map_err(failed())?;
        let ((orders, taken), (reports, read)) = (channel(), channel());
        let told = Told { orders: taken, bell: heard, reports };
        thread::Builder::new().name("vm".to_owned()).spawn(move || vmm::run(&card, &told)).map_err(failed())?;
        let machine = Self { orders, bell, reports: read };
        match machine.report()? {
            Report::Opened(at) => Ok((machine, at)),
            other => Err(unexpected(&other)),
        }
    }

    /// Has it ping.
    pub(super) fn ping(&mut self, to: IpAddr, count: u16) -> Result<Tally, Failure> {
        match self.order(Order::Ping(to, count))? {
            Report::Pinged(tally) => Ok(tally),
            other => Err(unexpected(&other)),
        }
    }

    /// Has it close its NIC.
    pub(super) fn unplug(&mut self) -> Result<(), Failure> {
        match self.order(Order::Unplug)? {
            Report::Unplugged => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    fn order(&mut self, order: Order) -> Result<Report, Failure> {
        self.orders.send(order).map_err(trouble("telling the VM stand-in"))?;
        self.bell.write_all(b"!").map_err(trouble("telling the VM stand-in"))?;
        self.report()
    }

    fn report(&self) -> Result<Report, Failure> {
        self.reports.recv_timeout(LIMIT).map_err(trouble::<RecvTimeoutError>("waiting for the VM stand-in"))?
    }
}

fn unexpected(report: &Report) -> Failure {
    trouble("the VM stand-in")(format!("{report:?} was not expected now"))
}
