//! The daemon's whole power over the host: a closed list of verbs, and plans made of them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::names::SegmentKind;
use crate::model::{LinkName, Mac, NetnsPin, NetworkId, Owner, PortId};

use super::filter::Filter;
use super::groups::Profile;
use super::members::NetworkMembers;
use super::observed::{Address, TokenBucket, VlanTag};
use super::overlay::Entry;

/// An ordered list of steps, and why it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What started it.
    pub reason: Reason,
    /// First to last.
    pub steps: Vec<Step>,
}

/// What started a plan. The mechanism is the same for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A client's attach.
    Attach,
    /// A client's detach.
    Detach,
    /// A client's change of a port or network.
    Change,
    /// The kernel was seen to differ from the store.
    Drift,
    /// The daemon started.
    Restart,
    /// A client asked what would be done.
    DryRun,
    /// A client had leftovers removed.
    Gc,
}

impl Plan {
    /// The steps of one stage.
    pub fn only(mut self, stage: Stage) -> Self {
        self.steps.retain(|step| step.stage == stage);
        self
    }

    /// Without the steps that a machine's monitor carries out, and the one that plugs a NIC in.
    pub fn split_plug(mut self) -> (Self, Option<Op>) {
        let is_machines = |step: &Step| matches!(step.op, Op::PlugNic { .. } | Op::UnplugNic { .. });
        let plug = self.steps.iter().find(|step| matches!(step.op, Op::PlugNic { .. })).map(|step| step.op.clone());
        self.steps.retain(|step| !is_machines(step));
        (self, plug)
    }

    /// Without what it does to the port's bridge and to its way to the physical network, on which other ports may rely by now.
    pub fn without_bridge(mut self) -> Self {
        let is_bridges = |op: &Op| {
            matches!(
                op,
                Op::CreateBridge { .. }
                    | Op::CloseBridge { .. }
                    | Op::SetBridge { .. }
                    | Op::RestoreBridgeAltname { .. }
                    | Op::CreateVlan { .. }
                    | Op::CreateVxlan { .. }
                    | Op::SetEntries { .. }
                    | Op::SetSegment { .. }
                    | Op::RestoreSegmentAltname { .. }
                    | Op::DeleteSegment { .. }
                    | Op::AdoptUplink { .. }
                    | Op::ReleaseUplink { .. }
            )
        };
        self.steps.retain(|step| !is_bridges(&step.op));
        self
    }

    /// Whether carrying it out enters a guest's namespace.
    pub fn enters_a_guest(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.op, Op::CreateVeth { .. } | Op::ConfigureGuest { .. }))
    }
}

impl Reason {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Attach => "attach",
            Self::Detach => "detach",
            Self::Change => "change",
            Self::Drift => "drift",
            Self::Restart => "restart",
            Self::DryRun => "dry_run",
            Self::Gc => "gc",
        }
    }
}

/// One op and what takes it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What to do.
    pub op: Op,
    /// What undoes it, from what was there before; none when an earlier step's undo takes this one along.
    pub undo: Option<Op>,
    /// When it is done.
    #[serde(default, skip_serializing_if = "Stage::is_now")]
    pub stage: Stage,
}

impl Step {
    /// A step that is done in its turn.
    pub fn new(op: Op, undo: Option<Op>) -> Self {
        Self { op, undo, stage: Stage::Now }
    }
}

/// When a step is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// In its turn, before the client is answered.
    #[default]
    Now,
    /// After the client is answered, together with the deletions of other devices
    /// ([`merge_deletions`](super::merge_deletions)).
    Deferred,
}

impl Stage {
    fn is_now(&self) -> bool {
        *self == Self::Now
    }
}

