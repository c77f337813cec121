//! What requests need of the fleet: claims of addresses and MACs, and that networks, subnets and security groups are the same for all
//! hosts.

use std::sync::Arc;

use crate::fleet::agent::Fleet;
use crate::fleet::claims::Refused;
use crate::fleet::definitions::NotDefined;
use crate::inventory;
use crate::model::Need;
use crate::model::definition::{DefinitionName, Redefinition};
use crate::store::{Change, Purpose};

use super::{Context, Error, Service};

impl Service {
    /// Claims what a request needs.
    pub(super) async fn acquire(&self, fleet: &Fleet, need: &Need) -> Result<(), Error> {
        fleet.acquire(self, need).await.map_err(|refused| match (refused, *need) {
            (Refused::Theirs(host), Need::Address(network, ip)) => {
                Error::OfOtherHost { what: format!("Fixed IP {ip} of network {network}"), host }
            }
            (Refused::Theirs(host), Need::Mac(mac)) => Error::OfOtherHost { what: format!("MAC address {mac}"), host },
            (Refused::Exhausted, Need::AnyAddress(_, subnet)) => self.all_claimed(subnet),
            (Refused::Unreachable(error), _) => Error::FleetUnreachable(format!("{}; {error}", lacking(need))),
            (Refused::Theirs(_) | Refused::Exhausted, _) => Error::Busy("no free block of MACs was found under links.mac_prefix"),
        })
    }

    /// Hosts have claimed all addresses of a subnet.
    fn all_claimed(&self, subnet: crate::model::SubnetId) -> Error {
        match self.reconciler.lock().subnet(subnet) {
            Ok(entry) => {
                let size = entry.record.all_free().usage().size;
                let (network, cidr) = (entry.record.network_id, entry.record.cidr.to_string());
                inventory::Error::PoolEmpty { network, cidr, size, used: size }.into()
            }
            Err(error) => error.into(),
        }
    }

    /// The fleet that this host is in.
    ///
    /// # Errors
    /// It is in none.
    pub(super) fn in_fleet(&self) -> Result<&Arc<Fleet>, Error> {
        let none = || Error::FleetUnreachable("this host has no [fleet] in its configuration".to_owned());
        self.fleet.get().ok_or_else(none)
    }

    /// Commits changes: first in the fleet what all hosts have. What is only followed is there already. Answers with the revision of what was
    /// changed in the fleet.
    pub(super) async fn commit_shared(
        &self,
        shared: Vec<Redefinition>,
        changes: Vec<Change>,
        purpose: Purpose,
        context: &Context,
    ) -> Result<Option<i64>, Error> {
        if shared.is_empty() || context.follows {
            self.reconciler.commit(changes, purpose).await?;
            return Ok(None);
        }
        let fleet = self.in_fleet()?;
        let revision = fleet.redefine(&shared).await.map_err(not_defined)?;
        let Err(error) = self.reconciler.commit(changes, purpose).await else { return Ok(Some(revision)) };
        // Nothing is made when the answer is an error. Other changes this host follows by itself, as any other host does.
        let new = shared.iter().filter_map(|change| match change {
            Redefinition::New(definition) => Some(definition.name()),
            Redefinition::Changed(_) | Redefinition::Gone(_) | Redefinition::Needed(_) => None,
        });
        fleet.take_back(new.collect()).await;
        Err(error.into())
    }
}

/// What is lacking, in words.
fn lacking(need: &Need) -> String {
    inventory::Error::Unclaimed(*need).to_string()
}

fn not_defined(error: NotDefined) -> Error {
    match error {
        NotDefined::Newer(revision) => Error::Outdated(revision),
        NotDefined::InUse(name, hosts) => match name {
            DefinitionName::Network(id) => {
                Error::InUseElsewhere { what: format!("Network {id}"), hosts, reason: "network_in_use" }
            }
            DefinitionName::Subnet(_, id) => {
                Error::InUseElsewhere { what: format!("Subnet {id}"), hosts, reason: "subnet_in_use" }
            }
            DefinitionName::Group(id) => {
                Error::InUseElsewhere { what: format!("Security Group {id}"), hosts, reason: "group_in_use" }
            }
        },
        NotDefined::TooMany(parts) => Error::TooManyAtOnce { parts },
        NotDefined::Unreachable(error) => error.into(),
    }
}
