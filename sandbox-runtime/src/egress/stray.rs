//! A placeholder that leaves in a place that is not its own, found however it is written and however it is cut.
//!
//! It is looked for as it is, percent-encoded (any of its characters), in base64 (wherever it lies in groups of three, and also
//! broken into lines), and in hexadecimal. Each byte takes a bounded number of steps and none is kept, so that a body of any
//! size passes at its own pace. What else a body holds is never taken for one: a placeholder is random.

use std::fmt;
use std::sync::Arc;

use aho_corasick::automaton::{Automaton as _, StateID};
use aho_corasick::nfa::contiguous::NFA;
use aho_corasick::{Anchored, MatchKind};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use sandbox_core::{Error, ErrorKind, Result};

/// What is looked for.
pub(crate) struct Needles {
    /// As it is, and in base64.
    text: NFA,
    /// In hexadecimal, in small letters.
    hexadecimal: NFA,
    start: (StateID, StateID),
    /// How many bytes decide what a state is.
    longest: usize,
}

/// A placeholder was found: the number that it was given with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found(pub(crate) usize);

/// Looks at one stream of bytes.
#[derive(Debug, Clone)]
pub(crate) struct Search {
    needles: Option<Arc<Needles>>,
    text: StateID,
    hexadecimal: StateID,
    unwrapped: Follower,
    decoded: Follower,
    pending: Pending,
}

/// What may turn out to be the beginning of a percent-encoded byte.
#[derive(Debug, Clone, Copy)]
enum Pending {
    None,
    /// The sign.
    Sign,
    /// The sign and a digit.
    Digit(u8),
}

/// The text as it is without something. Where that did not occur for long, its state is that of the text itself.
#[derive(Debug, Clone, Copy)]
struct Follower {
    state: StateID,
    left: usize,
}

impl Needles {
    /// Looks for each of these, which are letters, digits and `. _ -`.
    ///
    /// # Errors
    /// `Exhausted` where there are more than fit.
    pub(crate) fn new(placeholders: &[&str]) -> Result<Self> {
        let failed = |error: &dyn fmt::Display| {
            Error::new(ErrorKind::Exhausted, format!("the placeholders cannot be looked for: {error}"))
        };
        let texts: Vec<Vec<u8>> = placeholders.iter().flat_map(|placeholder| forms(placeholder)).collect();
        let hexadecimals: Vec<String> = placeholders.iter().map(|placeholder| hexadecimal(placeholder)).collect();
        let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
        let mut builder = NFA::builder();
        builder.match_kind(MatchKind::Standard);
        let text = builder.build(&texts).map_err(|error| failed(&error))?;
        let hexadecimal = builder.build(&hexadecimals).map_err(|error| failed(&error))?;
        let start = |nfa: &NFA| nfa.start_state(Anchored::No).map_err(|error| failed(&error));
        let start = (start(&text)?, start(&hexadecimal)?);
        Ok(Self { text, hexadecimal, start, longest })
    }

    /// Which placeholders a text holds.
    pub(crate) fn within(self: &Arc<Self>, text: &[u8]) -> Vec<usize> {
        let mut search = Search::new(Some(Arc::clone(self)));
        let mut found = Vec::new();
        for byte in text {
            if let Err(Found(number)) = search.look(&[*byte])
                && !found.contains(&number)
            {
                found.push(number);
            }
        }
        found
    }

    fn next(&self, state: StateID, byte: u8) -> StateID {
        self.text.next_state(Anchored::No, state, byte)
    }

    /// What ends here, of the forms that count.
    fn ends(&self, state: StateID, counts: impl Fn(usize) -> bool) -> std::result::Result<(), Found> {
        if !self.text.is_match(state) {
            return Ok(());
        }
        let mut forms = (0..self.text.match_len(state)).map(|at| self.text.match_pattern(state, at).as_usize());
        forms.find(|form| counts(form % FORMS)).map_or(Ok(()), |form| Err(Found(form / FORMS)))
    }
}

impl Search {
    /// Begins to look; for nothing at all where there is no placeholder.
    pub(crate) fn new(needles: Option<Arc<Needles>>) -> Self {
        let (text, hexadecimal) = needles.as_ref().map_or((StateID::ZERO, StateID::ZERO), |needles| needles.start);
        let follower = Follower { state: text, left: 0 };
        Self { needles, text, hexadecimal, unwrapped: follower, decoded: follower, pending: Pending::None }
    }

    /// Looks at the bytes that come next.
    ///
    /// # Errors
    /// The first placeholder that ends in them.
    pub(crate) fn look(&mut self, bytes: &[u8]) -> std::result::Result<(), Found> {
        let Some(needles) = self.needles.clone() else { return Ok(()) };
        bytes.iter().try_for_each(|byte| self.step(&needles, *byte))
    }