/// Everything nicd can do to the host. Every op, also as an undo, may run twice: what is already as asked is success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// Makes a bridge with STP and multicast snooping off, forward delay 0, no IPv6 address, and marks it. It is not up: it is
    /// closed to the host before.
    CreateBridge {
        /// Whose bridge.
        network: NetworkId,
        /// The index it is to have.
        index: u32,
        /// Its name.
        name: LinkName,
        /// Its explicit MAC, which keeps it from following its ports'.
        mac: Mac,
        /// Its MTU in bytes, set explicitly for the same reason.
        mtu: u32,
        /// The alias that tags it as this store's.
        alias: String,
    },
    /// Closes an agent-made bridge to the host: what comes in by the bridge itself, which is what a bridge delivers to the
    /// host's stack, is dropped (a chain of `table netdev nicd`). Nothing takes this back but [`Op::DeleteBridge`]: an open
    /// bridge is never right.
    CloseBridge {
        /// Whose bridge.
        network: NetworkId,
    },
    /// Sets an agent-made bridge back to what it was made with, or up for the first time.
    SetBridge {
        /// Whose bridge.
        network: NetworkId,
        /// What to change, in the order of its messages.
        changes: BTreeSet<BridgeChange>,
    },
    /// Deletes a network's agent-made bridge, and what closed it to the host, unless another nicd made it, or none.
    DeleteBridge {
        /// Whose bridge.
        network: NetworkId,
        /// The store of the nicd that made it.
        store: Uuid,
    },
    /// Makes the VLAN device that leads a network to its physical network, and marks it. It is not up, and in no bridge.
    CreateVlan {
        /// Whose device.
        network: NetworkId,
        /// The index it is to have.
        index: u32,
        /// Its name.
        name: LinkName,
        /// The index of the link below it.
        parent: u32,
        /// The tag of its frames there.
        tag: VlanTag,
        /// Its MTU in bytes.
        mtu: u32,
        /// The alias that tags it as this store's.
        alias: String,
    },
    /// Makes the VXLAN device that leads a network to other hosts, and marks it. It learns nothing, is not up, and in no bridge.
    CreateVxlan {
        /// Whose device.
        network: NetworkId,
        /// The index it is to have.
        index: u32,
        /// Its name.
        name: LinkName,
        /// The network's number (VNI).
        vni: u32,
        /// The tunnel address of this host.
        local: IpAddr,
        /// Its MTU in bytes.
        mtu: u32,
        /// The alias that tags it as this store's.
        alias: String,
    },
    /// Sets and removes entries that lead to other hosts, in the FDB of a network's VXLAN device and in the FDB and the neighbours of its
    /// bridge. An entry that is set takes the place of the one that is there for its MAC or address.
    SetEntries {
        /// Whose entries.
        network: NetworkId,
        /// Those to set.
        put: BTreeSet<Entry>,
        /// Those to remove, if nothing takes their place.
        remove: BTreeSet<Entry>,
    },
    /// Changes the device that leads a network to other hosts, also to put it into the network's bridge and set it up for the first time.
    SetSegment {
        /// Whose device.
        network: NetworkId,
        /// What kind of device.
        kind: SegmentKind,
        /// What to change, in the order of its messages.
        changes: BTreeSet<SegmentChange>,
    },
    /// Gives such a device that lost its altname that altname back: the one with this index, as long as it has this alias.
    RestoreSegmentAltname {
        /// Whose device.
        network: NetworkId,
        /// What kind of device.
        kind: SegmentKind,
        /// The device's index.
        index: u32,
        /// Its alias, which names the store and the network.
        alias: String,
    },
    /// Deletes the device that leads a network to other hosts, unless another nicd made it, or none.
    DeleteSegment {
        /// Whose device.
        network: NetworkId,
        /// What kind of device.
        kind: SegmentKind,
        /// The store of the nicd that made it.
        store: Uuid,
    },
    /// Puts an uplink into a network's agent-made bridge, and changes nothing else of it. Refused when it has addresses or routes, or is
    /// in another bridge.
    AdoptUplink {
        /// Whose bridge.
        network: NetworkId,
        /// The uplink's index.
        index: u32,
        /// The bridge's index.
        bridge: u32,
    },
    /// Takes an uplink out of a network's agent-made bridge, if it is in that.
    ReleaseUplink {
        /// Whose bridge.
        network: NetworkId,
        /// The uplink's index.
        index: u32,
        /// The bridge's index.
        bridge: u32,
    },
    /// Says what a port may send: sets the elements of `table bridge nicd` for its device, or removes them. One transaction; a refused
    /// one changes nothing. What its device with an earlier index had goes, and its counters go along.
    SetFilter {
        /// Whose device.
        port: PortId,
        /// The device's index, and what it may send; none removes the elements.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        filter: Option<IndexFilter>,
        /// Whether the device is still to be made. Elements without a device let nothing pass, and the next start removes them.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        before_device: bool,
    },
    /// Says what sets of security groups allow, for all ports that are in them. One transaction; a refused one changes nothing. The
    /// connections that are not allowed any more are ended.
    SetProfiles {
        /// The sets; none of one that no port is in any more.
        profiles: Vec<NumberedProfile>,
    },
    /// Says which addresses of a network are those of other hosts' ports in security groups. One transaction; a refused one changes nothing.
    SetMembers {
        /// What changes of them.
        members: NetworkMembers,
    },
    /// Makes a tap that dies with this process, without carrier and not up.
    CreateTap {
        /// Whose device.
        port: PortId,
        /// The index it is to have (`TUNSETIFINDEX`).
        index: u32,
        /// Its name.
        name: LinkName,
        /// 1, or more for `IFF_MULTI_QUEUE`.
        queues: u16,
        /// Whether frames carry virtio-net headers.
        vnet_hdr: bool,
        /// Who may open it; uid 0 when no owner is named.
        owner: Owner,
    },
    /// Undoes [`Op::CreateTap`] while the tap is not persistent.
    CloseTap {
        /// Whose device.
        port: PortId,
    },
    /// Makes a veth pair, the other end in the namespace from the start and with an index of the kernel's choice there, marks
    /// the host's end and turns its IPv6 address generation off in the same send; neither end is up.
    CreateVeth {
        /// Whose device.
        port: PortId,
        /// The index of the host's end.
        index: u32,
        /// The name of the host's end.
        name: LinkName,
        /// Where the namespace is mounted.
        netns: PathBuf,
        /// Which namespace that must be.
        pin: NetnsPin,
        /// The name of the guest's end; none for the lowest free `eth%d`.
        guest_name: Option<LinkName>,
        /// The guest's MAC.
        guest_mac: Mac,
        /// The guest's MTU in bytes.
        guest_mtu: u32,
        /// The MAC of the host's end.
        mac: Mac,
        /// The MTU of the host's end in bytes.
        mtu: u32,
    },
    /// Makes a VLAN device of another port's device, marks it and keeps the host's IP from it in the same send; it is not up. It is up
    /// or down of its own accord, whatever the device below is, and ends with that.
    CreateVlanNic {
        /// Whose device.
        port: PortId,
        /// The index it is to have.
        index: u32,
        /// Its name.
        name: LinkName,
        /// The port on whose device it is.
        parent: PortId,
        /// The VLAN.
        id: u16,
        /// Its MAC.
        mac: Mac,
        /// Its MTU in bytes.
        mtu: u32,
    },
    /// Changes the host's side of a port, as a link and as a bridge port.
    Configure {
        /// Whose device.
        port: PortId,
        /// How it is addressed.
        at: At,
        /// What to change, in the order of its messages.
        changes: BTreeSet<LinkChange>,
    },
    /// Lets a tap outlive this process (`TUNSETPERSIST`), and closes it.
    Persist {
        /// Whose device.
        port: PortId,
    },
    /// Gives the guest's end, which is the peer of the host's, its MTU, addresses and routes and sets it up, in one send
    /// inside the namespace. Of a NIC that an earlier run made, what is no longer listed goes.
    ConfigureGuest {
        /// Whose device.
        port: PortId,
        /// Where the namespace is mounted.
        netns: PathBuf,
        /// Which namespace that must be.
        pin: NetnsPin,
        /// What to set.
        settings: GuestSettings,
    },
    /// Gives a device that lost its altname that altname back: the link with this index, as long as it has this alias, or neither an alias
    /// nor an altname of nicd's. It is given the alias as well then.
    RestoreAltname {
        /// Whose device.
        port: PortId,
        /// The link's index.
        index: u32,
        /// Its alias, which names the store and the commit.
        alias: String,
    },
    /// Gives an agent-made bridge that lost its altname that altname back: the bridge with this index, as long as it has this alias.
    RestoreBridgeAltname {
        /// Whose bridge.
        network: NetworkId,
        /// The bridge's index.
        index: u32,
        /// Its alias, which names the store and the network.
        alias: String,
    },
    /// Sets the device up or down.
    SetLink {
        /// Whose device.
        port: PortId,
        /// Which.
        switch: Switch,
    },
    /// Takes the device out of its bridge.
    Unbind {
        /// Whose device.
        port: PortId,
    },
    /// Moves the device into a group of links to be deleted together.
    SetGroup {
        /// Whose device.
        port: PortId,
        /// The group, never 0.
        group: u32,
    },
    /// Deletes every link of a group. Refused when the group holds anything but these ports' devices, or one that a process
    /// holds open and that is not forced.
    DeleteGroup {
        /// The group, never 0.
        group: u32,
        /// Whose devices are in it.
        ports: Vec<PortId>,
        /// Those of them whose device is deleted also while a process holds it open.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        forced: Vec<PortId>,
        /// The store of the nicd that made them.
        store: Uuid,
    },
    /// Plugs a port's NIC into a virtual machine that runs, by the machine's monitor: it is given its device, and a virtio NIC on it.
    /// Carried out by the reconciler, as a machine may take its time (`reconcile/machines`).
    PlugNic {
        /// Whose device.
        port: PortId,
        /// The monitor's socket.
        qmp: PathBuf,
        /// The guest's MAC.
        mac: Mac,
        /// The guest's MTU in bytes.
        mtu: u32,
    },
    /// Unplugs a port's NIC from a virtual machine, which closes the device then. Carried out as [`Op::PlugNic`] is.
    UnplugNic {
        /// Whose device.
        port: PortId,
        /// The monitor's socket.
        qmp: PathBuf,
    },
    /// Deletes a port's device, unless another nicd made it, or none.
    DeleteLink {
        /// Whose device.
        port: PortId,
        /// The store of the nicd that made it.
        store: Uuid,
    },
}

