//! The document the daemon gives out, against the routes it serves.

use std::collections::BTreeSet;

use serde_json::json;

use crate::fixture::Fixture;
use crate::netns::in_netns;

/// A path of the document with ids of nothing in it.
fn filled(template: &str) -> String {
    let fill =
        |part: &str| if part.starts_with('{') { "ce531f90-199f-48c0-816c-13e38010b442".to_owned() } else { part.to_owned() };
    template.split('/').map(fill).collect::<Vec<_>>().join("/")
}

#[test]
fn what_is_documented_is_served_and_nothing_else() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let document = fixture.api.get("/nicd/v1/openapi.json").expect(200);
        let paths = document["paths"].as_object().unwrap();
        assert!(paths.len() > 40, "{}", paths.len());
        for (template, operations) in paths {
            let path = filled(template);
            let mut served = BTreeSet::new();
            for (method, operation) in operations.as_object().unwrap() {
                served.insert(method.to_uppercase());
                if template.ends_with("/events") {
                    continue; // has no end
                }
                let json = [("Content-Type", "application/json")];
                let answer = fixture.api.call(&method.to_uppercase(), &path, &json, b"[]");
                assert!(operation["responses"].get(answer.status.to_string()).is_some(), "{method} {path}: {}", answer.status);
            }
            let answer = fixture.api.call("PATCH", &path, &[], b"");
            let allowed: BTreeSet<String> = answer.header("allow").unwrap().split(',').map(|one| one.trim().to_owned()).collect();
            if served.contains("GET") {
                served.insert("HEAD".to_owned());
            }
            assert_eq!((answer.status, &allowed), (405, &served), "{template}");
        }
        assert_eq!(fixture.api.get("/nicd/v1/none").json()["itemNotFound"]["reason"], json!("no_such_route"));
    });
}
