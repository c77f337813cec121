//! Tasks of which only so many run: a further one replaces the oldest.

use std::collections::VecDeque;

use tokio::task::AbortHandle;

/// The tasks that run, the oldest first. They end when it is dropped.
#[derive(Debug)]
pub(crate) struct Newest {
    most: usize,
    tasks: VecDeque<AbortHandle>,
}

impl Newest {
    /// At most `most` run at a time.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, tasks: VecDeque::new() }
    }

    /// Runs one more; whether it replaces the oldest.
    pub(crate) fn run(&mut self, task: impl Future<Output = ()> + Send + 'static) -> bool {
        self.tasks.retain(|task| !task.is_finished());
        let oldest = if self.tasks.len() < self.most { None } else { self.tasks.pop_front() };
        oldest.iter().for_each(AbortHandle::abort);
        self.tasks.push_back(tokio::spawn(task).abort_handle());
        oldest.is_some()
    }
}

impl Drop for Newest {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}
