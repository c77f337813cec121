use std::collections::BTreeSet;
use std::path::Path;

use super::*;

fn load(text: &str) -> Result<Settings, ConfigError> {
    Settings::from_text(Path::new("/etc/nicd/nicd.toml"), text, &Overrides::default())
}

#[test]
fn an_empty_file_gives_the_documented_defaults() {
    let settings = load("").unwrap();
    assert_eq!(settings.socket.path, Path::new("/run/nicd/nicd.sock"));
    assert_eq!(settings.socket.view_path, Path::new("/run/nicd/nicd-view.sock"));
    assert_eq!((settings.socket.mode, settings.socket.max_connections, settings.socket.root_reserve), (0o660, 256, 16));
    assert_eq!((settings.socket.group.as_str(), settings.socket.view_group.as_str()), ("nicd", "nicd-view"));
    assert_eq!(settings.store.dir, Path::new("/var/lib/nicd"));
    assert_eq!((settings.links.mtu, settings.limits.nics_per_server), (1500, 12));
    assert_eq!(String::from(settings.links.mac_prefix), "fa:16:3e");
    assert_eq!((settings.log.level.as_str(), settings.log.format), ("info", LogFormat::Text));
    assert_eq!(settings.metrics.listen, None);
    assert_eq!(settings.dbus, DbusSettings { enabled: true, address: None });
}

#[test]
fn printed_settings_are_a_file_that_gives_the_same_settings() {
    let full = r#"
        [socket]
        path = "/run/x/api.sock"
        mode = 0o600
        max_connections = 20
        root_reserve = 3
        [listen]
        tls = "[2001:db8::1]:8443"
        cert = "/c"
        key = "/k"
        client_ca = "/a"
        allow = ["cloud-1", "spiffe://example/nova"]
        max_connections = 8
        [links]
        allowed_bridges = ["br-*", "lan"]
        mac_prefix = "02:aa:bb"
        mtu = 9000
        [physical_networks]
        physnet1 = "eth1"
        "rack 2" = { device = "eth2", adopt = true, qinq = true }
        lab = { bridge = "br-x" }
        [segments]
        vlan = ["100-199", "300"]
        vxlan = "4096-16777215"
        [fleet]
        endpoints = ["https://etcd-1.example", "https://[2001:db8::1]:12379"]
        name = "rack-7"
        host = "compute-1.example"
        tls = { ca = "/ca", cert = "/c", key = "/k" }
        user = "nicd"
        password_file = "/p"
        [tunnel]
        address = "2001:db8::10"
        [limits]
        nics_per_server = 4
        requests = "off"
        [filters]
        default_group = true
        connections = 20000
        [guest]
        dns_nameservers = ["192.0.2.1", "2001:db8::1"]
        domain = "cloud.example"
        [log]
        level = "info,nicd::api=debug"
        format = "json"
        [metrics]
        listen = "127.0.0.1:9632"
        [dbus]
        enabled = false
        address = "unix:path=/run/x/bus"
        [nova]
        send = true
        auth_url = "https://controller.example:5000/v3"
        endpoint = "http://[2001:db8::1]:8774/v2.1"
        region = "one"
        interface = "internal"
        username = "nicd"
        user_domain_name = "a"
        project_name = "service"
        project_domain_name = "b"
        password_file = "/etc/nicd/nova.password"
        ca_file = "/etc/nicd/ca.pem"
        unreachable_after_s = 5
        [notify]
        url = "https://controller.example/nicd?host=a"
        ca_file = "/etc/nicd/ca.pem"
        token_file = "/etc/nicd/token"
        unreachable_after_s = 7
    "#;
    for text in ["", full] {
        let settings = load(text).unwrap();
        let printed = settings.as_file().unwrap();
        assert_eq!(load(&printed).unwrap(), settings, "{printed}");
    }
}

#[test]
fn an_unknown_key_is_refused_with_its_name_and_line() {
    let error = load("[socket]\nmode = \"0660\"\ngruop = \"x\"\n").unwrap_err().to_string();
    assert!(error.contains("line 3") && error.contains("gruop"), "{error}");
    let error = load("[sokcet]\n").unwrap_err().to_string();
    assert!(error.contains("line 1") && error.contains("sokcet"), "{error}");
    let error = load("\n[links]\nmtu = \"big\"\n").unwrap_err().to_string();
    assert!(error.contains("line 3") && error.contains("mtu"), "{error}");
    assert!(error.contains("a whole number"), "{error}");
    let error = load("links = 3\n").unwrap_err().to_string();
    assert!(error.contains("line 1") && error.contains("a section"), "{error}");
    let error = load("[links\n").unwrap_err().to_string();
    assert!(error.contains("line 1"), "{error}");
}

