//! Reads the kernel's state independently of nicd's code: by `ip`, `bridge`, rtnetlink notifications and raw sockets.

#![allow(dead_code)] // each test target uses its part

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvmsg, setsockopt, socket, sockopt,
};
use serde_json::Value;

use crate::netns::{json, run, try_run};

/// A link as `ip` shows it, by any of its names.
pub fn link(name: &str) -> Value {
    json(&format!("ip -j -d link show dev {name}"))[0].clone()
}

/// The same, if there is one.
pub fn try_link(name: &str) -> Option<Value> {
    let said = try_run(&format!("ip -j -d link show dev {name}")).ok()?;
    Some(serde_json::from_str::<Value>(&said).unwrap()[0].clone())
}

/// All links.
pub fn links() -> Vec<Value> {
    json("ip -j -d link").as_array().unwrap().clone()
}

/// The names of all links that carry nicd's altname.
pub fn marked() -> Vec<String> {
    let is_marked = |link: &Value| {
        let names = link["altnames"].as_array().cloned().unwrap_or_default();
        names.iter().any(|name| name.as_str().unwrap().starts_with("nicd-"))
    };
    links().iter().filter(|link| is_marked(link)).map(|link| link["ifname"].as_str().unwrap().to_owned()).collect()
}

/// The ids in the altnames of devices (not of bridges), sorted.
pub fn marked_ports() -> Vec<String> {
    let devices = links().into_iter().filter(|link| link["linkinfo"]["info_kind"] != "bridge");
    let names = devices.flat_map(|link| link["altnames"].as_array().cloned().unwrap_or_default());
    let mut ids: Vec<String> = names.filter_map(|name| name.as_str().unwrap().strip_prefix("nicd-").map(str::to_owned)).collect();
    ids.sort();
    ids
}

/// Whether a link has a flag.
pub fn has_flag(link: &Value, flag: &str) -> bool {
    link["flags"].as_array().unwrap().iter().any(|has| has == flag)
}

/// The bridge port's attributes as `bridge` shows them.
pub fn bridge_port(name: &str) -> Value {
    json(&format!("bridge -j -d link show dev {name}"))[0].clone()
}

/// The FDB entries of a bridge port.
pub fn fdb(name: &str) -> Vec<Value> {
    json(&format!("bridge -j fdb show brport {name}")).as_array().unwrap().clone()
}

/// All settings of a bridge, except those that change by themselves or depend on its ports.
pub fn bridge_attributes(name: &str) -> Value {
    let mut link = link(name);
    for derived in ["operstate", "flags", "linkmode", "tso_max_size", "tso_max_segs"] {
        link.as_object_mut().unwrap().remove(derived);
    }
    let data = link["linkinfo"]["info_data"].as_object_mut().unwrap();
    data.retain(|key, _| !key.ends_with("_timer") && !key.starts_with("topology_change") && key != "fdb_n_learned");
    link
}

/// IPv6 addresses of the test's own namespace but for lo's.
pub fn v6_addresses() -> Vec<String> {
    run("ip -6 -o addr").lines().filter(|line| !line.contains(": lo ")).map(str::to_owned).collect()
}

/// Every sysctl under net, of the test's own namespace.
pub fn sysctls() -> Vec<String> {
    // Some sysctls are write-only; they are skipped.
    let output = std::process::Command::new("sysctl").args(["-a", "-r", "^net"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// The rtnetlink notifications since its creation. The kernel sends a notification before it acknowledges the change.
#[derive(Debug)]
pub struct Monitor(Socket);

impl Monitor {
    /// Of links (`RTNLGRP_LINK`).
    pub fn links() -> Self {
        Self::of(1)
    }

    /// Of IPv6 addresses (`RTNLGRP_IPV6_IFADDR`).
    pub fn v6_addresses() -> Self {
        Self::of(9)
    }

    fn of(group: u32) -> Self {
        let mut socket = Socket::new(NETLINK_ROUTE).unwrap();
        setsockopt(&socket.as_fd(), sockopt::RcvBufForce, &(64 << 20)).unwrap();
        socket.bind(&SocketAddr::new(0, 1 << (group - 1))).unwrap();
        socket.set_non_blocking(true).unwrap();
        Self(socket)
    }

    /// All notifications received so far. A lost notification fails the test.
    pub fn take(&mut self) -> Vec<RouteNetlinkMessage> {
        let mut taken = Vec::new();
        loop {
            let bytes = match self.0.recv_from_full() {
                Ok((bytes, _)) => bytes,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return taken,
                Err(error) => panic!("the monitor: {error}"),
            };
            let mut rest = &bytes[..];
            while rest.len() >= 16 {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).unwrap();
                let length = usize::try_from(message.header.length).unwrap().next_multiple_of(4);
                if let NetlinkPayload::InnerMessage(inner) = message.payload {
                    taken.push(inner);
                }
                rest = rest.get(length..).unwrap_or_default();
            }
        }
    }

    /// All links in the notifications, without the notifications about bridge ports.
    pub fn take_links(&mut self) -> Vec<LinkMessage> {
        let inner = |message| match message {
            RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => Some(link),
            _ => None,
        };
        self.take().into_iter().filter_map(inner).collect()
    }
}

/// A link's name in a notification.
pub fn name_of(link: &LinkMessage) -> String {
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    name.unwrap_or_default()
}

/// A link's MAC in a notification.
pub fn mac_of(link: &LinkMessage) -> Option<Vec<u8>> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(mac) => Some(mac.clone()),
        _ => None,
    })
}

/// A raw socket that gets every frame of the calling thread's namespace.
#[derive(Debug)]
pub struct Capture(OwnedFd);

impl Capture {
    /// Starts to receive frames.
    pub fn start() -> Self {
        Self(socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll).unwrap())
    }

    /// The next frame, with the index of the interface it was seen on; none when `limit` is over.
    pub fn next(&mut self, limit: Duration) -> Option<(usize, Vec<u8>)> {
        let deadline = Instant::now() + limit;
        let left = deadline.saturating_duration_since(Instant::now());
        let left = PollTimeout::try_from(left + Duration::from_micros(999)).unwrap();
        if poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], left).unwrap() == 0 {
            return None;
        }
        let mut frame = vec![0; 65_536];
        let (length, index) = {
            let mut parts = [IoSliceMut::new(&mut frame)];
            let got = recvmsg::<LinkAddr>(self.0.as_raw_fd(), &mut parts, None, MsgFlags::empty()).unwrap();
            (got.bytes, got.address.unwrap().ifindex())
        };
        frame.truncate(length);
        Some((index, frame))
    }

    /// All frames that are there by now.
    pub fn take(&mut self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.next(Duration::ZERO)).map(|(_, frame)| frame).collect()
    }
}

/// The elements of a set of `table bridge nicd`.
pub fn elements(set: &str) -> Vec<Value> {
    let shown = try_run(&format!("nft -j list set bridge nicd {set}")).unwrap_or_default();
    let shown: Value = serde_json::from_str(&shown).unwrap_or_default();
    let sets = shown["nftables"].as_array().into_iter().flatten();
    sets.flat_map(|one| one["set"]["elem"].as_array().cloned().unwrap_or_default()).collect()
}

/// The ports that have a filter, with port security on or off, sorted.
pub fn filtered_ports() -> Vec<String> {
    let named =
        |element: &Value| element["elem"]["comment"].as_str().and_then(|text| text.strip_prefix("port ")).map(str::to_owned);
    let mut ports: Vec<String> = ["guarded", "open"].iter().flat_map(|set| elements(set)).filter_map(|one| named(&one)).collect();
    ports.sort();
    ports
}
