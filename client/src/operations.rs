//! The typed operations of a [`Client`]. Lists take filters as nicd does: any scalar attribute, `limit`, `marker`, `sort_key`.

use std::collections::BTreeMap;

use hyper::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::{Client, member};
use crate::error::{Call, Error};
use crate::groups::{NewSecurityGroup, NewSecurityGroupRule, SecurityGroup, SecurityGroupChange, SecurityGroupRule};
use crate::http::with_query;
use crate::types::{
    Attachment, Explanation, Health, Interface, Network, NetworkChange, NewNetwork, NewPort, NewServer, NewSubnet, NewTrunk,
    Port, PortChange, Server, SubPort, Subnet, SubnetChange, Trunk, TrunkChange,
};

const NETWORKS: &str = "/v2.0/networks";
const SUBNETS: &str = "/v2.0/subnets";
const GROUPS: &str = "/v2.0/security-groups";
const RULES: &str = "/v2.0/security-group-rules";
const PORTS: &str = "/v2.0/ports";
const TRUNKS: &str = "/v2.0/trunks";
const SERVERS: &str = "/nicd/v1/servers";

/// What a server's deletion does with its NICs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nics {
    /// The server is not deleted while it has any.
    Keep,
    /// They are detached first.
    Detach,
}

/// # Errors
/// All operations fail as [`Client::get`] does.
impl Client {
    /// The networks that fit the filters, e.g. `&[("name", "blue")]`.
    pub async fn networks(&self, filters: &[(&str, &str)]) -> Result<Vec<Network>, Error> {
        self.show(&with_query(NETWORKS, filters), "networks").await
    }

    /// A network.
    pub async fn network(&self, id: Uuid) -> Result<Network, Error> {
        self.show(&item(NETWORKS, id), "network").await
    }

    /// Creates a network.
    pub async fn create_network(&self, new: &NewNetwork) -> Result<Network, Error> {
        self.create(NETWORKS, "network", new).await
    }

    /// Changes a network.
    pub async fn change_network(&self, id: Uuid, change: &NetworkChange) -> Result<Network, Error> {
        self.change(&item(NETWORKS, id), "network", change).await
    }

    /// Deletes a network that has no ports.
    pub async fn delete_network(&self, id: Uuid) -> Result<(), Error> {
        self.delete(&item(NETWORKS, id)).await
    }

    /// The subnets that fit the filters.
    pub async fn subnets(&self, filters: &[(&str, &str)]) -> Result<Vec<Subnet>, Error> {
        self.show(&with_query(SUBNETS, filters), "subnets").await
    }

    /// A subnet.
    pub async fn subnet(&self, id: Uuid) -> Result<Subnet, Error> {
        self.show(&item(SUBNETS, id), "subnet").await
    }

    /// Creates a subnet.
    pub async fn create_subnet(&self, new: &NewSubnet) -> Result<Subnet, Error> {
        self.create(SUBNETS, "subnet", new).await
    }

    /// Changes a subnet.
    pub async fn change_subnet(&self, id: Uuid, change: &SubnetChange) -> Result<Subnet, Error> {
        self.change(&item(SUBNETS, id), "subnet", change).await
    }

    /// Deletes a subnet that no port has an address of.
    pub async fn delete_subnet(&self, id: Uuid) -> Result<(), Error> {
        self.delete(&item(SUBNETS, id)).await
    }

    /// The security groups that fit the filters.
    pub async fn security_groups(&self, filters: &[(&str, &str)]) -> Result<Vec<SecurityGroup>, Error> {
        self.show(&with_query(GROUPS, filters), "security_groups").await
    }

    /// A security group with its rules.
    pub async fn security_group(&self, id: Uuid) -> Result<SecurityGroup, Error> {
        self.show(&item(GROUPS, id), "security_group").await
    }

    /// Creates a security group, which allows all connections that its ports begin.
    pub async fn create_security_group(&self, new: &NewSecurityGroup) -> Result<SecurityGroup, Error> {
        self.create(GROUPS, "security_group", new).await
    }

