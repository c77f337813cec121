//! One host's part in the fleet: its record, and what it claims.
//!
//! Each claim is one transaction that holds only while the host's record is the one that it registered, and etcd's data is of the
//! epoch that it knows: a host that was forgotten, or that slept while a backup was put back, changes nothing. A claim is used only
//! once it is noted in the host's own store; it is under no lease, and ends when its host gives it back or is forgotten.
//!
//! A host that was forgotten and comes back registers anew, and claims again what it has noted: what another host has by then, it has
//! lost.
//!
//! # When a backup of etcd was put back
//!
//! Then claims are missing that were made after it. It is seen by a revision that is lower than one seen before: the first host to
//! see that writes another [epoch](super::keys::Names::epoch). Each host then puts its claims again, which it knows from its own
//! store, and makes no new ones for [`GRACE`]. A claim of the backup's that another host has since given back and this one has made
//! is replaced: it is of an earlier epoch, or of the same and older. One that was made since the backup was put back is another host's for good:
//! this one has lost it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::etcd::{Compare, Error as EtcdError, KeyValue, Keys, Op, Txn, TxnAnswer};
use super::keys::Names;
use super::kv::Kv;
use crate::model::claim::BLOCK;
use crate::model::pools::{Range, address, number};
use crate::model::{Claim, Epoch, Held, Lent, NetworkId, Registration};

/// How long after a backup was put back no new claims are made: other hosts put theirs again meanwhile.
pub const GRACE: Duration = Duration::from_secs(30);

/// The version of the values here. A host that finds a newer one leaves the fleet's data alone.
pub const VERSION: u32 = 1;

/// How often a transaction is tried again whose guards another host has changed meanwhile.
const TRIES: usize = 8;

/// How many keys one transaction reads.
const KEYS: usize = 64;

/// Among so many free blocks each host begins with another one: hosts that start together would all try the first.
const CHOICE: usize = 32;

/// A host's record in etcd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRecord {
    /// The version of this format.
    pub v: u32,
    /// The id of the host's own store: two hosts of one name differ by it.
    pub store: Uuid,
    /// The version of its nicd.
    pub version: String,
    /// Its end of tunnels; none where it has none.
    pub tunnel: Option<IpAddr>,
    /// When it was registered.
    pub since: Timestamp,
}

/// A claim's value in etcd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ClaimRecord {
    v: u32,
    host: String,
    epoch: Epoch,
}

/// Why a host is not, or no longer, one of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// Another host has its name.
    #[error(
        "'{host}' is another host's name in the fleet (its store is {store}); give this one another fleet.host, or forget that one: nicctl host forget {host}"
    )]
    NameTaken {
        /// The name.
        host: String,
        /// The other one's store.
        store: Uuid,
    },
    /// It was forgotten, and has to join again: others may have what it claimed.
    #[error("the fleet has forgotten host '{0}': others may have what it claimed")]
    Forgotten(String),
    /// The data are of another epoch than the one that the host knows: it has to join again.
    #[error("a backup of etcd was put back")]
    OtherEpoch,
    /// A newer nicd has written the data.
    #[error("{key} has version {found}, and this nicd knows up to {VERSION}: upgrade it")]
    Newer {
        /// The key.
        key: String,
        /// The version found.
        found: u32,
    },
    /// A value cannot be read.
    #[error("{key} cannot be read: {why}")]
    Damaged {
        /// The key.
        key: String,
        /// Why.
        why: String,
    },
    /// Others changed the same keys each time.
    #[error("other hosts changed {0} at each of {TRIES} tries")]
    Contended(String),
    /// It could not be noted what etcd has of this host.
    #[error("{0}")]
    NotNoted(String),
    /// Other hosts may have to put their claims again, and have not had the time.
    #[error("a backup of etcd was put back, or it is another one: nothing is claimed for {} s, until all hosts have told what they have", GRACE.as_secs())]
    Unsettled,
    /// What another host has was tried once more, as it may be this one's.
    #[error("other hosts have had their time to tell what they have")]
    Undecided,
    /// There is nothing to ask.
    #[error("{0}")]
    NotConnected(String),
    /// What others do is not followed any more.
    #[error("{0}")]
    NotFollowed(String),
    /// It told of itself too late: others count it as lost.
    #[error("this host was not heard of for too long")]
    Silent,
    /// Etcd does not answer.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
}

