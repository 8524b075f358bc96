//! GitHub's description: what a request and an answer may look like.

use std::sync::LazyLock;

use jsonschema::{Draft, Validator};
use serde_json::{Map, Value, json};

/// The operations that are used, as GitHub publishes them.
static DESCRIPTION: LazyLock<Value> =
    LazyLock::new(|| modern(serde_json::from_str(include_str!("../openapi/extract.json")).unwrap()));
static EXAMPLES: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../openapi/examples.json")).unwrap());

/// One of GitHub's own examples.
pub(crate) fn example(name: &str) -> Value {
    EXAMPLES.get(name).unwrap_or_else(|| panic!("no example {name}")).clone()
}

/// Says what in a request is not as described; `None` if all is.
pub(crate) fn request_fault(method: &str, path: &str, query: &[(String, String)], body: &[u8]) -> Option<String> {
    let Some(operation) = operation(method, path) else { return Some(format!("{method} {path} is not described")) };
    let known: Vec<String> = operation["parameters"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|parameter| resolve(parameter)["name"].as_str().unwrap().to_owned())
        .collect();
    if let Some((name, _)) = query.iter().find(|(name, _)| !known.contains(name)) {
        return Some(format!("{method} {path} has no parameter {name}"));
    }
    let schema = resolve(&operation["requestBody"])["content"]["application/json"]["schema"].clone();
    match (schema.is_null(), body.is_empty()) {
        (true, true) => None,
        (true, false) => Some(format!("{method} {path} takes no body")),
        (false, _) => fault(&schema, &serde_json::from_slice(body).unwrap_or(Value::Null)),
    }
}

/// Says what in an answer is not as described.
pub(crate) fn answer_fault(method: &str, path: &str, status: u16, body: &Value) -> Option<String> {
    let Some(operation) = operation(method, path) else { return Some(format!("{method} {path} is not described")) };
    let described = &operation["responses"][status.to_string()];
    if described.is_null() {
        return Some(format!("{method} {path} never answers {status}"));
    }
    let schema = resolve(described)["content"]["application/json"]["schema"].clone();
    if schema.is_null() {
        return (!body.is_null()).then(|| format!("{method} {path} answers {status} without a body"));
    }
    fault(&schema, body)
}

fn operation<'a>(method: &str, path: &str) -> Option<&'a Value> {
    let asked: Vec<&str> = path.split('/').collect();
    let fits = |described: &str| {
        let described: Vec<&str> = described.split('/').collect();
        described.len() == asked.len()
            && described.iter().zip(&asked).all(|(described, asked)| described.starts_with('{') || described == asked)
    };
    let paths = DESCRIPTION["paths"].as_object()?;
    let (_, operations) = paths.iter().find(|(described, _)| fits(described))?;
    operations.get(method.to_ascii_lowercase())
}

fn resolve(value: &Value) -> &Value {
    match value["$ref"].as_str() {
        Some(reference) => DESCRIPTION.pointer(reference.trim_start_matches('#')).unwrap(),
        None => value,
    }
}

fn fault(schema: &Value, instance: &Value) -> Option<String> {
    let whole = json!({ "allOf": [schema], "components": DESCRIPTION["components"] });
    let validator: Validator = jsonschema::options().with_draft(Draft::Draft202012).build(&whole).unwrap();
    validator.iter_errors(instance).next().map(|error| format!("{} at {}", error, error.instance_path()))
}

/// `OpenAPI` 3.0 says `nullable` where today's schemas say `null`.
fn modern(value: Value) -> Value {
    match value {
        Value::Array(values) => values.into_iter().map(modern).collect(),
        Value::Object(mut fields) => {
            let nullable = fields.get("nullable").is_some_and(|nullable| nullable == &Value::Bool(true));
            if nullable {
                fields.remove("nullable");
            }
            let schema: Map<String, Value> = fields.into_iter().map(|(name, value)| (name, modern(value))).collect();
            let schema = Value::Object(schema);
            if nullable { json!({ "anyOf": [schema, { "type": "null" }] }) } else { schema }
        }
        other => other,
    }
}

#[test]
fn the_description_tells_right_from_wrong() {
    let repository = example("repository");
    assert_eq!(answer_fault("GET", "/repos/o/r", 200, &repository), None);
    let mut wrong = repository;
    wrong["private"] = json!("yes");
    assert!(answer_fault("GET", "/repos/o/r", 200, &wrong).is_some());
    assert!(request_fault("GET", "/repos/o/r", &[("no_such".to_owned(), String::new())], b"").is_some());
    assert!(request_fault("POST", "/credentials/revoke", &[], br#"{"credentials":"x"}"#).is_some());
    assert!(request_fault("PUT", "/nowhere", &[], b"").is_some());
}
