//! GitHub credentials for sandboxes.
//!
//! A credential implements [`TokenProvider`](sandbox_core::TokenProvider): it speaks for one repository, stays on the
//! host, and prints as nothing. So far there is one: [`PersonalToken`], a token that its user made and keeps.

mod kind;
mod personal;

pub use kind::TokenKind;
pub use personal::PersonalToken;
