//! What a trial has shown is remembered, and only what this user's own trial has shown here.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use sandbox_core::Runtime as _;
use sandbox_core::policy::{Capabilities, Control};
use sandbox_runtime::{EmbeddedOptions, EmbeddedRuntime, Trial};
use serde_json::{Value, json};

async fn connect(state: &Path, trial: Trial, first_id: Option<u32>) -> Capabilities {
    let mut options = EmbeddedOptions::new(state);
    options.trial = trial;
    options.first_id = first_id.unwrap_or(options.first_id);
    EmbeddedRuntime::connect(options).await.unwrap().capabilities().clone()
}

/// What is remembered, and which file it is.
fn remembered(state: &Path) -> Vec<(PathBuf, u64)> {
    let files = fs::read_dir(state.join("tried")).unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| (path.clone(), fs::metadata(&path).unwrap().ino())).collect()
}

#[tokio::test]
async fn a_trial_is_remembered_until_something_changes_and_believed_of_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let state = directory.path().join("state");
    let first = connect(&state, Trial::Remembered, None).await;
    let one = remembered(&state);
    assert_eq!(one.len(), 1);
    let path = &one[0].0;
    assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, 0o600);

    assert_eq!(connect(&state, Trial::Remembered, None).await, first);
    assert_eq!(remembered(&state), one, "nothing was tried");
    assert_eq!(connect(&state, Trial::Anew, None).await, first);
    assert_ne!(remembered(&state), one, "it was tried although it is remembered");

    connect(&state, Trial::Remembered, Some(1_800_000_000)).await;
    assert_eq!(remembered(&state).len(), 2, "other ids are another trial");

    // Whatever is believed is seen by this.
    let forge = || {
        let mut tried: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        tried["lacking"] = json!([{"control": "no-new-privileges", "why": "forged", "hint": "forged"}]);
        fs::write(path, tried.to_string()).unwrap();
    };
    forge();
    let forged = connect(&state, Trial::Remembered, None).await;
    assert!(!forged.is_enforced(Control::NoNewPrivileges), "the control: what is this user's is believed");
    if rustix::process::geteuid().is_root() {
        chown(path, Some(4_242), Some(4_242)).unwrap();
    } else {
        fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
    }
    assert_eq!(connect(&state, Trial::Remembered, None).await, first, "it may be another's, and is tried anew");
    assert_eq!(fs::metadata(path).unwrap().uid(), rustix::process::geteuid().as_raw(), "and remembered as ours");
}
