//! What people and programs read: lines and tables, or JSON; errors on standard error in either form.
//!
//! A word always says what a colour says. What comes from elsewhere, such as an engine's messages, is escaped before it
//! reaches a terminal.

use std::io::{self, IsTerminal as _, Write as _};

use sandbox_policy::{Control, Violation};
use serde::Serialize;

use crate::failure::{Failure, Told};

/// In which form a verb answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    pub(crate) form: Form,
    pub(crate) volume: Volume,
    colour: Colour,
}

/// For whom output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Text,
}

/// How much is said unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Volume {
    Normal,
    Quiet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Colour {
    Always,
    Never,
}

impl Screen {
    /// Decides the form; colours are only for terminals, and not where `NO_COLOR` is set (<https://no-color.org>).
    pub(crate) fn new(form: Form, volume: Volume, no_color: bool) -> Self {
        let colour = if no_color || !io::stderr().is_terminal() { Colour::Never } else { Colour::Always };
        Self { form, volume, colour }
    }

    pub(crate) fn is_json(self) -> bool {
        self.form == Form::Json
    }

    /// Answers with text, or with JSON where that is asked for.
    pub(crate) fn answer(self, json: &impl Serialize, text: impl FnOnce() -> String) -> io::Result<()> {
        let mut out = match self.form {
            Form::Json => pretty(json)?,
            Form::Text => text(),
        };
        if !out.is_empty() && !out.ends_with('\n') {
            out.push('\n');
        }
        let mut stdout = io::stdout().lock();
        stdout.write_all(out.as_bytes())?;
        stdout.flush()
    }

    /// Prints text on standard error: a report beside a program's own output.
    pub(crate) fn aside(self, json: &impl Serialize, text: impl FnOnce() -> String) -> io::Result<()> {
        let text = match self.form {
            Form::Json => pretty(json)?,
            Form::Text => text(),
        };
        io::stderr().lock().write_all(text.as_bytes())
    }

    /// Warns on standard error.
    pub(crate) fn warn(self, message: &str) {
        if self.volume == Volume::Normal && self.form == Form::Text {
            complain(&format!("{} {}\n", self.paint("warning:", YELLOW), escaped(message)));
        }
    }

    /// Tells a failure on standard error.
    pub(crate) fn fail(self, failure: &Failure) {
        if failure.is_unheard() {
            return;
        }
        match self.form {
            Form::Json => {
                let text = pretty(&ErrorDocument { error: failure });
                complain(&text.unwrap_or_else(|error| format!("error: {error}\n")));
            }
            Form::Text => complain(&self.failure(failure)),
        }
    }

    fn failure(self, failure: &Failure) -> String {
        let Told { kind: _, message, caused_by, hint, violations, residue } = &**failure;
        let mut lines = vec![format!("{} {}\n", self.paint("error:", RED), escaped(message))];
        let mut line = |head: &str, colour, body: &str| {
            lines.push(format!("{} {}\n", self.paint(head, colour), escaped(body)));
        };
        for violation in violations {
            match violation {
                Violation::Denied { field, requested, allowed } => {
                    line("  denied:", RED, &format!("{field}: asked for {requested}, allowed is {allowed}"));
                }
                Violation::Unenforceable { control, why, hint: _ } => {
                    line("  unenforceable:", RED, &format!("{control}: {why}"));
                }
                other => line("  refused:", RED, &other.to_string()),
            }
        }
        for cause in caused_by {
            line("  caused by:", RED, cause);
        }
        for left in residue {
            line("  left behind:", YELLOW, left);
        }
        for violation in violations {
            if let Violation::Unenforceable { control, why: _, hint } = violation {
                // Engines know of waivers, but not of how they are typed.
                let hint = hint.trim_end_matches(&format!("; or waive {control}"));
                let without = match control {
                    // A way out that is there and not held to the policy is nothing to ask for.
                    Control::EgressAllowlist => "--no-network".to_owned(),
                    other => format!("--waive {other}"),
                };
                line("hint:", CYAN, &format!("{control}: {hint}; or go without it: {without}"));
            }
        }
        if let Some(hint) = hint {
            line("hint:", CYAN, hint);
        }
        if !residue.is_empty() {
            line("hint:", CYAN, "`sandbox cleanup` removes what was left behind");
        }
        lines.concat()
    }

