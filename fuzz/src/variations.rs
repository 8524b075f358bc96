//! Inputs made of others, the same at every run.
#![allow(unreachable_pub, reason = "it is public in the fuzz targets' crate, and private to the tests that include it")]

use std::path::Path;

/// Reads every seed of a target, in the order of their names.
#[allow(clippy::expect_used, reason = "a test without its seeds fails")]
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    let entries = std::fs::read_dir(&directory).expect("the seeds are part of the repository");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a seed").path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).expect("a seed")).collect()
}

/// Each seed, and then so many inputs that differ from one in a few places.
pub fn variations(seeds: &[Vec<u8>], count: usize) -> Vec<Vec<u8>> {
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let mut all = seeds.to_vec();
    for _ in 0..count {
        let mut input = seeds[chance.below(seeds.len())].clone();
        for _ in 0..=chance.below(4) {
            let at = chance.below(input.len() + 1);
            let other = &seeds[chance.below(seeds.len())];
            let from = chance.below(other.len() + 1);
            let part = &other[from..(from + chance.below(12)).min(other.len())];
            let to = (at + chance.below(8)).min(input.len());
            match chance.below(6) {
                0 => drop(input.splice(at..at, part.iter().copied())),
                1 => drop(input.splice(at..to, part.iter().copied())),
                2 => drop(input.drain(at..to)),
                3 => input.insert(at, TELLING[chance.below(TELLING.len())]),
                4 if at < input.len() => input[at] = TELLING[chance.below(TELLING.len())],
                _ if at < input.len() => input[at] ^= 1 << chance.below(8),
                _ => {}
            }
        }
        all.push(input);
    }
    all
}

/// Bytes that parsers stumble over.
const TELLING: &[u8] = b"\0\t\r\n !#$%&*+,-./0123456789:;=?@AXZ[\\]^_`anxz{|}~\x7f\x80\xc3\xff";

/// Numbers without a pattern (xorshift64, <https://www.jstatsoft.org/article/view/v008i14>).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap_or_default()
    }
}