/// What came of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// The host holds it now.
    Held(Held),
    /// Another host does.
    Theirs(String),
}

/// How a host stands after it has joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// To be noted.
    pub registration: Registration,
    /// What it holds: to be noted in place of what it held before.
    pub held: Vec<Held>,
    /// What it held and another host has now, with that one's name: ports that have it are closed. Within [`GRACE`] it may become this
    /// one's again: it stays noted, and the host joins again.
    pub lost: Vec<(Held, String)>,
    /// What other hosts hold of its blocks.
    pub lent: Vec<Lent>,
    /// A backup was put back, or etcd is another one: no new claims for [`GRACE`].
    pub is_other_epoch: bool,
    /// The fleet had forgotten it. It holds again what nobody has claimed meanwhile.
    pub was_forgotten: bool,
}

/// What does not stand in the way of a claim that was held before.
#[derive(Debug, Clone, Default)]
struct Beside {
    /// Claims of single ones that are known to be of the block.
    known: BTreeSet<Claim>,
    /// The guard that one may be claimed beside its block.
    marked: Option<Compare>,
}

/// A host of the fleet.
#[derive(Debug, Clone)]
pub struct Member<K> {
    kv: K,
    names: Names,
    host: String,
    record: HostRecord,
    /// The newest revision that an answer had.
    seen: Arc<AtomicI64>,
}

impl<K: Kv> Member<K> {
    /// The host of this name, whose record this is to be.
    pub fn new(kv: K, names: Names, host: String, record: HostRecord) -> Self {
        Self { kv, names, host, record, seen: Arc::default() }
    }

    async fn txn(&self, txn: Txn) -> Result<TxnAnswer, MemberError> {
        let before = self.seen.load(Ordering::Relaxed);
        let answer = self.kv.txn(txn).await?;
        self.saw(answer.header.revision, before)?;
        Ok(answer)
    }

    /// Notes the revision of an answer. One that is older than what was seen before it was asked for is of a backup that was put back.
    fn saw(&self, revision: i64, before: i64) -> Result<(), MemberError> {
        self.seen.fetch_max(revision, Ordering::Relaxed);
        if revision < before { Err(MemberError::OtherEpoch) } else { Ok(()) }
    }

    async fn read(&self, keys: Keys) -> Result<Vec<KeyValue>, MemberError> {
        let before = self.seen.load(Ordering::Relaxed);
        let (revision, found) = self.kv.read(keys).await?;
        self.saw(revision, before)?;
        Ok(found)
    }

