//! The hosts and the members of etcd, and what happens to them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::thread;
use std::time::Duration;

use nicd::fleet::etcd::Etcd;
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::runtime::Runtime;

use super::model::{GUESTS, Model, Request, host_name, server};
use crate::daemon::Answer;
use crate::dice::Dice;
use crate::etcd::{self, Node};
use crate::hosts::{Host, underlay};
use crate::netns::{Guest, run};

/// How often it is drawn for each host what it is asked in a step.
const DRAWS: usize = 32;

/// How many clients a host has at a time.
const CLIENTS: usize = 12;

/// How many hosts there are.
pub const HOSTS: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    None,
    Cut,
    Dead,
    Frozen,
}

pub struct Station {
    pub host: Host,
    pub guests: Vec<Guest>,
    pub trouble: Trouble,
    /// How many copies of its store there are.
    copies: usize,
}

pub struct World {
    pub stations: Vec<Station>,
    members: Vec<Node>,
    ill: Vec<Trouble>,
    pub runtime: Runtime,
    pub etcd: Etcd,
    pub model: Model,
    pub dice: Dice,
    /// How long a trouble lasts at most before the next step.
    longest: Duration,
    /// Whether etcd may lose all it has.
    pub may_empty: bool,
    /// How many requests were sent.
    pub operations: u64,
}

/// A request for a host, about what another one may have.
struct Asked {
    at: usize,
    of: usize,
    request: Request,
}

fn number(host: usize) -> u8 {
    u8::try_from(host + 1).unwrap()
}

impl World {
    pub fn new(seed: u64, longest: Duration) -> Self {
        underlay();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let members = runtime.block_on(Node::three_at("10.9.0.1"));
        let urls: Vec<String> = members.iter().map(|member| member.url.clone()).collect();
        let client = etcd::client(&urls.iter().map(String::as_str).collect::<Vec<_>>(), "");
        let mut stations: Vec<Station> = (0..HOSTS).map(|n| Station::new(n, &urls)).collect();
        for station in &mut stations {
            station.host.joins();
        }
        Self {
            stations,
            ill: vec![Trouble::None; members.len()],
            members,
            runtime,
            etcd: client,
            model: Model::default(),
            dice: Dice::new(seed),
            longest,
            may_empty: false,
            operations: 0,
        }
    }

    /// A burst of requests at all hosts, and something that happens before or meanwhile.
    pub fn step(&mut self) {
        if self.dice.chance(12) {
            self.trouble();
        }
        if self.dice.chance(20) {
            self.heal_one();
        }
        let requests = self.burst();
        self.operations += requests.len() as u64;
        let killed = self.dice.chance(5).then(|| requests.first().map(|asked| asked.at)).flatten();
        let after = Duration::from_micros(self.dice.below(30_000) as u64);
        let answers = self.ask(&requests, killed, after);
        for (Asked { at, of, request }, answer) in requests.iter().zip(&answers) {
            let said = answer.as_ref().map_or("lost".to_owned(), |answer| {
                let text = if answer.status < 300 { String::new() } else { answer.text.chars().take(300).collect() };
                format!("{} {text}", answer.status)
            });
            eprintln!("  {}: {:?}: {said}", host_name(*at), request.work);
            self.model.answered(*of, request, answer.as_ref());
        }
        if let Some(host) = killed {
            eprintln!("  {} was killed after {after:?}", host_name(host));
            self.stations[host].trouble = Trouble::Dead;
        }
    }

    /// What is asked at once. No two requests are about one port or one guest: what came of both would depend on which was first.
    fn burst(&mut self) -> Vec<Asked> {
        let (mut requests, mut subjects) = (Vec::new(), BTreeSet::new());
        for at in (0..DRAWS).flat_map(|_| 0..HOSTS) {
            let answers = matches!(self.stations[at].trouble, Trouble::None | Trouble::Cut);
            if answers && self.dice.chance(50) {
                // A request about another host's port is carried out there.
                let of = if self.dice.chance(15) { self.dice.below(HOSTS) } else { at };
                let request = self.model.request(of, &mut self.dice).filter(|request| of == at || request.work.is_of_a_port());
                let Some(request) = request else { continue };
                let about = request.work.subjects(of);
                if about.iter().all(|one| !subjects.contains(one)) {
                    subjects.extend(about);
                    requests.push(Asked { at, of, request });
                }
            }
        }
        requests
    }

