//! What the kernel tells of links and addresses.

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use super::page::{Context, Failure, Page};

/// RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR (include/uapi/linux/rtnetlink.h).
const GROUPS: u32 = 0x1 | 0x10 | 0x100;

/// A socket that receives a notice of every change of a link or an address from now on.
pub(super) struct Notices(Socket);

impl Notices {
    /// Opens one in the namespace of the calling thread.
    pub(super) fn listen() -> Result<Self, Failure> {
        let doing = "listening to the kernel";
        let mut socket = Socket::new(NETLINK_ROUTE).context(doing)?;
        socket.bind(&SocketAddr::new(0, GROUPS)).context(doing)?;
        socket.set_non_blocking(true).context(doing)?;
        Ok(Self(socket))
    }

    /// Checks that there was none.
    pub(super) fn check_none(&self, page: &Page) -> Result<(), Failure> {
        let told = std::iter::from_fn(|| self.0.recv_from_full().ok()).count();
        let what = if told == 0 { "no change".to_owned() } else { format!("{told} changes") };
        page.check(told == 0, &format!("the kernel told of {what} to any link or address meanwhile"))
    }
}
