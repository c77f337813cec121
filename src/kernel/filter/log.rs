//! The frames that the filters dropped last: what their rules log, kept for each device (`nf_log`, net/netfilter/nfnetlink_log.c).
//!
//! ```text
//!  rules of reasons ── NFLOG, some frames of each device ──► socket ──► DropLog ──► counters of a port
//! ```
//!
//! The rules log at most some frames of each device per second (`ruleset`), with the reason as the prefix. The thread that reads
//! them pauses after each run, so that it uses at most a tenth of a processor; frames that the kernel has no room for meanwhile are
//! not logged. They are counted all the same.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use netlink_packet_core::NLM_F_ACK;
use netlink_packet_netfilter::nflog::{ConfigCmd, ConfigMode, ConfigNla, Timeout, ULogMessage};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc::Sender;

use super::group_rules::LOGGED_TO;
use super::ruleset::LOG_GROUP;
use super::table::DEVICES;
use crate::kernel::answer::{Failure, Request};
use crate::kernel::message::{Batch, Message, find, messages, text};
use crate::kernel::nft::{self, NFGENMSG};
use crate::kernel::socket::{Netlink, failed, netfilter, receive_once};
use crate::kernel::{DroppedFrame, Notice};
use crate::model::Mac;
use crate::model::names::FIRST_INDEX;
use crate::plan::LinkState;
use crate::plan::filter::Reason;

/// How many frames are kept of each device.
const KEPT: usize = 16;

/// How long the kernel may collect frames before it sends them.
const COLLECTED: Duration = Duration::from_millis(100);

/// How long it may take to notice that the sink is closed.
const PATIENCE: Duration = Duration::from_millis(500);

/// The pause after a run, as a multiple of its duration, and the longest.
const REST: u32 = 9;
const LONGEST: Duration = Duration::from_millis(250);

/// How long to wait before the group is asked for again.
const RETRY: Duration = Duration::from_secs(10);

/// The type of a message with a frame.
const PACKET: i32 = libc::NFNL_SUBSYS_ULOG << 8 | libc::NFULNL_MSG_PACKET;

/// `linux/netfilter/nfnetlink_log.h`.
const NFULA_IFINDEX_PHYSINDEV: u16 = 6;
const NFULA_IFINDEX_PHYSOUTDEV: u16 = 7;
const NFULA_PAYLOAD: u16 = 9;
const NFULA_PREFIX: u16 = 10;
const NFULA_HWHEADER: u16 = 16;
const NFULA_VLAN: u16 = 19;
const NFULA_VLAN_PROTO: u16 = 1;

/// The last frames that were dropped, of each device. Clones share it.
#[derive(Debug, Clone, Default)]
pub(in crate::kernel) struct DropLog(Arc<Mutex<HashMap<u32, VecDeque<DroppedFrame>>>>);

impl DropLog {
    /// The last frames of a device, oldest first.
    pub(in crate::kernel) fn last(&self, index: u32) -> Vec<DroppedFrame> {
        self.lock().get(&index).into_iter().flatten().copied().collect()
    }

    /// Forgets devices that were deleted.
    pub(in crate::kernel) fn forget(&self, indexes: impl IntoIterator<Item = u32>) {
        let mut devices = self.lock();
        indexes.into_iter().for_each(|index| _ = devices.remove(&index));
    }

    /// Forgets devices that are not among all links.
    pub(in crate::kernel) fn sweep(&self, links: &[LinkState]) {
        let there: HashSet<u32> = links.iter().map(|link| link.index).collect();
        self.lock().retain(|index, _| there.contains(index));
    }