    /// Sends each host its requests, by several clients at once; one of them may be killed meanwhile.
    fn ask(&mut self, requests: &[Asked], killed: Option<usize>, after: Duration) -> Vec<Option<Answer>> {
        let mut of_clients: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
        for (n, asked) in requests.iter().enumerate() {
            of_clients.entry((asked.at, n % CLIENTS)).or_default().push(n);
        }
        let mut answers: Vec<Option<Answer>> = requests.iter().map(|_| None).collect();
        thread::scope(|all| {
            let asking: Vec<_> = of_clients
                .into_iter()
                .map(|((at, _), own)| {
                    let mut client = self.stations[at].host.daemon.client();
                    all.spawn(move || {
                        let ask = |n: usize| {
                            let Request { method, path, body, .. } = &requests[n].request;
                            let body = if body.is_null() { String::new() } else { body.to_string() };
                            let headers = [("Content-Type", "application/json")];
                            (n, client.try_call(method, path, &headers, body.as_bytes()).ok())
                        };
                        own.into_iter().map(ask).collect::<Vec<_>>()
                    })
                })
                .collect();
            if let Some(host) = killed {
                thread::sleep(after);
                self.stations[host].host.daemon.kill();
            }
            asking.into_iter().flat_map(|one| one.join().unwrap()).for_each(|(n, answer)| answers[n] = answer);
        });
        answers
    }

    fn trouble(&mut self) {
        let (host, member) = (self.dice.below(HOSTS), self.dice.below(self.members.len()));
        let (hosts, members) = (self.stations.iter().filter(|one| one.trouble != Trouble::None).count(), self.ill_members());
        let chosen = self.dice.below(100);
        let station = &mut self.stations[host];
        match chosen {
            0..20 if station.trouble == Trouble::None && hosts < 3 => {
                eprintln!("  {} is cut off", host_name(host));
                station.host.cut(number(host), true);
                station.trouble = Trouble::Cut;
            }
            20..45 if station.trouble == Trouble::None && hosts < 3 => {
                eprintln!("  {} is killed", host_name(host));
                station.host.daemon.kill();
                station.trouble = Trouble::Dead;
            }
            45..55 if station.trouble == Trouble::None && hosts < 3 => {
                eprintln!("  {} is frozen", host_name(host));
                station.host.daemon.signal(Signal::SIGSTOP);
                station.trouble = Trouble::Frozen;
            }
            55..85 if members == 0 || members == 1 && chosen < 60 => {
                let member = if self.dice.chance(60) { self.leader() } else { member };
                if self.ill[member] != Trouble::None {
                    return;
                }
                self.ill[member] = if self.dice.chance(50) { Trouble::Frozen } else { Trouble::Dead };
                eprintln!("  member {member} of etcd is {:?}", self.ill[member]);
                match self.ill[member] {
                    Trouble::Frozen => self.members[member].freeze(),
                    _ => self.members[member].kill(),
                }
            }
            85..92 => {
                let while_so = self.longest.mul_f64(self.dice.below(100) as f64 / 100.0);
                eprintln!("  {while_so:?} go by");
                thread::sleep(while_so);
            }
            92..95 if self.may_empty && members == 0 => {
                eprintln!("  etcd is emptied");
                self.model.reopen();
                self.members.iter_mut().for_each(Node::empty);
                self.members.iter_mut().for_each(Node::restart);
            }
            95..100 if station.trouble == Trouble::None && hosts < 3 => {
                eprintln!("  {} is stopped", host_name(host));
                station.host.daemon.term();
                station.trouble = Trouble::Dead;
                if self.dice.chance(50) {
                    self.forget(host);
                }
            }
            _ => {}
        }
    }

    /// Has another host forget one that has stopped: what it claims may be claimed anew.
    fn forget(&mut self, host: usize) {
        if let Some(other) = self.stations.iter_mut().find(|station| station.trouble == Trouble::None) {
            let answer = other.host.client.delete(&format!("/nicd/v1/hosts/{}", host_name(host)));
            eprintln!("  it is forgotten: {} {}", answer.status, answer.text);
        }
    }

