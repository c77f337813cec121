//! Opening a port's tap for a VMM that may not do so itself.

use std::os::fd::OwnedFd;

use crate::kernel::{OpError, OpErrorKind, TapUse};
use crate::model::{Phase, PortId};
use crate::reconcile::answered;

use super::view::{self, Tap};
use super::{Error, Service};

/// Why no descriptor of a port's tap is to be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    /// There is no such port.
    #[error("port {0} does not exist")]
    NoSuchPort(PortId),
    /// Its NIC is a veth, or it has none.
    #[error("port {0} has no tap: only a port attached to a server of kind vm has one")]
    NoTap(PortId),
    /// Its device is not there, or not as it should be.
    #[error("the tap of port {port} is not there while the port is {phase}; it can be opened once that is wired")]
    NotBuilt {
        /// The port.
        port: PortId,
        /// Its phase.
        phase: &'static str,
    },
    /// A process holds it open.
    #[error("the tap of port {0} is held open by a process already; it has one user at a time")]
    Busy(PortId),
    /// The kernel refused.
    #[error(transparent)]
    Kernel(OpError),
    /// Too much waits for the kernel, there is no descriptor, or the daemon ends.
    #[error("{0}")]
    Later(String),
}

impl Service {
    /// Opens a port's tap: one descriptor for each queue, and none kept here.
    ///
    /// # Errors
    /// There is no tap to open, another process holds it, or the kernel refused.
    pub async fn open_tap(&self, port: PortId) -> Result<Vec<OwnedFd>, NotOpened> {
        let Tap { queues, vnet_hdr, owner } = self.tap_of(port)?;
        let later = |error: Error| NotOpened::Later(error.to_string());
        let answer = self
            .reconciler
            .kernel
            .open_tap(port, TapUse { queues, vnet_hdr, owner, store: self.reconciler.store_id })
            .map_err(|refused| later(refused.into()))?;
        answered(answer).await.map_err(later)?.map_err(|error| match error.kind {
            OpErrorKind::Taken => NotOpened::Busy(port),
            OpErrorKind::Gone => NotOpened::NotBuilt { port, phase: self.port(port).map_or("gone", |view| view.phase.as_str()) },
            OpErrorKind::NoDescriptors => NotOpened::Later(error.to_string()),
            _ => NotOpened::Kernel(error),
        })
    }

    /// The tap of a port whose device stands.
    fn tap_of(&self, port: PortId) -> Result<Tap, NotOpened> {
        let view = view::port(&self.reconciler.lock(), port, &self.reconciler.host).map_err(|_| NotOpened::NoSuchPort(port))?;
        let tap = view.binding.and_then(|binding| binding.tap).ok_or(NotOpened::NoTap(port))?;
        match view.phase {
            Phase::Wired | Phase::Active => Ok(tap),
            other => Err(NotOpened::NotBuilt { port, phase: other.as_str() }),
        }
    }
}
