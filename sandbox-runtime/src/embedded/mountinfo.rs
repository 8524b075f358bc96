//! The mounts that a process sees (`proc_pid_mountinfo(5)`).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

/// A line of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mounted {
    /// Which part of its file system it is.
    pub(super) root: PathBuf,
    /// Where it is.
    pub(super) target: PathBuf,
    /// The mount's own options.
    pub(super) options: Vec<String>,
    /// The file system's kind.
    pub(super) kind: String,
    /// The file system's options.
    pub(super) super_options: Vec<String>,
}

impl Mounted {
    /// Whether nothing can be written through it.
    pub(super) fn is_read_only(&self) -> bool {
        self.options.iter().chain(&self.super_options).any(|option| option == "ro")
    }
}

/// Reads a list; a line that is none is passed over.
pub(super) fn parse(text: &[u8]) -> Vec<Mounted> {
    text.split(|&byte| byte == b'\n').filter_map(line).collect()
}

fn line(line: &[u8]) -> Option<Mounted> {
    let mut fields = line.split(|&byte| byte == b' ').skip(3);
    let (root, target, options) = (fields.next()?, fields.next()?, fields.next()?);
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = rest.next()?;
    let super_options = rest.nth(1)?;
    let list = |field: &[u8]| String::from_utf8_lossy(field).split(',').map(str::to_owned).collect();
    Some(Mounted {
        root: PathBuf::from(OsString::from_vec(unescape(root))),
        target: PathBuf::from(OsString::from_vec(unescape(target))),
        options: list(options),
        kind: String::from_utf8_lossy(kind).into_owned(),
        super_options: list(super_options),
    })
}

/// Undoes the octal escapes of blanks and backslashes.
fn unescape(mut field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    while let Some((&byte, rest)) = field.split_first() {
        let digits = rest.get(..3).filter(|digits| byte == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        if let Some(digits) = digits {
            plain.push(digits.iter().fold(0_u8, |value, digit| value.wrapping_mul(8).wrapping_add(digit - b'0')));
            field = &rest[3..];
        } else {
            plain.push(byte);
            field = rest;
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_with_their_escapes() {
        let text = b"36 35 98:0 / /a\\040b\\134 rw,nosuid master:1 - ext4 /dev/sda ro,discard\nnonsense\n\
            31 23 0:28 / /x rw - cgroup cgroup rw,cpu,cpuacct\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!((mounts[0].target.to_str(), mounts[0].kind.as_str()), (Some("/a b\\"), "ext4"));
        assert!(mounts[0].is_read_only() && !mounts[1].is_read_only());
        assert_eq!(mounts[1].super_options, ["rw", "cpu", "cpuacct"]);
    }
}