    /// Registers the host, or finds it registered, and brings its claims in etcd and what it has noted of them together.
    ///
    /// # Errors
    /// It cannot be one of the fleet, or etcd does not answer.
    pub async fn join(&self, known: Option<Registration>, noted: &[Held], lent: &[Lent]) -> Result<Joined, MemberError> {
        let newest =
            noted.iter().map(|one| one.made).chain(lent.iter().map(|one| one.made)).chain(known.map(|known| known.seen)).max();
        self.seen.fetch_max(newest.unwrap_or(0), Ordering::Relaxed);
        let registration = self.register(known).await?;
        let is_other_epoch = known.is_some_and(|known| known.epoch != registration.epoch);
        let was_forgotten = !is_other_epoch && known.is_some_and(|known| known.created != registration.created);
        let before = self.seen.load(Ordering::Relaxed);
        let (listed_at, listed) = self.kv.read(Keys::Prefix(self.names.all_held(&self.host))).await?;
        self.saw(listed_at, before)?;
        let entries = listed.iter().filter_map(|entry| Some((self.names.claim_of(&self.host, &entry.key)?, entry)));
        let entries: BTreeMap<Claim, &KeyValue> = entries.collect();
        // First, so that their hosts need not wait; and once more where the backup had another host's block.
        let mut unmarked: Vec<Claim> = if is_other_epoch { lent.iter().map(|lent| lent.claim).collect() } else { Vec::new() };
        self.mark_lent(&registration, &mut unmarked).await?;
        // Of a block that was held before, these were claimed by themselves already.
        let ones =
            lent.iter().map(|lent| lent.claim).chain(noted.iter().map(|held| held.claim).filter(|claim| claim.block().is_some()));
        let ones: BTreeSet<Claim> = ones.collect();
        let (mut held, mut lost) = (Vec::new(), Vec::new());
        for one in noted {
            let is_there = entries.get(&one.claim).is_some_and(|entry| entry.mod_revision == one.made);
            if is_there && !is_other_epoch {
                held.push(*one);
                continue;
            }
            match self.put_again(&registration, one, &ones).await? {
                Claimed::Held(again) => held.push(again),
                Claimed::Theirs(host) => {
                    self.unlist(&registration, &one.claim).await?;
                    lost.push((*one, host));
                }
            }
        }
        self.mark_lent(&registration, &mut unmarked).await?;
        // Claims whose answer was lost, or that a store of an older day does not know: they are its own. After a backup was put back they
        // may be another host's since, and are given back.
        let noted: BTreeSet<Claim> = noted.iter().map(|one| one.claim).collect();
        for (claim, entry) in entries.iter().filter(|(claim, _)| !noted.contains(claim)) {
            if is_other_epoch {
                let made = Held { claim: *claim, made: entry.mod_revision, epoch: registration.epoch };
                if !self.give_back(&registration, &made).await? {
                    self.unlist(&registration, claim).await?;
                }
                continue;
            }
            match self.claim(&registration, *claim).await? {
                Claimed::Held(found) => held.push(found),
                Claimed::Theirs(_) => self.unlist(&registration, claim).await?,
            }
        }
        let may_lack = is_other_epoch || known.is_some_and(|known| !known.is_settled);
        let mut there = self.lent_of(held.iter().map(|held| &held.claim)).await?;
        // What other hosts have put again by now is known; the others have time left.
        let found: BTreeSet<Claim> = there.iter().map(|lent| lent.claim).collect();
        let own: BTreeSet<Claim> = held.iter().map(|held| held.claim).collect();
        for one in lent.iter().filter(|one| !found.contains(&one.claim) && !own.contains(&one.claim)) {
            if may_lack || !self.end_lending(&registration, &one.claim).await? {
                there.push(one.clone());
            }
        }
        // What it was handed after that it does not know yet.
        let registration = Registration { seen: listed_at, ..registration };
        Ok(Joined { registration, held, lost, lent: there, is_other_epoch, was_forgotten })
    }

