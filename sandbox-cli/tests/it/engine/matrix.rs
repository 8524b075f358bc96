//! The matrix that `doctor` prints is what each engine's runtime reports, which the contract attacks control by control.

use sandbox_core::Runtime;
use sandbox_policy::{Control, Support};
use sandbox_runtime::{DockerRuntime, Endpoint, PodmanRuntime};
use serde_json::Value;

use crate::harness::{Place, variable};

/// Each row says of a control what the runtime says of it.
fn assert_told(name: &str, runtime: &impl Runtime, rows: &Value) {
    let rows = rows.as_array().unwrap();
    let mut count = 0;
    for control in Control::ALL {
        let Some(support) = runtime.capabilities().get(*control) else { continue };
        let row = rows.iter().find(|row| row["control"] == control.as_str()).unwrap();
        let (state, detail) = match support {
            Support::Enforced { by } => ("enforced", by),
            Support::Unsupported { why, .. } => ("unsupported", why),
            other => panic!("{other:?}"),
        };
        assert_eq!((&row["state"], &row["detail"]), (&Value::from(state), &Value::from(detail.as_str())), "{name}");
        count += 1;
    }
    assert!(count > 8, "{name}: {count} controls");
}

fn diagnosis(address: &str) -> Value {
    let place = Place::new();
    let output = place.command(&["doctor", "--json"]).env("SANDBOX_ENGINE", address).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What is said of the same engine with sandboxes on gVisor; nothing where it has none.
fn with_gvisor(diagnosis: &Value) -> Option<&Value> {
    let endpoint = &diagnosis["engine"]["endpoint"];
    let others = diagnosis["others"].as_array().unwrap();
    others.iter().find(|other| {
        other["engine"]["endpoint"] == *endpoint
            && other["place"].as_str().is_some_and(|place| place.ends_with("with --isolation gvisor"))
    })
}

#[tokio::test]
async fn what_doctor_prints_is_what_the_contract_measures() {
    let address = |name| -> (String, Endpoint) { (variable(name), variable(name).parse().unwrap()) };
    for name in ["DOCKER_HOST", "SANDBOX_TEST_DOCKER_REMAP", "SANDBOX_TEST_DOCKER_ROOTLESS"] {
        let (text, endpoint) = address(name);
        let diagnosis = diagnosis(&text);
        assert_told(name, &DockerRuntime::connect(endpoint).await.unwrap(), &diagnosis["controls"]);
    }
    for name in ["SANDBOX_TEST_PODMAN", "SANDBOX_TEST_PODMAN_ROOTLESS"] {
        let (text, endpoint) = address(name);
        let diagnosis = diagnosis(&text);
        assert_told(name, &PodmanRuntime::connect(endpoint).await.unwrap(), &diagnosis["controls"]);
        assert!(with_gvisor(&diagnosis).is_none(), "{name} has no gVisor");
    }
    let (text, endpoint) = address("SANDBOX_TEST_DOCKER_GVISOR");
    let runtime = DockerRuntime::connect(endpoint).await.unwrap();
    let both = diagnosis(&text);
    assert_told("Docker beside gVisor", &runtime, &both["controls"]);
    assert_told("Docker with gVisor", &runtime.with_gvisor(), &with_gvisor(&both).unwrap()["controls"]);
    let (text, endpoint) = address("SANDBOX_TEST_PODMAN_GVISOR");
    let runtime = PodmanRuntime::connect(endpoint).await.unwrap();
    let both = diagnosis(&text);
    assert_told("Podman with gVisor", &runtime.with_gvisor(), &with_gvisor(&both).unwrap()["controls"]);
}
