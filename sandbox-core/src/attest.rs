//! What was asked against what is in force, control by control.
//!
//! An engine may accept a limit and drop it without a word. So the guest looks from inside, the engine is asked
//! from outside, and any difference from the specification is an error: the sandbox is never handed over.

mod compare;

use sandbox_guest::wire::Observed;
use sandbox_policy::{Control, SandboxSpec};
use serde::Serialize;

use compare::{Comparison, Seen};

use crate::{EffectiveSettings, Error, ErrorKind, Result, Wiring};

/// The report of what was asked and what is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attestation {
    findings: Vec<Finding>,
}

/// One control's line of an [`Attestation`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The control.
    pub control: Control,
    /// What was asked.
    pub asked: String,
    /// What was found inside, and outside where the engine says something about it.
    pub found: String,
    /// What follows.
    pub verdict: Verdict,
}

/// What a comparison says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[expect(clippy::exhaustive_enums, reason = "there is no level between them")]
pub enum Verdict {
    /// What was asked is not in force.
    Differs,
    /// What was asked is in force.
    Holds,
    /// The policy waives the control; what was found is told and not judged.
    Waived,
}

impl Attestation {
    /// Compares what was seen with what was asked.
    pub(crate) fn compare(spec: &SandboxSpec, wiring: &Wiring, inside: &Observed, outside: &EffectiveSettings) -> Self {
        let required = spec.required().iter().map(|control| (*control, false));
        let waived = spec.waived().keys().map(|control| (*control, true));
        let mut findings: Vec<Finding> = required
            .chain(waived)
            .map(|(control, waived)| {
                let Comparison { asked, found, holds } = Seen { spec, wiring, inside, outside }.compare(control);
                let verdict = match (waived, holds) {
                    (true, _) => Verdict::Waived,
                    (false, true) => Verdict::Holds,
                    (false, false) => Verdict::Differs,
                };
                Finding { control, asked, found, verdict }
            })
            .collect();
        findings.sort_by_key(|finding| finding.control);
        Self { findings }
    }

    /// One line for each control that was asked for, sorted by its name.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Refuses a report in which anything differs.
    pub(crate) fn verify(&self) -> Result<()> {
        let differing: Vec<String> = self
            .findings
            .iter()
            .filter(|finding| finding.verdict == Verdict::Differs)
            .map(|Finding { control, asked, found, verdict: _ }| format!("{control}: asked {asked}, found {found}"))
            .collect();
        if differing.is_empty() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Attestation,
            format!("what is in force is not what was asked: {}", differing.join("; ")),
        )
        .with_hint(
            "the engine took a setting and did not apply it; see `sandbox doctor`, or waive the control by name",
        ))
    }
}

#[cfg(test)]
mod tests;