    /// Changes a security group.
    pub async fn change_security_group(&self, id: Uuid, change: &SecurityGroupChange) -> Result<SecurityGroup, Error> {
        self.change(&item(GROUPS, id), "security_group", change).await
    }

    /// Deletes a security group that no port is in.
    pub async fn delete_security_group(&self, id: Uuid) -> Result<(), Error> {
        self.delete(&item(GROUPS, id)).await
    }

    /// The rules of security groups that fit the filters, e.g. `&[("security_group_id", group)]`.
    pub async fn security_group_rules(&self, filters: &[(&str, &str)]) -> Result<Vec<SecurityGroupRule>, Error> {
        self.show(&with_query(RULES, filters), "security_group_rules").await
    }

    /// A rule of a security group.
    pub async fn security_group_rule(&self, id: Uuid) -> Result<SecurityGroupRule, Error> {
        self.show(&item(RULES, id), "security_group_rule").await
    }

    /// Creates a rule of a security group. When this returns, it is in force.
    pub async fn create_security_group_rule(&self, new: &NewSecurityGroupRule) -> Result<SecurityGroupRule, Error> {
        self.create(RULES, "security_group_rule", new).await
    }

    /// Deletes a rule of a security group. When this returns, connections that it alone allowed are cut.
    pub async fn delete_security_group_rule(&self, id: Uuid) -> Result<(), Error> {
        self.delete(&item(RULES, id)).await
    }

    /// The ports that fit the filters, e.g. `&[("device_id", server)]`.
    pub async fn ports(&self, filters: &[(&str, &str)]) -> Result<Vec<Port>, Error> {
        self.show(&with_query(PORTS, filters), "ports").await
    }

    /// A port.
    pub async fn port(&self, id: Uuid) -> Result<Port, Error> {
        self.show(&item(PORTS, id), "port").await
    }

    /// Creates a port without a server; [`Client::attach`] gives it to one.
    pub async fn create_port(&self, new: &NewPort) -> Result<Port, Error> {
        self.create(PORTS, "port", new).await
    }

    /// Changes a port.
    pub async fn change_port(&self, id: Uuid, change: &PortChange) -> Result<Port, Error> {
        self.change(&item(PORTS, id), "port", change).await
    }

    /// Deletes a port, detaching it first.
    pub async fn delete_port(&self, id: Uuid) -> Result<(), Error> {
        self.delete(&item(PORTS, id)).await
    }

    /// The trunks that fit the filters, e.g. `&[("port_id", parent)]`.
    pub async fn trunks(&self, filters: &[(&str, &str)]) -> Result<Vec<Trunk>, Error> {
        self.show(&with_query(TRUNKS, filters), "trunks").await
    }

    /// A trunk.
    pub async fn trunk(&self, id: Uuid) -> Result<Trunk, Error> {
        self.show(&item(TRUNKS, id), "trunk").await
    }

    /// Creates a trunk.
    pub async fn create_trunk(&self, new: &NewTrunk) -> Result<Trunk, Error> {
        self.create(TRUNKS, "trunk", new).await
    }

    /// Changes a trunk.
    pub async fn change_trunk(&self, id: Uuid, change: &TrunkChange) -> Result<Trunk, Error> {
        self.change(&item(TRUNKS, id), "trunk", change).await
    }

    /// Deletes a trunk; its ports stay.
    pub async fn delete_trunk(&self, id: Uuid) -> Result<(), Error> {
        self.delete(&item(TRUNKS, id)).await
    }

    /// Adds subports to a trunk, all or none.
    pub async fn add_subports(&self, trunk: Uuid, subports: &[SubPort]) -> Result<Trunk, Error> {
        self.put(&format!("{}/add_subports", item(TRUNKS, trunk)), &json!({ "sub_ports": subports })).await
    }

