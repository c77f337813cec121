//! Authorities and certificates, made by openssl.

#![allow(dead_code)] // each test target uses its part

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::Command;

use crate::daemon::USER;

/// Files in a directory of the test's own.
#[derive(Debug, Clone)]
pub struct Pki(PathBuf);

/// What clients connect to.
pub const ADDRESS: &str = "127.0.0.1:8443";

impl Pki {
    /// An authority, the server's certificate, and that of the client `cloud-1`.
    pub fn new() -> Self {
        let pki = Self(PathBuf::from("/run/pki"));
        fs::create_dir(&pki.0).unwrap();
        pki.authority("ca");
        pki.certificate("server", "ca", "host-1", "subjectAltName=IP:127.0.0.1", 365);
        pki.client("cloud-1");
        pki
    }

    /// A file.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// An authority with a key of its own.
    pub fn authority(&self, name: &str) {
        let subject = format!("/CN={name} of the test");
        self.openssl(&format!("req -x509 {KEY} -days 365 -keyout {name}.key -out {name}.pem -subj"), &[&subject]);
    }

    /// A certificate for `subject`, with one extension.
    pub fn certificate(&self, name: &str, authority: &str, subject: &str, extension: &str, days: i32) {
        let subject = format!("/CN={subject}");
        self.openssl(&format!("req -new {KEY} -keyout {name}.key -out {name}.csr -subj"), &[&subject, "-addext", extension]);
        let sign = "x509 -req -copy_extensions copy";
        self.openssl(
            &format!("{sign} -in {name}.csr -CA {authority}.pem -CAkey {authority}.key -days {days} -out {name}.pem"),
            &[],
        );
        self.is_for_the_daemon(name);
    }

    /// A client's certificate, whose name is its common name.
    pub fn client(&self, name: &str) {
        self.certificate(name, "ca", name, "extendedKeyUsage=clientAuth", 365);
    }

    /// Its key is the daemon's user's and nobody else's.
    pub fn is_for_the_daemon(&self, name: &str) {
        let key = self.file(&format!("{name}.key"));
        chown(&key, None, Some(USER)).unwrap();
        fs::set_permissions(key, Permissions::from_mode(0o640)).unwrap();
    }

    /// `[listen]` with the server's certificate, for these clients.
    pub fn listen(&self, allow: &[&str]) -> String {
        let [cert, key, ca] = ["server.pem", "server.key", "ca.pem"].map(|name| self.file(name));
        format!("[listen]\ntls = \"{ADDRESS}\"\ncert = {cert:?}\nkey = {key:?}\nclient_ca = {ca:?}\nallow = {allow:?}\n")
    }

    fn openssl(&self, words: &str, more: &[&str]) {
        let mut command = Command::new("openssl");
        let output = command.args(words.split(' ')).args(more).current_dir(&self.0).output().unwrap();
        assert!(output.status.success(), "{words} {more:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// curl with a client's certificate, or without one.
    pub fn curl(&self, client: Option<&str>, arguments: &[&str]) -> Said {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "20", "--write-out", "%{stderr}\n%{http_code}"]);
        command.arg("--cacert").arg(self.file("ca.pem"));
        if let Some(client) = client {
            command.arg("--cert").arg(self.file(&format!("{client}.pem")));
            command.arg("--key").arg(self.file(&format!("{client}.key")));
        }
        Said::of(command.args(arguments))
    }

    /// GET by a client.
    pub fn get(&self, client: &str, path: &str) -> Said {
        self.curl(Some(client), &[&url(path)])
    }
}

/// A new key, without a password.
const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";

/// Where `path` is.
pub fn url(path: &str) -> String {
    format!("https://{ADDRESS}{path}")
}

/// What a program said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    /// Runs a program to its end.
    pub fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// The status that curl was answered; 0 for none.
    pub fn status(&self) -> u16 {
        self.err.rsplit('\n').next().unwrap().parse().unwrap()
    }

    /// The body of an answer with this status.
    #[track_caller]
    pub fn expect(&self, status: u16) -> serde_json::Value {
        assert_eq!((self.code, self.status()), (0, status), "{self:?}");
        serde_json::from_str(&self.out).unwrap_or_default()
    }

    /// The word in the envelope of a refusal.
    #[track_caller]
    pub fn refused(&self, status: u16) -> String {
        let body = self.expect(status);
        body.as_object().unwrap().values().next().unwrap()["reason"].as_str().unwrap().to_owned()
    }
}
