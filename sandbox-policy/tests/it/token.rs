//! Whether a token will do, by what is known of it.

use std::collections::BTreeSet;

use sandbox_policy::{
    BranchProtection, Capabilities, Control, Policy, SandboxRequest, SandboxSpec, Scope, Span, Support, TokenCarries,
    TokenFacts, TokenForm, TokenLife, TokenPermissions, TokenReach,
};

/// A request of what a token serves for.
#[cfg(test)]
fn asked() -> SandboxRequest {
    let mut asked = SandboxRequest::new("debian:12".parse().unwrap());
    asked.repository = Some("owner/name".parse().unwrap());
    asked.scopes = BTreeSet::from([Scope::Repo]);
    asked
}

/// What is known of a good token.
fn facts() -> TokenFacts {
    TokenFacts {
        form: TokenForm::FineGrained,
        life: TokenLife::Ends(Span::hours(30 * 24)),
        reach: TokenReach::LikelySingle,
        carries: TokenCarries::Permissions(TokenPermissions::of(&BTreeSet::from([Scope::Repo]))),
    }
}

fn check(policy: &Policy, asked: &SandboxRequest) -> Result<SandboxSpec, Vec<String>> {
    let enforced = || Support::Enforced { by: "a test".to_owned() };
    let all = Control::ALL.iter().fold(Capabilities::new(), |all, control| all.with(*control, enforced()));
    policy.check(asked, &all).map_err(|error| error.violations().iter().map(ToString::to_string).collect())
}

/// Why the standard policy refuses a token.
fn refused(facts: TokenFacts) -> Vec<String> {
    let mut asked = asked();
    asked.token = Some(facts);
    check(&Policy::standard(), &asked).err().unwrap_or_default()
}

#[test]
fn a_token_ends_within_the_thirty_days_and_the_day_on_which_it_was_made() {
    let days = |days: u16| refused(TokenFacts { life: TokenLife::Ends(Span::hours(days * 24)), ..facts() });
    assert_eq!((days(30), days(31)), (Vec::new(), Vec::new()));
    assert_eq!(days(45), ["token.lifetime: asked for a token that lives for 45 days, allowed is at most 30d"]);
    for (life, word) in [(TokenLife::Never, "never ends"), (TokenLife::Unreadable, "cannot be read")] {
        let lines = refused(TokenFacts { life, ..facts() });
        assert!(lines.len() == 2 && lines[0].starts_with("token.lifetime: ") && lines[0].contains(word), "{lines:?}");
        assert!(lines[1].starts_with("short-lived-token: "), "{lines:?}");
    }
}

#[test]
fn a_classic_token_is_refused_with_the_reason() {
    let carries = TokenCarries::Scopes(vec!["admin:org".to_owned(), "repo".to_owned()]);
    let lines = refused(TokenFacts { form: TokenForm::Classic, reach: TokenReach::Many, carries, ..facts() });
    assert!(lines[0].starts_with("token.classic: ") && lines[0].contains("all repositories of its user"), "{lines:?}");
    assert!(lines[1].contains("reaches other repositories") && lines[2].contains("admin:org repo"), "{lines:?}");
}

#[test]
fn what_nobody_can_tell_counts_against_a_token() {
    for (facts, control) in [
        (TokenFacts { reach: TokenReach::Unknown, ..facts() }, "short-lived-token: "),
        (TokenFacts { life: TokenLife::Unasked, ..facts() }, "short-lived-token: "),
        (TokenFacts { carries: TokenCarries::Unknown, ..facts() }, "token-scope: "),
    ] {
        let lines = refused(facts);
        assert!(lines.len() == 1 && lines[0].starts_with(control), "{lines:?}");
    }
}

#[test]
fn a_token_that_carries_more_is_refused_or_waived_by_name_and_told() {
    let all = TokenPermissions::of(&Scope::ALL.iter().copied().collect());
    let mut asked = asked();
    asked.token = Some(TokenFacts { carries: TokenCarries::Permissions(all), ..facts() });
    let more = "the token carries secrets=write workflows=write beyond what is granted";
    let lines = check(&Policy::standard(), &asked).unwrap_err();
    assert!(lines.len() == 1 && lines[0].contains(more) && lines[0].contains("waive token-scope"), "{lines:?}");
    let spec = check(&Policy::standard().with_waived(Control::TokenScope), &asked).unwrap();
    assert_eq!(spec.waived()[&Control::TokenScope], more);

    // What can be waived is what nobody can tell; a token without an end is refused all the same.
    asked.token = Some(TokenFacts { life: TokenLife::Never, ..facts() });
    let waived = Policy::standard().with_waived(Control::TokenScope).with_waived(Control::ShortLivedToken);
    assert_eq!(check(&waived, &asked).unwrap_err().len(), 1);
    // Without a scope there is no token, and nothing to weigh.
    asked.scopes.clear();
    assert_eq!(check(&Policy::standard(), &asked).map(drop), Ok(()));
}

#[test]
fn a_default_branch_is_protected_for_certain_where_that_is_required() {
    let mut asked = asked();
    let mut rule = Policy::maximum().token().clone();
    assert_eq!(rule.scopes, BTreeSet::new(), "a token is a way out");
    rule.scopes = BTreeSet::from([Scope::Repo]);
    let policy = Policy::maximum().with_token(rule);
    let unknown = BranchProtection::Unknown { why: "it is hidden".to_owned() };
    let spec = check(&policy, &asked).unwrap();
    assert_eq!(spec.weigh_default_branch(&BranchProtection::Protected), Ok(()));
    for (found, words) in [(BranchProtection::Unprotected, "an unprotected"), (unknown, "it is hidden")] {
        let refused = spec.weigh_default_branch(&found).unwrap_err().to_string();
        assert!(refused.contains("token.protected-default-branch: ") && refused.contains(words), "{refused}");
    }
    let spec = check(&Policy::standard(), &asked).unwrap();
    assert_eq!(spec.weigh_default_branch(&BranchProtection::Unprotected), Ok(()));
    asked.scopes.clear();
    let spec = check(&policy, &asked).unwrap();
    assert_eq!(spec.weigh_default_branch(&BranchProtection::Unprotected), Ok(()), "there is no token");
}
