//! TLS with client certificates, and users with passwords.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use nicd::fleet::etcd::{Error, Etcd, Op, Txn, WatchEnd, Watched, check_files};

use crate::keys::{curl, get, one, put};
use crate::node::{Node, client, settings, with_etcd};
use crate::pki::Pki;

/// `fleet.tls` with a client's certificate, or without one.
fn tls(pki: &Pki, ca: &str, client: Option<&str>) -> String {
    let file = |name: String| pki.file(&name);
    let own = client.map(|name| format!(", cert = {:?}, key = {:?}", file(format!("{name}.pem")), file(format!("{name}.key"))));
    format!("tls = {{ ca = {:?}{} }}\n", file(format!("{ca}.pem")), own.unwrap_or_default())
}

fn unreachable(error: Error) -> String {
    let Error::Unreachable(why) = error else { panic!("{error}") };
    why[0].why.clone()
}

#[test]
fn tls_checks_both_sides_and_reads_its_files_anew() {
    with_etcd(|| async {
        let pki = Pki::new();
        pki.authority("other");
        pki.certificate("stranger", "other", "cloud-1", "extendedKeyUsage=clientAuth", 365);
        let flag = |name: &str| pki.file(name).display().to_string();
        let [cert, key, ca] = ["server.pem", "server.key", "ca.pem"].map(flag);
        let flags = ["--cert-file", &cert, "--key-file", &key, "--trusted-ca-file", &ca, "--client-cert-auth"];
        let right = tls(&pki, "ca", Some("cloud-1"));
        let node = Node::secured(2379, "https", &flags).await.up(&right).await;
        let etcd = client(&[&node.url], &right);
        let revision = put(&etcd, &[("/a", "1")]).await;
        assert_eq!(get(&etcd, "/a").await.unwrap().value, b"1");
        let mut watch = etcd.watch(&[Watched { prefix: "/".into(), from: revision }]).await.unwrap();
        assert_eq!(watch.next().await.unwrap().revision, revision);
        for (lines, said) in [
            (tls(&pki, "other", Some("cloud-1")), "UnknownIssuer"),
            // etcd says why after the handshake, and closes: that may or may not be read.
            (tls(&pki, "ca", None), ""),
            (tls(&pki, "ca", Some("stranger")), ""),
            ("tls = { ca = \"/run/none.pem\" }".to_owned(), "/run/none.pem cannot be used"),
            (String::new(), "no TLS"),
        ] {
            let etcd = client(&[&node.url], &lines);
            let why = unreachable(etcd.range(&one("/a"), None, 0).await.unwrap_err());
            assert!(why.contains(said), "{lines}: {why}");
            // Not even a byte of a transaction was taken, or it is not known.
            let error = etcd.txn(&Txn { success: vec![Op::put("/no", "1")], ..Txn::default() }).await.unwrap_err();
            assert!(matches!(error, Error::Unreachable(_) | Error::Unknown(_)), "{error}");
        }
        assert_eq!(get(&etcd, "/no").await, None);
        let by_name = node.url.replace("127.0.0.1", "localhost");
        let why = unreachable(client(&[&by_name], &right).range(&one("/a"), None, 0).await.unwrap_err());
        assert!(why.contains("certificate"), "{why}");
        let plain = node.url.replace("https", "http");
        assert!(client(&[&plain], "").range(&one("/a"), None, 0).await.is_err());
        // The files are those of the next connection.
        let own = tls(&pki, "ca", Some("own"));
        for name in ["own.pem", "own.key"] {
            fs::copy(pki.file(&name.replace("own", "stranger")), pki.file(name)).unwrap();
        }
        pki.is_for_the_daemon("own");
        let etcd = client(&[&node.url], &own);
        assert!(etcd.range(&one("/a"), None, 0).await.is_err());
        for name in ["own.pem", "own.key"] {
            fs::copy(pki.file(&name.replace("own", "cloud-1")), pki.file(name)).unwrap();
        }
        assert!(get(&etcd, "/a").await.is_some());
        // What is wrong with a file is said at the start.
        let url = [node.url.as_str()];
        check_files(&settings(&url, &right)).unwrap();
        fs::write(pki.file("bad.pem"), "x").unwrap();
        fs::copy(pki.file("cloud-1.pem"), pki.file("mixed.pem")).unwrap();
        fs::copy(pki.file("stranger.key"), pki.file("mixed.key")).unwrap();
        fs::set_permissions(pki.file("own.key"), Permissions::from_mode(0o644)).unwrap();
        for (lines, key, said) in [
            (tls(&pki, "bad", None), "fleet.tls.ca", "no certificate in PEM"),
            (tls(&pki, "none", None), "fleet.tls.ca", "No such file"),
            (tls(&pki, "ca", Some("own")), "fleet.tls.key", "every user of this host can read"),
            (tls(&pki, "ca", Some("mixed")), "fleet.tls.cert", "KeyMismatch"),
        ] {
            let error = check_files(&settings(&url, &lines)).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains(said), "{error}");
        }
        let error = client(&url, &own).range(&one("/a"), None, 0).await;
        assert!(error.is_ok() || unreachable(error.unwrap_err()).contains("every user"), "a new connection reads them");
    });
}

