//! openstacksdk, unmodified, against one host's TLS listener: what it attaches is on another host.

use std::fs::{self, File};
use std::io::Write;

use serde_json::json;

use crate::clients;
use crate::daemon::PATIENCE;
use crate::hosts::{Host, with_etcd};
use crate::netns::comes_true;
use crate::pki::{ADDRESS, Pki};
use crate::programs;

const SERVER: &str = "00000000-0000-4000-8000-000000000001";

#[test]
fn openstacksdk_attaches_on_another_host_over_tls() {
    if !programs::has("etcd") {
        return;
    }
    clients::install();
    with_etcd(|_| {
        let pki = Pki::new();
        let mut front = Host::new("front", 1);
        let mut config = File::options().append(true).open(front.daemon.config()).unwrap();
        config.write_all(pki.listen(&["cloud-1"]).as_bytes()).unwrap();
        front.launch();
        front.joins();
        let mut back = Host::started("back", 2);
        let path = format!("/nicd/v1/servers/{SERVER}");
        back.client.put(&path, &json!({"server": {"guest": {"kind": "vm"}}})).expect(201);
        let seen = || front.client.get(&format!("/v2.1/servers/{SERVER}/os-interface")).status == 200;
        comes_true(PATIENCE, seen, || "the server is not seen".to_owned());
        let socket = front.daemon.socket();
        let output = front.inside(|_| {
            let mut python = clients::python();
            python.args(["-m", "pytest", "-q", "test_fleet.py"]).current_dir(clients::sources());
            python.env("NICD_TEST_SOCKET", socket).env("NICD_TEST_HOST", format!("https://{ADDRESS}"));
            python.env("NICD_TEST_PKI", pki.file("")).env("NICD_TEST_SERVER", SERVER).output().unwrap()
        });
        let said = String::from_utf8_lossy(&output.stdout);
        println!("{said}{}", String::from_utf8_lossy(&output.stderr));
        let log = |host: &Host| fs::read_to_string(host.daemon.config().with_file_name("log")).unwrap_or_default();
        assert!(output.status.success() && !said.contains("SKIPPED"), "{}\n{}\n{}", output.status, log(&front), log(&back));
    });
}
