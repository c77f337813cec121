//! Claims for ports: made ahead in the background, and at once for what a request names or the reserve does not have.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::agent::{Fleet, Local};
use super::etcd::LIMIT;
use super::member::{Claimed, MemberError};
use crate::model::{Claim, Held, Need, SubnetId};

/// How often it is looked whether the reserve is large enough.
const EVERY: Duration = Duration::from_millis(500);

/// How long a subnet of which all is claimed is not asked for again.
const EXHAUSTED: Duration = Duration::from_secs(60);

/// How long addresses of a network without ports here, and MACs that no port has, stay claimed.
const IDLE: Duration = Duration::from_secs(60);

/// How often it is asked whether another host has given back what ports of this host have.
const DISPUTED: Duration = Duration::from_secs(30);

/// How often another block of MACs is drawn when the drawn one is another host's.
const DRAWS: usize = 16;

/// Why something is not to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// It is another host's, of this name.
    Theirs(String),
    /// All of it is claimed.
    Exhausted,
    /// It cannot be claimed now.
    Unreachable(MemberError),
}

impl From<MemberError> for Refused {
    fn from(error: MemberError) -> Self {
        Self::Unreachable(error)
    }
}

impl Fleet {
    /// Claims what is needed, unless that was done meanwhile.
    ///
    /// # Errors
    /// Others have it, or etcd does not answer.
    pub async fn acquire<L: Local>(&self, local: &L, need: &Need) -> Result<(), Refused> {
        // Known at once where there is nothing to wait for.
        self.registered()?;
        let joins = |_| MemberError::NotConnected("this host is joining its fleet".to_owned());
        let _turn = timeout(LIMIT, self.claiming.lock()).await.map_err(joins)?;
        if local.has(need) {
            return Ok(());
        }
        if let Some(host) = local.borrower(need) {
            return Err(Refused::Theirs(host));
        }
        let claimed = self.claim(local, need).await;
        if let Err(Refused::Unreachable(error)) = &claimed {
            self.note_error(error);
        }
        self.hold(local, claimed?).await
    }

    /// Notes a claim that was made, once it is known what other hosts hold of it.
    async fn hold(&self, local: &impl Local, held: Held) -> Result<(), Refused> {
        let lent = self.member.lent_of([held.claim].iter()).await?;
        local.hold(held, lent).await.map_err(|error| Refused::Unreachable(MemberError::NotNoted(error)))
    }

    async fn claim(&self, local: &impl Local, need: &Need) -> Result<Held, Refused> {
        let registration = self.registered()?;
        if !registration.is_settled {
            return Err(MemberError::Unsettled.into());
        }
        let one = match need {
            Need::AnyAddress(network, subnet) => {
                let pools = local.pools(*subnet);
                let held = self.member.claim_addresses(&registration, *network, &pools).await?;
                return held.ok_or(Refused::Exhausted);
            }
            Need::Address(network, ip) => Claim::of_address(*network, *ip),
            Need::Mac(mac) => Claim::Mac(*mac),
            Need::AnyMac(prefix) => {
                let [a, b, c] = prefix.octets();
                for _ in 0..DRAWS {
                    let drawn = Claim::Macs([a, b, c, rand::random(), rand::random()]);
                    if let Claimed::Held(held) = self.member.claim(&registration, drawn).await? {
                        return Ok(held);
                    }
                }
                return Err(Refused::Exhausted);
            }
        };
        match self.member.claim(&registration, one).await? {
            Claimed::Held(held) => Ok(held),
            Claimed::Theirs(host) => Err(Refused::Theirs(host)),
        }
    }

    /// Keeps the reserve as large as it is to be, and gives back what is not used.
    pub(super) async fn keep_claims<L: Local>(&self, local: &Arc<L>) -> Result<Infallible, MemberError> {
        let mut exhausted: BTreeMap<SubnetId, Instant> = BTreeMap::new();
        let mut idle: BTreeMap<Claim, Instant> = BTreeMap::new();
        let mut asked = Instant::now();
        loop {
            sleep(EVERY).await;
            exhausted.retain(|_, since| since.elapsed() < EXHAUSTED);
            for need in local.short_of(&exhausted.keys().copied().collect()) {
                match self.acquire_ahead(local, &need).await {
                    Ok(()) | Err(Refused::Theirs(_) | Refused::Unreachable(MemberError::Unsettled)) => {}
                    Err(Refused::Exhausted) => {
                        if let Need::AnyAddress(_, subnet) = need {
                            exhausted.insert(subnet, Instant::now());
                        }
                    }
                    Err(Refused::Unreachable(error)) => return Err(error),
                }
            }
            if asked.elapsed() >= DISPUTED && self.registered()?.is_settled {
                asked = Instant::now();
                self.ask_for_disputed(local).await?;
                self.end_lending(local).await?;
            }
            let now: BTreeMap<Claim, Held> = local.idle().into_iter().map(|held| (held.claim, held)).collect();
            idle.retain(|claim, _| now.contains_key(claim));
            for (claim, held) in &now {
                if idle.entry(*claim).or_insert_with(Instant::now).elapsed() >= IDLE {
                    self.give_back(&**local, held).await?;
                }
            }
        }
    }

    /// Claims again what another host had, which may have given it back; forgets what no port here has any more.
    async fn ask_for_disputed(&self, local: &Arc<impl Local>) -> Result<(), MemberError> {
        let _turn = self.claiming.lock().await;
        let registration = self.registered()?;
        for held in local.disputed() {
            if local.let_go(&held).await.map_err(MemberError::NotNoted)? {
                continue;
            }
            if let Claimed::Held(again) = self.member.claim(&registration, held.claim).await? {
                tracing::info!(claim = ?held.claim, "another host has given back what ports of this host have");
                let lent = self.member.lent_of([again.claim].iter()).await?;
                local.hold(again, lent).await.map_err(MemberError::NotNoted)?;
            }
        }
        Ok(())
    }

    /// Claims something although the reserve has some of it.
    async fn acquire_ahead(&self, local: &Arc<impl Local>, need: &Need) -> Result<(), Refused> {
        let _turn = self.claiming.lock().await;
        let held = self.claim(&**local, need).await?;
        self.hold(&**local, held).await
    }

    /// Gives a claim back, once it is noted that it is given up.
    async fn give_back(&self, local: &impl Local, held: &Held) -> Result<(), MemberError> {
        let registration = self.registered()?;
        if local.let_go(held).await.map_err(MemberError::NotNoted)? {
            self.member.give_back(&registration, held).await?;
        }
        Ok(())
    }
}
