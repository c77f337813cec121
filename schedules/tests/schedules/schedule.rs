//! One schedule: hosts that make and delete ports, and what happens to them and to the store, drawn from a seed.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

use jiff::Timestamp;
use nicd::fleet::etcd::{Compare, Keys, Op, Txn};
use nicd::fleet::keys::Names;
use nicd::fleet::kv::Kv;
use nicd::fleet::member::{Claimed, ForgetError, GRACE, HostRecord, Joined, Member, MemberError, VERSION, forget};
use nicd::model::pools::Range;
use nicd::model::{Claim, Epoch, Held, Lent, Mac, NetworkId, Registration};
use rand::distr::uniform::SampleUniform;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

use crate::clock::{self, Task, now, sleep, spawn};
use crate::kv::{Etcd, Way};

/// 16 blocks: hosts find each other's.
const FIRST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 0);
const LAST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 255);

/// How many blocks of MACs there are to claim.
const MACS: u8 = 12;

/// What a host's own store has.
#[derive(Clone, Default)]
struct Stored {
    registration: Option<Registration>,
    held: Vec<Held>,
    /// Claims that another host has in etcd while it is not decided whose they are.
    disputed: Vec<Held>,
    /// What other hosts hold of its blocks.
    lent: Vec<Lent>,
    /// Addresses of its ports, with their MACs.
    ports: BTreeMap<IpAddr, Mac>,
    /// Those of them that are handed to another host, of which it is not known whether that has them. Their devices are silent.
    handed: BTreeMap<IpAddr, String>,
    /// The calls to have a port that were carried out.
    carried_out: BTreeSet<String>,
    /// Single MACs that a client has asked for. What it was handed with a port it gives no other one.
    named: BTreeSet<Mac>,
}

impl Stored {
    /// What other hosts hold of its blocks, or may hold.
    fn may_be_lent(&self) -> Vec<Lent> {
        let handed = self.handed.iter().filter_map(|(address, host)| Some((*address, *self.ports.get(address)?, host)));
        let ones = handed.flat_map(|(address, mac, host)| {
            [Claim::Address(network(), address), Claim::Mac(mac)].map(|claim| Lent { claim, host: host.clone(), made: 0 })
        });
        self.lent.iter().cloned().chain(ones).collect()
    }
}

/// All addresses and MACs of ports, with their hosts.
#[derive(Default)]
struct InUse {
    addresses: BTreeMap<IpAddr, usize>,
    macs: BTreeMap<Mac, usize>,
}

struct World {
    etcd: Rc<Etcd>,
    in_use: RefCell<InUse>,
    /// Hosts whose ports are not there until they have joined again: they were forgotten, and had lost their power before, or their own
    /// store was put back, after which a host builds nothing before.
    absent: RefCell<BTreeSet<usize>>,
    /// Those of them of which etcd has nothing, as long as no backup is put back.
    cleared: RefCell<BTreeSet<usize>>,
    /// Hosts that may find their claims with others: they were forgotten, or their own store was put back.
    may_lose: RefCell<BTreeSet<usize>>,
    tells: bool,
}

impl World {
    fn tell(&self, host: usize, what: impl FnOnce() -> String) {
        if self.tells {
            eprintln!("{:>8} ms  host {host}: {}", now().as_millis(), what());
        }
    }

    fn begin(&self, host: usize, address: IpAddr, mac: Mac) {
        let mut in_use = self.in_use.borrow_mut();
        if let Some(other) = in_use.addresses.insert(address, host).filter(|other| *other != host) {
            panic!("{address} is a port's of host {other} and of host {host}");
        }
        if let Some(other) = in_use.macs.insert(mac, host).filter(|other| *other != host) {
            panic!("{mac} is a port's of host {other} and of host {host}");
        }
    }

    fn end(&self, host: usize, address: IpAddr, mac: Mac) {
        let mut in_use = self.in_use.borrow_mut();
        in_use.addresses.retain(|one, of| *one != address || *of != host);
        in_use.macs.retain(|one, of| *one != mac || *of != host);
    }