    /// Takes subports from a trunk, all or none; the ports stay.
    pub async fn remove_subports(&self, trunk: Uuid, ports: &[Uuid]) -> Result<Trunk, Error> {
        let ports: Vec<Value> = ports.iter().map(|port| json!({ "port_id": port })).collect();
        self.put(&format!("{}/remove_subports", item(TRUNKS, trunk)), &json!({ "sub_ports": ports })).await
    }

    /// The servers that nicd knows.
    pub async fn servers(&self) -> Result<Vec<Server>, Error> {
        self.show(SERVERS, "servers").await
    }

    /// A server.
    pub async fn server(&self, id: Uuid) -> Result<Server, Error> {
        self.show(&item(SERVERS, id), "server").await
    }

    /// Makes a server known, or changes what is known of it.
    pub async fn put_server(&self, id: Uuid, server: &NewServer) -> Result<Server, Error> {
        self.change(&item(SERVERS, id), "server", server).await
    }

    /// Makes nicd forget a server.
    pub async fn delete_server(&self, id: Uuid, nics: Nics) -> Result<(), Error> {
        let detach: &[(&str, &str)] = if nics == Nics::Detach { &[("detach", "true")] } else { &[] };
        self.delete(&with_query(&item(SERVERS, id), detach)).await
    }

    /// Gives a server a NIC. When this returns, the NIC is built and recorded.
    pub async fn attach(&self, server: Uuid, nic: &Attachment) -> Result<Interface, Error> {
        self.create(&interfaces(server), "interfaceAttachment", nic).await
    }

    /// The same under the caller's own idempotency key, as [`Client::post_once`].
    pub async fn attach_once(&self, server: Uuid, nic: &Attachment, key: &str) -> Result<Interface, Error> {
        let (target, one) = (interfaces(server), "interfaceAttachment");
        object(Method::POST, &target, self.post_once(&target, &BTreeMap::from([(one, nic)]), key).await?, one)
    }

    /// A server's NICs, also those that are being detached.
    pub async fn interfaces(&self, server: Uuid) -> Result<Vec<Interface>, Error> {
        self.show(&interfaces(server), "interfaceAttachments").await
    }

    /// Takes a NIC from a server. When this returns, its traffic is cut; the port is listed as `detaching` until the kernel has let
    /// the device go.
    pub async fn detach(&self, server: Uuid, port: Uuid) -> Result<(), Error> {
        self.delete(&item(&interfaces(server), port)).await
    }

    /// Why a port has the status it has.
    pub async fn explain(&self, port: Uuid) -> Result<Explanation, Error> {
        self.get(&format!("/nicd/v1/ports/{port}/explain")).await
    }

    /// How the daemon fares.
    pub async fn health(&self) -> Result<Health, Error> {
        self.get("/nicd/v1/health").await
    }

    async fn show<T: DeserializeOwned>(&self, target: &str, key: &'static str) -> Result<T, Error> {
        object(Method::GET, target, self.get(target).await?, key)
    }

    async fn create<T: DeserializeOwned>(&self, target: &str, key: &'static str, new: &impl Serialize) -> Result<T, Error> {
        object(Method::POST, target, self.post(target, &BTreeMap::from([(key, new)])).await?, key)
    }

    async fn change<T: DeserializeOwned>(&self, target: &str, key: &'static str, change: &impl Serialize) -> Result<T, Error> {
        object(Method::PUT, target, self.put(target, &BTreeMap::from([(key, change)])).await?, key)
    }
}

/// Reads the member `key` of an answer.
fn object<T: DeserializeOwned>(method: Method, target: &str, answer: Value, key: &'static str) -> Result<T, Error> {
    let unreadable = |source| Error::Unreadable { call: Call { method, target: target.to_owned() }, source };
    serde_json::from_value(member(answer, key)?).map_err(unreadable)
}

fn item(collection: &str, id: Uuid) -> String {
    format!("{collection}/{id}")
}

fn interfaces(server: Uuid) -> String {
    format!("/v2.1/servers/{server}/os-interface")
}
