//! The crash matrix on the running kernel: a real nicd is killed at every failpoint it hits, and every call fails once.
//!
//! The same as on the in-memory host (`tests/model/matrix.rs`), with SIGKILL for a kill. `ip` verifies the kernel's state, SQLite the
//! store's. Failed calls rotate through the errnos.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test
#![cfg(debug_assertions)] // a release build has no failpoints

#[path = "../common/daemon.rs"]
mod daemon;
#[path = "../common/fixture.rs"]
mod fixture;
#[path = "../common/kernel_view.rs"]
mod kernel_view;
#[path = "../common/netns.rs"]
mod netns;
#[path = "../common/pairs.rs"]
mod pairs;
#[path = "../common/peer.rs"]
mod peer;

mod host;
mod works;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use nicd::failpoints::{FaultRule, Hit};

use host::{Host, NOT_REACHED};
use netns::{in_netns, is_root};
use works::{WORKS, Work};

/// Namespaces that work side by side; more than processors, as the kernel's barriers are waited for.
const HOSTS: usize = 6;

/// Pairs that one namespace takes at a time.
const CHUNK: usize = 16;

/// Failpoints that change nothing.
const LOOKS: [&str; 8] = [
    "netlink.ask",
    "netlink.dump",
    "watch.events",
    "filter.read",
    "monitor.qmp_capabilities",
    "monitor.qom-list",
    "monitor.qom-get",
    "monitor.query-pci",
];

/// How one pair ended: what was answered, and what there was.
type Ends = BTreeMap<(Work, &'static str), usize>;

#[test]
fn whatever_goes_wrong_in_a_real_process_is_whole_or_absent() {
    if !is_root() {
        return;
    }
    let start = Instant::now();
    let only = std::env::var("NICD_MATRIX").ok();
    let wanted = |work: Work, rule: &FaultRule| only.as_ref().is_none_or(|only| format!("{work:?} {rule}").contains(only));
    let listed: Vec<(Work, Vec<Hit>)> = side_by_side(WORKS.map(|work| vec![work]).to_vec(), |host, works| {
        works.into_iter().map(|work| (work, host.hits(work))).collect()
    });
    let mut chunks = Vec::new();
    for (work, hits) in &listed {
        // All else of them is in other works.
        let of_machines = |rule: &FaultRule| !work.has_machine() || rule.name.starts_with("monitor.");
        let rules: Vec<_> = rules(hits).into_iter().filter(|rule| of_machines(rule) && wanted(*work, rule)).collect();
        chunks.extend(rules.chunks(CHUNK).map(|chunk| chunk.iter().map(|rule| (*work, rule.clone())).collect::<Vec<_>>()));
    }
    let pairs: usize = chunks.iter().map(Vec::len).sum();
    let results = side_by_side(chunks, |host, chunk| {
        let mut ends = Vec::new();
        for (work, rule) in chunk {
            let end = host.inject(work, &rule).map_err(|why| format!("{work:?} {rule}: {why}"));
            if let Err(why) = &end {
                eprintln!("{why}");
                host.renew();
            }
            ends.push((work, end));
        }
        ends
    });
    let (mut ends, mut wrong) = (Ends::new(), Vec::new());
    for (work, end) in results {
        match end {
            Ok(end) => *ends.entry((work, end)).or_default() += 1,
            Err(why) => wrong.push(why),
        }
    }
    tell(&listed, &ends, pairs, wrong.len(), start);
    let missed: usize = ends.iter().filter(|((_, end), _)| *end == NOT_REACHED).map(|(_, count)| count).sum();
    assert!(missed * 50 <= pairs, "{missed} of {pairs} pairs were not reached");
    assert!(wrong.is_empty(), "{} of {pairs} pairs:\n{}", wrong.len(), wrong.join("\n"));
}

/// Every death at a write, an answer or an event, and refusals that say one errno after the other. Looks change nothing: they
/// fail, and dying at one is dying behind the last write. `NICD_MATRIX_FULL` leaves nothing out.
fn rules(hits: &[Hit]) -> Vec<FaultRule> {
    let mut turn = 0;
    let one = |name: &str| {
        let known = pairs::errnos(name);
        turn += 1;
        vec![known[turn % known.len()]]
    };
    let is_look = |name: &str| LOOKS.contains(&name);
    match std::env::var_os("NICD_MATRIX_FULL") {
        Some(_) => pairs::pairs(hits, |name| pairs::errnos(name).to_vec()),
        None => pairs::pairs(hits, one).into_iter().filter(|rule| !(is_look(&rule.name) && rule.fault.is_kill())).collect(),
    }
}

/// Does pieces of work in namespaces side by side, each with a host of its own.
fn side_by_side<T: Send + 'static, R: Send + 'static>(
    pieces: Vec<T>,
    work: impl Fn(&mut Host, T) -> Vec<R> + Send + Clone + 'static,
) -> Vec<R> {
    let pieces = Arc::new(Mutex::new(pieces));
    let done = Arc::new(Mutex::new(Vec::new()));
    let hosts: Vec<_> = (0..HOSTS)
        .map(|_| {
            let (pieces, done, work) = (Arc::clone(&pieces), Arc::clone(&done), work.clone());
            let take = move || pieces.lock().unwrap().pop();
            thread::spawn(move || {
                in_netns(move || {
                    let mut host = Host::new();
                    while let Some(piece) = take() {
                        let results = work(&mut host, piece);
                        done.lock().unwrap().extend(results);
                    }
                });
            })
        })
        .collect();
    for host in hosts {
        host.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
    let mut done = done.lock().unwrap();
    std::mem::take(&mut *done)
}

fn tell(listed: &[(Work, Vec<Hit>)], ends: &Ends, pairs: usize, wrong: usize, start: Instant) {
    let mut told = format!(
        "matrix, running kernel: {pairs} pairs of a hit and a fault, {wrong} wrong, {:.1} s\n",
        start.elapsed().as_secs_f64()
    );
    for (work, hits) in listed {
        let of_it: Vec<String> =
            ends.iter().filter(|((of, _), _)| of == work).map(|((_, end), count)| format!("{end} {count}")).collect();
        told += &format!("  {:<20} {:>3} hits: {}\n", format!("{work:?}"), hits.len(), of_it.join(", "));
    }
    let _ = std::io::stderr().write_all(told.as_bytes());
}
