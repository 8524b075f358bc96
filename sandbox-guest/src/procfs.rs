//! Reads what the kernel says of processes and mounts (proc(5)).

use std::fs::File;
use std::io::{self, Read};

use sandbox_guest::wire::ProcessStatus;

/// How much of one file is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Reads a file of the kernel, up to a bound.
pub(crate) fn read(path: &str) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(MAX_FILE).read_to_end(&mut text)?;
    Ok(text)
}

/// Reads `/proc/PID/status`; what is missing stays zero.
pub(crate) fn parse_status(text: &[u8]) -> ProcessStatus {
    let mut status = ProcessStatus::default();
    for line in text.split(|&byte| byte == b'\n') {
        let Ok(line) = str::from_utf8(line) else { continue };
        let Some((name, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        match name {
            "Uid" => status.uid = four(value),
            "Gid" => status.gid = four(value),
            "Groups" => status.groups = value.split_whitespace().filter_map(|group| group.parse().ok()).collect(),
            "CapInh" => status.capabilities[0] = mask(value),
            "CapPrm" => status.capabilities[1] = mask(value),
            "CapEff" => status.capabilities[2] = mask(value),
            "CapBnd" => status.capabilities[3] = mask(value),
            "CapAmb" => status.capabilities[4] = mask(value),
            "NoNewPrivs" => status.no_new_privileges = value == "1",
            "Seccomp" => status.seccomp = value.parse().unwrap_or(0),
            "Seccomp_filters" => status.seccomp_filters = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    status
}

/// Four ids; one that cannot be read is nobody's, so that it is never taken for root's.
fn four(value: &str) -> [u32; 4] {
    let mut ids = [u32::MAX; 4];
    for (id, text) in ids.iter_mut().zip(value.split_whitespace()) {
        *id = text.parse().unwrap_or(u32::MAX);
    }
    ids
}

/// A capability set; one that cannot be read is full, so that it is never taken for empty.
fn mask(value: &str) -> u64 {
    u64::from_str_radix(value, 16).unwrap_or(u64::MAX)
}

/// A line of `/proc/self/mountinfo`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MountLine {
    /// The directory of the file system that is mounted.
    pub(crate) root: Vec<u8>,
    /// Where it is mounted.
    pub(crate) target: Vec<u8>,
    /// The mount's own options.
    pub(crate) options: String,
    /// The file system's type.
    pub(crate) kind: String,
    /// The file system's options.
    pub(crate) super_options: String,
}

/// Reads `/proc/self/mountinfo`; a line that is none is passed over.
pub(crate) fn parse_mounts(text: &[u8]) -> impl Iterator<Item = MountLine> {
    text.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ');
        let root = fields.nth(3)?;
        let (target, options) = (fields.next()?, fields.next()?);
        let mut rest = fields.skip_while(|&field| field != b"-").skip(1);
        let kind = rest.next()?;
        let super_options = rest.nth(1)?;
        let string = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
        Some(MountLine {
            root: unescape(root),
            target: unescape(target),
            options: string(options),
            kind: string(kind),
            super_options: string(super_options),
        })
    })
}

/// Undoes the octal escapes of blanks and backslashes.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        match after {
            &[a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] if byte == b'\\' => {
                plain.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = &after[3..];
            }
            _ => {
                plain.push(byte);
                rest = after;
            }
        }
    }
    plain
}

/// Reads `/proc/self/uid_map`: inside, outside, length.
pub(crate) fn parse_id_map(text: &[u8]) -> Vec<(u32, u32, u32)> {
    let line = |line: &str| {
        let mut numbers = line.split_whitespace().map(|number| number.parse().ok());
        Some((numbers.next()??, numbers.next()??, numbers.next()??))
    };
    String::from_utf8_lossy(text).lines().filter_map(line).collect()
}

/// Reads the interfaces' names from `/proc/net/dev`, whose first two lines are a heading.
pub(crate) fn parse_interfaces(text: &[u8]) -> Vec<String> {
    let name = |line: &str| line.rsplit_once(':').map(|(name, _)| name.trim().to_owned());
    String::from_utf8_lossy(text).lines().skip(2).filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_status_is_read() {
        let text = b"Name:\tUid:\t0\nUid:\t1000\t1001\t1002\t1003\nGid:\t5\t5\t5\t5\nGroups:\t4 24 \nCapInh:\t0000000000000000\n\
            CapPrm:\t00000000000000c0\nCapEff:\t0000000000000001\nCapBnd:\t000001ffffffffff\nCapAmb:\tzz\nNoNewPrivs:\t1\n\
            Seccomp:\t2\nSeccomp_filters:\t3\n";
        let status = parse_status(text);
        assert_eq!((status.uid, status.gid), ([1000, 1001, 1002, 1003], [5; 4]));
        assert_eq!(status.groups, [4, 24]);
        assert_eq!(status.capabilities, [0, 0xc0, 1, 0x1ff_ffff_ffff, u64::MAX]);
        assert_eq!((status.no_new_privileges, status.seccomp, status.seccomp_filters), (true, 2, 3));
    }

    #[test]
    fn mounts_are_read_with_their_escapes() {
        let text =
            b"36 35 98:0 / /a\\040b\\134\\012 rw,nosuid master:1 shared:2 - ext4 /dev/sda rw,discard\nnonsense\n\
            31 23 0:28 /x / ro - tmpfs tmpfs ro\n";
        let mounts: Vec<_> = parse_mounts(text).collect();
        assert_eq!(mounts.len(), 2);
        assert_eq!((mounts[0].target.as_slice(), mounts[0].kind.as_str()), (&b"/a b\\\n"[..], "ext4"));
        assert_eq!((mounts[0].options.as_str(), mounts[0].super_options.as_str()), ("rw,nosuid", "rw,discard"));
        assert_eq!((mounts[1].root.as_slice(), mounts[1].options.as_str()), (&b"/x"[..], "ro"));
    }

    #[test]
    fn maps_and_interfaces_are_read() {
        assert_eq!(parse_id_map(b"         0     100000      65536\nbad\n"), [(0, 100_000, 65536)]);
        assert_eq!(parse_interfaces(b"Inter-| x\n face |y\n    lo: 0 0\neth0:12 0\n"), ["lo", "eth0"]);
    }

    #[test]
    fn the_own_files_of_this_process_are_read() {
        let status = parse_status(&read("/proc/self/status").unwrap());
        assert_eq!(status.uid[1], rustix::process::geteuid().as_raw());
        assert!(parse_mounts(&read("/proc/self/mountinfo").unwrap()).any(|mount| mount.target == b"/"));
    }

    proptest! {
        #[test]
        fn escapes_are_undone(name in proptest::collection::vec(any::<u8>(), 0..40)) {
            let escaped: Vec<u8> = name.iter().flat_map(|byte| format!("\\{byte:03o}").into_bytes()).collect();
            prop_assert_eq!(unescape(&escaped), name);
        }

        #[test]
        fn no_text_makes_it_fail(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            parse_status(&text);
            parse_mounts(&text).count();
            parse_id_map(&text);
            parse_interfaces(&text);
        }
    }
}