    fn ill_members(&self) -> usize {
        self.ill.iter().filter(|ill| **ill != Trouble::None).count()
    }

    /// The member that leads; the first one while it is not known.
    fn leader(&self) -> usize {
        let healthy = (0..self.members.len()).filter(|n| self.ill[*n] == Trouble::None);
        let urls: Vec<(usize, &str)> = healthy.map(|n| (n, self.members[n].url.as_str())).collect();
        let leads = |(_, url): &&(usize, &str)| {
            let (_, status) = self.runtime.block_on(etcd::client(&[*url], "").status()).remove(0);
            status.is_ok_and(|status| status.leader == status.header.member_id)
        };
        urls.iter().find(leads).map_or(0, |(n, _)| *n)
    }

    fn heal_one(&mut self) {
        let host = self.dice.below(HOSTS + 1);
        match self.stations.get(host).map(|station| station.trouble) {
            Some(Trouble::None) => {}
            Some(_) => self.heal(host),
            None => self.heal_members(),
        }
    }

    fn heal_members(&mut self) {
        for (member, ill) in self.members.iter_mut().zip(&mut self.ill) {
            match std::mem::replace(ill, Trouble::None) {
                Trouble::Frozen => member.thaw(),
                Trouble::Dead => member.restart(),
                _ => {}
            }
        }
    }

    fn heal(&mut self, host: usize) {
        let station = &mut self.stations[host];
        let before = std::mem::replace(&mut station.trouble, Trouble::None);
        eprintln!("  {} is {before:?} no more", host_name(host));
        match before {
            Trouble::None => {}
            Trouble::Cut => station.host.cut(number(host), false),
            Trouble::Frozen => station.host.daemon.signal(Signal::SIGCONT),
            Trouble::Dead => {
                // It may have been cut off before.
                station.host.cut(number(host), false);
                let dir = format!("/run/{}", number(host));
                let is_put_back = station.copies > 0 && self.dice.chance(15);
                if is_put_back {
                    let copy = self.dice.below(station.copies);
                    eprintln!("  its store is copy {copy} of {}", station.copies);
                    fs::remove_dir_all(format!("{dir}/state")).unwrap();
                    run(&format!("cp -r {dir}/copy-{copy} {dir}/state"));
                    self.model.put_back(host);
                } else if self.dice.chance(50) {
                    run(&format!("cp -r {dir}/state {dir}/copy-{}", station.copies));
                    station.copies += 1;
                }
                station.host.launch();
                station.has_guests(host);
                if is_put_back {
                    // Devices of which an older store knows nothing stay until its user says that they are to go.
                    station.host.client.post("/nicd/v1/gc", &json!({"apply": true})).expect(200);
                }
            }
        }
    }

    /// What the hosts have logged beside requests.
    pub fn logs(&self) -> String {
        let mut said = String::new();
        for (host, station) in self.stations.iter().enumerate() {
            let log = station.host.daemon.log();
            let lines: Vec<&str> = log.lines().filter(|line| !line.contains("request{")).collect();
            let last = &lines[lines.len().saturating_sub(40)..];
            said.push_str(&format!("{}:\n{}\n", host_name(host), last.join("\n")));
        }
        said
    }

    /// Ends all troubles.
    pub fn calm(&mut self) {
        self.heal_members();
        (0..HOSTS).for_each(|host| self.heal(host));
    }
}

impl Station {
    fn new(n: usize, endpoints: &[String]) -> Self {
        let mut host = Host::with(&host_name(n), number(n), endpoints);
        host.launch();
        let guests = (0..GUESTS).map(|guest| Guest::new(&format!("guest-{n}{guest}"))).collect();
        let mut station = Self { host, guests, trouble: Trouble::None, copies: 0 };
        station.has_guests(n);
        station
    }

    /// Has its daemon know its guests.
    fn has_guests(&mut self, host: usize) {
        for (n, guest) in self.guests.iter().enumerate() {
            let body = json!({"server": {"guest": {"kind": "netns", "path": guest.path}}});
            let path = format!("/nicd/v1/servers/{}", server(host, n));
            let answer = self.host.client.put(&path, &body);
            assert!(answer.status < 300, "{}", answer.text);
        }
    }
}
