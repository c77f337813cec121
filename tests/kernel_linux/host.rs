//! A host to try ops on, and how its kernel is asked by others than us.

use nicd::kernel::linux::{ExecContext, Linux, LinuxHost};
use nicd::kernel::{Applied, Host, Kernel, LinkSelector, OpError, OpErrorKind};
use nicd::model::{LinkName, PortId, names};
use nicd::plan::{At, LinkChange, LinkState, Op, Switch};
use serde_json::Value;

use crate::netns::{json, run};
pub use crate::ops::*;

pub struct LinuxFixture {
    pub kernel: LinuxHost,
    pub context: ExecContext,
}

impl LinuxFixture {
    pub fn open() -> Self {
        Self { kernel: Linux::default().open().unwrap(), context: ExecContext::default() }
    }

    pub fn try_apply(&mut self, op: &Op) -> Result<Applied, OpError> {
        self.kernel.apply(op, &mut self.context)
    }

    pub fn apply(&mut self, op: &Op) -> Applied {
        self.try_apply(op).unwrap_or_else(|error| panic!("{op:?}: {error}"))
    }

    /// Applies an op that is to do nothing the second time.
    pub fn twice(&mut self, op: &Op) {
        assert_eq!(self.apply(op), Applied::Done);
        let before = snapshot();
        assert_eq!(self.apply(op), Applied::Done, "{op:?} a second time");
        assert_eq!(snapshot(), before, "{op:?} changed something the second time");
    }

    /// The op is refused, which changes nothing.
    pub fn refused(&mut self, op: &Op, trouble: OpErrorKind) -> OpError {
        let before = snapshot();
        let error = self.try_apply(op).expect_err("should be refused");
        assert_eq!(error.kind, trouble, "{error}");
        assert_eq!(snapshot(), before, "{op:?} was refused and left a trace");
        error
    }

    pub fn get_link(&mut self, port: PortId) -> Option<LinkState> {
        self.kernel.get_link(LinkSelector::Altname(&names::port_altname(port))).unwrap()
    }

    /// An agent-made bridge, as a plan makes one.
    pub fn bridge(&mut self, mtu: u32) {
        self.apply(&create_bridge(mtu));
        self.apply(&Op::CloseBridge { network: network() });
        self.apply(&up());
    }

    /// The whole of a tap's attach.
    pub fn attach_tap(&mut self, port: PortId, index: u32, master: u32) -> LinkName {
        self.apply(&create_tap(port, index));
        let changes = changes(port, master).into_iter().chain([tag("store 1", Switch::Up)]).collect();
        self.apply(&Op::Configure { port, at: At::Index(index), changes });
        self.apply(&Op::Persist { port });
        names::port_device(port, 0)
    }
}

pub fn tag(alias: &str, switch: Switch) -> LinkChange {
    LinkChange::Tag { alias: alias.to_owned(), switch }
}

/// Everything an op can change, as `ip` and `bridge` show it.
pub fn snapshot() -> Vec<String> {
    let keys = ["ifindex", "ifname", "altnames", "ifalias", "address", "mtu", "master", "group", "inet6_addr_gen_mode"];
    let link = |link: &Value| {
        let mut shown: Vec<String> = keys.iter().map(|key| format!("{key}={}", link[key])).collect();
        shown.push(format!("up={}", link["flags"].as_array().unwrap().contains(&"UP".into())));
        let info = &link["linkinfo"];
        shown.push(format!("learning={} tap={}", info["info_slave_data"]["learning"], info["info_data"]["persist"]));
        shown.join(" ")
    };
    let links = json("ip -j -d link");
    let mut all: Vec<String> = links.as_array().unwrap().iter().map(link).collect();
    all.push(run("ip -o addr"));
    all.push(run("nft list ruleset"));
    let entries = run("bridge fdb");
    // A bridge gives away its own addresses with a delay.
    all.extend(entries.lines().filter(|line| line.contains(" static")).map(str::to_owned));
    all
}

/// One link as `ip` shows it.
pub fn ip_link(name: &str) -> Value {
    json(&format!("ip -j -d link show dev {name}"))[0].clone()
}

/// How many IPv6 addresses there are but for lo's.
pub fn v6_addresses() -> usize {
    run("ip -6 -o addr").lines().filter(|line| !line.contains(" lo ")).count()
}