    /// None of a host's ports is there any more.
    fn end_all(&self, host: usize) {
        let mut in_use = self.in_use.borrow_mut();
        in_use.addresses.retain(|_, of| *of != host);
        in_use.macs.retain(|_, of| *of != host);
    }
}

fn names() -> Names {
    Names::new("test")
}

fn network() -> NetworkId {
    NetworkId(Uuid::from_u128(1))
}

/// A host whose process can be killed and started.
struct Host {
    number: usize,
    world: Rc<World>,
    way: Way,
    stored: Rc<RefCell<Stored>>,
    /// The store of an older day.
    older: RefCell<Stored>,
    store_id: Uuid,
    random: Rc<RefCell<StdRng>>,
    task: RefCell<Option<Task>>,
    /// How often it could claim something or make a port.
    done: Rc<Cell<u32>>,
    /// How many hosts there are.
    hosts: usize,
}

impl Host {
    fn start(&self) {
        let record =
            HostRecord { v: VERSION, store: self.store_id, version: "1".into(), tunnel: None, since: Timestamp::UNIX_EPOCH };
        let process = Process {
            number: self.number,
            world: Rc::clone(&self.world),
            way: self.way.clone(),
            member: Member::new(self.way.clone(), names(), format!("h{}", self.number), record),
            stored: Rc::clone(&self.stored),
            random: Rc::clone(&self.random),
            done: Rc::clone(&self.done),
            hosts: self.hosts,
            sign: Cell::new(0),
        };
        // Its devices are as its store has them, before it has asked anybody.
        self.world.end_all(self.number);
        if !self.world.absent.borrow().contains(&self.number) {
            let stored = self.stored.borrow();
            for (address, mac) in stored.ports.iter().filter(|(address, _)| !stored.handed.contains_key(address)) {
                if !stored.lent.iter().any(|lent| is_of(&lent.claim, *address, *mac)) {
                    self.world.begin(self.number, *address, *mac);
                }
            }
        }
        self.world.tell(self.number, || "starts".into());
        *self.task.borrow_mut() = Some(spawn(process.run()));
    }

    fn kill(&self) {
        self.world.tell(self.number, || "is killed".into());
        if let Some(task) = self.task.borrow_mut().take() {
            task.abort();
        }
    }

    fn is_running(&self) -> bool {
        self.task.borrow().is_some()
    }
}

struct Process {
    number: usize,
    world: Rc<World>,
    way: Way,
    member: Member<Way>,
    stored: Rc<RefCell<Stored>>,
    random: Rc<RefCell<StdRng>>,
    done: Rc<Cell<u32>>,
    hosts: usize,
    /// What it has put at its last join: what it began before it is not carried out after.
    sign: Cell<u64>,
}

impl Process {
    fn draw<T: SampleUniform + PartialOrd + Default>(&self, below: T) -> T {
        self.random.borrow_mut().random_range(T::default()..below)
    }

    async fn run(self) {
        let mut not_before = None;
        loop {
            self.way.has_ended();
            let (known, noted, lent) = {
                let stored = self.stored.borrow();
                let known = stored
                    .registration
                    .map(|known| Registration { is_settled: not_before.is_none_or(|until| now() >= until), ..known });
                (known, [&stored.held[..], &stored.disputed].concat(), stored.may_be_lent())
            };
            match self.member.join(known, &noted, &lent).await {
                Ok(joined) => {
                    self.world.tell(self.number, || format!("joined: {joined:?}"));
                    if joined.is_other_epoch {
                        not_before = Some(now() + GRACE);
                    }
                    let settles = not_before.is_some_and(|until| now() < until);
                    self.note(&joined, settles);
                    match self.settle_handed(&joined.registration, settles).await {
                        Ok(()) => self.work(not_before).await,
                        Err(error) => self.world.tell(self.number, || format!("where its ports are is not told: {error}")),
                    }
                }
                Err(error) => self.world.tell(self.number, || format!("has not joined: {error}")),
            }
            sleep(Duration::from_millis(100 + self.draw(2000))).await;
        }
    }