#[test]
fn a_bad_value_is_refused_with_its_key_and_what_would_be_right() {
    for (text, key, value, right) in [
        ("[links]\nmtu = 1279", "links.mtu", "1279", "1280 to 65521"),
        ("[links]\nmtu = 65522", "links.mtu", "65522", "1280 to 65521"),
        ("[links]\nmac_prefix = \"fe:00:00\"", "links.mac_prefix", "fe:00:00", "kept for the host's side"),
        ("[links]\nallowed_bridges = [\"a/b\"]", "links.allowed_bridges", "a/b", "br-*"),
        ("[socket]\nmode = 660", "socket.mode", "660", "0660"),
        ("[socket]\nmode = \"0999\"", "socket.mode", "0999", "0660"),
        ("[socket]\nmode = \"+660\"", "socket.mode", "+660", "0660"),
        ("[socket]\nmode = true", "socket.mode", "true", "0660"),
        ("[socket]\npath = \"nicd.sock\"", "socket.path", "nicd.sock", "absolute"),
        ("[socket]\npath = \"/run/../x.sock\"", "socket.path", "/run/../x.sock", "absolute"),
        ("[socket]\npath = \"/\"", "socket.path", "/", "absolute"),
        ("[socket]\ngroup = \"\"", "socket.group", "\"\"", "nicd"),
        ("[socket]\nmax_connections = 0", "socket.max_connections", "0", "2 to"),
        ("[socket]\nmax_connections = 8\nroot_reserve = 8", "socket.root_reserve", "8", "0 to 7"),
        ("[socket]\nroot_reserve = -1", "socket.root_reserve", "-1", "0 to 255"),
        ("[store]\ndir = \"\"", "store.dir", "", "absolute"),
        ("[physical_networks]\np = 1", "physical_networks", "p", "eth1"),
        ("[physical_networks]\np = \"a/b\"", "physical_networks", "a/b", "1 to 15 bytes"),
        ("[physical_networks]\np = { device = \"a\", bridge = \"b\" }", "physical_networks", "bridge", "br-x"),
        ("[physical_networks]\np = { device = \"a\", adopt = 1 }", "physical_networks", "adopt", "true or false"),
        ("[physical_networks]\np = { bridge = \"b\", qinq = true }", "physical_networks", "qinq", "br-x"),
        ("[physical_networks]\np = \"a\"\nq = \"a\"", "physical_networks", "q", "of its own"),
        ("[physical_networks]\n\"\" = \"a\"", "physical_networks", "a", "1 to 64"),
        ("[segments]\nvlan = \"0-5\"", "segments.vlan", "0-5", "1 to 4094"),
        ("[segments]\nvlan = [\"5\", true]", "segments.vlan", "true", "100-199"),
        ("[segments]\nvxlan = \"1-16777216\"", "segments.vxlan", "1-16777216", "1 to 16777215"),
        ("[fleet]\nendpoints = []", "fleet.endpoints", "[]", "1 to 16 addresses"),
        ("[fleet]\nendpoints = [\"etcd-1:2379\"]", "fleet.endpoints", "etcd-1:2379", "http://192.0.2.10:2379"),
        ("[fleet]\nendpoints = [\"http://a:0\"]", "fleet.endpoints", "http://a:0", "http://192.0.2.10:2379"),
        ("[fleet]\nendpoints = [\"http://a/v3\"]", "fleet.endpoints", "http://a/v3", "http://192.0.2.10:2379"),
        ("[fleet]\nendpoints = [\"http://x:y@a\"]", "fleet.endpoints", "an address with a user", "http://192.0.2.10:2379"),
        ("[fleet]\nendpoints = [\"http://a\", \"http://a:2379\"]", "fleet.endpoints", "http://a:2379", "once"),
        ("[fleet]\nname = \"x\"", "fleet.name", "x", "fleet.endpoints is expected"),
        ("[fleet]\ntls = { ca = \"/a\" }", "fleet.tls", "{…}", "fleet.endpoints is expected"),
        ("[fleet]\npassword_file = \"/p\"", "fleet.password_file", "/p", "fleet.endpoints is expected"),
        ("[fleet]\nendpoints = [\"http://a\"]\nname = \"A b\"", "fleet.name", "\"A b\"", "a-z, 0-9"),
        ("[fleet]\nendpoints = [\"http://a\"]\nname = \"\"", "fleet.name", "\"\"", "1 to 63"),
        ("[fleet]\nendpoints = [\"http://a\"]\nhost = \"a_b\"", "fleet.host", "\"a_b\"", "compute-1.example"),
        ("[fleet]\nendpoints = [\"http://a\"]\ntls = { ca = \"/a\" }", "fleet.endpoints", "http://a", "https://"),
        ("[fleet]\nendpoints = [\"https://a\"]\ntls = { ca = \"a\" }", "fleet.tls.ca", "a", "absolute"),
        ("[fleet]\nendpoints = [\"https://a\"]\ntls = { cert = \"/a\" }", "fleet.tls.cert", "/a", "fleet.tls.key is expected"),
        ("[fleet]\nendpoints = [\"https://a\"]\ntls = { key = \"/a\" }", "fleet.tls.key", "/a", "fleet.tls.cert is expected"),
        ("[fleet]\nendpoints = [\"http://a\"]\nuser = \"u\"", "fleet.user", "u", "fleet.password_file is expected"),
        ("[fleet]\nendpoints = [\"http://a\"]\npassword_file = \"/p\"", "fleet.password_file", "/p", "fleet.user is expected"),
        ("[fleet]\nendpoints = [\"http://a\"]\nuser = \"\"\npassword_file = \"/p\"", "fleet.user", "\"\"", "a user of etcd"),
        ("[tunnel]\naddress = \"192.0.2.1\"", "tunnel.address", "192.0.2.1", "fleet.endpoints"),
        ("[tunnel]\naddress = \"compute-1\"", "tunnel.address", "compute-1", "192.0.2.10"),
        ("[tunnel]\naddress = \"127.0.0.1\"", "tunnel.address", "127.0.0.1", "other hosts reach"),
        ("[tunnel]\naddress = \"::\"", "tunnel.address", "::", "other hosts reach"),
        ("[tunnel]\naddress = \"239.0.0.1\"", "tunnel.address", "239.0.0.1", "other hosts reach"),
        ("[tunnel]\naddress = \"255.255.255.255\"", "tunnel.address", "255.255.255.255", "other hosts reach"),
        ("[limits]\nnics_per_server = 0", "limits.nics_per_server", "0", "1 to 1023"),
        ("[limits]\nrequests = 5", "limits.requests", "5", "not built"),
        ("[metrics]\nlisten = \"0.0.0.0:9632\"", "metrics.listen", "0.0.0.0:9632", "loopback"),
        ("[metrics]\nlisten = \"192.0.2.1:9632\"", "metrics.listen", "192.0.2.1:9632", "loopback"),
        ("[metrics]\nlisten = \"localhost:9632\"", "metrics.listen", "localhost:9632", "127.0.0.1"),
        ("[metrics]\nlisten = \"127.0.0.1:0\"", "metrics.listen", "127.0.0.1:0", "port"),
        ("[listen]\ntls = \"localhost:8443\"", "listen.tls", "localhost:8443", "192.0.2.10:8443"),
        ("[listen]\ntls = \"192.0.2.10\"", "listen.tls", "192.0.2.10", "192.0.2.10:8443"),
        ("[listen]\ntls = \"192.0.2.10:0\"", "listen.tls", "192.0.2.10:0", "port"),
        ("[listen]\ntls = \"224.0.0.1:8443\"", "listen.tls", "224.0.0.1:8443", "192.0.2.10:8443"),
        ("[listen]\ncert = \"cert.pem\"", "listen.cert", "cert.pem", "absolute"),
        ("[listen]\nkey = \"\"", "listen.key", "", "absolute"),
        ("[listen]\nclient_ca = \"/a/../b\"", "listen.client_ca", "/a/../b", "absolute"),
        ("[listen]\nallow = [\"*.example\"]", "listen.allow", "*.example", "whole names"),
        ("[listen]\nallow = [\"a\", \"\"]", "listen.allow", "\"\"", "common name"),
        ("[listen]\nmax_connections = 1", "listen.max_connections", "1", "2 to 65536"),
        ("[listen]\ntls = \"[::]:8443\"", "listen.tls", "[::]:8443", "listen.cert is expected"),
        ("[dbus]\naddress = \"/run/bus\"", "dbus.address", "/run/bus", "unix:path="),
        ("[guest]\ndns_nameservers = [\"::1\", \"dns\"]", "guest.dns_nameservers", "dns", "192.0.2.53"),
        ("[guest]\ndomain = \"-x\"", "guest.domain", "-x", "cloud.example"),
        ("[log]\nlevel = \"lots\"", "log.level", "lots", "debug"),
        ("[log]\nlevel = \"nicd=lots\"", "log.level", "nicd=lots", "debug"),
        ("[log]\nformat = \"xml\"", "log.format", "xml", "json"),
        ("[nova]\nauth_url = \"controller:5000\"", "nova.auth_url", "controller:5000", "https://"),
        ("[nova]\nendpoint = \"http://x:y@z/\"", "nova.endpoint", "an address with a user", "without user"),
        ("[nova]\ninterface = \"own\"", "nova.interface", "own", "internal"),
        ("[nova]\npassword_file = \"x\"", "nova.password_file", "x", "absolute"),
        ("[nova]\nunreachable_after_s = 0", "nova.unreachable_after_s", "0", "1 to 86400"),
        ("[nova]\nsend = true", "nova.send", "true", "nova.auth_url is expected"),
        ("[notify]\nurl = \"unix:/x\"", "notify.url", "unix:/x", "https://"),
    ] {
        let error = load(text).unwrap_err().to_string();
        assert!(error.contains(key) && error.contains(value) && error.contains(right), "{text}: {error}");
    }
}

