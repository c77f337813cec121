//! One of each thing as records, for the examples: the renderers make of them what a client would get.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;
use jiff::Timestamp;
use uuid::Uuid;

use crate::events::{Event, EventKind};
use crate::kernel::{DroppedFrame, Traffic};
use crate::model::Guidance;
use crate::model::action::{NewNic, WantedNic};
use crate::model::group::What;
use crate::model::pools::Range;
use crate::model::{
    Allows, Direction, DropReason, Family, FixedIp, Group, GroupId, Guest, GuestTold, HostRoute, Limits, Mac, Network, NetworkId,
    NetworkKind, Origin, Owner, Phase, Port, PortId, Profile, Remote, Rule, RuleId, Scope, Server, ServerId, Status, SubPort,
    Subnet, SubnetId, Trunk, TrunkId, TrunkStatus, names,
};
use crate::model::{Job, JobId, JobKind, NicChange, Part, PartState};
use crate::plan::facts::FactName;
use crate::plan::{Deviation, Fact, Kind as LinkKind, Op, Plan, Reason, Stage, Step, Switch};
use crate::service::{Binding, Collected, DeviceView, Exchange, Health, LeaseState, Leftover, PortCounters, Tap, Verified};
use crate::service::{FleetStatus, FleetView, HostView, NetworkView, PortView, Reserved, RuleView, ServerView, TrunkView};

const STORE: Uuid = Uuid::from_u128(0x0f0f_0f0f_0000_4000_8000_0000_0000_0001);
const SERVER: ServerId = ServerId(Uuid::from_u128(0x4d8c_3732_a248_40ed_bebc_539a_6ffd_25c0));
const NETWORK: NetworkId = NetworkId(Uuid::from_u128(0x3cb9_bc59_5699_4588_a4b1_b87f_9670_8bc6));
const SUBNET: SubnetId = SubnetId(Uuid::from_u128(0xf8a6_e8f8_c2ec_497c_9f23_da96_16de_54ef));
const PORT: PortId = PortId(Uuid::from_u128(0xce53_1f90_199f_48c0_816c_13e3_8010_b442));
const GROUP: GroupId = GroupId(Uuid::from_u128(0x85cc_3048_abc3_43cc_89b3_3773_4141_0cb0));
const RULE: u128 = 0x3c0e_45ff_adaf_4124_b083_bf39_0e5f_f91c;
const MAC: Mac = Mac([0xfa, 0x16, 0x3e, 0x63, 0x75, 0xb2]);

fn range(address: [u8; 4], prefix: u8) -> IpNetwork {
    IpNetwork::new(address.into(), prefix).unwrap_or(IpNetwork::V4(std::net::Ipv4Addr::from(address).into()))
}

/// When all of it happened.
fn then() -> Timestamp {
    Timestamp::from_second(1_767_225_600).unwrap_or(Timestamp::UNIX_EPOCH)
}

pub(super) fn network() -> NetworkView {
    let network = Network {
        id: NETWORK,
        name: "blue".into(),
        description: String::new(),
        project_id: "demo".into(),
        mtu: 1500,
        bridge: None,
        kind: NetworkKind::Local,
        physical_network: None,
        segmentation_id: None,
        zone: 4096,
        port_security: true,
        isolated: false,
        scope: Scope::Host,
        created_at: then(),
        updated_at: then(),
        revision_number: 1,
    };
    NetworkView { network, subnets: vec![SUBNET], device: Some("nbr3cb9bc595699".to_owned()), uplink: None }
}

pub(super) fn group() -> Group {
    let outwards =
        Allows { direction: Direction::Egress, family: Family::V4, protocol: None, what: What::All, remote: Remote::Any };
    let RuleView { rule, .. } = rule();
    let all = Rule { id: RuleId(Uuid::from_u128(RULE + 1)), allows: outwards, protocol_name: None, prefix: None, ..rule.clone() };
    Group {
        id: GROUP,
        name: "web".into(),
        description: "HTTP from the network alone".into(),
        project_id: "demo".into(),
        rules: vec![all, rule],
        scope: Scope::Host,
        created_at: then(),
        updated_at: then(),
        revision_number: 2,
    }
}

pub(super) fn rule() -> RuleView {
    let network = range([10, 0, 0, 0], 24);
    let allows = Allows {
        direction: Direction::Ingress,
        family: Family::V4,
        protocol: Some(6),
        what: What::Ports { first: 80, last: 80 },
        remote: Remote::Prefix(network),
    };
    let rule = Rule {
        id: RuleId(Uuid::from_u128(RULE)),
        description: String::new(),
        allows,
        protocol_name: Some("tcp".into()),
        prefix: Some(network),
        created_at: then(),
    };
    RuleView { rule, group: GROUP, project_id: "demo".into() }
}