/// The administrator, by another client.
async fn administer(node: &Node, path: &str, body: &str, token: Option<&str>) -> String {
    let (url, body) = (format!("{}/v3/auth/{path}", node.url), body.to_owned());
    let header = token.map(|token| format!("Authorization: {token}"));
    let run = move || curl(&url, &body, &header.as_ref().map(|header| vec!["--header", header.as_str()]).unwrap_or_default());
    let said = tokio::task::spawn_blocking(run).await.unwrap();
    assert!(said.contains("header") && !said.contains("error"), "{path}: {said}");
    said
}

async fn root_token(node: &Node) -> String {
    let said = administer(node, "authenticate", "{\"name\":\"root\",\"password\":\"root\"}", None).await;
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    said["token"].as_str().unwrap().to_owned()
}

async fn put_at(etcd: &Etcd, key: &str) -> Result<(), Error> {
    etcd.txn(&Txn { success: vec![Op::put(key, "x")], ..Txn::default() }).await.map(drop)
}

#[test]
fn a_user_does_what_its_role_may_and_gets_new_tokens() {
    with_etcd(|| async {
        let node = Node::alone(2379, &["--bcrypt-cost", "4"]).await;
        // "/nicd/" to "/nicd0" for the user.
        let permission =
            "{\"name\":\"nicd\",\"perm\":{\"permType\":\"READWRITE\",\"key\":\"L25pY2Qv\",\"range_end\":\"L25pY2Qw\"}}";
        for (path, body) in [
            ("user/add", "{\"name\":\"root\",\"password\":\"root\"}"),
            ("user/add", "{\"name\":\"nicd\",\"password\":\"pass word\"}"),
            ("role/add", "{\"name\":\"root\"}"),
            ("role/add", "{\"name\":\"nicd\"}"),
            ("role/grant", permission),
            ("user/grant", "{\"user\":\"root\",\"role\":\"root\"}"),
            ("user/grant", "{\"user\":\"nicd\",\"role\":\"nicd\"}"),
        ] {
            administer(&node, path, body, None).await;
        }
        let file = "/run/etcd.password";
        let secret = |text: &str| {
            fs::write(file, text).unwrap();
            fs::set_permissions(file, Permissions::from_mode(0o640)).unwrap();
        };
        secret("pass word\n");
        let lines = format!("user = \"nicd\"\npassword_file = {file:?}\n");
        let early = client(&[&node.url], &lines);
        let error = put_at(&early, "/nicd/a").await.unwrap_err();
        assert!(matches!(&error, Error::Denied(why) if why.contains("not enabled")), "{error}");
        administer(&node, "enable", "{}", None).await;
        put_at(&early, "/nicd/a").await.unwrap();
        let nobody = client(&[&node.url], "");
        for error in [put_at(&nobody, "/nicd/a").await.unwrap_err(), nobody.range(&one("/nicd/a"), None, 0).await.unwrap_err()] {
            assert!(matches!(&error, Error::Denied(why) if why.contains("user name is empty")), "{error}");
        }
        let etcd = client(&[&node.url], &lines);
        put_at(&etcd, "/nicd/a").await.unwrap();
        let revision = etcd.range(&one("/nicd/a"), None, 0).await.unwrap().header.revision;
        let error = put_at(&etcd, "/other").await.unwrap_err();
        assert!(matches!(&error, Error::Denied(why) if why.contains("permission denied")), "{error}");
        let watched = |prefix: &str| Watched { prefix: prefix.into(), from: revision + 1 };
        let error = etcd.watch(&[watched("/other/")]).await.unwrap_err();
        assert!(matches!(error, Error::Denied(_)), "{error}");
        let mut watch = etcd.watch(&[watched("/nicd/")]).await.unwrap();
        watch.add(&watched("/other/")).unwrap();
        let end = watch.next().await.unwrap_err();
        assert!(matches!(&end, WatchEnd::Refused(why) if why.contains("permission denied")), "{end}");
        let mut watch = etcd.watch(&[watched("/nicd/")]).await.unwrap();
        // All tokens are taken back, and a user is changed: the next request gets another one.
        let root = root_token(&node).await;
        administer(&node, "disable", "{}", Some(&root)).await;
        administer(&node, "enable", "{}", None).await;
        put_at(&etcd, "/nicd/b").await.unwrap();
        assert_eq!(watch.next().await.unwrap().events[0].key(), "/nicd/b");
        let root = root_token(&node).await;
        let password = "{\"name\":\"nicd\",\"password\":\"another\"}";
        administer(&node, "user/changepw", password, Some(&root)).await;
        let error = put_at(&etcd, "/nicd/c").await.unwrap_err();
        assert!(matches!(&error, Error::Denied(why) if why.contains("invalid user ID or password")), "{error}");
        assert!(!error.to_string().contains("pass word") && !format!("{etcd:?}").contains("pass word"));
        secret("another");
        put_at(&etcd, "/nicd/c").await.unwrap();
        // A password that every user can read is not used.
        fs::set_permissions(file, Permissions::from_mode(0o644)).unwrap();
        let error = put_at(&client(&[&node.url], &lines), "/nicd/d").await.unwrap_err();
        assert!(matches!(&error, Error::Denied(why) if why.contains("every user of this host can read")), "{error}");
        let error = check_files(&settings(&[&node.url], &lines)).unwrap_err().to_string();
        assert!(error.contains("fleet.password_file"), "{error}");
        secret("");
        assert!(check_files(&settings(&[&node.url], &lines)).unwrap_err().to_string().contains("it is empty"));
        secret("another");
        check_files(&settings(&[&node.url], &lines)).unwrap();
    });
}