/// What an address of `[listen]` needs.
const TLS_FILES: &str = "cert = \"/c\"\nkey = \"/k\"\nclient_ca = \"/a\"\nallow = [\"cloud-1\"]\n";

#[test]
fn tls_needs_its_files_and_names_of_clients() {
    let lines: Vec<&str> = TLS_FILES.lines().collect();
    for (missing, line) in ["cert", "key", "client_ca", "allow"].iter().zip(&lines) {
        let rest: String = lines.iter().filter(|other| *other != line).map(|line| format!("{line}\n")).collect();
        let error = load(&format!("[listen]\ntls = \"192.0.2.10:8443\"\n{rest}")).unwrap_err().to_string();
        assert!(error.contains(&format!("listen.{missing}")), "{error}");
    }
    let listen = load(&format!("[listen]\ntls = \"192.0.2.10:8443\"\n{TLS_FILES}")).unwrap().listen;
    assert_eq!(listen.served().unwrap().allow, ["cloud-1"]);
    assert_eq!(load(&format!("[listen]\n{TLS_FILES}")).unwrap().listen.served(), None, "without an address nothing is served");
}

#[test]
fn telling_nova_needs_to_know_who_nicd_is() {
    let sends = "[nova]\nsend = true\nauth_url = \"http://k/v3\"\n";
    let user = "username = \"nicd\"\npassword_file = \"/p\"\n";
    let credential = "application_credential_id = \"a\"\napplication_credential_secret_file = \"/s\"\n";
    for (text, said) in [
        (String::new(), "nova.username or nova.application_credential_id"),
        ("username = \"nicd\"".to_owned(), "nova.password_file"),
        (user.to_owned(), "nova.project_name"),
        ("application_credential_id = \"a\"".to_owned(), "application_credential_secret_file"),
        ("application_credential_secret_file = \"/a\"".to_owned(), "application_credential_id"),
        (format!("{user}{credential}"), "not both"),
    ] {
        let error = load(&format!("{sends}{text}")).unwrap_err().to_string();
        assert!(error.contains(said), "{text}: {error}");
    }
    assert!(load(&format!("{sends}{user}project_name = \"service\"")).unwrap().nova.send);
    assert!(load(&format!("{sends}{credential}")).unwrap().nova.send);
}