pub(super) fn subnet() -> Subnet {
    Subnet {
        id: SUBNET,
        network_id: NETWORK,
        name: "blue-v4".into(),
        description: String::new(),
        project_id: "demo".into(),
        cidr: range([10, 0, 0, 0], 24),
        gateway_ip: Some([10, 0, 0, 1].into()),
        allocation_pools: vec![Range { start: [10, 0, 0, 2].into(), end: [10, 0, 0, 254].into() }],
        dns_nameservers: vec![[10, 0, 0, 53].into()],
        host_routes: vec![HostRoute { destination: range([192, 168, 0, 0], 16), nexthop: [10, 0, 0, 254].into() }],
        enable_dhcp: true,
        guidance: Guidance::default(),
        created_at: then(),
        updated_at: then(),
        revision_number: 1,
    }
}

/// A port of a vm, open and forwarding.
pub(super) fn port() -> PortView {
    let binding = Binding {
        server: SERVER,
        tap: Some(Tap { queues: 1, vnet_hdr: true, owner: Owner::default() }),
        carrier: None,
        bridge: Some("nbr3cb9bc595699".into()),
        device: Some(DeviceView { name: "nicdce531f90199".into(), host_mac: Some(MAC.host_side()) }),
        mtu: 1500,
        guest_device: None,
        nic: None,
    };
    PortView { binding: Some(binding), phase: Phase::Active, ..unbound() }
}

/// A port without a server.
pub(super) fn unbound() -> PortView {
    let port = Port {
        id: PORT,
        network_id: NETWORK,
        name: "front".into(),
        description: String::new(),
        project_id: "demo".into(),
        mac: MAC,
        fixed_ips: vec![FixedIp { subnet_id: SUBNET, ip_address: [10, 0, 0, 2].into() }],
        admin_up: true,
        unknown_unicast: false,
        port_security: true,
        address_pairs: Vec::new(),
        groups: BTreeSet::from([GROUP]),
        limits: Limits::default(),
        isolated: None,
        told: GuestTold { dns_name: "front".into(), ..GuestTold::default() },
        device_owner: "compute:nova".into(),
        profile: Profile::default(),
        origin: Origin::Client,
        binding: None,
        standby: None,
        created_at: then(),
        updated_at: then(),
        revision_number: 1,
    };
    PortView { port, phase: Phase::Unbound, reason: None, binding: None, trunk: None, host: "node-1".into() }
}

/// A trunk on that port.
pub(super) fn trunk() -> TrunkView {
    let trunk = Trunk {
        id: TrunkId(Uuid::from_u128(0x7b2e_4d10_6a55_4c0f_9d3e_2f81_0c6a_e914)),
        name: "router".into(),
        description: String::new(),
        project_id: "demo".into(),
        port_id: PORT,
        admin_up: true,
        sub_ports: vec![SubPort { port_id: PortId(Uuid::from_u128(0x91c0_55d2_1e4b_4f6a_8c2d_7a3f_b5e6_0d48)), vlan: 101 }],
        created_at: then(),
        updated_at: then(),
        revision_number: 1,
    };
    TrunkView { trunk, status: TrunkStatus::Active }
}

/// The same port at a namespace whose peer is not up.
#[cfg(test)]
pub(super) fn waiting() -> PortView {
    let binding = Binding {
        server: SERVER,
        tap: None,
        carrier: None,
        bridge: None,
        device: None,
        mtu: 1500,
        guest_device: "eth0".parse().ok(),
        nic: None,
    };
    PortView { binding: Some(binding), phase: Phase::Wired, reason: Some("no_carrier".into()), ..unbound() }
}

pub(super) fn vm() -> ServerView {
    server(Guest::Vm { queues: 1, owner: Owner { uid: Some(107), gid: None }, monitor: None })
}

pub(super) fn netns() -> ServerView {
    server(Guest::Netns { path: "/run/netns/web-1".into() })
}

fn server(guest: Guest) -> ServerView {
    let server = Server {
        id: SERVER,
        name: "web-1".into(),
        project_id: "demo".into(),
        guest,
        nic_limit: None,
        pin: None,
        by_process: false,
        leaving: false,
        created_at: then(),
        updated_at: then(),
    };
    ServerView { server, host: "compute-1".into() }
}

pub(super) fn health() -> Health {
    Health {
        status: "ok",
        version: env!("CARGO_PKG_VERSION"),
        uptime_s: 86_400,
        host: "node-1".into(),
        ports: Status::ALL.into_iter().map(|status| (status.as_str(), usize::from(status == Status::Active))).collect(),
        unattached: 0,
        problems: Vec::new(),
        counts: Vec::new(),
    }
}

