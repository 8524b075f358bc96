//! What is known of a token before it is used, and the decision whether it may be.
//!
//! Invariant: what nobody can tell counts against the token. What a policy refuses for good (a classic token, one without
//! an end) no waiver brings back; what is not known is a control that is not enforced, and may be waived by name.

use std::collections::BTreeSet;

use crate::check::denied;
use crate::parse::words;
use crate::{Capabilities, Control, Scope, Span, Support, TokenPermissions, TokenRule, Violation};

/// Tells what is known of the token that is to serve a sandbox's repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFacts {
    /// What form it has.
    pub form: TokenForm,
    /// How long it still lives.
    pub life: TokenLife,
    /// Whether it reaches its repository alone.
    pub reach: TokenReach,
    /// What it may do.
    pub carries: TokenCarries,
}

words! {
    /// Names a form of a token.
    #[non_exhaustive]
    TokenForm is "a form of a token" {
        /// Good for all repositories of its user.
        Classic = "classic",
        /// Made by its user for chosen repositories and permissions.
        FineGrained = "fine-grained",
        /// Minted by an app for one sandbox.
        Installation = "installation",
    }
}

/// Tells how long a token still lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenLife {
    /// For this long from now.
    Ends(Span),
    /// For ever.
    Never,
    /// Nobody has asked.
    Unasked,
    /// Until an end that cannot be read.
    Unreadable,
}

words! {
    /// Tells whether a token reaches its repository alone.
    #[non_exhaustive]
    TokenReach is "a reach of a token" {
        /// Its maker says that it reaches this one alone.
        Verified = "verified",
        /// No other private repository is listed for it.
        LikelySingle = "likely-single",
        /// Nobody can tell.
        Unknown = "unknown",
        /// It reaches others, too.
        Many = "many",
    }
}

/// Tells what a token may do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenCarries {
    /// These permissions.
    Permissions(TokenPermissions),
    /// These scopes of a classic token, each of which is more than any permission.
    Scopes(Vec<String>),
    /// Nobody can tell.
    Unknown,
}

impl TokenFacts {
    /// Reports what the facts prove of a token that was granted some scopes.
    pub fn capabilities(&self, granted: &BTreeSet<Scope>) -> Capabilities {
        let Self { form: _, life, reach, carries } = self;
        let why = match (life, reach) {
            (TokenLife::Unasked, _) => Some("nobody has asked when the token ends and what it reaches".to_owned()),
            (TokenLife::Never, _) => Some("the token never ends".to_owned()),
            (TokenLife::Unreadable, _) => Some("the token's end cannot be read".to_owned()),
            (TokenLife::Ends(_), TokenReach::Many) => Some("the token reaches other repositories, too".to_owned()),
            (TokenLife::Ends(_), TokenReach::Unknown) => {
                Some("nobody can tell whether the token reaches other repositories".to_owned())
            }
            (TokenLife::Ends(_), TokenReach::LikelySingle | TokenReach::Verified) => None,
        };
        let lives = support(why, "the token's own end", Control::ShortLivedToken);
        let why = match carries {
            TokenCarries::Unknown => Some("nobody can tell what the token may do".to_owned()),
            TokenCarries::Scopes(scopes) => Some(format!(
                "the token carries the classic scopes {}, for all repositories of its user",
                scopes.join(" ")
            )),
            TokenCarries::Permissions(carried) => {
                let beyond = carried.beyond(&TokenPermissions::of(granted));
                (!beyond.is_empty()).then(|| format!("the token carries {beyond} beyond what is granted"))
            }
        };
        let may = support(why, "the permissions that the token was made with", Control::TokenScope);
        Capabilities::new().with(Control::ShortLivedToken, lives).with(Control::TokenScope, may)
    }

    /// Lists what a rule holds against the token and no waiver brings back.
    pub fn violations(&self, rule: &TokenRule) -> Vec<Violation> {
        let mut violations = Vec::new();
        let TokenRule { scopes: _, classic, lifetime, require_protected_default_branch: _ } = rule;
        if (self.form, *classic) == (TokenForm::Classic, ClassicRule::Deny) {
            let allowed = "a fine-grained token or an app's; a classic one is good for all repositories of its user";
            violations.push(denied("token.classic", "a classic token", allowed));
        }
        let longest = lifetime.as_seconds().saturating_add(SLACK);
        let given = match self.life {
            TokenLife::Ends(left) if left.as_seconds() > longest => {
                Some(format!("a token that lives for {} days", left.as_seconds().div_ceil(A_DAY)))
            }
            TokenLife::Ends(_) | TokenLife::Unasked => None,
            TokenLife::Never => Some("a token that never ends".to_owned()),
            TokenLife::Unreadable => Some("a token whose end cannot be read".to_owned()),
        };
        violations.extend(given.map(|given| denied("token.lifetime", &given, &format!("at most {lifetime}"))));
        violations
    }
}

impl TokenRule {
    /// Says whether the default branch must be protected for these scopes; where there is none, there is no token.
    pub(crate) fn protection_for(&self, scopes: &BTreeSet<Scope>) -> ProtectionRule {
        if scopes.is_empty() { ProtectionRule::Optional } else { self.require_protected_default_branch }
    }
}

fn support(why: Option<String>, by: &str, control: Control) -> Support {
    match why {
        None => Support::Enforced { by: by.to_owned() },
        Some(why) => {
            let hint = format!("use a GitHub App's tokens, or waive {control} in the policy");
            Support::Unsupported { why, hint }
        }
    }
}

words! {
    /// Tells whether a classic token, good for all repositories of its user, will do.
    ClassicRule is "a rule for classic tokens" {
        /// Never.
        Deny = "deny",
        /// Where nothing else is at hand.
        Allow = "allow",
    }
}

words! {
    /// Tells whether the repository's default branch must be protected before a sandbox has a token for it.
    ProtectionRule is "a rule for the default branch" {
        /// It must be known to be protected.
        Required = "required",
        /// It need not be.
        Optional = "optional",
    }
}

/// Tells whether a branch is protected from being pushed to at will.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BranchProtection {
    /// It is.
    Protected,
    /// Nobody can tell, for this reason.
    Unknown {
        /// The reason.
        why: String,
    },
    /// It is not.
    Unprotected,
}

/// Seconds.
const A_DAY: u32 = 24 * 60 * 60;
/// A token that is made for thirty days ends at the end of the thirtieth.
const SLACK: u32 = A_DAY;
