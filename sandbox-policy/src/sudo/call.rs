//! What was asked, read from the arguments of `sudo` (sudo(8)).
//!
//! Invariant: an option that is not known, or that cannot be done as its user expects, is an error that says so.

use super::Variable;
use crate::ParseError;

/// Describes a request for root inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SudoCall {
    /// Whom to be, where it was said: a name, or `#` and a number.
    pub user: Option<Vec<u8>>,
    /// Which group to be of, where it was said.
    pub group: Option<Vec<u8>>,
    /// Variables to set, in order.
    pub assignments: Vec<Variable>,
    /// Which of the asking program's variables to keep.
    pub keep: Keep,
    /// What to do.
    pub action: SudoAction,
}

/// Tells which variables of the asking program are to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "sudo(8) knows these")]
pub enum Keep {
    /// All of them (`-E`).
    All,
    /// Those that say how to speak to a terminal and in which language.
    Few,
    /// Those few and these (`--preserve-env=`).
    Named(Vec<Vec<u8>>),
}

/// Tells what is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "whoever serves a call must know all of it")]
pub enum SudoAction {
    /// Forget that somebody proved who they are, which nobody ever does here (`-k`, `-K`).
    Forget,
    /// Say how it is used (`-h`).
    Help,
    /// Say what is allowed; with arguments, whether they would be (`-l`).
    List(Vec<Vec<u8>>),
    /// Run a program.
    Run(Vec<Vec<u8>>),
    /// Run a shell (`-s`), or root's login shell (`-i`); with arguments, as a command of it.
    Shell {
        /// Whether it is a login shell.
        login: Login,
        /// The command, word by word.
        arguments: Vec<Vec<u8>>,
    },
    /// Say whether anything is allowed at all (`-v`).
    Validate,
    /// Say what this is (`-V`).
    Version,
}

/// Tells how a shell starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "sudo(8) knows these")]
pub enum Login {
    /// As root's login would: in root's home.
    Login,
    /// Where the asking program is.
    Plain,
}

impl SudoCall {
    /// Reads the arguments that follow the name `sudo`.
    ///
    /// ```
    /// use sandbox_policy::{SudoAction, SudoCall};
    ///
    /// let words = |words: &[&str]| words.iter().map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>();
    /// let call = SudoCall::parse(&words(&["-n", "A=b", "apt-get", "install", "-y", "jq"]))?;
    /// assert_eq!(call.action, SudoAction::Run(words(&["apt-get", "install", "-y", "jq"])));
    /// # Ok::<(), sandbox_policy::ParseError>(())
    /// ```
    ///
    /// # Errors
    /// An option that is not known or cannot be done here, one without its value, and nothing to do.
    pub fn parse(arguments: &[Vec<u8>]) -> Result<Self, ParseError> {
        let mut found = Found::default();
        let mut rest = arguments.iter();
        let mut command: Vec<Vec<u8>> = Vec::new();
        while let Some(argument) = rest.next() {
            if argument == b"--" {
                command = rest.cloned().collect();
                break;
            }
            if let Some(long) = argument.strip_prefix(b"--") {
                found.long(argument, long, &mut rest)?;
            } else if argument.len() > 1 && argument.starts_with(b"-") {
                found.short(argument, &mut rest)?;
            } else if let Some(assignment) = assignment(argument) {
                found.assignments.push(assignment);
            } else {
                command = std::iter::once(argument).chain(rest).cloned().collect();
                break;
            }
        }
        // After `--`, assignments may still come first.
        while let Some(assignment) = command.first().and_then(|argument| assignment(argument)) {
            found.assignments.push(assignment);
            command.remove(0);
        }
        found.finish(command)
    }
}

/// What the options said so far.
#[derive(Debug, Default)]
struct Found {
    user: Option<Vec<u8>>,
    group: Option<Vec<u8>>,
    assignments: Vec<Variable>,
    keep: Option<Keep>,
    mode: Option<Mode>,
    forget: Option<Mode>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Forget,
    Help,
    List,
    Login,
    Shell,
    Validate,
    Version,
}

