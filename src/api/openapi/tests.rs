//! The document against itself and against the router.

use serde_json::{Value, json};

use super::*;

fn document() -> Value {
    serde_json::from_str(&TEXT).unwrap()
}

/// Every operation: its path, its method, and what is said of it.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let methods = |item: &Value| item.as_object().unwrap().clone().into_iter().collect::<Vec<_>>();
    let flat = paths.iter().flat_map(|(path, item)| {
        methods(item).into_iter().map(move |(method, operation)| (path.clone(), method, operation)).collect::<Vec<_>>()
    });
    flat.collect()
}

fn find<'a>(document: &'a Value, reference: &Value) -> &'a Value {
    let place = reference.as_str().and_then(|reference| reference.strip_prefix('#')).unwrap();
    document.pointer(place).unwrap_or_else(|| panic!("{place} is not in the document"))
}

/// What a reference refers to, or the value itself.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    value.get("$ref").map_or(value, |reference| find(document, reference))
}

/// The places of attributes that nothing is said of.
fn undescribed(value: &Value, place: &str, found: &mut Vec<String>) {
    if let Some(properties) = value["properties"].as_object() {
        let silent = properties.iter().filter(|(_, property)| property["description"].as_str().is_none_or(str::is_empty));
        found.extend(silent.map(|(name, _)| format!("{place}/{name}")));
    }
    match value {
        Value::Object(members) => members.iter().for_each(|(key, member)| undescribed(member, &format!("{place}/{key}"), found)),
        Value::Array(items) => items.iter().for_each(|item| undescribed(item, place, found)),
        _ => {}
    }
}

#[test]
fn every_attribute_is_described() {
    let mut found = Vec::new();
    undescribed(&document(), "", &mut found);
    assert!(found.is_empty(), "{found:#?}");
}

/// As much of JSON Schema as the document uses.
fn fits(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let schema = resolved(document, schema);
    let fail = |why: &str| Err(format!("{value} {why} of {schema}"));
    let of = |key: &str| schema[key].as_array().map(|all| all.iter().filter(|one| fits(document, one, value).is_ok()).count());
    match (of("anyOf"), of("oneOf")) {
        (Some(0), _) => return fail("fits none"),
        (_, Some(fitting)) if fitting != 1 => return fail("does not fit exactly one"),
        _ => {}
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if schema.get("type").is_some_and(|wanted| wanted != kind) {
        return fail("is not of the type");
    }
    if schema.get("const").is_some_and(|only| only != value) {
        return fail("is not the only value");
    }
    if schema.get("enum").is_some_and(|possible| !possible.as_array().unwrap().contains(value)) {
        return fail("is not in the enum");
    }
    let outside =
        |number: u64| number < schema["minimum"].as_u64().unwrap_or(0) || number > schema["maximum"].as_u64().unwrap_or(u64::MAX);
    if value.as_u64().is_some_and(outside) {
        return fail("is outside the range");
    }
    if let Value::Array(all) = value {
        if all.len() as u64 > schema["maxItems"].as_u64().unwrap_or(u64::MAX) {
            return fail("is too long");
        }
        all.iter().try_for_each(|one| fits(document, &schema["items"], one))?;
    }
    let Value::Object(members) = value else { return Ok(()) };
    for required in schema["required"].as_array().into_iter().flatten() {
        if !members.contains_key(required.as_str().unwrap()) {
            return fail(&format!("has no {required}"));
        }
    }
    for (name, member) in members {
        match schema["properties"].get(name) {
            Some(own) => fits(document, own, member)?,
            None if schema["additionalProperties"] == json!(false) => return fail(&format!("has {name} more")),
            None => {}
        }
    }
    Ok(())
}

/// All contents of a request or an answer with their examples.
fn contents(document: &Value, holder: &Value) -> Vec<(Value, Vec<Value>)> {
    let content = resolved(document, holder)["content"].as_object().cloned().unwrap_or_default();
    let examples = |content: &Value| {
        let many = content["examples"].as_object().into_iter().flatten().map(|(_, example)| example["value"].clone());
        content.get("example").cloned().into_iter().chain(many).collect::<Vec<_>>()
    };
    content.into_iter().map(|(_, content)| (content["schema"].clone(), examples(&content))).collect()
}

#[test]
fn is_openapi_3_1_with_unique_ids_and_whole_references() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    let operations = operations(&document);
    let ids: std::collections::BTreeSet<&str> = operations.iter().map(|(.., of)| of["operationId"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), operations.len());
    let mut rest = vec![&document];
    while let Some(value) = rest.pop() {
        if let Some(reference) = value.get("$ref") {
            find(&document, reference);
        }
        rest.extend(value.as_object().into_iter().flat_map(|members| members.values()));
        rest.extend(value.as_array().into_iter().flatten());
    }
}

#[test]
fn every_example_fits_its_schema_and_everything_has_one() {
    let document = document();
    for (path, method, operation) in operations(&document) {
        let answers = operation["responses"].as_object().unwrap().clone();
        let whole = answers.values().cloned().chain(operation.get("requestBody").cloned());
        for (schema, examples) in whole.flat_map(|holder| contents(&document, &holder)) {
            assert!(!examples.is_empty(), "{method} {path}: no example of {schema}");
            for example in examples {
                fits(&document, &schema, &example).unwrap_or_else(|why| panic!("{method} {path}: {why}"));
            }
        }
    }
}

#[test]
fn every_answer_carries_the_requests_id() {
    let document = document();
    for (path, method, operation) in operations(&document) {
        for (status, answer) in operation["responses"].as_object().unwrap() {
            let headers = &resolved(&document, answer)["headers"];
            for name in ["X-Compute-Request-Id", "X-Openstack-Request-Id", "X-Request-Id"] {
                assert_eq!(resolved(&document, &headers[name])["required"], true, "{method} {path} {status} {name}");
            }
        }
    }
}

#[test]
fn the_statuses_are_the_contracts() {
    let document = document();
    let statuses = |method: &str, path: &str| {
        let answers = document["paths"][path][method]["responses"].as_object().unwrap();
        let mut all: Vec<u16> = answers.keys().map(|status| status.parse().unwrap()).collect();
        all.sort_unstable();
        all
    };
    assert_eq!(statuses("get", "/v2.0/ports"), [200, 400, 401, 403, 408, 413, 431, 500, 503]);
    assert_eq!(
        statuses("post", "/v2.1/servers/{server}/os-interface"),
        [200, 400, 401, 403, 404, 406, 408, 409, 413, 415, 431, 500, 501, 503, 504, 507]
    );
    assert_eq!(statuses("delete", "/v2.0/ports/{id}"), [204, 400, 401, 403, 404, 408, 409, 412, 413, 431, 500, 503, 504, 507]);
    assert_eq!(statuses("get", "/nicd/v1/verify"), [200, 400, 401, 403, 408, 413, 431, 500, 503]);
}

#[test]
fn what_the_renderers_make_fits() {
    let document = document();
    let component = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
    for view in [samples::port(), samples::unbound(), samples::waiting()] {
        fits(&document, &component("Port"), &crate::api::resource::Resource::shown(&view)).unwrap();
        for version in [crate::api::microversion::Microversion::MIN, crate::api::microversion::Microversion::MAX] {
            fits(&document, &component("InterfaceAttachment"), &crate::api::nova::attachment(&view, version)).unwrap();
        }
    }
    fits(&document, &component("Port"), &json!({})).unwrap_err();
}