    fn step(&mut self, needles: &Needles, byte: u8) -> std::result::Result<(), Found> {
        let before = self.text;
        self.text = needles.next(before, byte);
        let lower = byte.to_ascii_lowercase();
        self.hexadecimal = needles.hexadecimal.next_state(Anchored::No, self.hexadecimal, lower);
        // Every follower goes on, whatever is found first.
        let unwrapped = self.unwrap(needles, before, byte);
        let decoded = self.decode(needles, before, byte);
        needles.ends(self.text, |_| true)?;
        if needles.hexadecimal.is_match(self.hexadecimal) {
            return Err(Found(needles.hexadecimal.match_pattern(self.hexadecimal, 0).as_usize()));
        }
        unwrapped.and(decoded)
    }

    /// Goes on in the text without the ends of lines, which base64 may be broken by.
    fn unwrap(&mut self, needles: &Needles, before: StateID, byte: u8) -> std::result::Result<(), Found> {
        let Follower { state, left } = &mut self.unwrapped;
        if matches!(byte, b'\r' | b'\n') {
            if *left == 0 {
                *state = before;
            }
            *left = needles.longest;
            return Ok(());
        }
        if *left == 0 {
            return Ok(());
        }
        *left -= 1;
        *state = needles.next(*state, byte);
        needles.ends(*state, |form| form != AS_IT_IS)
    }

    /// Goes on in the text as it is when what is percent-encoded in it has been decoded.
    fn decode(&mut self, needles: &Needles, before: StateID, byte: u8) -> std::result::Result<(), Found> {
        if self.decoded.left == 0 {
            if byte != b'%' {
                return Ok(());
            }
            self.decoded = Follower { state: before, left: needles.longest };
            self.pending = Pending::Sign;
            return Ok(());
        }
        let digit = char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        match (self.pending, digit) {
            (Pending::Sign, Some(_)) => {
                self.pending = Pending::Digit(byte);
                Ok(())
            }
            (Pending::Digit(first), Some(low)) => {
                self.pending = Pending::None;
                let high = char::from(first).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).unwrap_or(0);
                self.decoded.left = needles.longest;
                self.decoded(needles, high << 4 | low)
            }
            // It was none, and stands for itself.
            (pending, _) => {
                let stood = match pending {
                    Pending::None => [None, None],
                    Pending::Sign => [Some(b'%'), None],
                    Pending::Digit(digit) => [Some(b'%'), Some(digit)],
                };
                let own = (byte != b'%').then_some(byte);
                let mut found = Ok(());
                for byte in stood.into_iter().flatten().chain(own) {
                    found = found.and(self.literal(needles, byte));
                }
                self.pending = if own.is_some() { Pending::None } else { Pending::Sign };
                if own.is_none() {
                    self.decoded.left = needles.longest;
                }
                found
            }
        }
    }

    fn literal(&mut self, needles: &Needles, byte: u8) -> std::result::Result<(), Found> {
        self.decoded.left = self.decoded.left.saturating_sub(1);
        self.decoded(needles, byte)
    }

    fn decoded(&mut self, needles: &Needles, byte: u8) -> std::result::Result<(), Found> {
        self.decoded.state = needles.next(self.decoded.state, byte);
        needles.ends(self.decoded.state, |_| true)
    }
}

impl fmt::Debug for Needles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What they are is nobody's business but the sandbox's.
        f.debug_struct("Needles").field("longest", &self.longest).finish_non_exhaustive()
    }
}

/// A placeholder as it is, and in base64 behind none, one and two other bytes: the characters that it alone decides. None of
/// them differs in base64's alphabet for URLs.
fn forms(placeholder: &str) -> [Vec<u8>; FORMS] {
    let encoded = |before: usize| {
        let text = [&b"xx"[..before], placeholder.as_bytes()].concat();
        let encoded = BASE64_STANDARD_NO_PAD.encode(&text);
        let (first, last) = ((before * 8).div_ceil(6), text.len() * 8 / 6);
        encoded.as_bytes()[first..last].to_vec()
    };
    [placeholder.as_bytes().to_vec(), encoded(0), encoded(1), encoded(2)]
}

fn hexadecimal(placeholder: &str) -> String {
    let digit = |digit: u8| char::from_digit(digit.into(), 16);
    placeholder.bytes().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).flatten().collect()
}

const FORMS: usize = 4;
const AS_IT_IS: usize = 0;

#[cfg(test)]
mod tests;