    fn note(&self, index: u32, frame: DroppedFrame) {
        let mut devices = self.lock();
        let room = usize::try_from(DEVICES).is_ok_and(|most| devices.len() < most);
        if !room && !devices.contains_key(&index) {
            return;
        }
        let frames = devices.entry(index).or_default();
        if frames.len() == KEPT {
            frames.pop_front();
        }
        frames.push_back(frame);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, VecDeque<DroppedFrame>>> {
        // Each change is whole in itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread's socket, and where the frames go.
#[derive(Debug)]
pub(in crate::kernel) struct Reader {
    log: DropLog,
    sink: Sender<Notice>,
    socket: Option<Netlink>,
    buffer: Box<[u8]>,
}

impl Reader {
    /// A reader in the network namespace of the thread that calls. Frames are logged from now on.
    pub(in crate::kernel) fn new(log: DropLog, sink: Sender<Notice>) -> Self {
        let socket = bound().inspect_err(|failure| tracing::warn!(said = failure.said, "dropped frames are not logged")).ok();
        Self { log, sink, socket, buffer: vec![0; 64 * 1024].into_boxed_slice() }
    }

    /// Reads until the sink is closed.
    pub(in crate::kernel) fn run(mut self) {
        let mut retry = Instant::now() + RETRY;
        while !self.sink.is_closed() {
            let began = match self.socket.as_ref().map(wait) {
                Some(Ok(())) => {
                    let began = Instant::now();
                    self.read();
                    began
                }
                _ => {
                    std::thread::sleep(PATIENCE);
                    if Instant::now() >= retry {
                        // Another program may have the group, or the module is not loaded.
                        self.socket = bound().ok();
                        retry = Instant::now() + RETRY;
                    }
                    continue;
                }
            };
            std::thread::sleep((began.elapsed() * REST).min(LONGEST));
        }
    }

    /// Takes in what has been received.
    fn read(&mut self) {
        let Some(socket) = &self.socket else { return };
        loop {
            match receive_once(socket.socket(), &mut self.buffer, libc::MSG_DONTWAIT) {
                Ok(bytes) => {
                    let frames = messages(bytes).map_while(Result::ok).filter_map(|message| frame(&message));
                    frames.for_each(|(index, frame)| self.log.note(index, frame));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // There was no room for some.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) => {
                    tracing::warn!(%error, "dropped frames are not logged");
                    self.socket = None;
                    return;
                }
            }
        }
    }
}

fn wait(socket: &Netlink) -> Result<(), Errno> {
    let limit = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::ZERO);
    match poll(&mut [PollFd::new(socket.socket().as_fd(), PollFlags::POLLIN)], limit) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// A socket that the group's frames come to. A group has one reader in a namespace.
fn bound() -> Result<Netlink, Failure> {
    let mut socket = Netlink::over(netfilter().map_err(|error| failed(Request::Open, &error))?);
    let mut config = |attributes| {
        let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, LOG_GROUP);
        let mut batch = Batch::default();
        batch.add(Request::Look, NLM_F_ACK, NetfilterMessage::new(header, ULogMessage::Config(attributes)));
        socket.answer(batch, |_| Ok(None::<()>))
    };
    config(vec![ConfigNla::Cmd(ConfigCmd::Bind)])?;
    config(vec![ConfigNla::Mode(ConfigMode::PACKET_MAX), ConfigNla::Timeout(Timeout::from(COLLECTED))])?;
    Ok(socket)
}

/// The device and the frame of a message; none of what is no frame that a rule of nicd's logged. In the family of bridges the
/// device is the bridge's port (`__build_packet_message`).
fn frame(message: &Message<'_>) -> Option<(u32, DroppedFrame)> {
    let body = message.payload();
    let is_packet = i32::from(message.message_type()) == PACKET && nft::family(body) == Some(libc::NFPROTO_BRIDGE);
    let part = |kind| find(body, NFGENMSG, kind).filter(|_| is_packet);
    let prefix = text(part(NFULA_PREFIX)?);
    let (device, reason) = match prefix == LOGGED_TO {
        true => (NFULA_IFINDEX_PHYSOUTDEV, Reason::Group),
        false => (NFULA_IFINDEX_PHYSINDEV, Reason::ALL.into_iter().find(|known| known.as_str() == prefix)?),
    };
    let index = part(device)?.first_chunk().map(|octets| u32::from_be_bytes(*octets))?;
    let header = part(NFULA_HWHEADER)?;
    let src_mac = header.get(6..)?.first_chunk().map(|octets: &[u8; 6]| Mac(*octets))?;
    // A tag may have been taken out of the frame on its way.
    let tag = part(NFULA_VLAN).and_then(|vlan| find(vlan, 0, NFULA_VLAN_PROTO)).and_then(<[u8]>::first_chunk);
    let kind = tag.or_else(|| header.get(12..)?.first_chunk());
    let ethertype = kind.map(|octets| u16::from_be_bytes(*octets))?;
    let src_ip = source(ethertype, part(NFULA_PAYLOAD).unwrap_or_default());
    (index >= FIRST_INDEX).then_some((index, DroppedFrame { at: now(), reason, src_mac, src_ip, ethertype }))
}

/// The wall clock, as far as it can be printed.
fn now() -> Timestamp {
    Timestamp::try_from(SystemTime::now()).unwrap_or_default()
}

/// The address that a packet says it comes from.
fn source(ethertype: u16, packet: &[u8]) -> Option<IpAddr> {
    let v4 = |at: usize| packet.get(at..)?.first_chunk().map(|octets: &[u8; 4]| Ipv4Addr::from(*octets).into());
    match i32::from(ethertype) {
        libc::ETH_P_IP => v4(12),
        libc::ETH_P_ARP | libc::ETH_P_RARP => v4(14),
        libc::ETH_P_IPV6 => packet.get(8..)?.first_chunk().map(|octets: &[u8; 16]| Ipv6Addr::from(*octets).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{DefaultNla, NetlinkBuffer};
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::message::tests::sent;
    use crate::kernel::message::{Untyped, nested, text_nla};

    const INDEX: u32 = FIRST_INDEX + 7;

    fn event(kind: i32, attributes: Vec<DefaultNla>) -> Vec<u8> {
        sent(Untyped { kind: u16::try_from(kind).unwrap(), fixed: vec![7, 0, 0x6e, 0x69], attributes })
    }

    fn attributes(ethertype: u16, packet: &[u8]) -> Vec<DefaultNla> {
        let header = [&[2; 6][..], &[4; 6], &ethertype.to_be_bytes()].concat();
        vec![
            DefaultNla::new(NFULA_IFINDEX_PHYSINDEV, INDEX.to_be_bytes().to_vec()),
            text_nla(NFULA_PREFIX, "ip4"),
            DefaultNla::new(NFULA_HWHEADER, header),
            DefaultNla::new(NFULA_PAYLOAD, packet.to_vec()),
        ]
    }

    fn read(message: &[u8]) -> Option<(u32, DroppedFrame)> {
        frame(&NetlinkBuffer::new(message))
    }

    proptest! {
        #[test]
        fn arbitrary_messages_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&sent(Untyped { kind: u16::try_from(PACKET).unwrap(), fixed: bytes.clone(), attributes: Vec::new() }));
            let typed = [DefaultNla::new(NFULA_HWHEADER, bytes.clone()), DefaultNla::new(NFULA_PAYLOAD, bytes.clone())];
            for ethertype in [0x0800, 0x0806, 0x8035, 0x86dd] {
                let _ = source(ethertype, &bytes);
                let _ = read(&event(PACKET, attributes(ethertype, &bytes).into_iter().chain(typed.clone()).collect()));
            }
        }
    }

    #[test]
    fn a_logged_frame_has_its_device_its_reason_and_its_senders() {
        let v4: IpAddr = [192, 0, 2, 9].into();
        let v6: IpAddr = "2001:db8::9".parse().unwrap();
        let behind = |at: usize, ip: IpAddr| match ip {
            IpAddr::V4(ip) => [vec![0; at], ip.octets().to_vec()].concat(),
            IpAddr::V6(ip) => [vec![0; at], ip.octets().to_vec()].concat(),
        };
        for (ethertype, at, ip) in
            [(0x0800, 12, Some(v4)), (0x0806, 14, Some(v4)), (0x8035, 14, Some(v4)), (0x86dd, 8, Some(v6)), (0x88cc, 0, None)]
        {
            let (index, frame) = read(&event(PACKET, attributes(ethertype, &behind(at, ip.unwrap_or(v4))))).unwrap();
            assert_eq!((index, frame.reason, frame.src_mac), (INDEX, Reason::Ip4, Mac([4; 6])));
            assert_eq!((frame.src_ip, frame.ethertype), (ip, ethertype));
        }
        let tag = nested(NFULA_VLAN, &[DefaultNla::new(NFULA_VLAN_PROTO, vec![0x81, 0x00])]);
        let tagged = attributes(0x0800, &[]).into_iter().chain([tag]).collect();
        assert_eq!(read(&event(PACKET, tagged)).unwrap().1.ethertype, 0x8100);
    }

    #[test]
    fn what_no_rule_of_nicds_logged_is_none() {
        let of = |change: &dyn Fn(&mut Vec<DefaultNla>)| {
            let mut attributes = attributes(0x0800, &[]);
            change(&mut attributes);
            read(&event(PACKET, attributes))
        };
        assert!(of(&|_| {}).is_some());
        assert_eq!(of(&|all| all[0] = DefaultNla::new(NFULA_IFINDEX_PHYSINDEV, 3_u32.to_be_bytes().to_vec())), None);
        assert_eq!(of(&|all| all[1] = text_nla(NFULA_PREFIX, "others")), None);
        assert_eq!(of(&|all| all[2] = DefaultNla::new(NFULA_HWHEADER, vec![0; 13])), None);
        assert_eq!(read(&event(PACKET + 1, attributes(0x0800, &[]))), None);
    }

    #[test]
    fn the_last_sixteen_of_a_device_are_kept_while_it_is_there() {
        let log = DropLog::default();
        let frame =
            |ethertype| DroppedFrame { at: now(), reason: Reason::Ethertype, src_mac: Mac([4; 6]), src_ip: None, ethertype };
        (0..20).for_each(|ethertype| log.note(INDEX, frame(ethertype)));
        log.note(INDEX + 1, frame(1));
        let last: Vec<u16> = log.last(INDEX).iter().map(|frame| frame.ethertype).collect();
        assert_eq!(last, (4..20).collect::<Vec<_>>());
        log.sweep(&[LinkState::bare(INDEX, "", crate::plan::Kind::Tap)]);
        assert_eq!((log.last(INDEX).len(), log.last(INDEX + 1).len()), (16, 0));
        log.forget([INDEX]);
        assert_eq!(log.last(INDEX), []);
    }
}
