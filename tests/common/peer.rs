//! A machine's monitor without a machine: it keeps what it is given and answers as QEMU does, and its guest lets every NIC go at once.

#![allow(dead_code)] // each test target uses its part

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::thread;

use nicd::sys::pass;
use serde_json::{Value, json};

/// How many NICs it has slots for.
const SLOTS: usize = 4;

/// See the module.
#[derive(Clone, Default)]
pub struct Peer(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Descriptors that were handed over and not used, by name.
    given: BTreeMap<String, OwnedFd>,
    /// Backends with their descriptors.
    backends: BTreeMap<String, Vec<OwnedFd>>,
    /// NICs with their slots.
    nics: BTreeMap<String, String>,
}

impl Peer {
    /// One that listens there.
    pub fn start(socket: &str) -> Self {
        let peer = Self::default();
        let listener = UnixListener::bind(socket).unwrap();
        let serving = peer.clone();
        thread::spawn(move || listener.incoming().for_each(|client| serving.serve(&mut client.unwrap())));
        peer
    }

    /// Ends it and starts another in its place.
    pub fn renew(&self) {
        *self.0.lock().unwrap() = State::default();
    }

    /// The NICs it has, each with a backend of its own; what is wrong otherwise.
    pub fn nics(&self) -> Result<BTreeSet<String>, String> {
        let state = self.0.lock().unwrap();
        let (nics, backends): (BTreeSet<_>, BTreeSet<_>) =
            (state.nics.keys().cloned().collect(), state.backends.keys().cloned().collect());
        match nics == backends && state.given.is_empty() {
            true => Ok(nics),
            false => Err(format!("NICs {nics:?}, backends {backends:?}, given {:?}", state.given.keys())),
        }
    }

    /// One client at a time.
    fn serve(&self, client: &mut UnixStream) {
        let _ = writeln!(client, "{}", json!({"QMP": {"version": {}, "capabilities": []}}));
        let (mut buffer, mut octets) = (Vec::new(), [0; 4096]);
        while let Ok((length, descriptor)) = pass::receive(client.as_fd(), &mut octets) {
            if length == 0 {
                return;
            }
            buffer.extend_from_slice(&octets[..length]);
            let mut descriptor = descriptor;
            while let Some(end) = buffer.iter().position(|octet| *octet == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                let asked: Value = serde_json::from_slice(&line).unwrap();
                let (answer, events) = self.0.lock().unwrap().answer(&asked, descriptor.take());
                let mut answer = match answer {
                    Ok(answer) => json!({ "return": answer }),
                    Err((class, desc)) => json!({"error": {"class": class, "desc": desc}}),
                };
                answer["id"] = asked["id"].clone();
                for line in std::iter::once(answer).chain(events) {
                    if writeln!(client, "{line}").is_err() {
                        return;
                    }
                }
            }
        }
    }
}

type Refusal = (&'static str, String);

impl State {
    fn answer(&mut self, asked: &Value, descriptor: Option<OwnedFd>) -> (Result<Value, Refusal>, Vec<Value>) {
        let text = |name: &str| asked["arguments"][name].as_str().unwrap_or_default().to_owned();
        let wrong = |desc: String| Err(("GenericError", desc));
        let not_found = |id: &str| Err(("DeviceNotFound", format!("Device '{id}' not found")));
        let id = text("id");
        let answer = match asked["execute"].as_str().unwrap() {
            "qmp_capabilities" => Ok(json!({})),
            "qom-list" => Ok(self.list(&text("path"))),
            "qom-get" => Ok(json!(true)),
            "query-pci" => Ok(json!([{"bus": 0, "devices": []}])),
            "getfd" => match descriptor {
                Some(descriptor) => {
                    self.given.insert(text("fdname"), descriptor);
                    Ok(json!({}))
                }
                None => wrong("No file descriptor supplied via SCM_RIGHTS".to_owned()),
            },
            "closefd" => match self.given.remove(&text("fdname")) {
                Some(_) => Ok(json!({})),
                None => wrong(format!("File descriptor named '{}' not found", text("fdname"))),
            },
            "netdev_add" if self.backends.contains_key(&id) => wrong(format!("Duplicate ID '{id}' for netdev")),
            "netdev_add" => {
                let fds = text("fds");
                let taken: Option<Vec<OwnedFd>> = fds.split(':').map(|name| self.given.remove(name)).collect();
                match taken {
                    Some(taken) => {
                        self.backends.insert(id, taken);
                        Ok(json!({}))
                    }
                    None => wrong(format!("File descriptor named '{fds}' not found")),
                }
            }
            "netdev_del" => self.backends.remove(&id).map_or_else(|| not_found(&id), |_| Ok(json!({}))),
            "device_add" if self.nics.contains_key(&id) => wrong(format!("Duplicate device ID '{id}'")),
            "device_add" if !self.backends.contains_key(&text("netdev")) => wrong("the netdev is not there".to_owned()),
            "device_add" if self.nics.values().any(|bus| *bus == text("bus")) => wrong("the slot is in use".to_owned()),
            "device_add" => {
                self.nics.insert(id, text("bus"));
                Ok(json!({}))
            }
            "set_link" => {
                if self.nics.contains_key(&text("name")) {
                    Ok(json!({}))
                } else {
                    not_found(&text("name"))
                }
            }
            "device_del" => match self.nics.remove(&id) {
                Some(_) => {
                    let inner = json!({"path": format!("/machine/peripheral/{id}/virtio-backend")});
                    let own = json!({"device": id, "path": format!("/machine/peripheral/{id}")});
                    let events = [inner, own].map(|data| json!({"event": "DEVICE_DELETED", "data": data}));
                    return (Ok(json!({})), events.to_vec());
                }
                None => not_found(&id),
            },
            other => Err(("CommandNotFound", format!("The command {other} has not been found"))),
        };
        (answer, Vec::new())
    }

    fn list(&self, path: &str) -> Value {
        let ports = (1..=SLOTS).map(|n| (format!("rp{n}"), "child<pcie-root-port>"));
        match path.strip_prefix("/machine/peripheral/") {
            None => {
                let nics = self.nics.keys().map(|id| (id.clone(), "child<virtio-net-pci>"));
                ports.chain(nics).map(|(name, kind)| json!({"name": name, "type": kind})).collect()
            }
            Some(port) => {
                let is_used = self.nics.values().any(|bus| port == format!("{bus}/{bus}"));
                let plugged = is_used.then(|| json!({"name": "child[0]", "type": "link<virtio-net-pci>"}));
                plugged.into_iter().collect()
            }
        }
    }
}
