//! The capabilities of the calling thread (capabilities(7)).

/// The bit of CAP_NET_ADMIN (linux/capability.h): links, taps and bridges.
pub(super) const NET_ADMIN: u64 = 1 << 12;

/// The bit of CAP_SYS_ADMIN: entering another network namespace.
pub(super) const SYS_ADMIN: u64 = 1 << 21;

/// Whether a capability is known to be missing. False if the capabilities cannot be read; the operation itself then fails.
pub(super) fn is_missing(capability: u64) -> bool {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).is_some_and(|bits| bits & capability == 0)
}