    /// What other hosts hold of these blocks.
    ///
    /// # Errors
    /// Etcd does not answer.
    pub async fn lent_of<'a>(&self, claims: impl Iterator<Item = &'a Claim>) -> Result<Vec<Lent>, MemberError> {
        let blocks: BTreeSet<Claim> = claims.filter(|claim| claim.block().is_none()).copied().collect();
        let prefixes: BTreeSet<String> = blocks
            .iter()
            .filter_map(|block| match block {
                Claim::Addresses { network, .. } => Some(self.names.singles(*network)),
                Claim::Macs(octets) => Some(self.names.macs(octets)),
                Claim::Mac(_) | Claim::Address(..) => None,
            })
            .collect();
        let mut lent = Vec::new();
        for prefix in prefixes {
            for found in self.read(Keys::Prefix(prefix)).await? {
                let Some(claim) = self.names.claim_at(&found.key) else { continue };
                let host = read_versioned::<ClaimRecord>(&found)?.host;
                if host != self.host && claim.block().is_some_and(|block| blocks.contains(&block)) {
                    lent.push(Lent { claim, host, made: found.mod_revision });
                }
            }
        }
        Ok(lent)
    }

    /// Tells, after a backup of etcd was put back, that one of a block of this host's may be another host's: that one puts its claim again
    /// beside the block, which it could not else.
    /// Those that are told of are taken out.
    async fn mark_lent(&self, registration: &Registration, ones: &mut Vec<Claim>) -> Result<(), MemberError> {
        for one in std::mem::take(ones) {
            let Some(block) = one.block().map(|block| self.names.claim(&block)) else { continue };
            let there = self.read(Keys::One(block.clone())).await?;
            let in_block = match there.first() {
                None => Compare::absent(Keys::One(block)),
                Some(found) if read_versioned::<ClaimRecord>(found)?.host == self.host => {
                    Compare::unchanged(block, found.mod_revision)
                }
                Some(_) => {
                    ones.push(one);
                    continue;
                }
            };
            let when = self.guards(registration).into_iter().chain([in_block]).collect();
            let value = json(&ClaimRecord { v: VERSION, host: self.host.clone(), epoch: registration.epoch });
            self.txn(Txn::when(when, vec![Op::put(self.names.lent(&one), value)])).await?;
        }
        Ok(())
    }

    /// Ends the lending of what no other host holds any more. False where one does.
    async fn end_lending(&self, registration: &Registration, one: &Claim) -> Result<bool, MemberError> {
        let when = self.guards(registration).into_iter().chain([Compare::absent(Keys::One(self.names.claim(one)))]).collect();
        let answer = self.txn(Txn::when(when, vec![Op::Delete(Keys::One(self.names.lent(one)))])).await?;
        Ok(answer.succeeded)
    }

    /// The guards of what only a registered host does, in the epoch that it knows.
    fn guards(&self, registration: &Registration) -> [Compare; 2] {
        let (host, epoch) = (self.names.host(&self.host), self.names.epoch());
        [Compare::made(host, registration.created), Compare::value(epoch, json(&registration.epoch))]
    }

    /// Hands single addresses and MACs to another host, with what goes along: those that this one holds alone go, and of its blocks that one
    /// holds them then. The revision; none where it is not to be, or this host does not hold one of them.
    ///
    /// # Errors
    /// As [`Member::claim`]: it may have been done then.
    pub async fn hand(
        &self,
        registration: &Registration,
        to: &str,
        (held, ones): (&[Held], &[Claim]),
        (when, then): (Vec<Compare>, Vec<Op>),
    ) -> Result<Option<i64>, MemberError> {
        let mut txn = Txn::when(when, then);
        txn.compare.extend(self.guards(registration));
        txn.compare.push(Compare::present(self.names.host(to)));
        let value = json(&ClaimRecord { v: VERSION, host: to.to_owned(), epoch: registration.epoch });
        let find = |claim: &Claim| held.iter().find(|held| held.claim == *claim);
        for one in ones {
            let key = self.names.claim(one);
            match (find(one), one.block().and_then(|block| find(&block))) {
                (Some(own), _) => {
                    txn.compare.push(Compare::unchanged(key.clone(), own.made));
                    txn.success.push(Op::Delete(Keys::One(self.names.held(&self.host, one))));
                }
                (None, Some(block)) => {
                    txn.compare.push(Compare::unchanged(self.names.claim(&block.claim), block.made));
                    txn.compare.push(Compare::absent(Keys::One(key.clone())));
                }
                (None, None) => return Ok(None),
            }
            let puts = [key, self.names.held(to, one)];
            txn.success.extend(puts.map(|key| Op::Put { key, value: value.clone(), lease: 0 }));
        }
        let answer = self.txn(txn).await?;
        Ok(answer.succeeded.then_some(answer.header.revision))
    }

    /// Of what other hosts held of this host's blocks, what none holds any more.
    ///
    /// # Errors
    /// Etcd does not answer.
    pub async fn given_back(&self, registration: &Registration, lent: &[Lent]) -> Result<Vec<Claim>, MemberError> {
        let mut back = Vec::new();
        for some in lent.chunks(KEYS) {
            let reads = some.iter().map(|one| Op::read(Keys::One(self.names.claim(&one.claim)))).collect();
            let answer = self.txn(Txn::when(Vec::new(), reads)).await?;
            for (one, found) in some.iter().zip(answer.found()) {
                let holder = found.first().map(read_versioned::<ClaimRecord>).transpose()?;
                let is_back = match holder {
                    Some(holder) => holder.host == self.host,
                    None => self.end_lending(registration, &one.claim).await?,
                };
                back.extend(is_back.then_some(one.claim));
            }
        }
        Ok(back)
    }

    /// Takes a claim out of the host's list that is another's.
    async fn unlist(&self, registration: &Registration, claim: &Claim) -> Result<(), MemberError> {
        let when = vec![Compare::made(self.names.host(&self.host), registration.created)];
        let delete = Op::Delete(Keys::One(self.names.held(&self.host, claim)));
        self.txn(Txn::when(when, vec![delete])).await?;
        Ok(())
    }

    async fn register(&self, known: Option<Registration>) -> Result<Registration, MemberError> {
        let (host, epoch) = (self.names.host(&self.host), self.names.epoch());
        for _ in 0..TRIES {
            let read = [host.clone(), epoch.clone()].map(|key| Op::read(Keys::One(key)));
            let before = self.seen.load(Ordering::Relaxed);
            let answer = self.kv.txn(Txn::when(Vec::new(), read.into())).await?;
            let [found, now] = [0, 1].map(|place| answer.found().get(place).and_then(|keys| keys.first()));
            let is_older = answer.header.revision < before;
            let now = match now {
                None => {
                    let first = next(known.map(|known| known.epoch));
                    self.put(vec![Compare::absent(Keys::One(epoch.clone()))], &epoch, &first).await?;
                    continue;
                }
                Some(found) => read_value::<Epoch>(found)?,
            };
            if let Some(known) = known.map(|known| known.epoch)
                && (is_older && known == now || now.number < known.number)
            {
                self.put(vec![Compare::value(epoch.clone(), json(&now))], &epoch, &next([known, now])).await?;
                continue;
            }
            let Some(found) = found else {
                let guards = vec![Compare::absent(Keys::One(host.clone())), Compare::value(epoch.clone(), json(&now))];
                self.put(guards, &host, &self.record).await?;
                continue;
            };
            let there: HostRecord = read_versioned(found)?;
            if there.store != self.record.store {
                return Err(MemberError::NameTaken { host: self.host.clone(), store: there.store });
            }
            if (&there.version, there.tunnel) != (&self.record.version, self.record.tunnel) {
                let record = HostRecord { since: there.since, ..self.record.clone() };
                self.put(vec![Compare::unchanged(host.clone(), found.mod_revision)], &host, &record).await?;
                continue;
            }
            self.seen.store(answer.header.revision, Ordering::Relaxed);
            return Ok(Registration {
                created: found.create_revision,
                epoch: now,
                seen: answer.header.revision,
                is_settled: true,
            });
        }
        Err(MemberError::Contended(host))
    }

    async fn put(&self, when: Vec<Compare>, key: &str, value: &impl Serialize) -> Result<(), MemberError> {
        let op = Op::Put { key: key.to_owned(), value: json(value), lease: 0 };
        self.kv.txn(Txn::when(when, vec![op])).await?;
        Ok(())
    }

    /// Claims it, unless another host has.
    ///
    /// # Errors
    /// The host is no longer one of the fleet, or etcd does not answer. The claim may have been made then: the next
    /// [`Member::join`] finds it.
    pub async fn claim(&self, registration: &Registration, claim: Claim) -> Result<Claimed, MemberError> {
        self.take(registration, claim, Beside::default(), |_| false).await
    }

    /// Claims again what was held before, a block also beside these single ones: in place of what the backup has of another host, where that is older. A lost answer is no
    /// reason to begin with all claims anew: others wait for no longer than [`GRACE`].
    async fn put_again(&self, registration: &Registration, was: &Held, ones: &BTreeSet<Claim>) -> Result<Claimed, MemberError> {
        let mut tries = 0;
        loop {
            // Without a backup that was put back since, what others have there is newer.
            let is_outlived = |(theirs, key): (&ClaimRecord, &KeyValue)| {
                was.epoch != registration.epoch
                    && (theirs.epoch.number < was.epoch.number || theirs.epoch == was.epoch && key.create_revision < was.made)
            };
            let beside = Beside { known: ones.clone(), marked: self.marked(registration, was).await? };
            match self.take(registration, was.claim, beside, is_outlived).await {
                Err(MemberError::Etcd(_)) if tries < TRIES => tries += 1,
                result => return result,
            }
        }
    }

    /// The guard that a block's host has told, since a backup was put back, that this one of the block may be another's; none where it has not.
    async fn marked(&self, registration: &Registration, was: &Held) -> Result<Option<Compare>, MemberError> {
        let Some(block) = was.claim.block().filter(|_| was.epoch != registration.epoch) else { return Ok(None) };
        let keys = [self.names.lent(&was.claim), self.names.claim(&block)];
        let answer = self.txn(Txn::when(Vec::new(), keys.map(|key| Op::read(Keys::One(key))).into())).await?;
        let [Some(marker), Some(block)] = [0, 1].map(|at| answer.found().get(at).and_then(|found| found.first()).cloned()) else {
            return Ok(None);
        };
        // It is of the time when the block was put again.
        let epochs = [&marker, &block].map(|found| read_versioned::<ClaimRecord>(found).map(|record| record.epoch));
        let is_of_block = matches!(epochs, [Ok(marked), Ok(put)] if marked == put);
        Ok(is_of_block.then(|| Compare::unchanged(marker.key.clone(), marker.mod_revision)))
    }

    async fn take(
        &self,
        registration: &Registration,
        claim: Claim,
        allowed: Beside,
        is_outlived: impl Fn((&ClaimRecord, &KeyValue)) -> bool,
    ) -> Result<Claimed, MemberError> {
        let key = self.names.claim(&claim);
        // A block of MACs and one of them cannot be two hosts', but for what the block's host has handed to others. The same holds for
        // addresses, of which none is claimed alone otherwise.
        let beside = match claim {
            _ if allowed.marked.is_some() => None,
            Claim::Macs(octets) => Some(Keys::Prefix(self.names.macs(&octets))),
            _ => claim.block().map(|block| Keys::One(self.names.claim(&block))),
        };
        let is_known = |there: &KeyValue| self.names.claim_at(&there.key).is_some_and(|one| allowed.known.contains(&one));
        let (host, epoch) = (self.names.host(&self.host), self.names.epoch());
        let guards: Vec<Compare> = self.guards(registration).into_iter().chain(allowed.marked.clone()).collect();
        let value = json(&ClaimRecord { v: VERSION, host: self.host.clone(), epoch: registration.epoch });
        let puts: Vec<Op> = [key.clone(), self.names.held(&self.host, &claim)]
            .into_iter()
            .map(|key| Op::Put { key, value: value.clone(), lease: 0 })
            .collect();
        let mut free: Vec<Compare> = [Keys::One(key.clone())].into_iter().chain(beside.clone()).map(Compare::absent).collect();
        for _ in 0..TRIES {
            let when = guards.iter().cloned().chain(std::mem::take(&mut free)).collect();
            let read = [host.clone(), epoch.clone(), key.clone()].map(Keys::One).into_iter().chain(beside.clone());
            let answer = self.txn(Txn::when(when, puts.clone()).or_read(read)).await?;
            if answer.succeeded {
                return Ok(Claimed::Held(Held { claim, made: answer.header.revision, epoch: registration.epoch }));
            }
            let read = answer.found();
            let found = |place: usize| read.get(place).copied().unwrap_or_default();
            if found(0).first().is_none_or(|host| host.create_revision != registration.created) {
                return Err(MemberError::Forgotten(self.host.clone()));
            }
            if found(1).first().is_none_or(|now| now.value != json(&registration.epoch)) {
                return Err(MemberError::OtherEpoch);
            }
            let is_held =
                found(2).first().map(read_versioned::<ClaimRecord>).transpose()?.is_some_and(|has| has.host == self.host);
            // What stands in the way has to be as it is now, and is replaced. What this host was handed is of another's block.
            let others = found(3).iter().filter(|there| !(is_known(there) || is_held && claim.block().is_some()));
            for there in found(2).iter().chain(others) {
                let theirs: ClaimRecord = read_versioned(there)?;
                // Beside a MAC of its own another host may claim one at any time: such a block is not taken.
                let is_own = theirs.host == self.host && (there.key == key || claim.block().is_some());
                if !is_own && !is_outlived((&theirs, there)) {
                    return Ok(Claimed::Theirs(theirs.host));
                }
                free.push(Compare::unchanged(there.key.clone(), there.mod_revision));
            }
            let absent = [(2, Some(Keys::One(key.clone()))), (3, beside.clone())];
            let absent = absent.into_iter().filter(|(place, _)| found(*place).is_empty() && !(is_held && *place == 3));
            free.extend(absent.filter_map(|(_, keys)| keys).map(Compare::absent));
        }
        Err(MemberError::Contended(key))
    }

    /// Claims a block of addresses of these ranges that no host has; none where all have been claimed.
    ///
    /// # Errors
    /// As [`Member::claim`].
    pub async fn claim_addresses(
        &self,
        registration: &Registration,
        network: NetworkId,
        ranges: &[Range],
    ) -> Result<Option<Held>, MemberError> {
        let Some(first) = ranges.first() else { return Ok(None) };
        for attempt in 0..TRIES {
            let keys = self.read(Keys::Prefix(self.names.blocks(network, first.start.is_ipv6()))).await?;
            let taken: BTreeSet<u128> = keys.iter().filter_map(|entry| self.names.block_of(&entry.key)).collect();
            let is_free = |claim: &Claim| matches!(claim, Claim::Addresses { first, .. } if !taken.contains(&number(*first)));
            let free = blocks(network, ranges).filter(is_free);
            let free: Vec<Claim> = free.take(CHOICE).collect();
            let begin = usize::from(self.record.store.as_bytes()[0]) + attempt;
            let Some(chosen) = free.get(begin % free.len().max(1)) else { return Ok(None) };
            if let Claimed::Held(held) = self.claim(registration, *chosen).await? {
                return Ok(Some(held));
            }
        }
        Err(MemberError::Contended(self.names.blocks(network, first.start.is_ipv6())))
    }

    /// Gives a claim back, which the host must have noted before: nothing of it may be in use. Whether it was the host's still.
    ///
    /// # Errors
    /// Etcd does not answer. The next [`Member::join`] finds a claim that stays.
    pub async fn give_back(&self, registration: &Registration, held: &Held) -> Result<bool, MemberError> {
        let key = self.names.claim(&held.claim);
        let when =
            vec![Compare::made(self.names.host(&self.host), registration.created), Compare::unchanged(key.clone(), held.made)];
        let keys = [key, self.names.held(&self.host, &held.claim)];
        let answer = self.txn(Txn::when(when, keys.map(|key| Op::Delete(Keys::One(key))).into())).await?;
        Ok(answer.succeeded)
    }
}