#[test]
fn a_path_too_long_for_a_socket_is_refused_beforehand() {
    let long = format!("[socket]\npath = \"/{}.sock\"", "x".repeat(97));
    assert!(load(&long).unwrap_err().to_string().contains("107"), "{long}");
    assert!(load(&format!("[socket]\npath = \"/{}.sock\"", "x".repeat(96))).is_ok());
}

#[test]
fn what_was_typed_wins_over_the_file() {
    let typed = Overrides { socket: Some("/s".into()), state_dir: Some("/d".into()), log: Some("debug".into()) };
    let text = "[socket]\npath = \"/file.sock\"\n[log]\nlevel = \"warn\"\n";
    let settings = Settings::from_text(Path::new("f"), text, &typed).unwrap();
    assert_eq!(settings.socket.path, Path::new("/s"));
    assert_eq!(settings.socket.view_path, Path::new("/s-view.sock"));
    assert_eq!(settings.store.dir, Path::new("/d"));
    assert_eq!(settings.log.level, "debug");
}

#[test]
fn a_named_file_must_exist() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("none.toml");
    let error = Settings::load(Some(&missing), &Overrides::default()).unwrap_err();
    assert!(matches!(&error, ConfigError::Read { path, .. } if *path == missing), "{error}");
    fs::write(&missing, "[links]\nmtu = 1400\n").unwrap();
    assert_eq!(Settings::load(Some(&missing), &Overrides::default()).unwrap().links.mtu, 1400);
}

