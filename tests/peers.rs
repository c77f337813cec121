//! Access control: processes of other users and groups (setpriv, curl) are refused by the sockets' modes, and by the daemon where
//! a test opens the modes.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

#[path = "common/daemon.rs"]
mod daemon;
#[path = "common/netns.rs"]
mod netns;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use daemon::Daemon;
use netns::{in_netns, run};
use serde_json::{Value, json};

/// curl's exit code when it cannot connect.
const NO_CONNECTION: i32 = 7;

/// Groups that every Debian has, and nobody here is in by chance.
const GROUPS: &str = "group = \"daemon\"\nview_group = \"nogroup\"\n";
const DAEMON: u32 = 1;
const NOGROUP: u32 = 65534;

/// A user the host has no name for.
const SOMEBODY: u32 = 4711;

/// A process's identity.
#[derive(Debug, Clone, Copy)]
struct Who {
    uid: u32,
    gid: u32,
    /// A supplementary group.
    also: Option<u32>,
}

const fn who(uid: u32, gid: u32, also: Option<u32>) -> Who {
    Who { uid, gid, also }
}

const ROOT: Who = who(0, 0, None);
const STRANGER: Who = who(SOMEBODY, SOMEBODY, None);
const MEMBERS: [Who; 2] = [who(SOMEBODY, DAEMON, None), who(SOMEBODY, SOMEBODY, Some(DAEMON))];
const VIEWERS: [Who; 2] = [who(SOMEBODY, NOGROUP, None), who(SOMEBODY, SOMEBODY, Some(NOGROUP))];

/// What became of a request.
#[derive(Debug, PartialEq)]
enum Got {
    /// The socket's mode lets nobody of that kind connect.
    Refused,
    /// Status and body.
    Answer(u16, Value),
}

impl Who {
    /// One request as this identity.
    fn asks(self, socket: &Path, more: &[&str], path: &str) -> Got {
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={}", self.uid), format!("--regid={}", self.gid)]);
        command.arg(self.also.map_or("--clear-groups".to_owned(), |group| format!("--groups={group}")));
        command.args(["--", "curl", "--silent", "--max-time", "20", "--write-out", "\n%{http_code}", "--unix-socket"]);
        let output = command.arg(socket).args(more).arg(format!("http://localhost{path}")).output().unwrap();
        if output.status.code() == Some(NO_CONNECTION) {
            return Got::Refused;
        }
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{self:?} {path}: {}: {said}", output.status);
        let (body, status) = said.rsplit_once('\n').unwrap();
        Got::Answer(status.parse().unwrap(), serde_json::from_str(body).unwrap_or(Value::Null))
    }

    fn reads(self, socket: &Path) -> Got {
        self.asks(socket, &[], "/nicd/v1/servers")
    }

    fn writes(self, socket: &Path) -> Got {
        let body = json!({"network": {"name": format!("by {}", self.uid)}}).to_string();
        self.asks(socket, &["--header", "Content-Type: application/json", "--data", &body], "/v2.0/networks")
    }
}

impl Got {
    fn status(&self) -> u16 {
        match self {
            Self::Refused => 0,
            Self::Answer(status, _) => *status,
        }
    }

    /// Asserts a refusal's status, key and word.
    fn is(&self, status: u16, key: &str, reason: &str) {
        let Self::Answer(given, body) = self else { panic!("{self:?}") };
        assert_eq!((*given, &body[key]["reason"]), (status, &json!(reason)), "{body}");
    }
}

/// A daemon with these settings of its sockets, and the sockets.
fn daemon(settings: &str) -> (Daemon, PathBuf, PathBuf) {
    let mut daemon = Daemon::prepared("/run/nicd");
    fs::write(daemon.config(), format!("[socket]\n{settings}")).unwrap();
    daemon.launch();
    let (main, view) = (daemon.socket(), daemon.socket().with_file_name("nicd-view.sock"));
    (daemon, main, view)
}

#[test]
fn the_sockets_belong_to_root_and_their_groups_and_to_nobody_else() {
    in_netns(|| {
        let (_daemon, main, view) = daemon(GROUPS);
        for (socket, group) in [(&main, DAEMON), (&view, NOGROUP)] {
            let file = fs::metadata(socket).unwrap();
            assert_eq!((file.uid(), file.gid(), file.permissions().mode() & 0o7777), (0, group, 0o660), "{}", socket.display());
        }
    });
}

#[test]
fn root_and_members_may_do_everything_viewers_may_read_and_others_cannot_connect() {
    in_netns(|| {
        let (_daemon, main, view) = daemon(GROUPS);
        for everything in [[ROOT].as_slice(), &MEMBERS].concat() {
            assert_eq!(everything.reads(&main).status(), 200, "{everything:?}");
            assert_eq!(everything.writes(&main).status(), 201, "{everything:?}");
        }
        for viewer in [[ROOT].as_slice(), &VIEWERS].concat() {
            assert_eq!(viewer.reads(&view).status(), 200, "{viewer:?}");
            viewer.writes(&view).is(403, "NeutronError", "read_only_socket");
            viewer.asks(&view, &["--request", "DELETE"], "/v2.1/servers/a/os-interface/b").is(
                403,
                "forbidden",
                "read_only_socket",
            );
        }
        for outside in [[STRANGER].as_slice(), &VIEWERS].concat() {
            assert_eq!(outside.reads(&main), Got::Refused, "{outside:?}");
        }
        for outside in [[STRANGER].as_slice(), &MEMBERS].concat() {
            assert_eq!(outside.reads(&view), Got::Refused, "{outside:?}");
        }
    });
}

