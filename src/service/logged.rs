//! One line of the log for each action: what it changed, or why it was refused.

use std::time::Duration;

use tracing::field::display;

use crate::exit::chain;
use crate::model::action::{Action, WantedNic};
use crate::model::{Group, GroupId, NetworkId, PortId, RuleId, ServerId, SubnetId, TrunkId};

use super::{Context, Error, NetworkView, PortView, Reply, TrunkView};

/// What an action is about, as far as its request says.
#[derive(Debug, Default)]
pub(super) struct Logged {
    action: &'static str,
    server: Option<ServerId>,
    port: Option<PortId>,
    network: Option<NetworkId>,
    subnet: Option<SubnetId>,
    group: Option<GroupId>,
    rule: Option<RuleId>,
    trunk: Option<TrunkId>,
}

impl Logged {
    /// Before it is carried out.
    pub fn of(action: &Action) -> Self {
        let about = |action| Self { action, ..Self::default() };
        match action {
            Action::CreateNetworks(_) => about("network create"),
            Action::UpdateNetwork(id, _) => Self { network: Some(*id), ..about("network change") },
            Action::DeleteNetwork(id) => Self { network: Some(*id), ..about("network delete") },
            Action::CreateSubnets(new) => Self { network: new.first().map(|subnet| subnet.network_id), ..about("subnet create") },
            Action::UpdateSubnet(id, _) => Self { subnet: Some(*id), ..about("subnet change") },
            Action::DeleteSubnet(id) => Self { subnet: Some(*id), ..about("subnet delete") },
            Action::CreateGroups(_) => about("security group create"),
            Action::UpdateGroup(id, _) => Self { group: Some(*id), ..about("security group change") },
            Action::DeleteGroup(id) => Self { group: Some(*id), ..about("security group delete") },
            Action::CreateRules(new) => Self { group: new.first().map(|rule| rule.group_id), ..about("rule create") },
            Action::DeleteRule(id) => Self { rule: Some(*id), ..about("rule delete") },
            Action::PutServer(new) => Self { server: Some(new.id), ..about("server put") },
            Action::DeleteServer(id, _) => Self { server: Some(*id), ..about("server delete") },
            Action::CreatePorts(new) => Self { network: new.first().map(|port| port.network_id), ..about("port create") },
            Action::UpdatePort(id, _) => Self { port: Some(*id), ..about("port change") },
            Action::DeletePort(id) => Self { port: Some(*id), ..about("port delete") },
            Action::CreateTrunks(new) => Self { port: new.first().map(|trunk| trunk.port_id), ..about("trunk create") },
            Action::UpdateTrunk(id, _) => Self { trunk: Some(*id), ..about("trunk change") },
            Action::DeleteTrunk(id) => Self { trunk: Some(*id), ..about("trunk delete") },
            Action::AddSubPorts(id, _) => Self { trunk: Some(*id), ..about("subport add") },
            Action::RemoveSubPorts(id, _) => Self { trunk: Some(*id), ..about("subport remove") },
            Action::Attach(attach) => {
                let (port, network) = match &attach.nic {
                    WantedNic::Port(port) => (Some(*port), None),
                    WantedNic::OnNetwork(network, _) => (None, Some(*network)),
                    WantedNic::OnTheOnlyNetwork => (None, None),
                };
                Self { server: Some(attach.server_id), port, network, ..about("attach") }
            }
            Action::Prepare(prepare) => {
                Self { port: Some(prepare.port.id), server: Some(prepare.server.id), ..about("binding create") }
            }
            Action::Activate(id, _) => Self { port: Some(*id), ..about("binding activate") },
            Action::Take(handed, _) => Self { port: Some(handed.port.id), ..about("binding take") },
            Action::DeleteBinding(id) => Self { port: Some(*id), ..about("binding delete") },
            Action::StartJob(new) => Self { server: Some(new.server_id), ..about("job") },
            Action::Detach(server, port, _) => Self { server: Some(*server), port: Some(*port), ..about("detach") },
        }
    }