/// A set of security groups by its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumberedProfile {
    /// Its number.
    pub number: u32,
    /// What it allows; none where no port is in it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
}

/// What the device with an index may send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexFilter {
    /// The device's index.
    pub index: u32,
    /// What it may send.
    #[serde(flatten)]
    pub filter: Filter,
}

/// How a device is addressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum At {
    /// By the index chosen for it: it is being made, has no mark yet, and dies with this process.
    Index(u32),
    /// By its altname, which no other link can have.
    Altname,
}

/// Up or down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Switch {
    /// `IFF_UP` set.
    Up,
    /// `IFF_UP` not set.
    Down,
}

/// One change of an agent-made bridge, in the order in which they are made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BridgeChange {
    /// Sets its MAC.
    Mac(Mac),
    /// Sets its MTU in bytes.
    Mtu(u32),
    /// Sets its alias; an empty one takes the alias away.
    Alias(String),
    /// Keeps the host's IP from it: turns IPv6 address generation off, and closes it to IPv4.
    HostIpOff,
    /// Takes an address off it.
    RemoveAddress(Address),
    /// Turns the spanning tree protocol off.
    StpOff,
    /// Turns VLAN filtering off.
    VlanFilteringOff,
    /// Turns multicast snooping off.
    MulticastSnoopingOff,
    /// Sets it up or down.
    Switch(Switch),
}

