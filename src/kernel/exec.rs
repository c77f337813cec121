//! Carries a plan out, step by step, and takes it back when a step fails.
//!
//! An execution stops before the first step that outlives the process, until its caller knows the intent to be durable.
//! It decides nothing: what to do, in which order, and what undoes it stands in the plan.

use std::time::{Duration, Instant};

use tracing::field::display;

use super::{Applied, Host, OpError};
use crate::model::LinkName;
use crate::plan::{Op, Plan, Step};

/// Whether the time of each step is noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    /// Each step's time is noted.
    On,
    /// No time is noted.
    Off,
}

/// When a step was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepTime {
    /// Its name.
    pub step: &'static str,
    /// When it began.
    pub began: Instant,
    /// How long it took.
    pub took: Duration,
}

/// A plan on its way.
pub struct Execution<H: Host> {
    steps: Vec<Step>,
    /// How many steps have been begun; the last of them may have failed half-way.
    begun: usize,
    context: H::ExecContext,
    /// None where no time is noted.
    times: Option<Vec<StepTime>>,
    guest_device: Option<LinkName>,
    refused: Option<Vec<String>>,
}

impl<H: Host> std::fmt::Debug for Execution<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Execution").field("steps", &self.steps).field("begun", &self.begun).finish_non_exhaustive()
    }
}

/// What an unwound execution left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undone {
    /// Nothing.
    Clean,
    /// What these undos could not take back.
    Left(Vec<OpError>),
}

impl<H: Host> Execution<H> {
    /// Nothing done yet.
    pub fn new(plan: Plan) -> Self {
        let context = H::ExecContext::default();
        Self { steps: plan.steps, begun: 0, context, times: None, guest_device: None, refused: None }
    }

    /// The same, with the time of each step noted.
    #[must_use]
    pub fn timed(self, timing: Timing) -> Self {
        Self { times: (timing == Timing::On).then(Vec::new), ..self }
    }

    /// All done by an earlier execution.
    pub fn done(plan: Plan) -> Self {
        Self { begun: plan.steps.len(), ..Self::new(plan) }
    }

    /// Carries out the steps that vanish with the process, and prepares those that come after.
    ///
    /// # Errors
    /// The first that fails.
    pub fn run_volatile(&mut self, host: &mut H) -> Result<(), OpError> {
        self.run_while(host, |step| !step.op.outlives_the_process())?;
        for step in &self.steps[self.begun..] {
            host.prepare(&step.op, &mut self.context);
        }
        Ok(())
    }

    /// Carries out all that is left. The intent must be durable.
    ///
    /// # Errors
    /// The first that fails.
    pub fn run(&mut self, host: &mut H) -> Result<(), OpError> {
        self.run_while(host, |_| true)
    }

    /// Whether all steps have been carried out.
    pub fn is_done(&self) -> bool {
        self.begun == self.steps.len()
    }

    /// Whether what is left changes nothing that a look shows.
    pub fn shows_its_end(&self) -> bool {
        self.steps[self.begun..].iter().all(|step| step.op.shows_nothing())
    }

    /// Carries out what is left, up to the first step that is not to be begun.
    ///
    /// # Errors
    /// The first that fails.
    pub fn run_while(&mut self, host: &mut H, go: impl Fn(&Step) -> bool) -> Result<(), OpError> {
        while let Some(step) = self.steps.get(self.begun).filter(|step| go(step)) {
            self.begun += 1;
            let began = self.times.as_ref().map(|_| Instant::now());
            let applied = apply(host, &step.op, &mut self.context, "step")?;
            if let (Some(times), Some(began)) = (self.times.as_mut(), began) {
                times.push(StepTime { step: step.op.name(), began, took: began.elapsed() });
            }
            let (name, refused) = match applied {
                Applied::Done => continue,
                Applied::GuestDevice(name) => (name, Vec::new()),
                Applied::GuestWithout(name, refused) => (name, refused),
            };
            (self.guest_device, self.refused) = (Some(name), Some(refused));
        }
        Ok(())
    }

    /// The times of the steps carried out; none where they were not noted.
    pub fn times(&self) -> &[StepTime] {
        self.times.as_deref().unwrap_or_default()
    }

    /// The NIC's name in its guest, when a step learnt it.
    pub fn guest_device(&self) -> Option<&LinkName> {
        self.guest_device.as_ref()
    }

    /// The routes that the guest's kernel refused, when a step gave it routes.
    pub fn refused(&self) -> Option<&Vec<String>> {
        self.refused.as_ref()
    }

    /// Undoes what was begun, last first, the failed step included. Goes on past an undo that fails.
    pub fn unwind(mut self, host: &mut H) -> Undone {
        let undos = self.steps[..self.begun].iter().rev().filter_map(|step| step.undo.as_ref());
        let left: Vec<OpError> = undos.filter_map(|undo| apply(host, undo, &mut self.context, "undo").err()).collect();
        if left.is_empty() { Undone::Clean } else { Undone::Left(left) }
    }
}

/// Carries an op out. Debug shows each, with its duration and what came of it.
fn apply<H: Host>(host: &mut H, op: &Op, context: &mut H::ExecContext, what: &'static str) -> Result<Applied, OpError> {
    let began = tracing::enabled!(tracing::Level::DEBUG).then(Instant::now);
    let applied = host.apply(op, context);
    if let Some(began) = began {
        let error = applied.as_ref().err().map(display);
        tracing::debug!(port = op.port().map(display), op = op.name(), took = ?began.elapsed(), error, "{what}");
    }
    applied
}
