use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};

use super::*;
use crate::config::{Overrides, Settings};

const ADMITTED: AllowedPeers = AllowedPeers { own_uid: 0, group: None, view_group: None };

fn room() -> (tempfile::TempDir, SocketSettings) {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings_in(dir.path());
    (dir, settings)
}

fn settings_in(dir: &Path) -> SocketSettings {
    let typed = Overrides { socket: Some(dir.join("n.sock")), ..Overrides::default() };
    Settings::from_text(Path::new("f"), "", &typed).unwrap().socket
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn both_are_there_with_their_mode_and_gone_at_the_end() {
    let (dir, settings) = room();
    let sockets = Sockets::bind(&settings, &ADMITTED).unwrap();
    assert_eq!((mode(&settings.path), mode(&settings.view_path)), (0o660, 0o660));
    UnixStream::connect(&settings.path).unwrap();
    UnixStream::connect(&settings.view_path).unwrap();
    drop(sockets);
    assert_eq!(names(dir.path()), ["n.sock.lock"]);
}

#[test]
fn a_missing_directory_is_made_for_all_to_pass() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings_in(&dir.path().join("run"));
    let _sockets = Sockets::bind(&settings, &ADMITTED).unwrap();
    assert_eq!(mode(&dir.path().join("run")), 0o755);
}

#[test]
fn a_second_daemon_is_kept_out_by_the_lock_and_takes_nothing() {
    let (_dir, settings) = room();
    let first = Sockets::bind(&settings, &ADMITTED).unwrap();
    let error = Sockets::bind(&settings, &ADMITTED).unwrap_err();
    assert!(matches!(error, SocketError::Locked(_)), "{error}");
    assert_eq!(error.exit(), Exit::Unavailable);
    UnixStream::connect(&settings.path).unwrap();
    drop(first);
    Sockets::bind(&settings, &ADMITTED).unwrap();
}

#[test]
fn of_many_that_race_exactly_one_wins() {
    let (_dir, settings) = room();
    drop(UnixListener::bind(&settings.path).unwrap());
    let results: Vec<_> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..8).map(|_| scope.spawn(|| Sockets::bind(&settings, &ADMITTED))).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    UnixStream::connect(&settings.path).unwrap();
}

#[test]
fn what_a_crash_left_is_replaced() {
    let (dir, settings) = room();
    for path in [&settings.path, &settings.view_path] {
        drop(UnixListener::bind(path).unwrap());
    }
    let sockets = Sockets::bind(&settings, &ADMITTED).unwrap();
    UnixStream::connect(&settings.path).unwrap();
    UnixStream::connect(&settings.view_path).unwrap();
    assert_eq!(names(dir.path()), ["n-view.sock", "n.sock", "n.sock.lock"]);
    drop(sockets);
}

#[test]
fn a_live_socket_of_somebody_else_is_refused_and_goes_on() {
    let (dir, settings) = room();
    let foreign = UnixListener::bind(&settings.path).unwrap();
    let error = Sockets::bind(&settings, &ADMITTED).unwrap_err();
    assert!(matches!(error, SocketError::Live(_)), "{error}");
    assert_eq!(error.exit(), Exit::Unavailable);
    // The probe is still in its queue; then comes a real client.
    let _client = UnixStream::connect(&settings.path).unwrap();
    foreign.accept().unwrap();
    foreign.accept().unwrap();
    assert_eq!(names(dir.path()), ["n.sock", "n.sock.lock"]);
}

#[test]
fn anything_else_in_the_way_is_refused_and_untouched() {
    let (dir, settings) = room();
    let target = dir.path().join("target");
    fs::write(&target, "precious").unwrap();
    type Plant<'a> = &'a dyn Fn(&Path);
    let plants: [(&str, Plant<'_>); 5] = [
        ("a file", &|path| fs::write(path, "precious").unwrap()),
        ("a directory", &|path| fs::create_dir(path).unwrap()),
        ("a symbolic link", &|path| symlink(&target, path).unwrap()),
        ("a FIFO", &|path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap()),
        ("a socket of another kind", &|path| std::mem::forget(UnixDatagram::bind(path).unwrap())),
    ];
    for (what, plant) in plants {
        for path in [&settings.path, &settings.view_path] {
            plant(path);
            let before = fs::symlink_metadata(path).unwrap();
            let error = Sockets::bind(&settings, &ADMITTED).unwrap_err();
            assert!(error.to_string().contains(what), "{error}");
            assert_eq!(error.exit(), Exit::Config);
            let after = fs::symlink_metadata(path).unwrap();
            assert_eq!((before.ino(), before.mode(), before.uid()), (after.ino(), after.mode(), after.uid()), "{what}");
            if before.is_dir() { fs::remove_dir(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
    }
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    assert_eq!(mode(&target) & 0o400, 0o400);
}

#[test]
fn a_dangling_link_is_in_the_way_too_and_so_is_one_at_the_lock() {
    let (dir, settings) = room();
    symlink(dir.path().join("nowhere"), &settings.path).unwrap();
    assert!(matches!(Sockets::bind(&settings, &ADMITTED).unwrap_err(), SocketError::InTheWay { .. }));
    fs::remove_file(&settings.path).unwrap();
    fs::remove_file(lock_path(&settings.path)).unwrap();
    symlink(dir.path().join("nowhere"), lock_path(&settings.path)).unwrap();
    assert!(matches!(Sockets::bind(&settings, &ADMITTED).unwrap_err(), SocketError::File { .. }));
    assert!(!dir.path().join("nowhere").exists());
}

#[test]
fn a_directory_others_can_write_is_refused_unless_sticky() {
    let (dir, settings) = room();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(Sockets::bind(&settings, &ADMITTED).unwrap_err(), SocketError::OpenDirectory { mode: 0o777, .. }));
    fs::set_permissions(dir.path(), Permissions::from_mode(0o1777)).unwrap();
    Sockets::bind(&settings, &ADMITTED).unwrap();
}

#[test]
fn a_file_put_in_place_of_ours_is_left_at_the_end() {
    let (_dir, settings) = room();
    let sockets = Sockets::bind(&settings, &ADMITTED).unwrap();
    fs::remove_file(&settings.path).unwrap();
    fs::write(&settings.path, "another's").unwrap();
    drop(sockets);
    assert_eq!(fs::read_to_string(&settings.path).unwrap(), "another's");
    assert!(!settings.view_path.exists());
}

#[test]
fn whoever_connects_while_it_is_made_meets_the_final_mode() {
    let (_dir, settings) = room();
    let seen = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            loop {
                if let Ok(found) = fs::symlink_metadata(&settings.path) {
                    break found.mode() & 0o7777;
                }
                std::thread::yield_now();
            }
        });
        let sockets = Sockets::bind(&settings, &ADMITTED).unwrap();
        let seen = watcher.join().unwrap();
        drop(sockets);
        seen
    });
    assert_eq!(seen, 0o660);
}

