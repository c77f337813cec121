//! One schedule: hosts that make and delete ports, and what happens to them and to the store, drawn from a seed.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

use jiff::Timestamp;
use nicd::fleet::etcd::Keys;
use nicd::fleet::keys::Names;
use nicd::fleet::member::{Claimed, ForgetError, GRACE, HostRecord, Joined, Member, MemberError, VERSION, forget};
use nicd::model::pools::Range;
use nicd::model::{Claim, Held, Mac, NetworkId, Registration};
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
    /// Addresses of its ports, with their MACs.
    ports: BTreeMap<IpAddr, Mac>,
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
        };
        // Its devices are as its store has them, before it has asked anybody.
        self.world.end_all(self.number);
        if !self.world.absent.borrow().contains(&self.number) {
            for (address, mac) in &self.stored.borrow().ports {
                self.world.begin(self.number, *address, *mac);
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
}

impl Process {
    fn draw<T: SampleUniform + PartialOrd + Default>(&self, below: T) -> T {
        self.random.borrow_mut().random_range(T::default()..below)
    }

    async fn run(self) {
        let mut not_before = None;
        loop {
            self.way.has_ended();
            let (known, noted) = {
                let stored = self.stored.borrow();
                (stored.registration, [&stored.held[..], &stored.disputed].concat())
            };
            match self.member.join(known, &noted).await {
                Ok(joined) => {
                    self.world.tell(self.number, || format!("joined: {joined:?}"));
                    if joined.is_other_epoch {
                        not_before = Some(now() + GRACE);
                    }
                    self.note(&joined, not_before.is_some_and(|until| now() < until));
                    self.work(not_before).await;
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
        stored.held = joined.held.clone();
        stored.disputed = joined.lost.iter().map(|(held, _)| *held).collect();
        let lost = if settles { Vec::new() } else { std::mem::take(&mut stored.disputed) };
        drop(stored);
        let may_lose = self.world.may_lose.borrow().contains(&self.number);
        assert!(may_lose || lost.is_empty(), "host {} has lost {lost:?}", self.number);
        lost.iter().for_each(|held| self.close(|address, mac| is_of(&held.claim, address, mac)));
        self.world.absent.borrow_mut().remove(&self.number);
        let stored = self.stored.borrow();
        for (address, mac) in &stored.ports {
            match stored.disputed.iter().any(|held| is_of(&held.claim, *address, *mac)) {
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
            let done = match self.draw(10) {
                0..4 => {
                    self.make_port();
                    Ok(())
                }
                4..6 => {
                    let place = self.draw(64_usize);
                    let port = self.stored.borrow().ports.iter().nth(place).map(|(address, mac)| (*address, *mac));
                    port.into_iter().for_each(|port| self.close(|address, mac| (address, mac) == port));
                    Ok(())
                }
                6..8 if !waits => self.claim_more(&registration).await,
                8 if !waits => self.claim_macs(&registration).await,
                9 => self.give_back(&registration).await,
                _ => Ok(()),
            };
            if let Err(error) = done {
                return self.world.tell(self.number, || format!("joins again: {error}"));
            }
        }
    }

    async fn claim_more(&self, registration: &Registration) -> Result<(), MemberError> {
        let range = Range { start: FIRST.into(), end: LAST.into() };
        if let Some(held) = self.member.claim_addresses(registration, network(), &[range]).await? {
            self.hold(held);
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
            self.hold(held);
        }
        Ok(())
    }

    fn hold(&self, held: Held) {
        self.world.tell(self.number, || format!("holds {held:?}"));
        let mut stored = self.stored.borrow_mut();
        stored.held.retain(|one| one.claim != held.claim);
        stored.held.push(held);
    }

    /// With the lowest address and MAC that are free here. Asks nobody.
    fn make_port(&self) {
        let mut stored = self.stored.borrow_mut();
        let addresses = stored.held.iter().filter_map(|held| match held.claim {
            Claim::Addresses { first: IpAddr::V4(first), .. } => Some(u32::from(first)),
            _ => None,
        });
        let mut addresses = addresses.flat_map(|first| first..first + 3).map(|number| IpAddr::from(Ipv4Addr::from(number)));
        let Some(address) = addresses.find(|address| !stored.ports.contains_key(address)) else { return };
        let macs = stored.held.iter().flat_map(|held| match held.claim {
            Claim::Macs([a, b, c, d, e]) => (2..5).map(|last| Mac([a, b, c, d, e, last])).collect(),
            Claim::Mac(mac) => vec![mac],
            Claim::Addresses { .. } => Vec::new(),
        });
        let taken: BTreeSet<Mac> = stored.ports.values().copied().collect();
        let Some(mac) = macs.into_iter().find(|mac| !taken.contains(mac)) else { return };
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
            if stored.ports.iter().any(|(address, mac)| is_of(&held.claim, *address, *mac)) {
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

fn is_of(claim: &Claim, address: IpAddr, mac: Mac) -> bool {
    match claim {
        Claim::Addresses { .. } => Claim::of_address(network(), address) == *claim,
        Claim::Macs(_) => Claim::of_mac(mac) == *claim,
        Claim::Mac(one) => mac == *one,
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
    let hosts: Vec<Host> = (0..random.random_range(2..5))
        .map(|number| Host {
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
                Err(ForgetError::Alive(_)) => panic!("a host without a life sign is alive"),
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
