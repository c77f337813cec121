//! The operations during which faults are injected, as requests.

use serde_json::{Value, json};

use crate::daemon::Answer;
use crate::fixture::{Fixture, interfaces, server_path};
use crate::host::{BR0, GUEST, MONITOR};

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    AttachFirstTap,
    AttachLaterTap,
    AttachVeth,
    AttachReadyPort,
    AttachToExistingBridge,
    DetachTap,
    DetachVeth,
    DetachReadyPort,
    AdminDown,
    ExactLimit,
    DetachLimited,
    OtherAddress,
    OtherMtu,
    DeleteServer,
    DeleteNetwork,
    PlugNic,
    UnplugNic,
    Restart,
    Rebuild,
    RestartPlugged,
}

pub const WORKS: [Work; 20] = {
    use Work::*;
    [
        AttachFirstTap,
        AttachLaterTap,
        AttachVeth,
        AttachReadyPort,
        AttachToExistingBridge,
        DetachTap,
        DetachVeth,
        DetachReadyPort,
        AdminDown,
        ExactLimit,
        DetachLimited,
        OtherAddress,
        OtherMtu,
        DeleteServer,
        DeleteNetwork,
        PlugNic,
        UnplugNic,
        Restart,
        Rebuild,
        RestartPlugged,
    ]
};

/// Another MTU than the network's.
const OTHER_MTU: u32 = 1400;

/// A limit that takes a device of its own.
fn exact() -> Value {
    json!({"from_guest": {"rate_kbps": 8000, "exact": true}})
}

/// What there is before the work, by name.
#[derive(Debug, Clone, Default)]
pub struct Scene {
    pub network: String,
    pub vm: String,
    pub guest: String,
    /// A vm with a monitor, where the work is about that.
    pub machine: String,
    /// The port the work is about.
    pub port: String,
}

impl Work {
    /// Makes everything there is to be before the work.
    pub fn prepare(self, fixture: &mut Fixture) -> Scene {
        let network = match self {
            Self::AttachToExistingBridge => fixture.network_on(BR0),
            _ => fixture.usual_network(),
        };
        let (vm, guest) = (fixture.vm(), fixture.server(json!({"kind": "netns", "path": format!("/run/netns/{GUEST}")})));
        let machine = match self.has_machine() {
            true => fixture.server(json!({"kind": "vm", "queues": 2, "monitor": {"qmp": MONITOR}})),
            false => String::new(),
        };
        let mut scene = Scene { network, vm, guest, machine, port: String::new() };
        let ready = |fixture: &mut Fixture| fixture.create_port(json!({"network_id": scene.network}));
        scene.port = match self {
            Self::AttachFirstTap | Self::AttachVeth | Self::AttachToExistingBridge | Self::PlugNic => String::new(),
            Self::UnplugNic | Self::RestartPlugged => fixture.attach_to(&scene.machine, &scene.network),
            Self::AttachLaterTap => {
                fixture.attach_to(&scene.guest, &scene.network);
                String::new()
            }
            Self::AttachReadyPort => ready(fixture),
            Self::DetachReadyPort => {
                let port = ready(fixture);
                fixture.attach(&scene.vm, json!({ "port_id": port }))
            }
            Self::DetachTap | Self::DeleteServer => fixture.attach_to(&scene.vm, &scene.network),
            Self::DetachLimited => {
                let port = fixture.create_port(json!({"network_id": scene.network, "nicd:limits": exact()}));
                fixture.attach(&scene.vm, json!({ "port_id": port }))
            }
            Self::DetachVeth | Self::AdminDown | Self::ExactLimit | Self::OtherAddress => {
                fixture.attach_to(&scene.guest, &scene.network)
            }
            Self::DeleteNetwork => {
                let port = fixture.attach_to(&scene.vm, &scene.network);
                fixture.detach(&scene.vm, &port);
                String::new()
            }
            Self::OtherMtu | Self::Restart | Self::Rebuild => {
                fixture.attach_to(&scene.guest, &scene.network);
                fixture.attach_to(&scene.vm, &scene.network)
            }
        };
        scene
    }

    /// Whether the work is about a NIC in a machine.
    pub fn has_machine(self) -> bool {
        matches!(self, Self::PlugNic | Self::UnplugNic | Self::RestartPlugged)
    }

    /// Whether the work is the start itself.
    pub fn is_start(self) -> bool {
        matches!(self, Self::Restart | Self::Rebuild | Self::RestartPlugged)
    }

