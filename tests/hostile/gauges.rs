//! What the daemon's process costs, as /proc shows it.

use std::fs;

use nix::unistd::Pid;

/// One look at the process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Gauge {
    /// How many hostile requests had been sent.
    pub sent: u64,
    pub rss_kib: u64,
    pub descriptors: usize,
    pub threads: u64,
}

impl Gauge {
    /// Reads all of them.
    pub fn read(pid: Pid, sent: u64) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("a line of /proc/PID/status");
            line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
        };
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives").count();
        Self { sent, rss_kib: number("VmRSS:"), descriptors, threads: number("Threads:") }
    }
}

/// The greatest of a part of the attack, in hundredths of it.
pub fn most<T: Ord>(gauges: &[Gauge], requests: u64, part: std::ops::Range<u64>, of: impl Fn(&Gauge) -> T) -> Option<T> {
    gauges.iter().filter(|gauge| part.contains(&(gauge.sent * 100 / requests))).map(of).max()
}

/// A percentile of latencies, in microseconds.
pub fn percentile(sorted: &[u128], hundredths: usize) -> u128 {
    sorted.get((sorted.len() * hundredths / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}
