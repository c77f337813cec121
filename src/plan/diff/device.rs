//! The rules about a port's device.

use std::collections::BTreeSet;

use crate::model::names;
use crate::plan::desired::{BridgeMade, DesiredBridge, DesiredNic, DesiredPort, Speaks};
use crate::plan::filter::{DeviceFilter, Filter};
use crate::plan::forward::Way;
use crate::plan::observed::{
    BridgePort, FdbEntry, LinkState, MachineNic, Observed, PortVlan, TokenBucket, Traces, VlanProtocol, VlanTag,
};
use crate::plan::op::LinkChange;

use super::words::{addresses, closed, off, owned, several, up, vlan_remedy};
use super::{Bridge, Facet, FactName, Pair, Property, home_mtu, or_none, pair};

/// How one property of a device is compared, told and brought back.
#[derive(Debug)]
pub struct Rule {
    /// Which.
    pub property: Property,
    /// The stable word for a difference.
    pub word: &'static str,
    /// The fact that a difference breaks.
    pub fact: Option<FactName>,
    /// As what a difference that another program keeps making is counted; none where nothing brings it back.
    pub facet: Option<Facet>,
    differs: fn(&Device<'_>) -> bool,
    words: fn(&Device<'_>) -> Pair,
    changes: fn(&Device<'_>) -> Vec<LinkChange>,
}

impl Rule {
    /// What would be right, and what was found.
    pub fn words(&self, device: &Device<'_>) -> (String, String) {
        (self.words)(device)
    }

    const fn breaks(self, fact: FactName) -> Self {
        Self { fact: Some(fact), ..self }
    }

    const fn counts_as(self, facet: Facet) -> Self {
        Self { facet: Some(facet), ..self }
    }
}

const fn rule(
    property: Property,
    word: &'static str,
    differs: fn(&Device<'_>) -> bool,
    words: fn(&Device<'_>) -> Pair,
    changes: fn(&Device<'_>) -> Vec<LinkChange>,
) -> Rule {
    Rule { property, word, fact: None, facet: None, differs, words, changes }
}

/// A port's device beside what it is to be.
#[derive(Debug, Clone, Copy)]
pub struct Device<'a> {
    /// What is wanted.
    pub want: &'a DesiredPort,
    /// The bridge that is wanted.
    pub bridge: &'a DesiredBridge,
    /// What is there.
    pub have: &'a Observed,
    /// The device.
    pub link: &'a LinkState,
    /// Whether it has its altname.
    pub marked: bool,
    /// The bridge it is to be in, where that is there.
    pub home: Option<&'a LinkState>,
}

impl<'a> Device<'a> {
    /// A port's device, also one that lost its altname; none when there is none.
    pub fn find(want: &'a DesiredPort, bridge: &'a DesiredBridge, have: &'a Observed) -> Option<Self> {
        let lost = || {
            let known = Traces { alias: &want.alias, mac: Some(want.mac), index: want.seen };
            have.lost_device(&known).filter(|seen| seen.kind == want.nic.kind())
        };
        let marked = have.device(want.id);
        let link = marked.or_else(lost)?;
        Some(Self { want, bridge, have, link, marked: marked.is_some(), home: Bridge::find(bridge, have).map(|home| home.link) })
    }

    /// The properties that differ.
    pub fn differences(&self) -> impl Iterator<Item = &'static Rule> + use<'a> {
        let device = *self;
        RULES.iter().filter(move |rule| (rule.differs)(&device))
    }

    /// Whether a property differs.
    pub fn differs(&self, property: Property) -> bool {
        self.differences().any(|rule| rule.property == property)
    }

    /// Whether a property differs on which a fact rests.
    pub fn breaks(&self, fact: FactName) -> bool {
        RULES.iter().filter(|rule| rule.fact == Some(fact)).any(|rule| (rule.differs)(self))
    }

    /// Whether it is another kind of link than wanted, or a tap that its maker died over and another process holds, which goes
    /// with that one: a new one takes its place.
    pub fn is_replaced(&self) -> bool {
        self.differs(Property::Kind)
            || self.differs(Property::Carrier)
            || self.link.alias.is_none() && self.differs(Property::Persistent)
    }

    /// Whether it is in another bridge than wanted, or in none; of one that is to be silent, whether it is in any.
    pub fn is_away(&self) -> bool {
        if self.want.silent {
            return self.link.master.is_some();
        }
        self.home.is_none_or(|home| self.link.master != Some(home.index))
    }

    /// What brings it back, as a link and as a bridge's port.
    pub(in crate::plan) fn changes(&self) -> BTreeSet<LinkChange> {
        self.differences().flat_map(|rule| (rule.changes)(self)).collect()
    }

    /// What undoes a change of it; nothing where that is nothing. A MAC that another program set may be another guest's: it is
    /// not restored.
    pub(in crate::plan) fn undo(&self, change: &LinkChange) -> Vec<LinkChange> {
        let port = self.link.bridge_port;
        match change {
            LinkChange::Mtu(_) => vec![LinkChange::Mtu(self.link.mtu)],
            LinkChange::Master(_) => {
                let passed = port.filter(|port| port.passes_link_local).map(|_| LinkChange::PassLinkLocal);
                [LinkChange::Master(self.link.master.unwrap_or(0))].into_iter().chain(passed).collect()
            }
            LinkChange::Learning(_) => port.map(|port| LinkChange::Learning(port.learning)).into_iter().collect(),
            LinkChange::UnicastFlood(_) => port.map(|port| LinkChange::UnicastFlood(port.unicast_flood)).into_iter().collect(),
            LinkChange::BpduGuard(_) => port.map(|port| LinkChange::BpduGuard(port.bpdu_guard)).into_iter().collect(),
            LinkChange::Locked(_) => port.map(|port| LinkChange::Locked(port.locked)).into_iter().collect(),
            // A burst of 0 is none that can be set.
            LinkChange::ToGuest(_) if self.link.to_guest.is_none_or(|bucket| bucket.burst > 0) => {
                vec![LinkChange::ToGuest(self.link.to_guest)]
            }
            LinkChange::FromGuest(_) if self.link.from_guest.is_none_or(|bucket| bucket.burst > 0) => {
                vec![LinkChange::FromGuest(self.link.from_guest)]
            }
            _ => vec![],
        }
    }

    /// Its settings as a port of the bridge that it is to be in; none while it is in another.
    fn port<T>(&self, read: impl FnOnce(BridgePort) -> T) -> Option<T> {
        self.link.bridge_port.filter(|_| !self.is_away()).map(read)
    }

    /// What untagged frames meet at it; none where its bridge tells no VLANs apart, or it was not asked.
    fn untagged(&self) -> Option<PortVlan> {
        self.link.vlan.filter(|_| self.home.is_some_and(|home| home.extras.vlan_filtering))
    }

    /// Whether it is untagged in this VLAN of its bridge, and in no other.
    fn is_alone_in(&self, pvid: u16) -> bool {
        self.untagged().is_some_and(|vlan| vlan.pvid == pvid && vlan.passes() && !vlan.others)
    }

    /// What frames of its guest's protocols meet in the host's packet filter: of both, where it has no address.
    fn ways(&self) -> impl Iterator<Item = (&'static str, &'a Way)> + use<'a> {
        let Speaks { v4, v6 } = self.want.speaks;
        let forward = self.home.map(|home| &home.forward);
        let both = forward.into_iter().flat_map(move |forward| [("IPv4", v4, &forward.v4), ("IPv6", v6, &forward.v6)]);
        both.filter(move |(_, speaks, _)| *speaks || v4 == v6).map(|(protocol, _, way)| (protocol, way))
    }

    fn home_index(&self) -> Option<u32> {
        match (self.home, &self.bridge.made) {
            (Some(home), _) => Some(home.index),
            (None, BridgeMade::ByAgent { index, .. }) => Some(*index),
            (None, BridgeMade::Existing { .. }) => None,
        }
    }

    fn mtu(&self) -> Option<u32> {
        home_mtu(self.bridge, self.home, self.want.mtu, self.have)
    }

    /// The rate of what it is to send to its guest.
    fn rate_to_guest(&self) -> Option<TokenBucket> {
        self.want.to_guest.map(|bucket| bucket.with_room(self.mtu().unwrap_or(self.link.mtu)))
    }

    /// The exact rate of what its guest is to send.
    fn rate_from_guest(&self) -> Option<TokenBucket> {
        self.want.from_guest.map(|bucket| bucket.with_room(self.mtu().unwrap_or(self.link.mtu)))
    }

    /// The entry that its bridge is to have, and what it has.
    fn entry_words(&self) -> Pair {
        pair(format_args!("{} is at {}, static and sticky", self.want.mac, self.link.name), self.entered())
    }

    fn entry_is(&self, right: impl FnOnce(FdbEntry) -> bool) -> bool {
        self.want.silent || self.link.fdb.is_none() || self.link.entry(self.want.mac, self.link.entry_vlan()).is_some_and(right)
    }

    /// Whether it may send something else than wanted. A port that may send anything needs no filter.
    fn is_filtered_otherwise(&self) -> bool {
        match (&self.want.filter, &self.link.filter) {
            (None, _) => false,
            (Some(want), DeviceFilter::Unavailable) => !want.is_open(),
            (Some(want), have) => have.of(self.want.id) != Some(want),
        }
    }

    /// What it is to be allowed to send, and what it may send.
    fn filter_words(&self) -> Pair {
        let want = self.want.filter.as_ref().map_or_else(|| "anything".to_owned(), Filter::to_string);
        pair(want, self.filtered())
    }

    /// What it may send.
    pub(in crate::plan) fn filtered(&self) -> String {
        match &self.link.filter {
            DeviceFilter::Unavailable => "anything: the kernel filters nothing".to_owned(),
            DeviceFilter::Closed => "nothing: it has no elements in table bridge nicd".to_owned(),
            DeviceFilter::Set { port, .. } if *port != self.want.id => format!("what port {port} may send"),
            DeviceFilter::Set { filter, .. } => filter.to_string(),
        }
    }

    fn is_owned_as_wanted(&self) -> bool {
        match (&self.want.nic, self.link.tap) {
            (DesiredNic::Tap { owner, .. }, Some(tap)) => {
                let owner = owner.of_tap();
                (owner.uid, owner.gid) == (tap.uid, tap.gid)
            }
            _ => true,
        }
    }

    /// Whether its machine has it as a NIC, and holds it open: a NIC whose backend is gone has no link.
    fn is_plugged(&self) -> bool {
        self.link.is_held() && matches!(self.have.nic(self.want.id), Some(MachineNic::Plugged { .. }))
    }

    /// The device that is to carry its frames, where that is there, and the tag that they have there; none of a port with a NIC of its own.
    fn carrier(&self) -> Option<(Option<u32>, VlanTag)> {
        match &self.want.nic {
            DesiredNic::Vlan { parent, id } => {
                let tag = VlanTag { id: *id, protocol: VlanProtocol::Dot1q };
                Some((self.have.device(*parent).map(|parent| parent.index), tag))
            }
            DesiredNic::Tap { .. } | DesiredNic::Veth { .. } => None,
        }
    }

    /// Whether it has carrier, and what carries its frames as well: a VLAN device keeps its own when the link below is set down.
    pub(in crate::plan) fn runs(&self) -> bool {
        let carrier = self.carrier().map(|(parent, _)| parent.and_then(|index| self.have.link(index)));
        self.link.lower_up && carrier.is_none_or(|parent| parent.is_some_and(|parent| parent.lower_up))
    }

    fn twin(&self) -> Option<&'a LinkState> {
        self.have.with_mac_on(self.want.mac, self.home?.index)
    }
}

/// What was found about it, in words.
impl Device<'_> {
    /// What untagged frames meet at it.
    pub fn tagging(&self) -> String {
        let home = self.home.map_or("the bridge", |home| home.name.as_str());
        let device = &self.link.name;
        match self.untagged() {
            None => format!("{home} does not tell VLANs apart"),
            Some(PortVlan { pvid: 0, .. }) => {
                format!(
                    "{home} tells VLANs apart and {device} has no pvid: the guest's frames are dropped; {}",
                    vlan_remedy(device, None)
                )
            }
            Some(PortVlan { pvid, untagged: false, .. }) => {
                let remedy = vlan_remedy(device, Some(pvid));
                format!("frames of VLAN {pvid} of {home} leave by {device} tagged, and the guest takes untagged ones; {remedy}")
            }
            Some(PortVlan { pvid, blocked: true, .. }) => format!("{home} does not forward VLAN {pvid} at {device}"),
            Some(PortVlan { pvid, others: true, .. }) if self.bridge.pvid().is_some() => {
                format!("{device} is in other VLANs of {home} beside {pvid}")
            }
            Some(PortVlan { pvid, .. }) => format!("{device} is untagged in VLAN {pvid} of {home}"),
        }
    }

    /// What its guest's frames meet in the host's packet filter.
    pub fn filtering(&self) -> String {
        let told = self.ways().filter_map(|(protocol, way)| match way {
            Way::Open => None,
            Way::Unsure(chain) => {
                Some(format!("{chain} decides about {protocol} between guests by rules that are not known to nicd"))
            }
            Way::Closed(chain) => Some(format!("{chain} drops {protocol} between guests")),
        });
        match told.collect::<Vec<_>>() {
            told if told.is_empty() => "the host's packet filter lets frames between guests pass".to_owned(),
            told => told.join("; "),
        }
    }

    /// What its machine says of it.
    pub(in crate::plan) fn plugged(&self) -> String {
        let nic = names::machine_nic(self.want.id);
        match self.have.nic(self.want.id) {
            None => "the machine was not asked yet".to_owned(),
            Some(MachineNic::Missing { detail, .. }) => detail.clone(),
            Some(MachineNic::Plugged { .. }) if !self.link.is_held() => {
                format!("the machine had it as {nic}, and no process holds {} open", self.link.name)
            }
            Some(MachineNic::Plugged { pci_address: None }) => format!("the machine has it as {nic}"),
            Some(MachineNic::Plugged { pci_address: Some(address) }) => format!("the machine has it as {nic} at {address}"),
        }
    }

    /// What the FDB has for its guest.
    pub fn entered(&self) -> String {
        let (mac, link, vlan) = (self.want.mac, self.link, self.link.entry_vlan());
        let within = if vlan == 0 { String::new() } else { format!(" in VLAN {vlan}") };
        match (&link.fdb, link.entry(mac, vlan)) {
            (None, _) => format!("the FDB was not asked for {mac}"),
            (_, None) => format!("no static entry for {mac}{within} leads to {}", link.name),
            (_, Some(entry)) => {
                let sticky = if entry.sticky { " and sticky" } else { "" };
                format!("{mac}{within} is at {}, static{sticky}", link.name)
            }
        }
    }
}

/// What makes a device a port of the bridge with the index `home`.
pub(in crate::plan) fn bridge_port(port: &DesiredPort, bridge: &DesiredBridge, home: u32) -> Vec<LinkChange> {
    let mut changes = vec![
        LinkChange::Master(home),
        LinkChange::FdbEntry(port.mac),
        LinkChange::Learning(false),
        LinkChange::UnicastFlood(port.unknown_unicast),
    ];
    changes.extend(bridge.pvid().map(LinkChange::Pvid));
    changes.extend(port.is_guarded().then_some(LinkChange::BpduGuard(true)));
    changes.extend(port.has_one_mac().then_some(LinkChange::Locked(true)));
    changes.extend(bridge.made.closes().then_some(LinkChange::PassLinkLocal));
    changes
}

/// The facets in which a port's device drifted: itself alone, where it is made anew.
pub fn drift(want: &DesiredPort, bridge: &DesiredBridge, have: &Observed) -> BTreeSet<Facet> {
    match Device::find(want, bridge, have) {
        None => BTreeSet::from([Facet::Device]),
        Some(device) if device.is_replaced() => BTreeSet::from([Facet::Device]),
        Some(device) => {
            let altname = (!device.marked).then_some(Facet::Altname);
            device.differences().filter_map(|rule| rule.facet).chain(altname).collect()
        }
    }
}

static RULES: [Rule; 31] = [
    rule(
        Property::Kind,
        "kind",
        |at| at.link.kind != at.want.nic.kind(),
        |at| pair(at.want.nic.kind().as_str(), at.link.kind.as_str()),
        // It is made anew.
        |_| vec![],
    )
    .counts_as(Facet::Device),
    rule(
        Property::Carrier,
        "carrier_device",
        |at| at.carrier().is_some_and(|(parent, id)| (at.link.lower, at.link.tag) != (parent, Some(id))),
        |at| {
            let called = |index: Option<u32>| or_none(index.and_then(|index| at.have.link(index)).map(|link| &link.name));
            let want = at.carrier().map(|(parent, tag)| format!("{tag} on {}", called(parent)));
            pair(or_none(want), format_args!("{} on {}", or_none(at.link.tag), called(at.link.lower)))
        },
        // It is made anew.
        |_| vec![],
    )
    .counts_as(Facet::Device),
    rule(
        Property::Bridge,
        "bridge",
        |at| at.is_away(),
        |at| {
            let want = match (at.home, &at.bridge.made) {
                (Some(home), _) => home.name.clone(),
                (None, BridgeMade::Existing { name }) => name.to_string(),
                (None, BridgeMade::ByAgent { .. }) => names::network_altname(at.bridge.network),
            };
            let called = |index| at.have.link(index).map_or_else(|| format!("index {index}"), |bridge| bridge.name.clone());
            (if at.want.silent { "none".to_owned() } else { want }, or_none(at.link.master.map(called)))
        },
        // It loses all that it was as a port. One that is to be in no bridge is taken out by an op of its own.
        |at| at.home_index().filter(|_| !at.want.silent).map(|home| bridge_port(at.want, at.bridge, home)).unwrap_or_default(),
    )
    .breaks(FactName::Bridge)
    .counts_as(Facet::Bridge),
    rule(
        Property::Mac,
        "mac",
        |at| at.link.mac != Some(at.want.mac.host_side()),
        |at| pair(at.want.mac.host_side(), or_none(at.link.mac)),
        |at| vec![LinkChange::Mac(at.want.mac.host_side())],
    )
    .counts_as(Facet::Mac),
    rule(
        Property::Mtu,
        "mtu",
        |at| at.mtu().is_some_and(|mtu| mtu != at.link.mtu),
        |at| pair(or_none(at.mtu()), at.link.mtu),
        |at| at.mtu().map(LinkChange::Mtu).into_iter().collect(),
    )
    .counts_as(Facet::Mtu),
    rule(
        Property::GuestMac,
        "duplicate_mac",
        |at| at.twin().is_some(),
        |at| {
            let twin = at.twin().map_or("another link", |twin| twin.name.as_str());
            pair("a MAC of its own on its bridge", format_args!("{twin} has {} too", at.want.mac))
        },
        |_| vec![],
    ),
    rule(
        Property::Alias,
        "alias",
        |at| at.link.alias.as_deref() != Some(at.want.alias.as_str()),
        |at| pair(&at.want.alias, or_none(at.link.alias.as_deref())),
        // It is written last; what an unfinished device has in the FDB was not looked for.
        |at| (!at.want.silent).then_some(LinkChange::FdbEntry(at.want.mac)).into_iter().collect(),
    )
    .breaks(FactName::Built)
    .counts_as(Facet::Alias),
    rule(
        Property::Up,
        "up",
        |at| at.link.up != at.want.admin_up,
        |at| pair(up(at.want.admin_up), up(at.link.up)),
        // An op of its own.
        |_| vec![],
    )
    .counts_as(Facet::Up),
    rule(
        Property::AddressGeneration,
        "address_generation",
        |at| at.link.v6_autoconf,
        |_| pair("off", "on"),
        |_| vec![LinkChange::HostIpOff],
    )
    .counts_as(Facet::AddressGeneration),
    rule(Property::HostIpv4, "host_ipv4", |at| at.link.v4_open, |_| pair("off", "on"), |_| vec![LinkChange::HostIpOff])
        .counts_as(Facet::AddressGeneration),
    rule(
        Property::HostAddresses,
        "host_address",
        |at| !at.link.foreign_addresses.is_empty(),
        |at| pair("none", addresses(at.link)),
        |at| at.link.foreign_addresses.iter().copied().map(LinkChange::RemoveAddress).collect(),
    )
    .counts_as(Facet::Addresses),
    rule(
        Property::Learning,
        "learning",
        |at| at.port(|port| port.learning) == Some(true),
        |_| pair("off", "on"),
        |_| vec![LinkChange::Learning(false)],
    )
    .counts_as(Facet::PortFlags),
    rule(
        Property::UnicastFlood,
        "unicast_flood",
        |at| at.port(|port| port.unicast_flood) == Some(!at.want.unknown_unicast),
        |at| pair(off(at.want.unknown_unicast), off(!at.want.unknown_unicast)),
        |at| vec![LinkChange::UnicastFlood(at.want.unknown_unicast)],
    )
    .counts_as(Facet::PortFlags),
    rule(
        Property::Locked,
        "locked",
        |at| at.port(|port| port.locked) == Some(!at.want.has_one_mac()),
        |at| pair(off(at.want.has_one_mac()), off(!at.want.has_one_mac())),
        |at| vec![LinkChange::Locked(at.want.has_one_mac())],
    )
    .counts_as(Facet::PortFlags),
    rule(
        Property::BpduGuard,
        "bpdu_guard",
        |at| at.port(|port| port.bpdu_guard) == Some(!at.want.is_guarded()),
        |at| pair(off(at.want.is_guarded()), off(!at.want.is_guarded())),
        |at| vec![LinkChange::BpduGuard(at.want.is_guarded())],
    )
    .counts_as(Facet::PortFlags),
    rule(
        Property::ToGuest,
        "limit_to_guest",
        |at| at.link.to_guest != at.rate_to_guest(),
        |at| pair(or_none(at.rate_to_guest()), or_none(at.link.to_guest)),
        |at| vec![LinkChange::ToGuest(at.rate_to_guest())],
    )
    .counts_as(Facet::ToGuest),
    rule(
        Property::FromGuest,
        "limit_from_guest",
        |at| at.link.from_guest != at.rate_from_guest(),
        |at| pair(or_none(at.rate_from_guest()), or_none(at.link.from_guest)),
        |at| vec![LinkChange::FromGuest(at.rate_from_guest())],
    )
    .counts_as(Facet::ToGuest),
    rule(
        Property::PortState,
        "port_state",
        |at| at.port(|port| port.held) == Some(true),
        |_| pair("forwarding", "not forwarding"),
        |_| vec![LinkChange::Forwarding],
    )
    .counts_as(Facet::PortFlags),
    rule(
        Property::HostClosed,
        "host_closed",
        |at| !at.want.silent && at.bridge.made.closes() && at.port(|port| port.passes_link_local) == Some(false),
        |_| pair(closed(true), closed(false)),
        |_| vec![LinkChange::PassLinkLocal],
    )
    .breaks(FactName::HostClosed)
    .counts_as(Facet::PortFlags),
    rule(
        Property::PortFlags,
        "port_flags",
        |at| at.port(|port| port.altered || port.suppresses) == Some(true),
        |_| pair("as made", "altered"),
        |_| vec![LinkChange::ResetPortFlags],
    )
    .counts_as(Facet::PortFlags),
    rule(
        Property::Filter,
        "filter",
        |at| at.is_filtered_otherwise(),
        |at| at.filter_words(),
        // An op of its own.
        |_| vec![],
    )
    .breaks(FactName::Filters)
    .counts_as(Facet::Filter),
    rule(
        Property::FilterEffect,
        "filters_unproven",
        |at| at.link.unproven && at.want.filter.as_ref().is_some_and(|filter| filter.guard.is_some()),
        |_| pair("the kernel drops what it may not send", "the check at the start failed"),
        // Nothing brings it about.
        |_| vec![],
    )
    .breaks(FactName::Filters),
    rule(
        Property::Vlan,
        "vlan",
        |at| !at.want.silent && at.bridge.pvid().is_none() && at.untagged().is_some_and(|vlan| !vlan.passes()),
        |at| pair("untagged frames pass", at.tagging()),
        |_| vec![],
    )
    .breaks(FactName::Vlan),
    rule(
        Property::Pvid,
        "pvid",
        |at| at.bridge.pvid().is_some_and(|pvid| !at.want.silent && !at.is_away() && !at.is_alone_in(pvid)),
        |at| pair(at.bridge.pvid().map(|pvid| format!("untagged in VLAN {pvid} alone")).unwrap_or_default(), at.tagging()),
        // An operator's bridge is never changed: one that tells VLANs apart no longer stays so.
        |at| match at.bridge.pvid().filter(|_| at.untagged().is_some()) {
            Some(pvid) => vec![LinkChange::Pvid(pvid), LinkChange::FdbEntry(at.want.mac)],
            None => vec![],
        },
    )
    .breaks(FactName::Vlan)
    .counts_as(Facet::PortFlags),
    rule(
        Property::ForwardFilter,
        "forward_filtered",
        |at| at.ways().any(|(_, way)| way.closed().is_some()),
        |at| pair("frames between guests pass", at.filtering()),
        |_| vec![],
    )
    .breaks(FactName::ForwardFiltered),
    rule(
        Property::FdbEntry,
        "fdb",
        |at| !at.entry_is(|_| true),
        |at| at.entry_words(),
        |at| vec![LinkChange::FdbEntry(at.want.mac)],
    )
    .breaks(FactName::Fdb)
    .counts_as(Facet::Fdb),
    rule(
        Property::FdbSticky,
        "fdb",
        |at| at.entry_is(|_| true) && !at.entry_is(|entry| entry.sticky),
        |at| at.entry_words(),
        |at| vec![LinkChange::FdbEntry(at.want.mac)],
    )
    .counts_as(Facet::Fdb),
    rule(Property::Persistent, "persistent", |at| at.link.tap.is_some_and(|tap| !tap.persist), |_| pair(true, false), |_| vec![]),
    rule(
        Property::Queues,
        "queues",
        |at| match (&at.want.nic, at.link.tap) {
            (DesiredNic::Tap { queues, .. }, Some(tap)) => tap.multi_queue != (*queues > 1),
            _ => false,
        },
        |at| {
            let has = at.link.tap.is_some_and(|tap| tap.multi_queue);
            pair(several(!has), several(has))
        },
        |_| vec![],
    ),
    rule(
        Property::Owner,
        "owner",
        |at| !at.is_owned_as_wanted(),
        |at| match (&at.want.nic, at.link.tap) {
            (DesiredNic::Tap { owner, .. }, Some(tap)) => {
                let owner = owner.of_tap();
                (owned(owner.uid, owner.gid), owned(tap.uid, tap.gid))
            }
            _ => pair("", ""),
        },
        |_| vec![],
    ),
    rule(
        Property::Nic,
        "nic",
        |at| at.want.monitor.is_some() && !at.is_plugged(),
        |at| pair("plugged into its machine", at.plugged()),
        // A step of its own plugs it in.
        |_| vec![],
    )
    .breaks(FactName::Monitor)
    .counts_as(Facet::Nic),
];
