//! What other hosts define and have is followed: read as a whole at one revision, and watched from there.
//!
//! A watch that is lost goes on where it was. When what is missing was compacted, this host joins again and reads all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::agent::{Fleet, Local};
use super::definitions;
use super::etcd::{Batch, Event, KeyValue, Keys, Op, Txn, Watch, WatchEnd, Watched};
use super::member::{HostRecord, MemberError, read_versioned};
use super::members;
use super::published::Brief;
use super::remotes::{RemoteChange, Remotes, ToldPort};
use crate::model::definition::{Definition, DefinitionName};
use crate::model::{Member, MemberChange, MemberId, NetworkId};
use crate::telemetry::meters::meters;

/// How long a host may be silent before it gets no copies of what is for all any more: one that starts anew is not lost.
const LOST_AFTER: Duration = Duration::from_secs(60);

/// How often it is looked for hosts that are lost.
const EVERY: Duration = Duration::from_secs(5);

/// What is followed.
#[derive(Debug)]
struct Following<'a> {
    fleet: &'a Fleet,
    remotes: Remotes,
    /// Whether etcd may lack some of what other hosts have.
    may_lack: bool,
    /// The hosts of which nothing is heard, and since when.
    silent: BTreeMap<String, Instant>,
    watch: Watch,
}

impl Drop for Following<'_> {
    /// What is known is kept for the next join.
    fn drop(&mut self) {
        let nothing = Remotes::new(String::new());
        self.fleet.keep(std::mem::replace(&mut self.remotes, nothing));
    }
}

impl Fleet {
    /// Follows the fleet. With `is_conclusive`, what etcd does not have is not there any more.
    pub(super) async fn follow<L: Local>(&self, local: &Arc<L>, is_conclusive: bool) -> Result<Infallible, MemberError> {
        // Revisions of an etcd that was emptied begin anew: none of it has been followed.
        self.followed.send_replace(0);
        self.lag().begin();
        let revision = self.adopt_all(local, is_conclusive).await?;
        let from = |prefix: String, revision: i64| Watched { prefix, from: revision + 1 };
        let (at, hosts) = self.kv.pages(self.names.hosts()).all().await?;
        let (alive_at, alive) = self.kv.pages(self.names.all_alive()).all().await?;
        let calls = self.names.calls(&self.host());
        let answers = self.names.answers(&self.host());
        // Nobody waits for what was answered before.
        self.kv.txn(&Txn::when(Vec::new(), vec![Op::Delete(Keys::Prefix(answers.clone()))])).await?;
        let (calls_at, waiting) = self.kv.pages(calls.clone()).all().await?;
        waiting.iter().try_for_each(|found| self.take_call(found))?;
        let prefixes = [
            from(calls, calls_at.revision),
            from(answers, calls_at.revision),
            from(self.names.definitions(), revision),
            from(self.names.hosts(), at.revision),
            from(self.names.all_alive(), alive_at.revision),
        ];
        let watch = self.kv.watch(&prefixes).await?;
        let remotes = self.kept().again(!is_conclusive);
        let may_lack = !is_conclusive;
        let mut following = Following { fleet: self, remotes, may_lack, silent: BTreeMap::new(), watch };
        for found in &hosts {
            let host = self.names.last(&found.key).to_owned();
            following.remotes.put_host(&host, read_versioned::<HostRecord>(found)?.tunnel);
            following.silent.insert(host, Instant::now());
        }
        alive.iter().for_each(|found| _ = following.silent.remove(self.names.last(&found.key)));
        self.followed.send_replace(revision);
        self.settle_standbys(local, is_conclusive).await?;
        let mut look = Instant::now() + EVERY;
        loop {
            self.follow_own_networks(local, &mut following).await?;
            tokio::select! {
                batch = following.watch.next() => match batch {
                    Ok(batch) => self.take_in(local, &mut following, batch).await?,
                    Err(WatchEnd::Lost(why)) => {
                        tracing::debug!(why, "what other hosts do is watched anew");
                        let positions = following.watch.positions();
                        following.watch = self.kv.watch(&positions).await?;
                    }
                    Err(end) => return Err(MemberError::NotFollowed(end.to_string())),
                },
                () = self.networks_change.notified() => {}
                () = sleep(look.saturating_duration_since(Instant::now())) => {
                    look = Instant::now() + EVERY;
                    let lost: Vec<String> =
                        following.silent.iter().filter(|(_, since)| since.elapsed() >= LOST_AFTER).map(|(host, _)| host.clone()).collect();
                    let changes = lost.iter().flat_map(|host| following.remotes.set_lost(host, true)).collect();
                    tell(local, changes);
                }
            }
        }
    }

