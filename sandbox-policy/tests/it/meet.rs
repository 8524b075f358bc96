//! Policies compose by `meet`, which can only tighten.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use sandbox_policy::Control;

use crate::strategies::{capabilities, policy, request};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn is_commutative(a in policy(), b in policy()) {
        prop_assert_eq!(a.meet(&b), b.meet(&a));
    }

    #[test]
    fn is_associative(a in policy(), b in policy(), c in policy()) {
        prop_assert_eq!(a.meet(&b).meet(&c), a.meet(&b.meet(&c)));
    }

    #[test]
    fn is_idempotent(a in policy()) {
        prop_assert_eq!(a.meet(&a), a);
    }

    #[test]
    fn is_never_looser(a in policy(), b in policy()) {
        let met = a.meet(&b);
        prop_assert!(met.is_at_least_as_strict_as(&a));
        prop_assert!(met.is_at_least_as_strict_as(&b));
    }

    #[test]
    fn is_the_loosest_of_the_stricter(a in policy(), b in policy(), c in policy()) {
        if c.is_at_least_as_strict_as(&a) && c.is_at_least_as_strict_as(&b) {
            prop_assert!(c.is_at_least_as_strict_as(&a.meet(&b)));
        }
        let below = a.meet(&b).meet(&c);
        prop_assert!(below.is_at_least_as_strict_as(&a.meet(&b)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1_536, ..ProptestConfig::default() })]

    #[test]
    fn what_the_meet_accepts_each_accepts(
        a in policy(),
        b in policy(),
        request in request(),
        capabilities in capabilities(),
    ) {
        if let Ok(spec) = a.meet(&b).check(&request, &capabilities) {
            // Of what is left open, the stricter may grant what can be enforced, and the looser what cannot.
            let mut request = request.clone();
            request.root = Some(spec.root());
            (request.limits.memory, request.limits.disk) = (Some(spec.limits().memory), Some(spec.limits().disk));
            for policy in [&a, &b] {
                let alone = policy.check(&request, &capabilities);
                prop_assert!(alone.is_ok(), "{}: {:?}", policy.name(), alone);
                for control in spec.waived().keys() {
                    prop_assert!(policy.waived().contains(control));
                }
                prop_assert!(spec.limits().memory <= policy.limits().memory);
                prop_assert!(spec.limits().lifetime <= policy.limits().lifetime);
            }
        }
    }

    #[test]
    fn what_weaker_reports_allow_stronger_ones_allow(
        policy in policy(),
        request in request(),
        a in capabilities(),
        b in capabilities(),
    ) {
        if let Ok(spec) = policy.check(&request, &a.join(&b)) {
            for control in spec.required() {
                let is_in_memory = *control == Control::Disk && spec.is_disk_in_memory();
                prop_assert!(a.is_enforced(*control) || b.is_enforced(*control) || is_in_memory);
            }
        }
    }
}

#[test]
fn enough_is_accepted_for_the_properties_to_mean_something() {
    let mut runner = TestRunner::deterministic();
    let all = (policy(), policy(), request(), capabilities());
    let accepted = (0..1_000)
        .filter(|_| {
            let (a, b, request, capabilities) = all.new_tree(&mut runner).unwrap().current();
            a.meet(&b).check(&request, &capabilities).is_ok()
        })
        .count();
    assert!(accepted >= 100, "{accepted} of 1000");
}