/// Takes a host that is not alive out of the fleet, with all that it claims: others may have it then. False if there is no such host.
///
/// # Errors
/// It is alive, or etcd does not answer; what is left of it then goes with the next try.
pub async fn forget(kv: &impl Kv, names: &Names, host: &str) -> Result<bool, ForgetError> {
    let record = names.host(host);
    let there = kv.read(Keys::One(record.clone())).await?.1;
    if let Some(found) = there.first() {
        // One that has registered anew by the time that this is carried out is not meant.
        let meant = Compare::made(record.clone(), found.create_revision);
        let when = vec![Compare::absent(Keys::One(names.alive(host))), meant];
        let gone = [record, names.last_seen(host)].map(|key| Op::Delete(Keys::One(key)));
        if !kv.txn(Txn::when(when, gone.into())).await?.succeeded {
            return Err(ForgetError::Alive(host.to_owned()));
        }
    }
    // Without the record none of its transactions holds any more.
    let listed = kv.read(Keys::Prefix(names.all_held(host))).await?.1;
    let was_there = !there.is_empty() || !listed.is_empty();
    for entry in &listed {
        let gone = Compare::absent(Keys::One(names.host(host)));
        let deleted = Op::Delete(Keys::One(entry.key.clone()));
        // Both were written by one transaction. Another host's claim may be in its place since a backup was put back.
        let (also, claim) = match names.claim_of(host, &entry.key).map(|claim| names.claim(&claim)) {
            Some(claim) => (Some(Compare::unchanged(claim.clone(), entry.mod_revision)), Some(Op::Delete(Keys::One(claim)))),
            None => (None, None),
        };
        let when = [gone.clone()].into_iter().chain(also).collect();
        let answer = kv.txn(Txn::when(when, [deleted.clone()].into_iter().chain(claim).collect())).await?;
        if !answer.succeeded && !kv.txn(Txn::when(vec![gone], vec![deleted])).await?.succeeded {
            return Err(ForgetError::Alive(host.to_owned()));
        }
    }
    Ok(was_there)
}