/// One change of the device that leads a network to other hosts, in the order in which they are made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SegmentChange {
    /// Sets its MTU in bytes.
    Mtu(u32),
    /// Sets its alias; an empty one takes the alias away.
    Alias(String),
    /// Has it learn nothing, as a VXLAN device.
    LearningOff,
    /// Puts it into the bridge with this index; 0 takes it out.
    Master(u32),
    /// Keeps the host's IP from it: turns IPv6 address generation off, and closes it to IPv4.
    HostIpOff,
    /// Takes an address off it.
    RemoveAddress(Address),
    /// Sets its flags as a bridge's port to those of one that leads to tunnels: the bridge learns nothing from it, delivers nothing from it
    /// to the host, and answers ARP and neighbour discovery itself that it would else send to it, or does not.
    TunnelPortFlags {
        /// Whether it answers them itself.
        suppress: bool,
    },
    /// Sets it up or down.
    Switch(Switch),
}

/// One change of the host's side of a port, in the order in which they are made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkChange {
    /// Adds the altname of the port's device. Only for [`At::Index`].
    Altname,
    /// Sets the MAC of the host's side.
    Mac(Mac),
    /// Sets the MTU in bytes.
    Mtu(u32),
    /// Puts it into the bridge with this index; 0 takes it out.
    Master(u32),
    /// Makes it untagged in this VLAN of its bridge, and takes it out of every other one.
    Pvid(u16),
    /// Keeps the host's IP from it: turns IPv6 address generation off, and closes it to IPv4.
    HostIpOff,
    /// Takes an address off the host's side.
    RemoveAddress(Address),
    /// Enters a guest's MAC into the bridge's FDB, in each VLAN of the port: static, so that it does not age, and sticky, so
    /// that no frame moves it. What another entry says of the MAC is replaced.
    FdbEntry(Mac),
    /// Sets the rate of what it sends to its guest; none lifts it.
    ToGuest(Option<TokenBucket>),
    /// Whether the bridge learns addresses from this port.
    Learning(bool),
    /// Whether the bridge sends frames for MACs that have no entry to this port.
    UnicastFlood(bool),
    /// Whether the bridge drops what comes from this port unless its FDB has an entry for the source that leads to it.
    Locked(bool),
    /// Whether the bridge's spanning tree disables this port when a BPDU comes from it (`BR_BPDU_GUARD`).
    BpduGuard(bool),
    /// Has the bridge port forward frames to 01:80:c2:00:00:0X instead of giving them to the host.
    PassLinkLocal,
    /// Lets the bridge port forward again.
    Forwarding,
    /// Sets the bridge port's other flags back to what the kernel makes ports with.
    ResetPortFlags,
    /// Writes the ownership tag, which says that the device is complete, and in the same message the admin state. It comes
    /// after all the rest, and after the guest's end is set up.
    Tag {
        /// The alias: the store's id and the commit number of the intent.
        alias: String,
        /// Up, unless the port is admin down.
        switch: Switch,
    },
    /// Holds what comes in by it to an exact rate, by a device of its own (`ifb`) that is made for it; none lifts that.
    FromGuest(Option<TokenBucket>),
}