    /// Adopts all definitions, as they are at the revision that this answers with.
    async fn adopt_all<L: Local>(&self, local: &Arc<L>, is_conclusive: bool) -> Result<i64, MemberError> {
        let known: BTreeMap<DefinitionName, Definition> =
            local.definitions().await.into_iter().map(|definition| (definition.name(), definition)).collect();
        let (header, found) = self.kv.pages(self.names.definitions()).all().await?;
        let there: BTreeSet<DefinitionName> = found.iter().filter_map(|entry| self.names.definition_of(&entry.key)).collect();
        let missing = known.into_iter().filter(|(name, _)| !there.contains(name));
        let mut kept = Vec::new();
        for (name, definition) in missing {
            match is_conclusive {
                true => kept.extend(Arc::clone(local).abandon(name).await.map_err(MemberError::NotNoted)?),
                false => kept.push(definition),
            }
        }
        self.define_again_or_abandon(local, &kept).await?;
        // After that: what is new may have the VXLAN number, or the addresses, of what is not there any more. Networks come before their
        // subnets, as their keys do.
        for entry in &found {
            if self.names.definition_of(&entry.key).is_some() {
                Arc::clone(local).adopt(definitions::read(entry)?).await.map_err(MemberError::NotNoted)?;
            }
        }
        Ok(header.revision)
    }

    /// Defines again what is to stay. What cannot be goes, unless ports of this host use it.
    async fn define_again_or_abandon<L: Local>(&self, local: &Arc<L>, kept: &[Definition]) -> Result<(), MemberError> {
        for name in self.define_again(kept).await? {
            if !Arc::clone(local).abandon(name).await.map_err(MemberError::NotNoted)?.is_empty() {
                tracing::error!(?name, "another network has what this host's has, which stays here alone: delete its ports");
            }
        }
        Ok(())
    }

    /// Follows the ports of each network that has ports here, and of no other.
    async fn follow_own_networks<L: Local>(&self, local: &Arc<L>, following: &mut Following<'_>) -> Result<(), MemberError> {
        let own = local.own_networks();
        local.keep_members_of(&own);
        let left: Vec<NetworkId> = following.remotes.networks().filter(|network| !own.contains(network)).collect();
        for network in left {
            following.watch.remove(&self.names.ports(network));
            following.remotes.leave(network);
            self.lag().unwatch(network);
        }
        let followed: BTreeSet<NetworkId> = following.remotes.networks().collect();
        for network in own.difference(&followed).copied() {
            let prefix = self.names.ports(network);
            let told = |found: KeyValue| {
                let (host, port) = self.names.port_of(network, &found.key)?;
                let member = members::read(&found).map(|member| Some((MemberId { host: host.clone(), port }, member?)));
                let told = Brief::read(&found).map(|brief| ToldPort { host, port, brief, revision: found.mod_revision });
                Some(told.and_then(|told| Ok((told, member?))))
            };
            let (header, found) = self.kv.pages(prefix.clone()).map_all(told).await?;
            let told: Vec<(ToldPort, _)> = found.into_iter().flatten().collect::<Result<_, _>>()?;
            let (ports, members): (Vec<ToldPort>, Vec<Option<(MemberId, Member)>>) = told.into_iter().unzip();
            let host = self.host();
            let members = members.into_iter().flatten().filter(|(id, _)| id.host != host).collect();
            let may_lack = following.may_lack;
            Arc::clone(local).take_in_members(network, MemberChange::All { members, may_lack });
            following.watch.add(&Watched { prefix, from: header.revision + 1 }).map_err(MemberError::Etcd)?;
            self.lag().watch(network);
            let change = following.remotes.enter(network, ports);
            Arc::clone(local).take_in_remote(network, change);
        }
        Ok(())
    }