pub(super) fn facts() -> Vec<Fact> {
    let fact = |fact, ok, detail: &str| Fact { fact, ok, detail: detail.to_owned() };
    vec![
        fact(FactName::Device, true, "nicdce531f90199 (index 12) carries the port's altname"),
        fact(FactName::Carrier, false, "the tap is not open"),
    ]
}

/// A guest that has its address.
pub(super) fn exchange() -> Exchange {
    Exchange {
        state: LeaseState::Bound,
        address: std::net::IpAddr::from([10, 0, 0, 2]),
        message: "request",
        at: then(),
        client_id: Some("01:fa:16:3e:63:75:b2".into()),
        hostname: Some("front".into()),
    }
}

pub(super) fn counters() -> PortCounters {
    let dropped = |reason| (reason, u64::from(reason == DropReason::Arp));
    PortCounters {
        from_guest: Traffic { packets: 120, bytes: 9_800 },
        to_guest: Traffic { packets: 80, bytes: 61_440 },
        dropped: DropReason::ALL.map(dropped).into(),
        last_dropped: vec![DroppedFrame {
            at: then(),
            reason: DropReason::Arp,
            src_mac: MAC,
            src_ip: Some([10, 0, 0, 9].into()),
            ethertype: 0x0806,
        }],
    }
}

pub(super) fn server_id() -> String {
    SERVER.to_string()
}

pub(super) fn network_id() -> String {
    NETWORK.to_string()
}

/// What a detach would do.
pub(super) fn plan() -> Plan {
    let set = |switch| Op::SetLink { port: PORT, switch };
    let cut = Step::new(set(Switch::Down), Some(set(Switch::Up)));
    let delete = Step { op: Op::DeleteLink { port: PORT, store: STORE }, undo: None, stage: Stage::Deferred };
    Plan { reason: Reason::DryRun, steps: vec![cut, delete] }
}

pub(super) fn verified() -> Verified {
    let object = format!("nicdce531f90199 of port {PORT}");
    let counted = [("devices", 1), ("links", 4), ("networks", 1), ("ports", 1), ("servers", 1), ("subnets", 1), ("under_way", 0)];
    Verified { deviations: vec![Deviation::new("owner", object, "uid 107, gid any", "uid 0, gid any")], checked: counted.into() }
}

/// A job that has given the server a NIC.
pub(super) fn job() -> Job {
    let part = Part {
        id: JobId(Uuid::from_u128(0xff80_8082_88d4_4e1b_8189_9026_0955_686b)),
        change: NicChange::Add(WantedNic::OnNetwork(NETWORK, NewNic::default())),
        state: PartState::Done(PORT),
        begun_at: Some(then()),
        ended_at: Some(then()),
    };
    Job {
        id: JobId(Uuid::from_u128(0xff80_8082_88d4_4e1b_8189_9026_0955_686a)),
        server_id: SERVER,
        kind: JobKind::AddNics,
        parts: vec![part],
        request_id: None,
        begun_at: then(),
        ended_at: Some(then()),
        ended_since: None,
    }
}

pub(super) fn collected() -> Collected {
    let leftover = Leftover {
        object: "nicdce531f90199".into(),
        kind: LinkKind::Tap.as_str(),
        reason: "device_without_record",
        altname: Some(names::port_altname(PORT)),
        alias: Some(names::device_tag(NETWORK.0, 8)),
        index: 12,
        id: PORT.0,
    };
    Collected { leftovers: vec![leftover], removed: Vec::new(), plan: Some(plan()) }
}

pub(super) fn event() -> Event {
    Event {
        seq: 4711,
        port_id: Some(PORT),
        server_id: Some(SERVER),
        network_id: Some(NETWORK),
        old: Some(Status::Build),
        new: Some(Status::Active),
        phase: Some(Phase::Active),
        request_id: Some("req-0d2d1b2c-6f0a-4a35-9c64-8a9ae8cf2f8e".into()),
        ..Event::new(EventKind::PortStatus, then())
    }
}

pub(super) fn host() -> HostView {
    let tunnel = Some([192, 0, 2, 11].into());
    HostView { id: "node-1".into(), alive: true, version: "0.2.0".into(), tunnel, ports: 12, since: then(), last_seen: then() }
}

pub(super) fn fleet() -> FleetView {
    let (name, host) = ("default".into(), "node-1".into());
    let status =
        FleetStatus { name, host, connected: true, since: then(), revision: Some(4711), trouble: None, watch_lag_ms: Some(4) };
    FleetView { status, reserved: vec![Reserved { network_id: NETWORK, addresses: 32, free: 20 }] }
}
