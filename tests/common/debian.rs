//! Debian's kernel for machines of tests, fetched once and kept outside the repository.

#![allow(dead_code)] // each test target uses its part

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Debian's releases that tests run on.
#[derive(Debug, Default, Clone, Copy)]
pub enum Release {
    /// Debian 12.
    #[default]
    Bookworm,
    /// Debian 13.
    Trixie,
}

impl Release {
    /// As archives name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        }
    }
}

/// Where roots and kernels are kept.
pub fn cache() -> PathBuf {
    let home = std::env::var_os("XDG_CACHE_HOME").map_or_else(|| PathBuf::from("/var/cache"), PathBuf::from);
    home.join("nicd-tests")
}

/// A release's kernel, fetched once: its package unpacked.
pub fn kernel(release: Release) -> PathBuf {
    let name = release.name();
    let place = cache().join(format!("kernel-{name}-1"));
    fs::create_dir_all(cache()).unwrap();
    let turn = File::create(cache().join("kernel.lock")).unwrap();
    turn.lock().unwrap();
    if !place.exists() {
        let partial = place.with_extension("partial");
        let _ = fs::remove_dir_all(&partial);
        fs::create_dir_all(&partial).unwrap();
        // Not the lists of this host, which may be another release.
        let fetch = format!(
            "mkdir -p apt/lists/partial apt/cache/archives/partial
            echo 'deb http://deb.debian.org/debian {name} main' >apt/sources
            apt=\"-o Dir::Etc::SourceList=$PWD/apt/sources -o Dir::Etc::SourceParts=- -o Dir::State::Lists=$PWD/apt/lists\"
            apt=\"$apt -o Dir::Cache=$PWD/apt/cache -o APT::Sandbox::User=root\"
            apt-get $apt update -qq
            package=$(apt-cache $apt depends linux-image-cloud-amd64 | grep -o 'linux-image-[0-9][^ ]*' | head -1)
            apt-get $apt download \"$package\" && dpkg-deb -x \"$package\"_*.deb . && rm -r \"$package\"_*.deb apt
            # Where releases with one /usr have it.
            [ -d lib ] || mv usr/lib .
            depmod -b . \"$(ls lib/modules)\""
        );
        sh(&partial, &fetch);
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
