//! Properties of the policy that hold for every input.

use sandbox_policy::{PRESETS, Policy};

#[test]
fn every_preset_has_a_policy() {
    for name in PRESETS {
        assert_eq!(Policy::preset(name).unwrap().name(), name);
    }
}
