//! Who is served, and how: as on the socket.

use serde_json::json;

use crate::netns::in_netns;
use crate::pki::{Pki, url};
use crate::{confined, serving};

#[test]
fn a_client_with_a_certificate_is_served_as_on_the_socket() {
    in_netns(|| {
        let pki = Pki::new();
        let mut fixture = serving(&pki, &["cloud-1"]);
        let remote = pki.get("cloud-1", "/nicd/v1/health").expect(200);
        assert_eq!((&remote["status"], &remote["problems"]), (&json!("ok"), &json!([])));
        // One key is one request of this client, and another of the socket's.
        let body = json!({"network": {"name": "blue"}}).to_string();
        let make = ["-H", "Idempotency-Key: once", "-H", "Content-Type: application/json", "-d", &body];
        let made = |said: crate::pki::Said| said.expect(201)["network"]["id"].clone();
        let target = url("/v2.0/networks");
        let [first, again] = [(); 2].map(|()| made(pki.curl(Some("cloud-1"), &[&make[..], &[target.as_str()]].concat())));
        assert_eq!(first, again);
        let headers = [("Idempotency-Key", "once"), ("Content-Type", "application/json")];
        let local = fixture.api.call("POST", "/v2.0/networks", &headers, body.as_bytes()).expect(201);
        assert_ne!(first, local["network"]["id"]);
        assert_eq!(fixture.api.get("/v2.0/networks").expect(200)["networks"].as_array().unwrap().len(), 2);
        // Ids, and each refusal in its dialect.
        let shown = pki.curl(Some("cloud-1"), &["-i", &url("/v2.0/networks/x")]);
        assert!(shown.out.contains("x-openstack-request-id: req-") && shown.out.contains("NeutronError"), "{shown:?}");
        assert_eq!(pki.get("cloud-1", "/nicd/v1/nothing").refused(404), "no_such_route");
        let long = "x".repeat(20_000);
        assert_eq!(pki.curl(Some("cloud-1"), &["-H", &format!("x: {long}"), &url("/")]).refused(431), "headers_too_large");
        std::fs::write("/run/body", vec![b' '; 70_000]).unwrap();
        let too_long = ["-H", "Content-Type: application/json", "--data-binary", "@/run/body", &target];
        assert_eq!(pki.curl(Some("cloud-1"), &too_long).expect(413)["NeutronError"]["reason"], "body_too_large");
        // Many requests on one connection.
        let several: Vec<String> = vec![url("/v2.0/ports"); 20];
        let several: Vec<&str> = several.iter().map(String::as_str).collect();
        let said = pki.curl(Some("cloud-1"), &[&["--write-out", "%{num_connects}"][..], &several].concat());
        assert_eq!(said.out.matches("{\"ports\":[]}1").count() + said.out.matches("{\"ports\":[]}0").count(), 20, "{said:?}");
        assert_eq!(said.out.matches("}1").count(), 1, "{said:?}");
        // With the key again after a restart.
        fixture.daemon.term();
        fixture.launch();
        assert_eq!(made(pki.curl(Some("cloud-1"), &[&make[..], &[target.as_str()]].concat())), first);
        let log = fixture.daemon.log();
        assert!(log.contains("client=\"cloud-1\""), "{log}");
    });
}

#[test]
fn each_kind_of_name_in_a_certificate_can_be_allowed() {
    in_netns(|| {
        let pki = Pki::new();
        for (name, alternative) in [
            ("dns", "DNS:Control.Example"),
            ("uri", "URI:spiffe://example/nova"),
            ("mail", "email:cloud@example.org"),
            ("ip", "IP:2001:db8::7"),
            ("other", "DNS:other.example"),
        ] {
            pki.certificate(name, "ca", "no name that is allowed", &format!("subjectAltName={alternative}"), 365);
        }
        let _fixture = confined(&pki, &["control.example", "spiffe://example/nova", "cloud@example.org", "2001:db8:0:0::7"]);
        for name in ["dns", "uri", "mail", "ip"] {
            pki.get(name, "/v2.0/ports").expect(200);
        }
        for name in ["other", "cloud-1"] {
            assert_eq!(pki.get(name, "/nicd/v1/health").refused(403), "client_not_allowed");
        }
    });
}