    /// Takes changes in.
    async fn take_in<L: Local>(&self, local: &Arc<L>, following: &mut Following<'_>, batch: Batch) -> Result<(), MemberError> {
        let is_defined = batch.prefix == self.names.definitions();
        for event in &batch.events {
            if is_defined {
                self.take_in_definition(local, event).await?;
            } else if batch.prefix == self.names.hosts() {
                let host = self.names.last(event.key()).to_owned();
                let tunnel = match event {
                    Event::Put(found) => read_versioned::<HostRecord>(found)?.tunnel,
                    Event::Delete { .. } => None,
                };
                tell(local, following.remotes.put_host(&host, tunnel));
            } else if batch.prefix == self.names.all_alive() {
                let host = self.names.last(event.key()).to_owned();
                match event {
                    Event::Put(_) => {
                        following.silent.remove(&host);
                        tell(local, following.remotes.set_lost(&host, false));
                    }
                    Event::Delete { .. } => _ = following.silent.insert(host, Instant::now()),
                }
            } else if batch.prefix == self.names.calls(&self.host()) {
                if let Event::Put(found) = event {
                    self.take_call(found)?;
                }
            } else if batch.prefix == self.names.answers(&self.host()) {
                self.take_answer(event).await?;
            } else {
                self.take_in_port(local, following, event)?;
                self.follow_standby(local, event).await?;
            }
        }
        if is_defined {
            self.followed.send_replace(batch.revision);
        }
        Ok(())
    }

    async fn take_in_definition<L: Local>(&self, local: &Arc<L>, event: &Event) -> Result<(), MemberError> {
        let Some(name) = self.names.definition_of(event.key()) else { return Ok(()) };
        match event {
            Event::Put(found) => Arc::clone(local).adopt(definitions::read(found)?).await.map_err(MemberError::NotNoted),
            Event::Delete { .. } => {
                // One that was defined again since is told of as well.
                let kept = Arc::clone(local).abandon(name).await.map_err(MemberError::NotNoted)?;
                self.define_again_or_abandon(local, &kept).await
            }
        }
    }

    fn take_in_port<L: Local>(&self, local: &Arc<L>, following: &mut Following<'_>, event: &Event) -> Result<(), MemberError> {
        let Some((network, host, port)) = self.names.port_at(event.key()) else { return Ok(()) };
        if host == self.host() {
            let took = self.lag().comes(port, std::time::Instant::now());
            took.into_iter().for_each(|took| meters().fleet_watch_lag.observe(took.as_secs_f64()));
            return Ok(());
        }
        let id = MemberId { host: host.clone(), port };
        Arc::clone(local).take_in_members(network, MemberChange::One(id, members::told(event)?));
        let changes = match event {
            Event::Put(found) => {
                let told = ToldPort { host, port, brief: Brief::read(found)?, revision: found.mod_revision };
                following.remotes.put(network, told)
            }
            Event::Delete { .. } => following.remotes.remove(network, &host, port),
        };
        tell(local, changes.into_iter().map(|change| (network, change)).collect());
        Ok(())
    }
}

fn tell<L: Local>(local: &Arc<L>, changes: Vec<(NetworkId, RemoteChange)>) {
    changes.into_iter().for_each(|(network, change)| Arc::clone(local).take_in_remote(network, change));
}
