//! What this process may do to its host (capabilities(7)), as the kernel tells it of the calling thread.

/// The bit of CAP_NET_ADMIN (linux/capability.h): links, taps and bridges.
pub(super) const NET_ADMIN: u64 = 1 << 12;

/// The bit of CAP_SYS_ADMIN: entering another network namespace.
pub(super) const SYS_ADMIN: u64 = 1 << 21;

/// Whether a capability is known to be missing. Where that cannot be read, the kernel tells when it is needed.
pub(super) fn is_missing(capability: u64) -> bool {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).is_some_and(|bits| bits & capability == 0)
}
