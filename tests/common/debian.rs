//! Debian's kernel for machines of tests, fetched once and kept outside the repository.

#![allow(dead_code)] // each test target uses its part

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where roots and kernels are kept.
pub fn cache() -> PathBuf {
    let home = std::env::var_os("XDG_CACHE_HOME").map_or_else(|| PathBuf::from("/var/cache"), PathBuf::from);
    home.join("nicd-tests")
}

/// The kernel, fetched once: its package unpacked.
pub fn kernel() -> PathBuf {
    let place = cache().join("kernel-1");
    fs::create_dir_all(cache()).unwrap();
    let turn = File::create(cache().join("kernel.lock")).unwrap();
    turn.lock().unwrap();
    if !place.exists() {
        let partial = cache().join("kernel-1.partial");
        let _ = fs::remove_dir_all(&partial);
        fs::create_dir_all(&partial).unwrap();
        let fetch = "apt-get update -qq
            package=$(apt-cache depends linux-image-cloud-amd64 | grep -o 'linux-image-[0-9][^ ]*' | head -1)
            apt-get download \"$package\" && dpkg-deb -x \"$package\"_*.deb . && rm \"$package\"_*.deb
            depmod -b . \"$(ls lib/modules)\"";
        sh(&partial, fetch);
        fs::rename(&partial, &place).unwrap();
    }
    place
}

/// The kernel's image.
pub fn vmlinuz(kernel: &Path) -> PathBuf {
    let mut files = fs::read_dir(kernel.join("boot")).unwrap().map(|entry| entry.unwrap().path());
    files.find(|path| path.to_string_lossy().contains("vmlinuz")).unwrap()
}

/// Runs a script in a folder.
pub fn sh(folder: &Path, script: &str) {
    let status = Command::new("sh").args(["-ec", script]).current_dir(folder).stdin(Stdio::null()).status().unwrap();
    assert!(status.success(), "{script}");
}
