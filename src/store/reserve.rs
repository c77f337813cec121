//! Disk space reserved for detaches: a file that is truncated when the disk is full, so that detaches still succeed.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use nix::unistd::truncate;

use super::{StoreError, io_failed};

/// The minimum size in bytes: enough for some commits and a checkpoint.
const MINIMUM: u64 = 512 * 1024;

/// How many bytes the detach of one port may add to a log that cannot be checkpointed: two commits, one step each.
const PER_DETACH: u64 = 2 * STEP;

/// How many bytes are released at a time, because other programs on a full disk may take any released space.
const STEP: u64 = 64 * 1024;

/// The size of one write, in bytes.
const CHUNK: usize = 64 * 1024;

/// The reserve file.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
}

impl Reserve {
    /// The reserve in this file, which need not exist yet.
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// The size needed for this many ports. While checkpoints succeed, a detach reuses the log's space. While a reader blocks them,
    /// each detach makes the log longer.
    pub fn needed(ports: u64, log_is_blocked: bool) -> u64 {
        let detaches = if log_is_blocked { ports.saturating_mul(PER_DETACH) } else { 0 };
        // Rounded up, so that not every attach extends the file.
        (MINIMUM + detaches).next_multiple_of(MINIMUM)
    }

    /// Extends the file to `bytes`. On failure it gets its old length again.
    ///
    /// # Errors
    /// The disk is full, or no file descriptor is free.
    pub fn fill(&self, bytes: u64) -> Result<(), StoreError> {
        let is = std::fs::metadata(&self.path).map_or(0, |meta| meta.len());
        if is >= bytes {
            return Ok(());
        }
        self.extend(is, bytes).map_err(|error| {
            match is {
                0 => self.release(),
                is => _ = self.trim(is),
            }
            match io_failed(error) {
                error @ StoreError::NoDescriptors(_) => error,
                _ => StoreError::Full,
            }
        })
    }

    /// Truncates the file to `bytes`; whether it was longer. Needs no file descriptor.
    pub fn trim(&self, bytes: u64) -> bool {
        let Ok(length) = i64::try_from(bytes) else { return false };
        std::fs::metadata(&self.path).is_ok_and(|meta| meta.len() > bytes) && truncate(&self.path, length).is_ok()
    }

    fn extend(&self, from: u64, to: u64) -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
        let mut left = to.saturating_sub(from);
        let mut noise = vec![0; CHUNK];
        while left > 0 {
            // Random bytes, because a compressing file system would reserve no space for zeros.
            rand::fill(&mut noise[..]);
            let part = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
            file.write_all(&noise[..part])?;
            left -= u64::try_from(part).unwrap_or(left);
        }
        Ok(())
    }

    /// Releases one step; whether the file was not empty.
    pub fn release_step(&self) -> bool {
        let is = std::fs::metadata(&self.path).map_or(0, |meta| meta.len());
        self.trim(is.saturating_sub(STEP))
    }

    /// Removes the file.
    pub fn release(&self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