    /// Notes what it holds. Ports of what is in dispute are closed until it is decided; of what it has lost, there are none.
    fn note(&self, joined: &Joined, settles: bool) {
        let mut stored = self.stored.borrow_mut();
        stored.registration = Some(joined.registration);
        let held: BTreeSet<Claim> = stored.held.iter().map(|held| held.claim).collect();
        stored.named.retain(|mac| held.contains(&Claim::Mac(*mac)));
        stored.held = joined.held.clone();
        stored.lent = joined.lent.clone();
        // What it has handed over without having heard of it is the other host's.
        let of = |claim: &Claim, ip: &IpAddr| stored.ports.get(ip).is_some_and(|mac| is_of(claim, *ip, *mac));
        let handed = |claim: &Claim| claim.block().is_some() && stored.handed.keys().any(|ip| of(claim, ip));
        stored.disputed = joined.lost.iter().map(|(held, _)| *held).filter(|held| !handed(&held.claim)).collect();
        let lost = if settles { Vec::new() } else { std::mem::take(&mut stored.disputed) };
        drop(stored);
        let may_lose = self.world.may_lose.borrow().contains(&self.number);
        // What it was handed just before a backup was put back it may lose: its port is kept down then.
        let named = self.stored.borrow().named.clone();
        let was_handed = |held: &Held| match held.claim {
            Claim::Address(..) => true,
            Claim::Mac(mac) => !named.contains(&mac),
            Claim::Addresses { .. } | Claim::Macs(_) => false,
        };
        assert!(may_lose || lost.iter().all(was_handed), "host {} has lost {lost:?}", self.number);
        lost.iter().for_each(|held| self.close(|address, mac| is_of(&held.claim, address, mac)));
        self.world.absent.borrow_mut().remove(&self.number);
        let stored = self.stored.borrow();
        for (address, mac) in stored.ports.iter().filter(|(address, _)| !stored.handed.contains_key(address)) {
            let is_lent = stored.lent.iter().any(|lent| is_of(&lent.claim, *address, *mac));
            match is_lent || stored.disputed.iter().any(|held| is_of(&held.claim, *address, *mac)) {
                true => self.world.end(self.number, *address, *mac),
                false => self.world.begin(self.number, *address, *mac),
            }
        }
    }

    /// Works until it has to join again.
    async fn work(&self, not_before: Option<Duration>) {
        loop {
            sleep(Duration::from_millis(self.draw(1500))).await;
            // The end of a connection may be noticed after a request on another one.
            if self.draw(2) == 0 && self.way.has_ended() {
                return;
            }
            let waits = not_before.is_some_and(|until| now() < until);
            if !self.stored.borrow().disputed.is_empty() && self.draw(8) == 0 {
                return;
            }
            let registration = self.stored.borrow().registration.expect("it has joined");
            let done = match self.draw(12) {
                0..4 => {
                    self.make_port();
                    Ok(())
                }
                4..6 => {
                    let place = self.draw(64_usize);
                    let port = self.stored.borrow().ports.iter().nth(place).map(|(address, mac)| (*address, *mac));
                    let port = port.filter(|(address, _)| !self.stored.borrow().handed.contains_key(address));
                    port.into_iter().for_each(|port| self.close(|address, mac| (address, mac) == port));
                    Ok(())
                }
                6..8 if !waits => self.claim_more(&registration).await,
                8 if !waits => self.claim_macs(&registration).await,
                9 => self.give_back(&registration).await,
                10 if !waits => self.hand(&registration).await,
                11 if !waits => self.end_lending(&registration).await,
                _ => Ok(()),
            };
            let done = match done {
                Ok(()) => self.take(&registration).await,
                failed => failed,
            };
            if let Err(error) = done {
                return self.world.tell(self.number, || format!("joins again: {error}"));
            }
        }
    }