/// Why a host is not forgotten.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForgetError {
    /// It is alive.
    #[error("host '{0}' is alive")]
    Alive(String),
    /// Etcd does not answer.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
}

/// An epoch that is after all of these.
fn next(epochs: impl IntoIterator<Item = Epoch>) -> Epoch {
    let last = epochs.into_iter().map(|epoch| epoch.number).max();
    Epoch { number: last.unwrap_or(0).saturating_add(1), id: Uuid::new_v4() }
}

/// The blocks that these ranges touch, from the first on.
fn blocks(network: NetworkId, ranges: &[Range]) -> impl Iterator<Item = Claim> {
    ranges.iter().flat_map(move |range| {
        let (start, end) = (number(range.start), number(range.end));
        let size = u128::from(BLOCK);
        let v6 = range.start.is_ipv6();
        (start / size..=end / size).map(move |block| Claim::of_address(network, address(block * size, v6)))
    })
}

/// A value as JSON. What is written here has no maps with other keys than texts, so that it cannot fail.
pub(super) fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn read_value<T: DeserializeOwned>(found: &KeyValue) -> Result<T, MemberError> {
    let damaged = |error: serde_json::Error| MemberError::Damaged { key: found.key.clone(), why: error.to_string() };
    serde_json::from_slice(&found.value).map_err(damaged)
}

/// A value that says of which version it is.
///
/// # Errors
/// It cannot be read, or a newer nicd has written it.
pub fn read_versioned<T: DeserializeOwned>(found: &KeyValue) -> Result<T, MemberError> {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    match read_value::<Version>(found)?.v {
        version if version > VERSION => Err(MemberError::Newer { key: found.key.clone(), found: version }),
        _ => read_value(found),
    }
}
