//! The guest's program, which this crate carries, so that whoever embeds it needs nothing beside it.

/// Returns the program that is process 1 of every sandbox: a static executable for this crate's own target.
pub fn guest_program() -> &'static [u8] {
    include_bytes!(concat!(env!("OUT_DIR"), "/guest"))
}

/// Tells the guest's program of this build from that of others.
pub(crate) const GUEST_BUILD: &str = include_str!(concat!(env!("OUT_DIR"), "/guest.build"));

#[cfg(test)]
mod tests {
    use super::*;

    fn number(bytes: &[u8], at: usize, length: usize) -> usize {
        bytes[at..at + length].iter().rev().fold(0, |sum, byte| (sum << 8) | usize::from(*byte))
    }

    /// The layout is that of <https://man7.org/linux/man-pages/man5/elf.5.html>.
    #[test]
    fn is_a_static_executable() {
        const PT_INTERP: usize = 3;
        let program = guest_program();
        assert_eq!(&program[..6], b"\x7fELF\x02\x01", "a 64-bit little-endian ELF file");
        let (headers, size, count) = (number(program, 32, 8), number(program, 54, 2), number(program, 56, 2));
        assert!(count > 0);
        for index in 0..count {
            assert_ne!(number(program, headers + index * size, 4), PT_INTERP, "it asks for a dynamic linker");
        }
    }

    #[test]
    fn names_no_folder_of_the_machine_that_built_it() {
        let folder = env!("CARGO_MANIFEST_DIR").trim_end_matches("sandbox-runtime").as_bytes();
        assert!(!guest_program().windows(folder.len()).any(|window| window == folder));
    }
}