/// What a guest in a namespace is given when its NIC is built.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestSettings {
    /// The NIC's name; none for the lowest free `eth%d`.
    pub name: Option<LinkName>,
    /// Its addresses; v6 ones are set without duplicate address detection.
    pub addresses: Vec<Address>,
    /// Its routes.
    pub routes: Vec<Route>,
    /// The MTU of its NIC in bytes; none leaves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The metric of every route nicd gives this NIC, by which routes of an earlier run are known.
    #[serde(default)]
    pub metric: u32,
    /// The network's ranges: when a NIC that is there is changed, its addresses in them that are not listed go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<IpNetwork>,
}

/// A route of the guest by its NIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where to; `0.0.0.0/0` or `::/0` for the default.
    pub destination: IpNetwork,
    /// The next hop.
    pub via: IpAddr,
    /// Whether the next hop is reached on the link although no address of the guest's covers it.
    pub onlink: bool,
    /// The metric; lower wins.
    pub metric: u32,
}

impl Op {
    /// Whether what this op does stays when the process dies. Such an op waits until its intent is durable.
    pub fn outlives_the_process(&self) -> bool {
        match self {
            Self::SetFilter { before_device, .. } => !before_device,
            Self::CreateTap { .. } | Self::CloseTap { .. } | Self::Configure { at: At::Index(_), .. } => false,
            Self::CreateBridge { .. }
            | Self::CloseBridge { .. }
            | Self::SetBridge { .. }
            | Self::DeleteBridge { .. }
            | Self::CreateVlan { .. }
            | Self::CreateVxlan { .. }
            | Self::SetEntries { .. }
            | Self::SetSegment { .. }
            | Self::RestoreSegmentAltname { .. }
            | Self::DeleteSegment { .. }
            | Self::AdoptUplink { .. }
            | Self::ReleaseUplink { .. }
            | Self::SetProfiles { .. }
            | Self::SetMembers { .. }
            | Self::CreateVeth { .. }
            | Self::CreateVlanNic { .. }
            | Self::Configure { at: At::Altname, .. }
            | Self::Persist { .. }
            | Self::ConfigureGuest { .. }
            | Self::RestoreAltname { .. }
            | Self::RestoreBridgeAltname { .. }
            | Self::SetLink { .. }
            | Self::Unbind { .. }
            | Self::SetGroup { .. }
            | Self::DeleteGroup { .. }
            | Self::PlugNic { .. }
            | Self::UnplugNic { .. }
            | Self::DeleteLink { .. } => true,
        }
    }

