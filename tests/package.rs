//! What the package has beside the programs: manual pages, completions, its changelog and its configuration.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

#[path = "common/programs.rs"]
mod programs;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use programs::has;
use tempfile::TempDir;

/// The files that both programs write.
fn written() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for program in [env!("CARGO_BIN_EXE_nicd"), env!("CARGO_BIN_EXE_nicctl")] {
        let mut command = Command::new(program);
        command.arg("manual").arg(folder.path()).env("SOURCE_DATE_EPOCH", "1796000000");
        assert!(command.status().unwrap().success(), "{program}");
    }
    folder
}

fn pages(folder: &TempDir) -> Vec<PathBuf> {
    fs::read_dir(folder.path().join("man")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Runs a command of a shell.
fn shell(shell: &str, arguments: &[&str], script: &str) -> String {
    let folder = Path::new(env!("CARGO_BIN_EXE_nicctl")).parent().unwrap();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(shell);
    let Output { status, stdout, stderr } = command.args(arguments).args(["-c", script]).env("PATH", path).output().unwrap();
    let [said, complained] = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(status.success() && complained.is_empty(), "{shell}: {said}{complained}");
    said
}

#[test]
fn there_is_a_page_for_each_command_and_each_is_well_formed() {
    let folder = written();
    let names: Vec<String> = pages(&folder).iter().map(|page| page.file_name().unwrap().to_string_lossy().into_owned()).collect();
    for name in ["nicd.8", "nicd-check-config.8", "nicctl.1", "nicctl-attach.1", "nicctl-network-create.1", "nicd.toml.5"] {
        assert!(names.iter().any(|have| have == name), "{name} in {names:?}");
    }
    assert!(!names.iter().any(|name| name.contains("manual") || name.contains("netns") || name.contains("help")), "{names:?}");
    let page = fs::read_to_string(folder.path().join("man/nicctl-attach.1")).unwrap();
    assert!(page.contains(".SH EXAMPLES\n.nf\nnicctl attach web"), "{page}");
    if has("mandoc") {
        let output = Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).args(pages(&folder)).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn the_same_source_gives_the_same_pages() {
    let [one, other] = [written(), written()];
    for page in pages(&one) {
        let again = other.path().join("man").join(page.file_name().unwrap());
        assert_eq!(fs::read_to_string(&page).unwrap(), fs::read_to_string(again).unwrap(), "{}", page.display());
        assert!(fs::read_to_string(&page).unwrap().contains("2026-11-30"), "{}: the date is the source's", page.display());
    }
}

#[test]
fn real_shells_complete_our_commands() {
    let folder = written();
    let file = |name: &str| folder.path().join(name).display().to_string();
    if has("bash") {
        let script = format!(
            ". {}; COMP_WORDS=(nicctl net); COMP_CWORD=1; _clap_complete_nicctl nicctl net nicctl; echo \"${{COMPREPLY[@]}}\"",
            file("bash/nicctl")
        );
        assert_eq!(shell("bash", &["--norc"], &script).trim(), "network");
    }
    if has("fish") {
        let said =
            shell("fish", &["--no-config"], &format!("source {}; complete -C 'nicctl network cr'", file("fish/nicctl.fish")));
        assert!(said.starts_with("create"), "{said}");
    }
    if has("zsh") {
        // What completes is defined once the file is loaded as zsh loads it.
        let script = format!(
            "fpath=({} $fpath); autoload -Uz compinit; compinit -D -u; print $_comps[nicctl]; autoload +X _nicctl; functions _nicctl",
            file("zsh")
        );
        let said = shell("zsh", &["-f"], &script);
        assert!(said.starts_with("_nicctl\n") && said.contains("NICCTL_COMPLETE"), "{said}");
        let asked = "NICCTL_COMPLETE=zsh _CLAP_COMPLETE_INDEX=1 nicctl -- nicctl net";
        assert!(shell("zsh", &["-f"], asked).starts_with("network"));
    }
}

#[test]
fn the_packages_changelog_has_this_version() {
    let changelog = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/debian/changelog")).unwrap();
    assert!(changelog.starts_with(concat!("nicd (", env!("CARGO_PKG_VERSION"), "-1) ")), "{changelog}");
}