impl Found {
    fn long<'a>(
        &mut self,
        argument: &[u8],
        long: &[u8],
        rest: &mut impl Iterator<Item = &'a Vec<u8>>,
    ) -> Result<(), ParseError> {
        let (name, value) = match long.iter().position(|byte| *byte == b'=') {
            Some(at) => (&long[..at], Some(long[at + 1..].to_vec())),
            None => (long, None),
        };
        let letter = LONG.iter().find(|(long, _)| long.as_bytes() == name).map(|(_, letter)| *letter);
        match (letter, value) {
            (Some(b'E'), Some(list)) => {
                let names = list.split(|byte| *byte == b',').filter(|name| !name.is_empty());
                self.keep = Some(Keep::Named(names.map(<[u8]>::to_vec).collect()));
                Ok(())
            }
            (Some(letter), Some(value)) if takes_value(letter) => self.set(argument, letter, Some(value)),
            (Some(letter), None) if takes_value(letter) => {
                let value = rest.next().cloned().ok_or_else(|| without_value(argument))?;
                self.set(argument, letter, Some(value))
            }
            (Some(letter), None) => self.set(argument, letter, None),
            (None, _) | (_, Some(_)) => Err(unknown(argument)),
        }
    }

    fn short<'a>(&mut self, argument: &[u8], rest: &mut impl Iterator<Item = &'a Vec<u8>>) -> Result<(), ParseError> {
        let mut letters = argument[1..].iter();
        while let Some(letter) = letters.next() {
            if !takes_value(*letter) {
                self.set(argument, *letter, None)?;
                continue;
            }
            let attached = letters.as_slice();
            let value = if attached.is_empty() {
                rest.next().cloned().ok_or_else(|| without_value(argument))?
            } else {
                attached.to_vec()
            };
            return self.set(argument, *letter, Some(value));
        }
        Ok(())
    }

    fn set(&mut self, argument: &[u8], letter: u8, value: Option<Vec<u8>>) -> Result<(), ParseError> {
        match letter {
            // Nobody is ever asked for anything, and the home is always root's.
            b'n' | b'S' | b'A' | b'H' | b'N' | b'B' | b'p' => {}
            b'u' => self.user = value,
            b'g' => self.group = value,
            b'E' => self.keep = Some(Keep::All),
            b'k' | b'K' => self.forget = Some(Mode::Forget),
            b'h' => self.enter(argument, Mode::Help)?,
            b'i' => self.enter(argument, Mode::Login)?,
            b'l' => self.enter(argument, Mode::List)?,
            b's' => self.enter(argument, Mode::Shell)?,
            b'v' => self.enter(argument, Mode::Validate)?,
            b'V' => self.enter(argument, Mode::Version)?,
            _ => return Err(unknown(argument)),
        }
        Ok(())
    }

    fn enter(&mut self, argument: &[u8], mode: Mode) -> Result<(), ParseError> {
        match self.mode.replace(mode) {
            Some(before) if before != mode => Err(error(argument, "write one of -h, -i, -l, -s, -v and -V")),
            _ => Ok(()),
        }
    }

    fn finish(self, command: Vec<Vec<u8>>) -> Result<SudoCall, ParseError> {
        let action = match (self.mode, self.forget) {
            (None, Some(_)) if command.is_empty() => SudoAction::Forget,
            (None | Some(Mode::Forget), _) if command.is_empty() => {
                return Err(error(b"", "write what to run: sudo [options] [NAME=value …] program [arguments …]"));
            }
            (None | Some(Mode::Forget), _) => SudoAction::Run(command),
            (Some(Mode::Help), _) => SudoAction::Help,
            (Some(Mode::List), _) => SudoAction::List(command),
            (Some(Mode::Login), _) => SudoAction::Shell { login: Login::Login, arguments: command },
            (Some(Mode::Shell), _) => SudoAction::Shell { login: Login::Plain, arguments: command },
            (Some(Mode::Validate), _) => SudoAction::Validate,
            (Some(Mode::Version), _) => SudoAction::Version,
        };
        let Self { user, group, assignments, keep, mode: _, forget: _ } = self;
        Ok(SudoCall { user, group, assignments, keep: keep.unwrap_or(Keep::Few), action })
    }
}