    /// After it.
    pub fn log(&self, result: &Result<Reply, Error>, took: Duration, context: &Context) {
        let request_id = context.request_id.as_deref();
        let Self { action, server, port, network, subnet, group, rule, trunk } = self;
        let (server, port, group, rule) = (server.map(display), port.map(display), group.map(display), rule.map(display));
        let (network_id, subnet, trunk) = (network.map(display), subnet.map(display), trunk.map(display));
        match result {
            Err(error) => self.refused(error, context),
            Ok(Reply::Network(network)) => self.network(network, took, request_id),
            Ok(Reply::Networks(networks)) => networks.iter().for_each(|network| self.network(network, took, request_id)),
            Ok(Reply::Subnet(subnet)) => self.subnet(subnet, took, request_id),
            Ok(Reply::Subnets(subnets)) => subnets.iter().for_each(|subnet| self.subnet(subnet, took, request_id)),
            Ok(Reply::Group(group)) => self.group(group, took, request_id),
            Ok(Reply::Groups(groups)) => groups.iter().for_each(|group| self.group(group, took, request_id)),
            Ok(Reply::Rules(rules)) => rules.iter().for_each(|view| {
                tracing::info!(group = %view.group, rule = %view.rule.id, request_id, ?took, "{action} done");
            }),
            Ok(Reply::Server(view) | Reply::NewServer(view)) => {
                tracing::info!(server, name = view.server.name, request_id, ?took, "{action} done");
            }
            Ok(Reply::Port(port)) => self.port(port, took, request_id),
            Ok(Reply::Ports(ports)) => ports.iter().for_each(|port| self.port(port, took, request_id)),
            Ok(Reply::Trunk(view)) => self.trunk(view, took, request_id),
            Ok(Reply::Trunks(views)) => views.iter().for_each(|view| self.trunk(view, took, request_id)),
            Ok(Reply::Job(job)) => {
                tracing::info!(server, job = %job.id, nics = job.parts.len(), request_id, ?took, "{action} accepted");
            }
            Ok(Reply::Done) => {
                let network = network_id;
                tracing::info!(server, port, network, subnet, group, rule, trunk, request_id, ?took, "{action} done");
            }
        }
    }

    /// What came of an action that was refused: one line, also of what is nicd's or the host's trouble.
    pub fn refused(&self, error: &Error, context: &Context) {
        let request_id = context.request_id.as_deref();
        let Self { action, server, port, network, subnet, group, rule, trunk } = self;
        let (server, port, network, subnet) = (server.map(display), port.map(display), network.map(display), subnet.map(display));
        let (group, rule, trunk) = (group.map(display), rule.map(display), trunk.map(display));
        let (reason, is_trouble, error) = (error.reason(), error.is_trouble(), chain(error));
        match is_trouble {
            true => {
                tracing::warn!(reason, server, port, network, subnet, group, rule, trunk, request_id, error, "{action} refused")
            }
            false => {
                tracing::info!(reason, server, port, network, subnet, group, rule, trunk, request_id, error, "{action} refused")
            }
        }
    }

    fn network(&self, NetworkView { network, .. }: &NetworkView, took: Duration, request_id: Option<&str>) {
        tracing::info!(network = %network.id, name = network.name, request_id, ?took, "{} done", self.action);
    }

    fn group(&self, group: &Group, took: Duration, request_id: Option<&str>) {
        tracing::info!(group = %group.id, name = group.name, request_id, ?took, "{} done", self.action);
    }

    fn subnet(&self, subnet: &crate::model::Subnet, took: Duration, request_id: Option<&str>) {
        let (id, network, cidr) = (subnet.id, subnet.network_id, subnet.cidr);
        let gateway = subnet.gateway_ip.map(display);
        let outside = subnet.gateway_ip.is_some_and(|gateway| !cidr.contains(gateway));
        let note = if outside { "; its gateway is outside its range: guests get a route to it on the link" } else { "" };
        tracing::info!(subnet = %id, %network, %cidr, gateway, request_id, ?took, "{} done{note}", self.action);
    }

    fn trunk(&self, TrunkView { trunk, .. }: &TrunkView, took: Duration, request_id: Option<&str>) {
        let (id, port, sub_ports) = (trunk.id, trunk.port_id, trunk.sub_ports.len());
        tracing::info!(trunk = %id, %port, sub_ports, name = trunk.name, request_id, ?took, "{} done", self.action);
    }

    fn port(&self, view: &PortView, took: Duration, request_id: Option<&str>) {
        let port = &view.port;
        let addresses: Vec<String> = port.fixed_ips.iter().map(|fixed| fixed.ip_address.to_string()).collect();
        let binding = view.binding.as_ref();
        tracing::info!(
            port = %port.id,
            server = binding.map(|binding| display(binding.server)),
            network = %port.network_id,
            mac = %port.mac,
            addresses = addresses.join(","),
            device = binding.and_then(|binding| binding.device.as_ref()).map(|device| device.name.as_str()),
            request_id,
            ?took,
            "{} done",
            self.action
        );
    }
}
