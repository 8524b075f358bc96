use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};
use proptest::prelude::*;

use super::*;

/// How somebody may write a text.
#[derive(Debug, Clone)]
enum Form {
    AsItIs,
    /// Behind and before so many bytes, in one of two alphabets, in lines of so many characters.
    Base64 {
        before: usize,
        after: usize,
        for_urls: bool,
        line: Option<usize>,
        ends: &'static str,
    },
    Hexadecimal {
        large: Vec<bool>,
    },
    /// Which characters are encoded, and which of them in capitals.
    Percent {
        encoded: Vec<bool>,
        large: Vec<bool>,
    },
}

impl Form {
    fn write(&self, text: &str) -> Vec<u8> {
        let hexadecimal = |byte: u8, large: bool| if large { format!("{byte:02X}") } else { format!("{byte:02x}") };
        let at = |flags: &[bool], index: usize| flags.get(index).copied().unwrap_or(false);
        match self {
            Self::AsItIs => text.as_bytes().to_vec(),
            Self::Base64 { before, after, for_urls, line, ends } => {
                let text = format!("{}{text}{}", "\u{7f}".repeat(*before), "~".repeat(*after));
                let encoded = if *for_urls { BASE64_URL_SAFE.encode(text) } else { BASE64_STANDARD.encode(text) };
                let Some(line) = line else { return encoded.into_bytes() };
                encoded.as_bytes().chunks(*line).collect::<Vec<_>>().join(ends.as_bytes())
            }
            Self::Hexadecimal { large } => text
                .bytes()
                .enumerate()
                .flat_map(|(index, byte)| hexadecimal(byte, at(large, index)).into_bytes())
                .collect(),
            Self::Percent { encoded, large } => text
                .bytes()
                .enumerate()
                .flat_map(|(index, byte)| {
                    if at(encoded, index) {
                        format!("%{}", hexadecimal(byte, at(large, index))).into_bytes()
                    } else {
                        vec![byte]
                    }
                })
                .collect(),
        }
    }
}

fn form() -> impl Strategy<Value = Form> {
    let flags = || proptest::collection::vec(any::<bool>(), 0..80);
    let line = proptest::option::of(prop_oneof![Just(1_usize), Just(7), Just(64), Just(76)]);
    prop_oneof![
        Just(Form::AsItIs),
        (0..9_usize, 0..9_usize, any::<bool>(), line, proptest::sample::select(vec!["\n", "\r\n"]))
            .prop_map(|(before, after, for_urls, line, ends)| Form::Base64 { before, after, for_urls, line, ends }),
        flags().prop_map(|large| Form::Hexadecimal { large }),
        (flags(), flags()).prop_map(|(encoded, large)| Form::Percent { encoded, large }),
    ]
}

/// What stands around it: anything, and often what the searches are about.
fn around() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        proptest::sample::select(vec!["%", "%4", "%41", "%%", "\r\n", "sk-", "c2st", "736b2d", "aaaa"])
            .prop_map(|text| text.as_bytes().to_vec()),
    ];
    proptest::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

fn placeholders() -> impl Strategy<Value = Vec<String>> {
    let one = prop_oneof!["sk-[A-Za-z0-9]{24,40}", "[A-Za-z0-9]{24,60}", "a[._-][A-Za-z0-9]{24}"];
    proptest::collection::vec(one, 1..4)
}

/// What is found in a stream that is cut at some places.
fn found(needles: &Arc<Needles>, stream: &[u8], cuts: &[usize]) -> Option<Found> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
    cuts.extend([0, stream.len()]);
    cuts.sort_unstable();
    let mut search = Search::new(Some(Arc::clone(needles)));
    cuts.windows(2).find_map(|cut| search.look(&stream[cut[0]..cut[1]]).err())
}

fn needles(placeholders: &[String]) -> Arc<Needles> {
    Arc::new(Needles::new(&placeholders.iter().map(String::as_str).collect::<Vec<_>>()).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn it_is_found_however_it_is_written_and_cut(
        placeholders in placeholders(),
        which in any::<prop::sample::Index>(),
        form in form(),
        (before, after) in (around(), around()),
        cuts in proptest::collection::vec(any::<usize>(), 0..9),
    ) {
        let number = which.index(placeholders.len());
        // What stands before must not be read as one with what is encoded.
        let stream = [&before[..], b"&", &form.write(&placeholders[number]), b"&", &after].concat();
        prop_assert_eq!(found(&needles(&placeholders), &stream, &cuts), Some(Found(number)), "{}", stream.escape_ascii());
        let every: Vec<usize> = (0..stream.len()).collect();
        prop_assert_eq!(found(&needles(&placeholders), &stream, &every), Some(Found(number)));
        prop_assert_eq!(needles(&placeholders).within(&stream), [number]);
    }

    #[test]
    fn what_lacks_a_letter_of_it_is_something_else(
        placeholders in placeholders(),
        form in form(),
        (before, after) in (around(), around()),
        cuts in proptest::collection::vec(any::<usize>(), 0..9),
    ) {
        let most: Vec<String> = placeholders.iter().map(|text| {
            // One in the middle: in base64, some bits of the first and the last are their neighbours'.
            let middle = text.len() / 2;
            [&text[..middle], &text[middle + 1..]].concat()
        }).collect();
        let written: Vec<Vec<u8>> = most.iter().map(|text| form.write(text)).collect();
        let stream = [before, written.join(&b"&"[..]), after].join(&b"&"[..]);
        prop_assert_eq!(found(&needles(&placeholders), &stream, &cuts), None, "{}", stream.escape_ascii());
    }

    #[test]
    fn nothing_is_found_in_anything_else(stream in around(), placeholders in placeholders()) {
        prop_assert_eq!(found(&needles(&placeholders), &stream, &[]), None);
    }
}

#[test]
fn it_takes_as_long_as_the_stream_is_and_keeps_nothing_of_it() {
    // What begins like it over and over is no reason to look at anything twice.
    let placeholder = format!("{}b{}", "a".repeat(40), "a".repeat(23));
    let needles = needles(std::slice::from_ref(&placeholder));
    let mut search = Search::new(Some(Arc::clone(&needles)));
    let size = size_of_val(&search);
    for piece in ["a", "%61", "YWFh", "6161", "\n"] {
        search.look(piece.repeat(100_000).as_bytes()).unwrap();
    }
    assert!(size <= 128, "{size} bytes of state, whatever came");
    assert_eq!(search.look(placeholder.as_bytes()), Err(Found(0)));
}

#[test]
fn where_there_is_no_placeholder_nothing_is_looked_for() {
    assert_eq!(Search::new(None).look(b"anything"), Ok(()));
    assert!(!format!("{:?}", needles(&["sk-not-a-real-placeholder".to_owned()])).contains("sk-"));
}
