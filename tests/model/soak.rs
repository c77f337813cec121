//! A long run: any operation after any other, and about every second one gets a fault injected at a failpoint it hits. After
//! each, service, store and host agree with the reference.
//!
//! 10,000 operations; `NICD_SOAK=1000000` for more, `NICD_SEED` for the same again.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use nicd::failpoints::{FaultRule, Hit, Hits};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::pairs;
use crate::sequences::{Run, Step, step};

/// Operations on one scene, before the next is begun anew.
const LENGTH: usize = 250;

/// The rules of one step, of which the first to match injects its fault: about every second step gets one.
const RULES: usize = 6;

/// Runs that go on side by side: most of the time is waiting.
const THREADS: usize = 6;

#[test]
fn whatever_is_done_and_whatever_goes_wrong_manager_store_and_host_agree() {
    let given = |name: &str| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let total = usize::try_from(given("NICD_SOAK").unwrap_or(10_000)).unwrap();
    let first = given("NICD_SEED").unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let (start, failpoints) = (Instant::now(), failpoints());
    let (next, injected) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let _ = writeln!(std::io::stderr(), "soak, host in memory: NICD_SEED={first}");
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(n) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|n| n * LENGTH < total) {
                    injected.fetch_add(run(first + n as u64, LENGTH.min(total - n * LENGTH), &failpoints), Ordering::Relaxed);
                }
            });
        }
    });
    let (injected, took) = (injected.into_inner(), start.elapsed().as_secs_f64());
    let _ =
        writeln!(std::io::stderr(), "soak, host in memory: {total} operations, in {injected} something went wrong, {took:.1} s");
}

/// Runs one sequence with faults at these failpoints; the number of steps in which one was injected. The operations and the
/// faults follow from the seed; the order of the threads does not.
fn run(seed: u64, length: usize, failpoints: &[Hit]) -> usize {
    let mut steps = Steps::of(seed);
    let mut dice = StdRng::seed_from_u64(seed);
    let mut run = Run::new();
    let mut injected = 0;
    for n in 0..length {
        run.rules = (0..RULES).map(|_| rule(&mut dice, failpoints)).collect();
        injected += usize::from(run.take(n, steps.next()));
    }
    run.scene.stop();
    injected
}

/// The failpoints that a sequence without faults hits.
fn failpoints() -> Vec<Hit> {
    let (mut steps, mut run, mut passed) = (Steps::of(0), Run::new(), BTreeSet::new());
    for n in 0..LENGTH {
        run.scene.daemon().registry.record();
        run.take(n, steps.next());
        passed.extend(run.scene.daemon().registry.recorded());
    }
    run.scene.stop();
    passed.into_iter().collect()
}

/// Operations that follow from a seed.
struct Steps(TestRunner);

impl Steps {
    fn of(seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Self(TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)))
    }

    fn next(&mut self) -> Step {
        step().new_tree(&mut self.0).expect("a step").current()
    }
}

/// A fault that can be injected at one of the failpoints, at one of its next hits.
fn rule(dice: &mut StdRng, failpoints: &[Hit]) -> FaultRule {
    let hit = &failpoints[dice.random_range(0..failpoints.len())];
    let faults = hit.kind.faults(pairs::errnos(&hit.name));
    let (fault, nth) = (faults[dice.random_range(0..faults.len())], dice.random_range(1..3));
    FaultRule { name: hit.name.clone(), hits: Hits::Only(nth), fault }
}