    async fn claim_more(&self, registration: &Registration) -> Result<(), MemberError> {
        let range = Range { start: FIRST.into(), end: LAST.into() };
        if let Some(held) = self.member.claim_addresses(registration, network(), &[range]).await? {
            self.hold(held).await?;
        }
        self.done.set(self.done.get() + 1);
        Ok(())
    }

    /// A block, or one MAC that a client has asked for.
    async fn claim_macs(&self, registration: &Registration) -> Result<(), MemberError> {
        let mac = Mac([0xfa, 0x16, 0x3e, 0, self.draw(MACS), 3]);
        let claim = if self.draw(4) == 0 { Claim::Mac(mac) } else { Claim::of_mac(mac) };
        // One of a block that is its own needs no claim beside.
        let is_held = self.stored.borrow().held.iter().any(|held| [claim, Claim::of_mac(mac)].contains(&held.claim));
        if !is_held && let Claimed::Held(held) = self.member.claim(registration, claim).await? {
            self.hold(held).await?;
            if let Claim::Mac(mac) = claim {
                self.stored.borrow_mut().named.insert(mac);
            }
        }
        Ok(())
    }

    /// Notes a claim, once it is known what other hosts hold of it.
    async fn hold(&self, held: Held) -> Result<(), MemberError> {
        let lent = self.member.lent_of([held.claim].iter()).await?;
        self.stored.borrow_mut().lent.extend(lent);
        self.note_held(held);
        Ok(())
    }

    fn note_held(&self, held: Held) {
        self.world.tell(self.number, || format!("holds {held:?}"));
        let mut stored = self.stored.borrow_mut();
        stored.held.retain(|one| one.claim != held.claim);
        stored.lent.retain(|one| one.claim != held.claim);
        stored.held.push(held);
    }

    /// Hands a port to another host, which may be away.
    async fn hand(&self, registration: &Registration) -> Result<(), MemberError> {
        let to = self.draw(self.hosts);
        let place = self.draw(16_usize);
        let (port, held) = {
            let stored = self.stored.borrow();
            let disputed = |one: &(IpAddr, Mac)| stored.disputed.iter().any(|held| is_of(&held.claim, one.0, one.1));
            let lent = |one: &(IpAddr, Mac)| stored.lent.iter().any(|lent| is_of(&lent.claim, one.0, one.1));
            let ports = stored.ports.iter().map(|(address, mac)| (*address, *mac));
            let ports: Vec<_> = ports.filter(|one| !stored.handed.contains_key(&one.0) && !disputed(one) && !lent(one)).collect();
            (ports.get(place).copied(), stored.held.clone())
        };
        let Some((address, mac)) = port.filter(|_| to != self.number) else { return Ok(()) };
        let ones = [Claim::Address(network(), address), Claim::Mac(mac)];
        let to = format!("h{to}");
        self.stored.borrow_mut().handed.insert(address, to.clone());
        self.world.end(self.number, address, mac);
        let when = vec![Compare::value(sign_of(self.number), self.sign.get().to_string().into_bytes())];
        let handed = serde_json::to_vec(&(address, mac, registration.epoch)).unwrap();
        let call = format!("{}{}", handed_to(&to), self.draw(u64::MAX));
        let then = vec![Op::put(place_of(address), to.clone().into_bytes()), Op::put(call, handed)];
        self.world.tell(self.number, || format!("hands {address} {mac} to {to}"));
        let done = self.member.hand(registration, &to, (&held, &ones), (when, then)).await?;
        self.stored.borrow_mut().handed.remove(&address);
        match done {
            Some(made) => self.handed(address, mac, &to, made),
            None => self.world.begin(self.number, address, mac),
        }
        Ok(())
    }

    /// A port is another host's.
    fn handed(&self, address: IpAddr, mac: Mac, to: &str, made: i64) {
        let mut stored = self.stored.borrow_mut();
        stored.ports.remove(&address);
        for one in [Claim::Address(network(), address), Claim::Mac(mac)] {
            stored.held.retain(|held| held.claim != one);
            if stored.held.iter().any(|held| Some(held.claim) == one.block()) && stored.lent.iter().all(|lent| lent.claim != one)
            {
                stored.lent.push(Lent { claim: one, host: to.to_owned(), made });
            }
        }
    }

