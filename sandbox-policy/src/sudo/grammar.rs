//! How the arguments of one installer are read: by a table of what is known to be harmless.
//!
//! Invariant: each argument is a verb, an option or an operand of the table, or the command is refused. Names count in
//! full, since tools take abbreviations for what the table does not know.

use crate::parse::clip;

/// What is known of one installer.
#[derive(Debug)]
pub(super) struct Grammar {
    /// Its name, for rules: `apt`.
    pub(super) name: &'static str,
    /// What it is asked to do; one must be there.
    pub(super) verbs: &'static [&'static str],
    /// Verbs that end the installer's own arguments where they stand alone, such as `--version`.
    pub(super) questions: &'static [&'static str],
    /// Options without a value.
    pub(super) flags: &'static [&'static str],
    /// Options with one, and what it may be.
    pub(super) options: &'static [(&'static str, Value)],
    /// Options that are refused for a reason worth saying; by the start of their names.
    pub(super) refused: &'static [(&'static str, &'static str)],
    /// One of these must be there.
    pub(super) needed: &'static [&'static str],
    /// Whether one-letter options may be written together.
    pub(super) letters: Letters,
    /// What an operand may be.
    pub(super) operand: fn(&str) -> bool,
    /// The same, in words.
    pub(super) operands: &'static str,
}

/// Tells whether one-letter options may be written together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Letters {
    /// `-y -q` alone.
    Apart,
    /// `-yq`, too, and `-tstable`.
    Together,
}

/// Tells what an option's value may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    /// One of these.
    Among(&'static [&'static str]),
    /// A whole number.
    Number,
    /// `NAME=value` of a list: a setting that chooses no program and no place.
    Setting(&'static [(&'static str, Value)]),
    /// Letters, digits and `. _ : , ~ + @ / -`, with neither a leading `-` or `/` nor `..`.
    Word,
    /// True or false, in one of apt's ways of writing it.
    Yes,
}

impl Value {
    fn accepts(self, value: &str) -> bool {
        match self {
            Self::Among(list) => list.contains(&value),
            Self::Number => !value.is_empty() && value.len() < 10 && value.bytes().all(|byte| byte.is_ascii_digit()),
            Self::Setting(list) => value.split_once('=').is_some_and(|(name, value)| {
                list.iter().any(|(known, allowed)| known.eq_ignore_ascii_case(name) && allowed.accepts(value))
            }),
            Self::Word => is_word(value, "._:,~+@/-") && !value.starts_with(['-', '/']) && !value.contains(".."),
            Self::Yes => ["true", "false", "yes", "no", "1", "0"].contains(&value),
        }
    }
}

/// Why a command is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Whose arguments were read, if they came to that.
    pub(super) grammar: Option<&'static str>,
    pub(super) reason: String,
    pub(super) hint: String,
}

impl Grammar {
    /// Weighs the arguments that follow the installer's name; returns the verb.
    pub(super) fn weigh(&self, arguments: &[&str]) -> Result<&'static str, Refusal> {
        if let [only] = arguments
            && let Some(question) = self.questions.iter().find(|question| *question == only)
        {
            return Ok(question);
        }
        let mut verb = None;
        let mut seen: Vec<&str> = Vec::new();
        let mut rest = arguments.iter().copied();
        while let Some(argument) = rest.next() {
            let found = self.verbs.iter().find(|known| **known == argument);
            if verb.is_none() && found.is_some() {
                verb = found.copied();
            } else if self.flags.contains(&argument) {
                seen.push(argument);
            } else if argument.starts_with("--") {
                self.long(argument, &mut rest)?;
            } else if argument.len() > 1 && argument.starts_with('-') {
                self.short(argument, &mut rest, &mut seen)?;
            } else if verb.is_none() {
                let verbs = self.verbs.join(" ");
                return Err(
                    self.refuse(&format!("\"{}\" is not a way to install", clip(argument)), format!("one of {verbs}"))
                );
            } else if !(self.operand)(argument) {
                let reason = format!("\"{}\" is not {}", clip(argument), self.operands);
                return Err(self.refuse(&reason, format!("name {}", self.operands)));
            }
        }
        let Some(verb) = verb else {
            return Err(self.refuse("nothing is installed", format!("one of {}", self.verbs.join(" "))));
        };
        if !self.needed.is_empty() && !self.needed.iter().any(|needed| seen.contains(needed)) {
            let needed = self.needed.join(" or ");
            return Err(
                self.refuse(&format!("without {needed}, it needs no root"), format!("add {needed}, or leave out sudo"))
            );
        }
        Ok(verb)
    }

    fn long<'a>(&self, argument: &str, rest: &mut impl Iterator<Item = &'a str>) -> Result<(), Refusal> {
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (argument, None),
        };
        let Some((_, allowed)) = self.options.iter().find(|(known, _)| *known == name) else {
            return Err(self.unknown(argument));
        };
        self.value(name, value.or_else(|| rest.next()), *allowed)
    }

    fn short<'a>(
        &self,
        argument: &'a str,
        rest: &mut impl Iterator<Item = &'a str>,
        seen: &mut Vec<&'a str>,
    ) -> Result<(), Refusal> {
        if let Some((name, allowed)) = self.options.iter().find(|(known, _)| *known == argument) {
            return self.value(name, rest.next(), *allowed);
        }
        if self.letters == Letters::Apart || !argument.is_ascii() {
            return Err(self.unknown(argument));
        }
        for at in 1..argument.len() {
            let letter = format!("-{}", &argument[at..=at]);
            if let Some(flag) = self.flags.iter().find(|flag| **flag == letter) {
                seen.push(flag);
                continue;
            }
            let Some((name, allowed)) = self.options.iter().find(|(known, _)| *known == letter) else {
                return Err(self.unknown(argument));
            };
            let attached = argument[at + 1..].strip_prefix('=').unwrap_or(&argument[at + 1..]);
            return self.value(
                name,
                Some(attached).filter(|value| !value.is_empty()).or_else(|| rest.next()),
                *allowed,
            );
        }
        Ok(())
    }

    fn value(&self, name: &str, value: Option<&str>, allowed: Value) -> Result<(), Refusal> {
        match value {
            Some(value) if allowed.accepts(value) => Ok(()),
            Some(value) => {
                let reason = format!("{name} with \"{}\" is not known to be harmless", clip(value));
                Err(self.refuse(&reason, LEAVE_OUT))
            }
            None => Err(self.refuse(&format!("{name} has no value"), LEAVE_OUT)),
        }
    }

    fn unknown(&self, argument: &str) -> Refusal {
        let known = self.refused.iter().find(|(start, _)| argument.starts_with(start));
        let why = known.map_or("is not known to be harmless", |(_, why)| why);
        self.refuse(&format!("\"{}\" {why}", clip(argument)), LEAVE_OUT)
    }

    fn refuse(&self, reason: &str, hint: impl Into<String>) -> Refusal {
        Refusal { grammar: Some(self.name), reason: format!("{}: {reason}", self.name), hint: hint.into() }
    }
}

/// Tells whether a text is of letters, digits and these alone, and begins with none of what could be an option.
pub(super) fn is_word(text: &str, others: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_WORD
        && !text.starts_with('-')
        && text.chars().all(|character| character.is_ascii_alphanumeric() || others.contains(character))
}

const LEAVE_OUT: &str = "leave it out, or ask for sudo = \"any\" in the policy";

/// The longest operand, in bytes.
const MAX_WORD: usize = 512;