#[test]
fn the_longest_path_that_the_configuration_accepts_can_be_bound() {
    let dir = tempfile::tempdir().unwrap();
    let room = 107 - "-view".len() - dir.path().as_os_str().len() - "/.sock".len();
    let typed = Overrides { socket: Some(dir.path().join(format!("{}.sock", "x".repeat(room)))), ..Overrides::default() };
    let settings = Settings::from_text(Path::new("f"), "", &typed).unwrap().socket;
    Sockets::bind(&settings, &ADMITTED).unwrap();
}

#[test]
fn a_passed_socket_is_known_by_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let door = |name: &str| door_of(&UnixListener::bind(dir.path().join(name)).unwrap());
    assert_eq!(door("nicd.sock").unwrap().0, SocketKind::Main);
    assert_eq!(door("nicd-view.sock").unwrap().0, SocketKind::View);
    let address = SocketAddr::from_abstract_name(format!("nicd-test-{}", std::process::id())).unwrap();
    let hidden = UnixListener::bind_addr(&address).unwrap();
    assert!(matches!(door_of(&hidden).unwrap_err(), SocketError::Passed(_)));
    let (deaf, _) = UnixStream::pair().unwrap();
    assert!(matches!(door_of(&UnixListener::from(OwnedFd::from(deaf))).unwrap_err(), SocketError::Passed(_)));
}

#[test]
fn a_file_that_is_gone_is_made_anew_and_what_is_in_its_place_is_left() {
    let (dir, settings) = room();
    let mut sockets = Sockets::bind(&settings, &ADMITTED).unwrap();
    let checked = sockets.held.check();
    assert!(checked.renewed.is_empty() && checked.lost.is_empty());
    fs::remove_file(&settings.path).unwrap();
    fs::rename(&settings.view_path, dir.path().join("elsewhere")).unwrap();
    let checked = sockets.held.check();
    assert_eq!(checked.renewed.iter().map(|(door, _)| *door).collect::<Vec<_>>(), [SocketKind::Main, SocketKind::View]);
    assert!(checked.lost.is_empty() && !checked.systemds);
    assert_eq!((mode(&settings.path), mode(&settings.view_path)), (0o660, 0o660));
    UnixStream::connect(&settings.path).unwrap();
    // Of another program that listens there, and of a file.
    fs::remove_file(&settings.path).unwrap();
    let other = UnixListener::bind(&settings.path).unwrap();
    fs::remove_file(&settings.view_path).unwrap();
    fs::write(&settings.view_path, "mine").unwrap();
    let checked = sockets.held.check();
    assert_eq!((checked.renewed.len(), checked.lost.len()), (0, 2));
    assert_eq!(fs::read_to_string(&settings.view_path).unwrap(), "mine");
    drop(other);
    fs::remove_file(&settings.view_path).unwrap();
    assert_eq!(sockets.held.check().renewed.len(), 2, "what is stale is replaced");
    // With its directory.
    fs::remove_dir_all(dir.path()).unwrap();
    assert_eq!(sockets.held.check().renewed.len(), 2);
    drop(sockets);
    assert_eq!(names(dir.path()), [""; 0]);
}

#[test]
fn a_file_of_systemds_is_told_of_and_never_made() {
    let (_dir, settings) = room();
    let socket = UnixListener::bind(&settings.path).unwrap();
    let (door, path) = door_of(&socket).unwrap();
    let mut held = SocketFiles { files: vec![SocketFile::passed(door, path)], _lock: None };
    assert!(held.check().lost.is_empty());
    fs::remove_file(&settings.path).unwrap();
    for _ in 0..2 {
        let checked = held.check();
        assert!(checked.systemds && checked.renewed.is_empty() && checked.lost[0].0 == settings.path);
    }
    assert!(!SocketFile::passed(door, settings.path.clone()).is_reachable(), "nor one that was gone before");
    drop(held);
    assert!(!settings.path.exists());
}