    /// Puts its sign, and does what follows from where the ports are that were being handed over.
    async fn settle_handed(&self, registration: &Registration, settles: bool) -> Result<(), MemberError> {
        self.sign.set(self.draw(u64::MAX));
        let when = vec![Compare::made(names().host(&format!("h{}", self.number)), registration.created)];
        let put = Op::put(sign_of(self.number), self.sign.get().to_string().into_bytes());
        let signed = self.way.txn(Txn::when(when, vec![put])).await.map_err(MemberError::Etcd)?;
        if !signed.succeeded {
            return Err(MemberError::Forgotten(format!("h{}", self.number)));
        }
        let handed = self.stored.borrow().handed.clone();
        for (address, to) in handed {
            let Some(mac) = self.stored.borrow().ports.get(&address).copied() else { continue };
            let (_, found) = self.way.read(Keys::One(place_of(address))).await.map_err(MemberError::Etcd)?;
            let place = found.first().map(|found| String::from_utf8(found.value.clone()).unwrap());
            let ones = [Claim::Address(network(), address), Claim::Mac(mac)];
            let holds = |one: &Claim| {
                let stored = self.stored.borrow();
                let held = |claim: Option<Claim>| stored.held.iter().any(|held| Some(held.claim) == claim);
                held(Some(*one)) || held(one.block()) && stored.lent.iter().all(|lent| lent.claim != *one)
            };
            if place.as_deref() == Some(&to) {
                self.stored.borrow_mut().handed.remove(&address);
                self.handed(address, mac, &to, 0);
            } else if !settles && ones.iter().all(holds) {
                self.stored.borrow_mut().handed.remove(&address);
                self.world.begin(self.number, address, mac);
            }
        }
        Ok(())
    }

    /// Has the ports that other hosts have handed over.
    async fn take(&self, registration: &Registration) -> Result<(), MemberError> {
        let prefix = handed_to(&format!("h{}", self.number));
        let (_, found) = self.way.read(Keys::Prefix(prefix)).await.map_err(MemberError::Etcd)?;
        for call in found {
            let (address, mac, epoch): (IpAddr, Mac, Epoch) = serde_json::from_slice(&call.value).unwrap();
            let ones = [Claim::Address(network(), address), Claim::Mac(mac)];
            // What it had when it joined it may have given back since.
            self.stored.borrow_mut().named.remove(&mac);
            let is_new = self.stored.borrow_mut().carried_out.insert(call.key.clone());
            let is_noted = ones.iter().all(|one| self.stored.borrow().held.iter().any(|held| held.claim == *one));
            if is_new && epoch == registration.epoch && (is_noted || call.mod_revision > registration.seen) {
                if !is_noted {
                    ones.iter().for_each(|claim| self.note_held(Held { claim: *claim, made: call.mod_revision, epoch }));
                }
                self.world.tell(self.number, || format!("takes {address} {mac}"));
                self.world.begin(self.number, address, mac);
                let mut stored = self.stored.borrow_mut();
                stored.handed.remove(&address);
                stored.ports.insert(address, mac);
            }
            let when = vec![Compare::unchanged(call.key.clone(), call.mod_revision)];
            self.way.txn(Txn::when(when, vec![Op::Delete(Keys::One(call.key))])).await.map_err(MemberError::Etcd)?;
        }
        Ok(())
    }

    async fn end_lending(&self, registration: &Registration) -> Result<(), MemberError> {
        let lent = self.stored.borrow().lent.clone();
        let back = self.member.given_back(registration, &lent).await?;
        self.stored.borrow_mut().lent.retain(|one| !back.contains(&one.claim));
        Ok(())
    }