#[test]
fn garbage_is_an_error_and_never_a_panic() {
    for text in ["\u{0}", "=", "[[socket]]", "é = \"\"\"", "[socket]\nmode = [1]", "\n\n\u{feff}x"] {
        assert!(load(text).is_err(), "{text:?}");
    }
}

/// The keys that a section may have, as the reader itself lists them.
fn keys_of(section: &str) -> BTreeSet<String> {
    let error = load(&format!("[{section}]\nno-such-key = 1\n")).unwrap_err().to_string();
    let expected = error.split_once("expected ").unwrap().1;
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_reference_has_every_section_and_every_key() {
    let error = load("no-such-section = 1\n").unwrap_err().to_string();
    let sections: BTreeSet<&str> = error.split_once("expected ").unwrap().1.split('`').skip(1).step_by(2).collect();
    assert_eq!(reference::SECTIONS.iter().map(|section| section.name).collect::<BTreeSet<_>>(), sections);
    for section in reference::SECTIONS {
        let listed: BTreeSet<String> = section.keys.iter().map(|key| key.name.to_owned()).collect();
        // The names of physical networks are the operator's.
        if section.name != "physical_networks" {
            assert_eq!(listed, keys_of(section.name), "[{}]", section.name);
        }
    }
}

#[test]
fn the_reference_has_the_defaults_as_it_is_and_with_its_keys_taken_in() {
    let file = reference::file();
    assert_eq!(load(&file).unwrap(), load("").unwrap());
    let unset: Vec<&str> = reference::SECTIONS
        .iter()
        .flat_map(|section| section.keys)
        .filter(|key| key.default.is_none())
        .map(|key| key.name)
        .collect();
    let taken_in: String = file
        .lines()
        .map(|line| match line.strip_prefix('#').and_then(|line| line.split_once(" = ")) {
            Some((key, _)) if !key.starts_with(' ') && !unset.contains(&key) => format!("{}\n", &line[1..]),
            _ => format!("{line}\n"),
        })
        .collect();
    assert_eq!(load(&taken_in).unwrap(), load("").unwrap(), "{taken_in}");
    assert!(file.lines().all(|line| line.len() <= 100), "{file}");
}

#[test]
fn the_reference_says_which_keys_need_a_restart_and_its_examples_are_right() {
    let mut restart = BTreeSet::new();
    for section in reference::SECTIONS {
        for key in section.keys {
            // Some are refused alone: the keys beside them are needed.
            let (beside, before) = match (section.name, key.name) {
                ("listen", "tls") => (TLS_FILES, TLS_FILES),
                ("fleet", "endpoints") => ("", ""),
                ("fleet", "user") => ("endpoints = [\"https://a\"]\npassword_file = \"/p\"", "endpoints = [\"https://a\"]"),
                ("fleet", "password_file") => ("endpoints = [\"https://a\"]\nuser = \"u\"", "endpoints = [\"https://a\"]"),
                ("tunnel", _) => ("[fleet]\nendpoints = [\"https://a\"]", "[fleet]\nendpoints = [\"https://a\"]"),
                ("fleet", _) => ("endpoints = [\"https://a\"]", "endpoints = [\"https://a\"]"),
                _ => ("", ""),
            };
            let changed = load(&format!("[{}]\n{} = {}\n{beside}", section.name, key.name, key.example)).unwrap();
            let mut settings = load(&format!("[{}]\n{before}", section.name)).unwrap();
            let waiting = settings.take_over(changed);
            let full = format!("{}.{}", section.name, key.name);
            assert_eq!(waiting.contains(&full.as_str()), key.applies == reference::Applies::Restart, "{full}");
            restart.extend(waiting);
        }
    }
    assert_eq!(restart.len(), 21);
}

#[test]
fn the_file_that_is_installed_is_the_reference() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/nicd.toml");
    if std::env::var_os("NICD_BLESS").is_some() {
        fs::write(&path, reference::file()).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), reference::file(), "NICD_BLESS=1 writes it");
}
