//! What a request says when it was not carried out.

use std::io;

use sandbox_guest::wire::{Failure, FailureKind};

/// The longest message, in bytes.
const MAX_MESSAGE: usize = 1 << 10;

/// The longest name inside a message, in characters.
const MAX_NAME: usize = 200;

/// A failure with a message of its own.
pub(crate) fn failure(kind: FailureKind, errno: i32, mut message: String) -> Failure {
    message.truncate(message.floor_char_boundary(MAX_MESSAGE));
    Failure { kind, errno, message }
}

/// A request that makes no sense.
pub(crate) fn invalid(message: impl Into<String>) -> Failure {
    failure(FailureKind::Invalid, libc::EINVAL, message.into())
}

/// A failed call of the kernel, told as what was being done.
pub(crate) fn failed(doing: &str, error: &io::Error) -> Failure {
    let errno = error.raw_os_error().unwrap_or(0);
    failure(kind_of(errno), errno, format!("{doing}: {error}"))
}

/// The kind that an error number stands for when files are spoken of.
pub(crate) fn kind_of(errno: i32) -> FailureKind {
    match errno {
        libc::EACCES | libc::EPERM | libc::EROFS => FailureKind::Denied,
        libc::ENOENT => FailureKind::NotFound,
        libc::ENOSPC
        | libc::EDQUOT
        | libc::EMFILE
        | libc::ENFILE
        | libc::ENOMEM
        | libc::EAGAIN
        | libc::EFBIG
        | libc::EMLINK => FailureKind::Exhausted,
        libc::EISDIR | libc::ENOTDIR | libc::ELOOP => FailureKind::WrongKind,
        libc::EINVAL | libc::ENAMETOOLONG | libc::E2BIG => FailureKind::Invalid,
        _ => FailureKind::Io,
    }
}

/// A name as a message may hold it: escaped and short.
pub(crate) fn printable(name: &[u8]) -> String {
    let mut text = name.escape_ascii().to_string();
    if text.len() > MAX_NAME {
        text.truncate(MAX_NAME);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_bounded_and_escaped() {
        assert!(failure(FailureKind::Io, 0, "é".repeat(4000)).message.len() <= MAX_MESSAGE);
        assert_eq!(printable(b"a\nb\xff"), "a\\nb\\xff");
        assert_eq!(printable(&[b'x'; 5000]).chars().count(), MAX_NAME + 1);
    }

    #[test]
    fn a_full_disk_is_exhaustion_and_a_read_only_one_is_denial() {
        assert_eq!(kind_of(libc::ENOSPC), FailureKind::Exhausted);
        assert_eq!(kind_of(libc::EROFS), FailureKind::Denied);
        assert_eq!(kind_of(0), FailureKind::Io);
    }
}