    /// With the lowest address and MAC that are free here. Asks nobody.
    fn make_port(&self) {
        let mut stored = self.stored.borrow_mut();
        let addresses = stored.held.iter().filter_map(|held| match held.claim {
            Claim::Addresses { first: IpAddr::V4(first), .. } => Some(u32::from(first)..u32::from(first) + 3),
            _ => None,
        });
        let mut addresses = addresses.flatten().map(|number| IpAddr::from(Ipv4Addr::from(number)));
        let lent = |one: &Claim| stored.lent.iter().any(|lent| lent.claim == *one);
        let is_free = |address: &IpAddr| !stored.ports.contains_key(address) && !lent(&Claim::Address(network(), *address));
        let Some(address) = addresses.find(is_free) else { return };
        let macs = stored.held.iter().flat_map(|held| match held.claim {
            Claim::Macs([a, b, c, d, e]) => (2..5).map(|last| Mac([a, b, c, d, e, last])).collect(),
            Claim::Mac(mac) if stored.named.contains(&mac) => vec![mac],
            Claim::Mac(_) | Claim::Addresses { .. } | Claim::Address(..) => Vec::new(),
        });
        let taken: BTreeSet<Mac> = stored.ports.values().copied().collect();
        let Some(mac) = macs.into_iter().find(|mac| !taken.contains(mac) && !lent(&Claim::Mac(*mac))) else { return };
        self.world.tell(self.number, || format!("makes {address} {mac}"));
        self.world.begin(self.number, address, mac);
        stored.ports.insert(address, mac);
    }

    fn close(&self, which: impl Fn(IpAddr, Mac) -> bool) {
        let mut stored = self.stored.borrow_mut();
        stored.ports.retain(|address, mac| {
            let goes = which(*address, *mac);
            if goes {
                self.world.end(self.number, *address, *mac);
            }
            !goes
        });
    }

    /// Notes that a claim is not its own any more, and gives it back.
    async fn give_back(&self, registration: &Registration) -> Result<(), MemberError> {
        let held = {
            let mut stored = self.stored.borrow_mut();
            let place = self.draw(stored.held.len().max(1));
            let Some(held) = stored.held.get(place).copied() else { return Ok(()) };
            let lends = stored.lent.iter().any(|lent| lent.claim.block() == Some(held.claim));
            if lends || stored.ports.iter().any(|(address, mac)| is_of(&held.claim, *address, *mac)) {
                return Ok(());
            }
            stored.held.remove(place);
            held
        };
        let was_its = self.member.give_back(registration, &held).await?;
        self.world.tell(self.number, || format!("gave back {held:?}: {was_its}"));
        Ok(())
    }
}

fn sign_of(host: usize) -> String {
    format!("nicd/test/sign/h{host}")
}

fn place_of(address: IpAddr) -> String {
    format!("nicd/test/where/{address}")
}

fn handed_to(host: &str) -> String {
    format!("nicd/test/handed/{host}/")
}

fn is_of(claim: &Claim, address: IpAddr, mac: Mac) -> bool {
    match claim {
        Claim::Addresses { .. } => Claim::of_address(network(), address) == *claim,
        Claim::Macs(_) => Claim::of_mac(mac) == *claim,
        Claim::Mac(one) => mac == *one,
        Claim::Address(_, one) => address == *one,
    }
}

/// Runs the schedule of a seed.
pub fn run(seed: u64, tells: bool) {
    clock::run(one(seed, tells));
}

