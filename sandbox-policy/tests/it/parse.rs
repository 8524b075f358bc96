//! Printing and parsing undo each other, and no input panics.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use proptest::prelude::*;
use sandbox_policy::{
    Branch, ByteSize, Control, CpuCount, EnvName, EnvValue, GuestPath, HostPath, ImageRef, OpenFiles, ParseError,
    Policy, PolicyName, ProcessCount, RepoId, Span,
};

use crate::strategies::{limits, policy};

/// Parses; what parses must print as something that parses to the same value.
fn check_round_trip<T>(text: &str) -> Result<Option<String>, TestCaseError>
where
    T: FromStr<Err = ParseError> + Display + Debug + PartialEq,
{
    match text.parse::<T>() {
        Ok(value) => {
            let printed = value.to_string();
            prop_assert_eq!(printed.parse::<T>(), Ok(value));
            Ok(Some(printed))
        }
        Err(error) => {
            let message = error.to_string();
            prop_assert!(message.len() < 1_000, "{message}");
            prop_assert!(!message.contains(char::is_control), "{message:?}");
            Ok(None)
        }
    }
}

/// The same, for a type that prints as it was given.
fn check_as_given<T>(text: &str) -> Result<(), TestCaseError>
where
    T: FromStr<Err = ParseError> + Display + Debug + PartialEq,
{
    if let Some(printed) = check_round_trip::<T>(text)? {
        prop_assert_eq!(printed, text);
    }
    Ok(())
}

fn check_everything(text: &str) -> Result<(), TestCaseError> {
    check_as_given::<Branch>(text)?;
    check_as_given::<Control>(text)?;
    check_as_given::<EnvName>(text)?;
    check_as_given::<GuestPath>(text)?;
    check_as_given::<HostPath>(text)?;
    check_as_given::<ImageRef>(text)?;
    check_as_given::<PolicyName>(text)?;
    check_as_given::<RepoId>(text)?;
    check_round_trip::<ByteSize>(text)?;
    check_round_trip::<CpuCount>(text)?;
    check_round_trip::<OpenFiles>(text)?;
    check_round_trip::<ProcessCount>(text)?;
    check_round_trip::<Span>(text)?;
    if let Ok(value) = text.parse::<EnvValue>() {
        prop_assert_eq!(value.as_str(), text);
    }
    check_document(text)
}

fn check_document(text: &str) -> Result<(), TestCaseError> {
    match Policy::from_toml(text) {
        Ok(policy) => prop_assert_eq!(Policy::from_toml(&policy.to_toml()), Ok(policy)),
        Err(error) => {
            prop_assert!(error.line() <= text.matches('\n').count() + 1);
            let message = error.to_string();
            prop_assert!(message.len() < 1_500, "{message}");
            prop_assert!(!message.contains(char::is_control), "{message:?}");
        }
    }
    Ok(())
}

/// Makes lines that are nearly those of a document.
fn near_documents() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        "(version|name|base|root|limits\\.memory|waive|\"é\") ?= ?(1|\"[a-z∧]{0,4}\"|\\[|true|nan)",
        "\\[\\[?(limits|image|é)?\\]?\\]?",
        "(cpus|memory|processes|lifetime|digest) = (-?[0-9]{0,12}(\\.[0-9]{1,4})?|\"[0-9]{1,3}(Gi|G|GiB|h)?\")",
        "#.{0,9}",
        ".{0,20}",
    ];
    proptest::collection::vec(line, 0..9).prop_map(|lines| format!("version = 1\n{}", lines.join("\n")))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1_024, ..ProptestConfig::default() })]

    #[test]
    fn any_text(text in "\\PC{0,40}") {
        check_everything(&text)?;
    }

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        check_everything(&String::from_utf8_lossy(&bytes))?;
    }

    #[test]
    fn texts_close_to_what_is_valid(
        text in "[0-9]{0,20}(B|[KMGT]iB|G|s|m|h|d)?|[0-9]{0,11}\\.?[0-9]{0,4}|[a-zA-Z0-9._-]{1,40}/[a-zA-Z0-9._-]{1,101}\
                 |([a-zA-Z0-9.-]{1,9}(:[0-9]{1,5})?/)?[a-z0-9._/-]{1,20}(:[a-zA-Z0-9._-]{1,9})?(@sha256:[0-9a-f]{63,64})?\
                 |(/[a-z.]{0,4}){1,5}|[A-Z_][A-Z0-9_]{0,9}|[a-z0-9/._@-]{1,30}"
    ) {
        check_everything(&text)?;
    }

    #[test]
    fn documents_close_to_what_is_valid(text in near_documents()) {
        check_document(&text)?;
    }

    #[test]
    fn a_printed_policy_is_the_policy(a in policy(), b in policy()) {
        let met = a.meet(&b);
        for policy in [a, met] {
            prop_assert_eq!(Policy::from_toml(&policy.to_toml()), Ok(policy));
        }
    }

    #[test]
    fn any_limits_survive_a_document(
        limits in limits(),
        millis in 1..=4_000_000_000_u32,
        bytes in 0..=i64::MAX.unsigned_abs(),
        seconds in any::<u32>(),
    ) {
        let mut limits = limits;
        limits.cpus = CpuCount::from_millis(millis)?;
        limits.memory = ByteSize::from_bytes(bytes)?;
        limits.lifetime = Span::seconds(seconds);
        let policy = Policy::standard().with_limits(limits);
        prop_assert_eq!(Policy::from_toml(&policy.to_toml()), Ok(policy));
    }

    #[test]
    fn any_path_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        use std::os::unix::ffi::OsStringExt;
        let path = std::path::PathBuf::from(std::ffi::OsString::from_vec(bytes));
        if let Ok(host) = HostPath::try_from(path.clone()) {
            prop_assert!(path.is_absolute());
            prop_assert_eq!(host.as_path(), path);
        }
    }
}