    /// Whether a look at the device shows it before as behind, but that a tap is persistent then.
    pub fn shows_nothing(&self) -> bool {
        matches!(self, Self::Persist { .. })
    }

    /// The port whose device it is about; none where that is a bridge, or several devices.
    pub fn port(&self) -> Option<PortId> {
        match self {
            Self::CreateBridge { .. }
            | Self::CloseBridge { .. }
            | Self::SetBridge { .. }
            | Self::DeleteBridge { .. }
            | Self::RestoreBridgeAltname { .. }
            | Self::CreateVlan { .. }
            | Self::CreateVxlan { .. }
            | Self::SetEntries { .. }
            | Self::SetSegment { .. }
            | Self::RestoreSegmentAltname { .. }
            | Self::DeleteSegment { .. }
            | Self::AdoptUplink { .. }
            | Self::ReleaseUplink { .. }
            | Self::SetProfiles { .. }
            | Self::SetMembers { .. }
            | Self::DeleteGroup { .. } => None,
            Self::SetFilter { port, .. }
            | Self::CreateTap { port, .. }
            | Self::CloseTap { port, .. }
            | Self::CreateVeth { port, .. }
            | Self::CreateVlanNic { port, .. }
            | Self::Configure { port, .. }
            | Self::Persist { port, .. }
            | Self::ConfigureGuest { port, .. }
            | Self::RestoreAltname { port, .. }
            | Self::SetLink { port, .. }
            | Self::Unbind { port, .. }
            | Self::SetGroup { port, .. }
            | Self::PlugNic { port, .. }
            | Self::UnplugNic { port, .. }
            | Self::DeleteLink { port, .. } => Some(*port),
        }
    }

    /// The op's name, as in its JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::CreateBridge { .. } => "create_bridge",
            Self::CloseBridge { .. } => "close_bridge",
            Self::SetBridge { .. } => "set_bridge",
            Self::DeleteBridge { .. } => "delete_bridge",
            Self::CreateVlan { .. } => "create_vlan",
            Self::CreateVxlan { .. } => "create_vxlan",
            Self::SetEntries { .. } => "set_entries",
            Self::SetSegment { .. } => "set_segment",
            Self::RestoreSegmentAltname { .. } => "restore_segment_altname",
            Self::DeleteSegment { .. } => "delete_segment",
            Self::AdoptUplink { .. } => "adopt_uplink",
            Self::ReleaseUplink { .. } => "release_uplink",
            Self::SetFilter { .. } => "set_filter",
            Self::SetProfiles { .. } => "set_profiles",
            Self::SetMembers { .. } => "set_members",
            Self::CreateTap { .. } => "create_tap",
            Self::CloseTap { .. } => "close_tap",
            Self::CreateVeth { .. } => "create_veth",
            Self::CreateVlanNic { .. } => "create_vlan_nic",
            Self::Configure { .. } => "configure",
            Self::Persist { .. } => "persist",
            Self::ConfigureGuest { .. } => "configure_guest",
            Self::RestoreAltname { .. } => "restore_altname",
            Self::RestoreBridgeAltname { .. } => "restore_bridge_altname",
            Self::SetLink { .. } => "set_link",
            Self::Unbind { .. } => "unbind",
            Self::SetGroup { .. } => "set_group",
            Self::DeleteGroup { .. } => "delete_group",
            Self::PlugNic { .. } => "plug_nic",
            Self::UnplugNic { .. } => "unplug_nic",
            Self::DeleteLink { .. } => "delete_link",
        }
    }
}
