//! What the fuzz targets check, on the seeds and on so many variations of them.

use self::variations::{seeds, variations};
use super::{head, hello, target};

#[path = "../../../fuzz/src/checks.rs"]
mod checks;
#[path = "../../../fuzz/src/variations.rs"]
mod variations;

fn every(target: &str, check: fn(&[u8])) {
    let seeds = seeds(target);
    assert!(seeds.len() > 5, "{target} has seeds");
    for input in variations(&seeds, VARIATIONS) {
        check(&input);
    }
}

#[test]
fn hosts_are_the_same_to_a_url_parser() {
    every("host", checks::host);
}

#[test]
fn a_client_hello_is_the_same_however_it_arrives() {
    every("hello", checks::hello);
}

#[test]
fn heads_are_the_same_to_another_parser() {
    every("head", checks::head);
}

const VARIATIONS: usize = 30_000;
