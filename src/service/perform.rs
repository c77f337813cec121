//! Actions: each runs as a task of its own to its end, and each kind has its use case.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::fleet::agent::Fleet;
use crate::inventory;
use crate::model::action::Action;
use crate::telemetry::meters;

use super::logged::Logged;
use super::{Context, Error, Reply, Service, word};

/// How often an action is done again that lacks something of the fleet: so many blocks of addresses at most it can need.
const TRIES: usize = 128;

impl Service {
    /// Carries an action out, to its end also when the caller stops waiting.
    ///
    /// # Errors
    /// Nothing is left of the action then.
    pub async fn perform(self: &Arc<Self>, action: Action, context: Context) -> Result<Reply, Error> {
        let room = match Arc::clone(&self.room).try_acquire_owned() {
            _ if self.reconciler.stopping.load(Ordering::Relaxed) => Err(Error::Stopping),
            Ok(room) => Ok(room),
            Err(_) => Err(Error::Busy("4096 requests are being carried out")),
        };
        let room = room.inspect_err(|error| Logged::of(&action).refused(error, &context))?;
        let service = Arc::clone(self);
        let task = self.reconciler.tasks.spawn(async move {
            let _room = room;
            service.dispatch(action, &context).await
        });
        // The task ends with an answer, unless the event loop ends before it.
        task.await.unwrap_or(Err(Error::Stopping))
    }

    async fn dispatch(self: Arc<Self>, action: Action, context: &Context) -> Result<Reply, Error> {
        let (began, logged) = (Instant::now(), Logged::of(&action));
        let result = Arc::clone(&self).act(action, context).await;
        logged.log(&result, began.elapsed(), context);
        #[cfg(debug_assertions)]
        self.reconciler.lock().assert_sound();
        result
    }

    async fn act(self: Arc<Self>, action: Action, context: &Context) -> Result<Reply, Error> {
        let began = matches!(action, Action::Attach(_)).then(Instant::now);
        let result = match self.fleet.get() {
            Some(fleet) => Arc::clone(&self).act_in_fleet(action, context, fleet).await,
            None => Arc::clone(&self).act_once(action, context).await,
        };
        if let Some(began) = began {
            meters().attached(word(&result), began.elapsed());
        }
        result
    }

    /// What lacks something that only the fleet has is done again once it is there.
    async fn act_in_fleet(self: Arc<Self>, action: Action, context: &Context, fleet: &Fleet) -> Result<Reply, Error> {
        for _ in 0..TRIES {
            match Arc::clone(&self).act_once(action.clone(), context).await {
                Err(Error::Inventory(inventory::Error::Unclaimed(need))) => self.acquire(fleet, &need).await?,
                Err(Error::Outdated(revision)) => {
                    if !fleet.has_followed(revision).await {
                        return Err(Error::FleetUnreachable("what other hosts have changed is not told".to_owned()));
                    }
                }
                result => return result,
            }
        }
        Err(Error::Busy("other hosts of the fleet change the same"))
    }

    async fn act_once(self: Arc<Self>, action: Action, context: &Context) -> Result<Reply, Error> {
        match action {
            Action::CreateNetworks(new) => self.create_networks(new, context).await,
            Action::UpdateNetwork(id, change) => self.update_network(id, change, context).await,
            Action::DeleteNetwork(id) => self.delete_network(id, context).await,
            Action::CreateSubnets(new) => self.create_subnets(new, context).await,
            Action::UpdateSubnet(id, change) => self.update_subnet(id, change, context).await,
            Action::DeleteSubnet(id) => self.delete_subnet(id, context).await,
            Action::CreateGroups(new) => self.create_groups(new, context).await,
            Action::UpdateGroup(id, change) => self.update_group(id, change, context).await,
            Action::DeleteGroup(id) => self.delete_group(id, context).await,
            Action::CreateRules(new) => self.create_rules(new, context).await,
            Action::DeleteRule(id) => self.delete_rule(id, context).await,
            Action::PutServer(new) => self.put_server(new).await,
            Action::DeleteServer(id, nics) => self.delete_server(id, nics, context).await,
            Action::CreatePorts(new) => self.create_ports(new, context).await,
            Action::UpdatePort(id, change) => self.update_port(id, change, context).await,
            Action::DeletePort(id) => self.delete_port(id, context).await,
            Action::CreateTrunks(new) => self.create_trunks(new, context).await,
            Action::UpdateTrunk(id, change) => self.update_trunk(id, change, context).await,
            Action::DeleteTrunk(id) => self.delete_trunk(id, context).await,
            Action::AddSubPorts(id, new) => self.add_sub_ports(id, &new, context).await,
            Action::RemoveSubPorts(id, ports) => self.remove_sub_ports(id, &ports, context).await,
            Action::Attach(attach) => self.attach(attach, context).await,
            Action::Detach(server, port, after) => self.detach(server, port, after, context).await,
            Action::Prepare(prepare) => self.prepare(*prepare, context).await,
            Action::Activate(id, host) => self.activate(id, host).await,
            Action::Take(handed, call) => self.take(*handed, &call, context).await,
            Action::DeleteBinding(id) => self.delete_binding(id, context).await,
            Action::StartJob(new) => self.start_job(new, context).await,
        }
    }
}