    /// Asks for the work; none when it is never answered.
    pub fn ask(self, fixture: &mut Fixture, scene: &Scene) -> Option<Answer> {
        let (method, path, body) = self.request(scene)?;
        let body = body.map_or_else(String::new, |body| body.to_string());
        fixture.api.try_call(method, &path, &[("Content-Type", "application/json")], body.as_bytes()).ok()
    }

    fn request(self, scene: &Scene) -> Option<(&'static str, String, Option<Value>)> {
        let attach = |server: &str, how: Value| Some(("POST", interfaces(server), Some(json!({"interfaceAttachment": how}))));
        let on_network = json!({"net_id": scene.network});
        let detach = |server: &str| Some(("DELETE", format!("{}/{}", interfaces(server), scene.port), None));
        let port = |change: Value| Some(("PUT", format!("/v2.0/ports/{}", scene.port), Some(json!({ "port": change }))));
        let network = format!("/v2.0/networks/{}", scene.network);
        match self {
            Self::AttachFirstTap | Self::AttachLaterTap | Self::AttachToExistingBridge => attach(&scene.vm, on_network),
            Self::AttachVeth => attach(&scene.guest, on_network),
            Self::PlugNic => attach(&scene.machine, on_network),
            Self::UnplugNic => detach(&scene.machine),
            Self::AttachReadyPort => attach(&scene.vm, json!({"port_id": scene.port})),
            Self::DetachTap | Self::DetachReadyPort | Self::DetachLimited => detach(&scene.vm),
            Self::DetachVeth => detach(&scene.guest),
            Self::AdminDown => port(json!({"admin_state_up": false})),
            Self::ExactLimit => port(json!({"nicd:limits": exact()})),
            Self::OtherAddress => port(json!({"fixed_ips": [{"ip_address": "192.0.2.77"}]})),
            Self::OtherMtu => Some(("PUT", network, Some(json!({"network": {"mtu": OTHER_MTU}})))),
            Self::DeleteServer => Some(("DELETE", format!("{}?detach=true", server_path(&scene.vm)), None)),
            Self::DeleteNetwork => Some(("DELETE", network, None)),
            Self::Restart | Self::Rebuild | Self::RestartPlugged => None,
        }
    }

    /// Whether what is shown now is the work's whole result.
    pub fn is_whole(self, scene: &Scene, before: &Shown, now: &Shown) -> Result<(), String> {
        let mut wanted = before.clone();
        match self {
            Self::AttachFirstTap | Self::AttachLaterTap | Self::AttachVeth | Self::AttachToExistingBridge | Self::PlugNic => {
                let server = match self {
                    Self::AttachVeth => &scene.guest,
                    Self::PlugNic => &scene.machine,
                    _ => &scene.vm,
                };
                let fresh: Vec<_> = now.ports.iter().filter(|(id, _)| !before.ports.contains_key(*id)).collect();
                match fresh[..] {
                    [(id, port)] if port.server == *server && port.ips.len() == before.families => {
                        wanted.ports.insert(id.clone(), port.clone());
                    }
                    _ => return Err(format!("new: {fresh:?}")),
                }
            }
            Self::AttachReadyPort => wanted.port(&scene.port).server.clone_from(&scene.vm),
            Self::DetachReadyPort | Self::DetachLimited => wanted.port(&scene.port).server.clear(),
            Self::DetachTap | Self::DetachVeth | Self::UnplugNic => _ = wanted.ports.remove(&scene.port),
            Self::AdminDown => wanted.port(&scene.port).admin_up = false,
            Self::ExactLimit => wanted.port(&scene.port).limits = exact(),
            Self::OtherAddress => wanted.port(&scene.port).ips = vec!["192.0.2.77".to_owned()],
            Self::OtherMtu => wanted.mtu = Some(OTHER_MTU.into()),
            Self::DeleteServer => {
                wanted.ports.remove(&scene.port);
                wanted.servers.retain(|id| *id != scene.vm);
            }
            Self::DeleteNetwork => wanted.mtu = None,
            Self::Restart | Self::Rebuild | Self::RestartPlugged => {}
        }
        if *now == wanted { Ok(()) } else { Err(format!("shown {now:?}, whole would be {wanted:?}")) }
    }
}

/// What a client is shown, as far as a work can change it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub ports: std::collections::BTreeMap<String, Port>,
    pub servers: Vec<String>,
    /// The network's MTU; none when it is gone.
    pub mtu: Option<u64>,
    /// How many address families the network has.
    pub families: usize,
}

/// A port as a client is shown it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub server: String,
    pub mac: String,
    pub ips: Vec<String>,
    pub admin_up: bool,
    pub limits: Value,
}

impl Shown {
    fn port(&mut self, id: &str) -> &mut Port {
        self.ports.get_mut(id).expect("the port the work is about")
    }
}
