//! A long run: any operation after any other, and in about every second one something goes wrong at a point it passes. After
//! each, manager, store and host agree with the reference.
//!
//! 10,000 operations; `NICD_SOAK=1000000` for more, `NICD_SEED` for the same again.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use nicd::points::{Order, Pass, Which};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::pairs;
use crate::sequences::{Run, Step, step};

/// Operations on one scene, before the next is begun anew.
const LENGTH: usize = 250;

/// Things of which the first that comes goes wrong in a step: in about every second one.
const ORDERS: usize = 6;

/// Runs that go on side by side: most of the time is waiting.
const THREADS: usize = 6;

#[test]
fn whatever_is_done_and_whatever_goes_wrong_manager_store_and_host_agree() {
    let given = |name: &str| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let total = usize::try_from(given("NICD_SOAK").unwrap_or(10_000)).unwrap();
    let first = given("NICD_SEED").unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let (start, points) = (Instant::now(), points());
    let (next, struck) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let _ = writeln!(std::io::stderr(), "soak, host in memory: NICD_SEED={first}");
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(n) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|n| n * LENGTH < total) {
                    struck.fetch_add(run(first + n as u64, LENGTH.min(total - n * LENGTH), &points), Ordering::Relaxed);
                }
            });
        }
    });
    let (struck, took) = (struck.into_inner(), start.elapsed().as_secs_f64());
    let _ =
        writeln!(std::io::stderr(), "soak, host in memory: {total} operations, in {struck} something went wrong, {took:.1} s");
}

/// One sequence, in which something goes wrong at one of these points; in how many steps it did. What is done and what goes
/// wrong follow from the seed; which thread is first does not.
fn run(seed: u64, length: usize, points: &[Pass]) -> usize {
    let mut steps = Steps::of(seed);
    let mut dice = StdRng::seed_from_u64(seed);
    let mut run = Run::new();
    let mut struck = 0;
    for n in 0..length {
        run.orders = (0..ORDERS).map(|_| order(&mut dice, points)).collect();
        struck += usize::from(run.take(n, steps.next()));
    }
    run.scene.stop();
    struck
}

/// The points that a sequence in which nothing goes wrong passes.
fn points() -> Vec<Pass> {
    let (mut steps, mut run, mut passed) = (Steps::of(0), Run::new(), BTreeSet::new());
    for n in 0..LENGTH {
        run.scene.house().board.list();
        run.take(n, steps.next());
        passed.extend(run.scene.house().board.listed());
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

/// Anything that fits a point, at one of its next passes.
fn order(dice: &mut StdRng, points: &[Pass]) -> Order {
    let pass = &points[dice.random_range(0..points.len())];
    let faults = pass.kind.faults(pairs::errnos(&pass.name));
    let (fault, nth) = (faults[dice.random_range(0..faults.len())], dice.random_range(1..3));
    Order { name: pass.name.clone(), which: Which::Only(nth), fault }
}
