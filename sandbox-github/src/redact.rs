//! What of a stranger's words may be shown.
//!
//! GitHub's messages go into errors, and a hostile server could put into them what it was sent. A token is one long word,
//! in whatever form; so no long word passes, and none that a token begins or that is a part of the one in use.

use secrecy::{ExposeSecret, SecretString};

/// Keeps of a message the short words that are no part of the secret, up to a length.
pub(crate) fn shown<'a>(text: &str, secrets: impl IntoIterator<Item = &'a SecretString>) -> String {
    let secrets: Vec<&str> = secrets.into_iter().map(ExposeSecret::expose_secret).collect();
    let mut shown = String::new();
    for word in text.split(|letter: char| letter.is_whitespace() || letter.is_control()).filter(|word| !word.is_empty())
    {
        if shown.len() >= MAX_SHOWN {
            shown.push_str(" …");
            break;
        }
        if !shown.is_empty() {
            shown.push(' ');
        }
        shown.push_str(if is_plain(word, &secrets) { word } else { "[…]" });
    }
    // A secret that was taken apart into short words is one all the same.
    if secrets.iter().any(|secret| is_spelt(&shown, secret)) { "[…]".to_owned() } else { shown }
}

/// Whether the letters and digits of a text spell a part of a secret.
fn is_spelt(text: &str, secret: &str) -> bool {
    let letters = |text: &str| text.bytes().filter(u8::is_ascii_alphanumeric).collect::<Vec<u8>>();
    let (text, secret) = (letters(text), letters(secret));
    secret.windows(MIN_SPELT).any(|piece| text.windows(MIN_SPELT).any(|shown| shown == piece))
}

fn is_plain(word: &str, secrets: &[&str]) -> bool {
    let long = word.split(|letter: char| !letter.is_ascii_alphanumeric()).any(|part| part.len() > MAX_PART);
    let token = PREFIXES.iter().any(|prefix| word.contains(prefix));
    let piece = word.len() >= MIN_PIECE && secrets.iter().any(|secret| secret.contains(word));
    word.len() <= MAX_WORD && !long && !token && !piece && !word.chars().any(is_invisible)
}

/// Letters that change how others look: <https://www.unicode.org/reports/tr9/>.
fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

const PREFIXES: [&str; 7] = ["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat", "eyJ"];
const MAX_SHOWN: usize = 300;
/// Bytes of a word; the shortest token in base64 is longer.
const MAX_WORD: usize = 24;
/// Letters and digits without anything between.
const MAX_PART: usize = 20;
/// From here on a word is too much of a secret to be shown.
const MIN_PIECE: usize = 4;
/// Letters and digits, with anything between.
const MIN_SPELT: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_github_pass() {
        for said in
            ["Resource not accessible by personal access token", "Not Found", "Validation Failed: name is missing"]
        {
            assert_eq!(shown(said, None), said);
        }
    }

    #[test]
    fn a_token_does_not_in_any_form() {
        let secret = SecretString::from("ghp_MADE0UP0FOR0TESTS0ABCDEFGH");
        for said in [
            "ghp_MADE0UP0FOR0TESTS0ABCDEFGH",
            "x=ghp_MADE0UP",
            "MADE0UP0FOR0TESTS0",
            "6768705f4d41444530555030464f5230",
            "Z2hwX01BREUwVVAwRk9SMFRFU1RTMEFC",
        ] {
            assert_eq!(shown(&format!("bad {said} here"), Some(&secret)), "bad […] here", "{said}");
        }
    }

    #[test]
    fn a_token_in_pieces_is_one_all_the_same() {
        let secret = SecretString::from("ghp_MADE0UP0FOR0TESTS0ABCDEFGH");
        let other = SecretString::from("another secret");
        for said in ["MAD E0U P0F OR0", "M-A-D E-0-U P-0-F"] {
            assert_eq!(shown(said, [&other, &secret]), "[…]", "{said}");
        }
        assert_eq!(shown("MAD as a hatter", [&secret]), "MAD as a hatter");
    }

    #[test]
    fn what_is_long_ends_and_what_moves_the_cursor_is_gone() {
        assert!(shown(&"word ".repeat(1000), None).len() < 400);
        assert_eq!(shown("a\u{1b}[2Jb\n\tc \u{202e}d", None), "a [2Jb c […]");
    }
}
