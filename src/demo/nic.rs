//! NICs, as the API gives and shows them.

use std::net::IpAddr;

use hyper::Method;
use serde_json::{Value, json};

use super::api::{Answer, Api, text};
use super::page::{Context, Failure};

/// A NIC.
#[derive(Debug)]
pub(super) struct Nic {
    pub(super) server: String,
    pub(super) port: String,
    pub(super) device: String,
    /// `binding:vif_details` of the port.
    pub(super) details: Value,
    pub(super) mac: String,
    pub(super) addresses: Vec<IpAddr>,
}

/// Registers a server, at the daemon of the host that it is on.
pub(super) fn register(api: &mut Api, server: &str, name: &str, guest: Value) -> Result<(), Failure> {
    let put = json!({"server": {"name": name, "guest": guest}});
    api.call(Method::PUT, &at(server), Some(&put)).map(drop)
}

/// Asks for a NIC for a server.
pub(super) fn attach(api: &mut Api, server: &str, network: &str) -> Result<Answer, Failure> {
    let body = json!({"interfaceAttachment": {"net_id": network}});
    api.call(Method::POST, &interfaces(server), Some(&body))
}

impl Nic {
    /// The one that was answered.
    pub(super) fn read(api: &mut Api, server: &str, answer: &Answer) -> Result<Self, Failure> {
        let port = text(&answer.body, "/interfaceAttachment/port_id")?;
        let body = api.get(&format!("/v2.0/ports/{port}"))?;
        let mut addresses = Vec::new();
        for at in 0..body["port"]["fixed_ips"].as_array().map_or(0, Vec::len) {
            let address = text(&body, &format!("/port/fixed_ips/{at}/ip_address"))?;
            addresses.push(address.parse().context(&address)?);
        }
        Ok(Self {
            server: server.to_owned(),
            port,
            device: text(&body, "/port/binding:vif_details/device")?,
            details: body["port"]["binding:vif_details"].clone(),
            mac: text(&body, "/port/mac_address")?,
            addresses,
        })
    }

    pub(super) fn detail(&self, key: &str) -> &str {
        self.details[key].as_str().unwrap_or("?")
    }

    /// The addresses, with commas.
    pub(super) fn listed(&self) -> String {
        self.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    /// Asks to detach it.
    pub(super) fn detach(&self, api: &mut Api) -> Result<Answer, Failure> {
        api.call(Method::DELETE, &format!("{}/{}", interfaces(&self.server), self.port), None)
    }

    /// Forgets its server.
    pub(super) fn forget(&self, api: &mut Api) -> Result<(), Failure> {
        api.call(Method::DELETE, &at(&self.server), None).map(drop)
    }
}

/// The target of a server.
pub(super) fn at(server: &str) -> String {
    format!("/nicd/v1/servers/{server}")
}

/// The target of a server's NICs.
fn interfaces(server: &str) -> String {
    format!("/v2.1/servers/{server}/os-interface")
}