async fn one(seed: u64, tells: bool) {
    let mut random = StdRng::seed_from_u64(seed);
    let etcd = Rc::new(Etcd::default());
    let world = Rc::new(World {
        etcd: Rc::clone(&etcd),
        in_use: RefCell::default(),
        absent: RefCell::default(),
        cleared: RefCell::default(),
        may_lose: RefCell::default(),
        tells,
    });
    let count = random.random_range(2..5);
    let hosts: Vec<Host> = (0..count)
        .map(|number| Host {
            hosts: count,
            number,
            world: Rc::clone(&world),
            way: Way::new(&etcd, random.random()),
            stored: Rc::default(),
            older: RefCell::default(),
            store_id: Uuid::from_u128(random.random()),
            random: Rc::new(RefCell::new(StdRng::seed_from_u64(random.random()))),
            task: RefCell::default(),
            done: Rc::default(),
        })
        .collect();
    hosts.iter().for_each(Host::start);
    for _ in 0..random.random_range(3..12) {
        sleep(Duration::from_millis(random.random_range(0..8000))).await;
        disturb(&world, &hosts, &mut random).await;
    }
    heal(&hosts).await;
    sleep(GRACE).await;
    for host in &hosts {
        if !world.absent.borrow().contains(&host.number) {
            let before = host.done.get();
            let until = now() + Duration::from_secs(120);
            while host.done.get() == before {
                assert!(now() < until, "host {} claims nothing any more", host.number);
                sleep(Duration::from_millis(500)).await;
            }
        }
    }
    for host in world.cleared.borrow().iter() {
        let name = format!("h{host}");
        let left = etcd.find(&Keys::Prefix(names().all_held(&name)));
        let is_back = !etcd.find(&Keys::One(names().host(&name))).is_empty();
        assert!(left.is_empty() || is_back, "{} claims of host {host}, which was forgotten", left.len());
    }
}

async fn disturb(world: &Rc<World>, hosts: &[Host], random: &mut StdRng) {
    let host = &hosts[random.random_range(0..hosts.len())];
    match random.random_range(0..10) {
        0 | 1 => {
            let is_cut = random.random();
            world.tell(host.number, || format!("is cut off: {is_cut}"));
            host.way.cut(is_cut);
        }
        2 => host.kill(),
        3 | 4 if !host.is_running() => host.start(),
        3 | 4 => {
            host.kill();
            host.start();
        }
        5 => world.etcd.back_up(),
        6 => {
            // A host that is cut off while a backup is put back, and for longer than the others wait, cannot be heard in time; nor can one
            // that comes back just then know that it was forgotten, or is what was in dispute decided.
            heal(hosts).await;
            while !world.absent.borrow().is_empty() || hosts.iter().any(|host| !host.stored.borrow().disputed.is_empty()) {
                sleep(Duration::from_secs(1)).await;
            }
            sleep(Duration::from_secs(10)).await;
            world.tell(host.number, || "a backup of etcd is put back".into());
            world.etcd.restore();
            world.cleared.borrow_mut().clear();
            sleep(GRACE + Duration::from_secs(10)).await;
        }
        7 => {
            let stored = host.stored.borrow().clone();
            *host.older.borrow_mut() = stored;
        }
        8 => {
            host.kill();
            world.tell(host.number, || "its own store of an older day is put back".into());
            let older = host.older.borrow().clone();
            if older.registration.is_some() {
                world.may_lose.borrow_mut().insert(host.number);
                world.absent.borrow_mut().insert(host.number);
                *host.stored.borrow_mut() = older;
            }
            host.way.cut(false);
            host.start();
            // It knows of a newer revision before a backup of etcd can be put back.
            sleep(Duration::from_secs(10)).await;
        }
        _ => {
            // It has lost its power.
            host.kill();
            world.may_lose.borrow_mut().insert(host.number);
            // A host that is back is not forgotten by what was asked before: it has told that it is alive, which is left out here.
            let way = Way::new(&world.etcd, random.random()).prompt();
            match forget(&way, &names(), &format!("h{}", host.number)).await {
                Ok(_) => {
                    world.tell(host.number, || "is forgotten".into());
                    world.cleared.borrow_mut().insert(host.number);
                    world.absent.borrow_mut().insert(host.number);
                    world.end_all(host.number);
                }
                // What it began before it was killed, and what is carried out late, registers it again.
                Err(ForgetError::Alive(_)) => {
                    world.absent.borrow_mut().insert(host.number);
                    world.end_all(host.number);
                }
                // Its record may be gone, and its claims free.
                Err(ForgetError::Etcd(_)) => {
                    world.absent.borrow_mut().insert(host.number);
                    world.end_all(host.number);
                }
            }
        }
    }
}

async fn heal(hosts: &[Host]) {
    for host in hosts {
        host.way.cut(false);
        if !host.is_running() {
            host.start();
        }
    }
}
