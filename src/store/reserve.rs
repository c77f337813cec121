//! Room on the disk that is kept for detaches: a file whose only use is that it can be given up when the disk is full.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use nix::unistd::truncate;

use super::{StoreError, io_failed};

/// What is kept in any case, in bytes: some commits, and the log's way into the database.
const LEAST: u64 = 512 * 1024;

/// What the detach of one port may add to a log that cannot be shortened, in bytes: two commits of some pages each, for each
/// of which a step is given up.
const A_DETACH: u64 = 2 * STEP;

/// How much is given up at a time: others who fill the disk may take what is left of it.
const STEP: u64 = 64 * 1024;

/// How much is written at once.
const CHUNK: usize = 64 * 1024;

/// The file.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
}

impl Reserve {
    /// In this file, which need not be there.
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// What is to be kept for this many ports: while the log is moved into the database now and then, a detach writes
    /// over it; while it is held, each detach makes it longer.
    pub fn needed(ports: u64, log_is_held: bool) -> u64 {
        let detaches = if log_is_held { ports.saturating_mul(A_DETACH) } else { 0 };
        // In steps, so that not every attach makes the file longer.
        (LEAST + detaches).next_multiple_of(LEAST)
    }

    /// Takes so much room, unless it is taken already. What does not fit is given back.
    ///
    /// # Errors
    /// It cannot be had: the disk is full, or a descriptor is missing.
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

    /// Gives up what is beyond so much; whether that was something. It needs no descriptor.
    pub fn trim(&self, bytes: u64) -> bool {
        let Ok(length) = i64::try_from(bytes) else { return false };
        std::fs::metadata(&self.path).is_ok_and(|meta| meta.len() > bytes) && truncate(&self.path, length).is_ok()
    }

    fn extend(&self, from: u64, to: u64) -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
        let mut left = to.saturating_sub(from);
        let mut noise = vec![0; CHUNK];
        while left > 0 {
            // A file system that compresses would keep no room for zeros.
            rand::fill(&mut noise[..]);
            let part = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
            file.write_all(&noise[..part])?;
            left -= u64::try_from(part).unwrap_or(left);
        }
        Ok(())
    }

    /// Gives a part of it up; whether there was one.
    pub fn give(&self) -> bool {
        let is = std::fs::metadata(&self.path).map_or(0, |meta| meta.len());
        self.trim(is.saturating_sub(STEP))
    }

    /// Gives all of it up.
    pub fn release(&self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