/// Reads `NAME=value`, where the name could be a variable's.
fn assignment(argument: &[u8]) -> Option<Variable> {
    let at = argument.iter().position(|byte| *byte == b'=')?;
    let (name, value) = (&argument[..at], &argument[at + 1..]);
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let starts = name.first().is_some_and(|byte| !byte.is_ascii_digit());
    (starts && name.iter().all(is_name)).then(|| (name.to_vec(), value.to_vec()))
}

fn takes_value(letter: u8) -> bool {
    matches!(letter, b'u' | b'g' | b'p')
}

fn unknown(argument: &[u8]) -> ParseError {
    error(argument, FORM)
}

fn without_value(argument: &[u8]) -> ParseError {
    error(argument, "write its value after it")
}

fn error(given: &[u8], allowed: &str) -> ParseError {
    ParseError::new(KIND, &String::from_utf8_lossy(given), allowed)
}

const KIND: &str = "something that sudo can do here";
const FORM: &str =
    "write -u root, -n, -E, --preserve-env=NAMES, -H, -i, -s, -k, -l, -v, -- or NAME=value, then the program";

/// The long names of options that are known, and the letter of each.
const LONG: [(&str, u8); 18] = [
    ("askpass", b'A'),
    ("bell", b'B'),
    ("group", b'g'),
    ("help", b'h'),
    ("list", b'l'),
    ("login", b'i'),
    ("no-update", b'N'),
    ("non-interactive", b'n'),
    ("preserve-env", b'E'),
    ("prompt", b'p'),
    ("remove-timestamp", b'K'),
    ("reset-timestamp", b'k'),
    ("set-home", b'H'),
    ("shell", b's'),
    ("stdin", b'S'),
    ("user", b'u'),
    ("validate", b'v'),
    ("version", b'V'),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Vec<u8>> {
        line.split_whitespace().map(|word| word.as_bytes().to_vec()).collect()
    }

    fn read(line: &str) -> SudoCall {
        SudoCall::parse(&words(line)).unwrap()
    }

    #[test]
    fn usual_options_are_read() {
        assert_eq!(read("apt update").action, SudoAction::Run(words("apt update")));
        assert_eq!(read("-nEH -- -odd").action, SudoAction::Run(words("-odd")));
        assert_eq!(read("-u root id").user, Some(b"root".to_vec()));
        assert_eq!(read("-uroot id").user, Some(b"root".to_vec()));
        assert_eq!(read("--user=www id").user, Some(b"www".to_vec()));
        assert_eq!(read("--user www -- id").action, SudoAction::Run(words("id")));
        assert_eq!(read("-E id").keep, Keep::All);
        assert_eq!(read("--preserve-env=A,,B id").keep, Keep::Named(words("A B")));
        assert_eq!(read("A=1 B= -- C=2 id -u").assignments.len(), 3);
        assert_eq!(read("A=1 id B=2").action, SudoAction::Run(words("id B=2")));
        assert_eq!(read("-k").action, SudoAction::Forget);
        assert_eq!(read("-k id").action, SudoAction::Run(words("id")));
        assert_eq!(read("-l").action, SudoAction::List(Vec::new()));
        assert_eq!(read("-v").action, SudoAction::Validate);
        assert_eq!(read("-i").action, SudoAction::Shell { login: Login::Login, arguments: Vec::new() });
        assert_eq!(read("-s echo x").action, SudoAction::Shell { login: Login::Plain, arguments: words("echo x") });
        assert_eq!(read("./a=b").action, SudoAction::Run(words("./a=b")));
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        for line in
            ["", "-n", "-e /etc/shadow", "-R / id", "-C 3 id", "-b id", "-T 1 id", "-D / id", "--chroot=/ id", "-u"]
        {
            let error = SudoCall::parse(&words(line)).unwrap_err().to_string();
            assert!(error.contains("is not something that sudo can do here: write "), "{line}: {error}");
        }
        for line in ["-i -l", "-sv id", "--prefix id", "--login=x", "--us root id", "-ux"] {
            assert!(SudoCall::parse(&words(line)).is_err(), "{line}");
        }
        let hostile = SudoCall::parse(&[b"--\x1b[31m\xff".to_vec()]).unwrap_err().to_string();
        assert!(!hostile.contains('\u{1b}'), "{hostile}");
    }
}