#[test]
fn where_the_mode_was_loosened_strangers_are_unauthorized() {
    in_netns(|| {
        let (_daemon, main, view) = daemon(&format!("mode = \"0666\"\n{GROUPS}"));
        for outside in [[STRANGER].as_slice(), &VIEWERS].concat() {
            outside.reads(&main).is(401, "unauthorized", "unknown_caller");
            outside.writes(&main).is(401, "NeutronError", "unknown_caller");
            let rackspace = outside.asks(&main, &[], "/servers/a/os-virtual-interfacesv2");
            rackspace.is(401, "unauthorized", "unknown_caller");
        }
        STRANGER.reads(&view).is(401, "unauthorized", "unknown_caller");
        STRANGER.writes(&view).is(401, "NeutronError", "unknown_caller");
        // A group of root's, or a user like a group, opens nothing.
        who(SOMEBODY, 0, Some(0)).reads(&main).is(401, "unauthorized", "unknown_caller");
        who(DAEMON, SOMEBODY, None).reads(&main).is(401, "unauthorized", "unknown_caller");
        for member in MEMBERS {
            assert_eq!((member.reads(&main).status(), member.writes(&main).status()), (200, 201), "{member:?}");
            assert_eq!(member.reads(&view).status(), 200, "{member:?}");
        }
        assert_eq!(ROOT.asks(&main, &[], "/v2.0/networks").status(), 200);
        let Got::Answer(200, listed) = ROOT.asks(&main, &[], "/v2.0/networks") else { panic!("no list") };
        assert_eq!(listed["networks"].as_array().unwrap().len(), 2, "no stranger made anything: {listed}");
    });
}

#[test]
fn a_group_that_the_host_does_not_have_admits_nobody() {
    in_netns(|| {
        let (_daemon, main, _) = daemon("mode = \"0666\"\ngroup = \"no-such-group\"\nview_group = \"nor-this\"\n");
        for nobody in [STRANGER, MEMBERS[0], VIEWERS[0], who(SOMEBODY, 0, None)] {
            nobody.reads(&main).is(401, "unauthorized", "unknown_caller");
        }
        assert_eq!(ROOT.reads(&main).status(), 200);
    });
}

#[test]
fn each_callers_idempotency_keys_are_its_own() {
    in_netns(|| {
        let (_daemon, main, _) = daemon(GROUPS);
        let create = |by: Who, name: &str| {
            let body = json!({"network": {"name": name}}).to_string();
            let headers = ["--header", "Content-Type: application/json", "--header", "Idempotency-Key: k", "--data", &body];
            by.asks(&main, &headers, "/v2.0/networks")
        };
        assert_eq!(create(ROOT, "root's").status(), 201);
        assert_eq!(create(MEMBERS[0], "somebody's").status(), 201);
        create(MEMBERS[1], "another").is(409, "NeutronError", "idempotency_mismatch");
        assert_eq!(create(MEMBERS[1], "somebody's"), create(MEMBERS[0], "somebody's"));
    });
}

#[test]
fn a_credential_is_the_processs_at_its_connect_and_no_token_replaces_it() {
    in_netns(|| {
        let (_daemon, main, _) = daemon(&format!("mode = \"0666\"\n{GROUPS}"));
        for header in ["X-Auth-Token: admin", "Authorization: Basic cm9vdDpyb290", "X-Forwarded-User: root", "X-Uid: 0"] {
            STRANGER.asks(&main, &["--header", header], "/v2.1/servers").is(401, "unauthorized", "unknown_caller");
        }
        assert_eq!(ROOT.asks(&main, &["--header", "X-Auth-Token: nonsense"], "/v2.1/servers").status(), 200);
    });
}

#[test]
fn the_daemons_own_user_may_do_everything_without_being_root() {
    in_netns(|| {
        let daemon = Daemon::prepared("/run/nicd");
        fs::write(daemon.config(), "[socket]\ngroup = \"no-such-group\"\nview_group = \"nor-this\"\n").unwrap();
        run(&format!("chown -R {SOMEBODY}:{SOMEBODY} /run/nicd"));
        let running = Unprivileged::start(&daemon);
        let main = daemon.socket();
        assert_eq!(fs::metadata(&main).unwrap().uid(), SOMEBODY);
        for allowed in [STRANGER, ROOT] {
            assert_eq!((allowed.reads(&main).status(), allowed.writes(&main).status()), (200, 201), "{allowed:?}");
        }
        assert_eq!(who(SOMEBODY + 1, SOMEBODY + 1, None).reads(&main), Got::Refused);
        drop(running);
    });
}

/// A daemon of another user, with the capabilities it needs.
struct Unprivileged(std::process::Child);

impl Unprivileged {
    fn start(daemon: &Daemon) -> Self {
        let notified = daemon.socket().with_file_name("notify");
        let notify = std::os::unix::net::UnixDatagram::bind(&notified).unwrap();
        fs::set_permissions(&notified, fs::Permissions::from_mode(0o666)).unwrap();
        notify.set_read_timeout(Some(daemon::PATIENCE)).unwrap();
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={SOMEBODY}"), format!("--regid={SOMEBODY}")]);
        command.args(["--clear-groups", "--inh-caps=+net_admin,+sys_admin", "--ambient-caps=+net_admin,+sys_admin"]);
        command.args(["--pdeathsig", "KILL", "--", env!("CARGO_BIN_EXE_nicd")]);
        command.arg("--socket").arg(daemon.socket()).arg("--state-dir").arg(daemon.state()).arg("--config").arg(daemon.config());
        let child = Self(command.env("NOTIFY_SOCKET", &notified).stderr(Stdio::null()).spawn().unwrap());
        let ready = daemon::wait_ready(&notify);
        assert!(ready.is_ok(), "not ready: {ready:?}");
        child
    }
}

impl Drop for Unprivileged {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