    fn paint(self, word: &str, colour: &str) -> String {
        match self.colour {
            Colour::Always => format!("{colour}{word}{RESET}"),
            Colour::Never => word.to_owned(),
        }
    }
}

fn complain(text: &str) {
    // Where standard error is gone, there is nobody left to tell.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Sets rows below their headings, each column as wide as its longest cell.
pub(crate) fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(|cell| escaped(cell))).collect();
    let mut widths = headings.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in std::iter::once(&headings.map(str::to_uppercase)).chain(&rows) {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Text from elsewhere with control characters spelled out, so that it can move no cursor.
pub(crate) fn escaped(text: &str) -> String {
    text.chars().flat_map(|c| if is_harmless(c) { vec![c] } else { c.escape_default().collect() }).collect()
}

/// Whether a character moves no cursor and turns no text around.
fn is_harmless(c: char) -> bool {
    !c.is_control() && !('\u{202a}'..='\u{202e}').contains(&c) && !('\u{2066}'..='\u{2069}').contains(&c)
}

/// JSON for a terminal, too: what JSON itself lets stand, such as U+009B, is spelled as it lets it be spelled (RFC 8259).
fn pretty(json: &impl Serialize) -> io::Result<String> {
    let text = serde_json::to_string_pretty(json).map_err(io::Error::other)?;
    let spelled =
        |c: char| if c == '\n' || is_harmless(c) { c.to_string() } else { format!("\\u{:04x}", u32::from(c)) };
    Ok(text.chars().map(spelled).chain(["\n".to_owned()]).collect())
}

#[derive(Debug, Serialize)]
struct ErrorDocument<'a> {
    error: &'a Failure,
}

const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[1;33m";
const CYAN: &str = "\x1b[1;36m";
const RESET: &str = "\x1b[0m";

#[cfg(test)]
mod tests {
    use sandbox_core::ErrorKind;

    use super::*;

    const PLAIN: Screen = Screen { form: Form::Text, volume: Volume::Normal, colour: Colour::Never };

    #[test]
    fn json_moves_no_cursor_and_says_the_same() {
        let name = "a\u{9b}31m\u{202e}\n\u{e9}";
        let text = pretty(&[name]).unwrap();
        assert!(text.chars().all(|c| c == '\n' || is_harmless(c)), "{text:?}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&text).unwrap(), [name]);
    }

    #[test]
    fn a_refusal_names_each_violation_and_how_to_waive_it() {
        let mut failure = Failure::new(ErrorKind::Policy, "policy standard refuses this sandbox");
        failure.violations = vec![
            Violation::Denied {
                field: "limits.memory".into(),
                requested: "8GiB".into(),
                allowed: "at most 4GiB".into(),
            },
            Violation::Unenforceable {
                control: Control::Disk,
                why: "no quota".into(),
                hint: "use xfs; or waive disk".into(),
            },
        ];
        insta::assert_snapshot!(PLAIN.failure(&failure), @r"
        error: policy standard refuses this sandbox
          denied: limits.memory: asked for 8GiB, allowed is at most 4GiB
          unenforceable: disk: no quota
        hint: disk: use xfs; or go without it: --waive disk
        ");
    }

    #[test]
    fn columns_are_as_wide_as_they_must_be_and_cannot_move_the_cursor() {
        let rows = [["a".to_owned(), "\x1b[2J".to_owned()], ["longer".to_owned(), String::new()]];
        assert_eq!(table(["id", "why"], &rows), "ID      WHY\na       \\u{1b}[2J\nlonger\n");
    }

    #[test]
    fn colour_is_never_alone() {
        let coloured = Screen { colour: Colour::Always, ..PLAIN }.failure(&Failure::new(ErrorKind::Io, "x"));
        assert_eq!(coloured, "\x1b[1;31merror:\x1b[0m x\n");
    }
}
