//! The same service in QEMU with Debian's own kernel, where devices, control groups and modules are enforced for real, and bridges
//! tell VLANs apart. Other suites that need that kernel run in the same boot.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::cargo::cargo;
use crate::debian::{Release, kernel, sh, vmlinuz};
use crate::machine::{root, turn};
use crate::netns::{in_netns, is_root, run};
use crate::package::{INSTALL, packages};
use crate::programs;

/// A processor that makes no progress ends the machine at once, and the console has the stack of each.
const TOLD: &str = "softlockup_panic=1 panic_print=0x40";

/// The program of another suite, built as this one was.
fn suite(name: &str) -> PathBuf {
    let mut cargo = cargo();
    cargo.args(["test", "--locked", "--workspace", "--no-run", "--message-format=json", "--test", name]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).stderr(Stdio::inherit()).output().unwrap();
    let built = String::from_utf8(output.stdout).unwrap();
    let artifacts = built.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let of_suite = artifacts.filter(|artifact| artifact["target"]["name"] == name);
    let mut programs = of_suite.filter_map(|artifact| artifact["executable"].as_str().map(PathBuf::from));
    programs.next().expect("the suite's program")
}

/// The root with the programs and a script that runs at boot, all of it as the kernel's first file system.
fn image(release: Release, root: &Path, kernel: &Path, suites: &[PathBuf]) -> PathBuf {
    let place = Path::new("/run/image");
    run(&format!("cp -a {} {}", root.display(), place.display()));
    run(&format!("cp -a {} {}", kernel.join("lib/modules").display(), place.join("usr/lib").display()));
    let nicd = place.join("nicd");
    fs::create_dir_all(nicd.join("target/release")).unwrap();
    let programs = Path::new(env!("CARGO_BIN_EXE_nicd")).parent().unwrap();
    for program in ["nicd", "nicctl"] {
        let to = nicd.join("target/release").join(program);
        run(&format!("strip -o {} {}", to.display(), programs.join(program).display()));
    }
    fs::create_dir(nicd.join("suites")).unwrap();
    for suite in suites {
        // Its program is called after it, with a number behind.
        let name = suite.file_name().and_then(|name| name.to_str()?.split('-').next().map(str::to_owned)).unwrap();
        run(&format!("strip -o {} {}", nicd.join("suites").join(name).display(), suite.display()));
    }
    if programs::has("etcd") {
        // The machine has none of its own.
        sh(place, "cp $(command -v etcd) usr/bin/etcd");
    }
    // Where the suites look for the daemon.
    fs::write(nicd.join("daemon"), env!("CARGO_BIN_EXE_nicd")).unwrap();
    run(&format!("cp {}/nicd.deb {}", packages().display(), nicd.display()));
    fs::write(nicd.join("install"), INSTALL).unwrap();
    fs::write(nicd.join("inside.sh"), include_str!("inside.sh")).unwrap();
    let (part, script) = release.part();
    fs::write(nicd.join(format!("{part}.sh")), script).unwrap();
    let unit = "[Service]\nType=oneshot\nTimeoutStartSec=960\nExecStart=/bin/sh /nicd/inside.sh\nStandardOutput=tty\n\
        StandardError=tty\nTTYPath=/dev/ttyS0\nExecStopPost=/bin/systemctl --no-block poweroff\n";
    let units = place.join("etc/systemd/system");
    fs::write(units.join("inside.service"), unit).unwrap();
    fs::create_dir_all(units.join("multi-user.target.wants")).unwrap();
    symlink("/etc/systemd/system/inside.service", units.join("multi-user.target.wants/inside.service")).unwrap();
    // Else it hangs the line up that the script writes to.
    symlink("/dev/null", units.join("serial-getty@ttyS0.service")).unwrap();
    symlink("/sbin/init", place.join("init")).unwrap();
    sh(place, "find . -xdev -not -path './usr/share/doc/*' | cpio --create --format=newc --quiet >/run/image.cpio");
    "/run/image.cpio".into()
}

#[test]
fn with_debian_12s_kernel_all_of_it_holds() {
    if is_root() {
        let suites = ["frames"].map(suite);
        let _turn = turn();
        holds(Release::Bookworm, suites.into());
    }
}

/// The service as in the other machine, and other suites than there: each takes minutes in emulation. It takes no turn: it has one
/// processor and control groups of its own.
#[test]
fn with_debian_13s_kernel_the_service_holds() {
    if is_root() {
        holds(Release::Trixie, ["groups", "kernel_linux", "fleet"].map(suite).into());
    }
}

impl Release {
    /// What is shown of VLANs in this release's machine.
    fn part(self) -> (&'static str, &'static str) {
        match self {
            Self::Bookworm => ("trunks", include_str!("trunks.sh")),
            Self::Trixie => ("segments", include_str!("segments.sh")),
        }
    }
}

fn holds(release: Release, suites: Vec<PathBuf>) {
    packages();
    // While there is a network to fetch from.
    let (root, kernel) = (root(release), kernel(release));
    in_netns(move || {
        let image = image(release, &root, &kernel, &suites);
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "timeout", "1020", "qemu-system-x86_64", "-M", "q35,accel=tcg"]);
        // With two processors one has been seen to loop in a breakpoint that the other had already taken out of the kernel's code: the
        // kernel patches its hooks for packets in and out while packets pass, and QEMU 7.2 went on with its old translation.
        command.args(["-cpu", "max", "-smp", "1", "-m", "2048", "-nodefaults", "-nographic", "-no-reboot"]);
        command.args(["-serial", "stdio", "-monitor", "none", "-append"]);
        command
            .arg(format!("console=ttyS0 quiet panic=-1 {TOLD} systemd.show_status=0"))
            .arg("-kernel")
            .arg(vmlinuz(&kernel))
            .arg("-initrd")
            .arg(image);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        eprintln!("{said}");
        assert!(said.lines().any(|line| line.trim() == "DONE"), "it did not come to its end");
        assert!(!said.contains("FAIL "), "something did not hold");
    });
}
