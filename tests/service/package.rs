//! The package, built of this build's programs by the packager that builds a release's, and its life where no systemd runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::cargo::cargo;
use crate::debian::{Release, sh};
use crate::machine::{layered, root, turn};
use crate::netns::{in_netns, is_root, run};

/// Installs the package inside a machine.
pub const INSTALL: &str = "dpkg --force-unsafe-io --install /nicd/nicd.deb";

/// A folder with `nicd.deb`, and the same as a later version, `next.deb`.
pub fn packages() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(build)
}

fn build() -> PathBuf {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let programs = Path::new(env!("CARGO_BIN_EXE_nicd")).parent().unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("packages");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join("release")).unwrap();
    let generated = repository.join("target/package");
    let _ = fs::remove_dir_all(&generated);
    for program in ["nicd", "nicctl"] {
        let built = programs.join(program);
        run(&format!("strip -o {} {}", folder.join("release").join(program).display(), built.display()));
        run(&format!("{} manual {}", built.display(), generated.display()));
    }
    let there = Command::new("cargo-deb").arg("--version").output().is_ok_and(|output| output.status.success());
    assert!(there, "cargo-deb is not there: ./check installs it, or: cargo install cargo-deb --locked");
    // It finds the programs of a release here.
    let mut packager = cargo();
    packager.args(["deb", "--no-build", "--fast", "--quiet", "--output"]).arg(folder.join("built.deb"));
    packager.current_dir(repository).env("CARGO_TARGET_DIR", &folder);
    assert!(packager.status().unwrap().success(), "cargo deb");
    // Without compression: each machine unpacks it.
    let repack = "dpkg-deb --raw-extract built.deb raw && dpkg-deb -Znone --build raw nicd.deb >log
        sed -i 's/^Version: .*/&.1/' raw/DEBIAN/control && dpkg-deb -Znone --build raw next.deb >log
        rm -r raw release";
    sh(&folder, repack);
    folder
}

#[test]
fn the_package_is_as_debian_wants_it() {
    if !is_root() {
        return;
    }
    let lintian =
        Command::new("lintian").args(["--allow-root", "--fail-on", "error,warning"]).arg(packages().join("built.deb")).output();
    let output = lintian.expect("lintian is not there: ./check installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn run_in(root: &Path, script: &str) {
    let status = Command::new("chroot").arg(root).args(["sh", "-ec", script]).status().unwrap();
    assert!(status.success(), "{script}");
}

/// As when an image is made: the first boot finds users, and units that are enabled.
#[test]
fn it_installs_and_is_purged_where_no_systemd_runs() {
    if !is_root() {
        return;
    }
    packages();
    let (root, _turn) = (root(Release::Bookworm), turn());
    in_netns(move || {
        let root = layered(&root);
        fs::create_dir(root.join("nicd")).unwrap();
        fs::copy(packages().join("nicd.deb"), root.join("nicd/nicd.deb")).unwrap();
        let chroot = |script: &str| run_in(&root, script);
        chroot(INSTALL);
        chroot("getent passwd nicd nicd-netns; getent group nicd nicd-view; nicd check-config --quiet");
        for link in
            ["sockets.target.wants/nicd.socket", "sockets.target.wants/nicd-netns.socket", "multi-user.target.wants/nicd.service"]
        {
            chroot(&format!("test -h /etc/systemd/system/{link}"));
        }
        chroot("dpkg --purge nicd");
        chroot("! find /etc /usr /var/lib -name '*nicd*' | grep .");
        chroot("! grep nicd /etc/passwd /etc/group");
    });
}
