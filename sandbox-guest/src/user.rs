//! Finds whom an image means by the user that it names, in its own files of users and groups (passwd(5), group(5)).
//!
//! Both sides look: the guest inside, and a runtime that has the image's files at hand. The files are the image's, so
//! nothing in them is trusted: what is no entry is passed over, and no number is taken that the kernel would not.

use crate::wire::Identity;

/// How much of a file of users or groups is read, in bytes.
pub const MAX_FILE: u64 = 1 << 20;

/// Splits what an image's configuration says into a user and a group; `None` where it is neither a name nor a number. Either
/// may be a name of letters, digits and `. _ - $`, at most 64 bytes
/// (<https://github.com/opencontainers/image-spec/blob/main/config.md>, at `User`).
pub fn split(text: &str) -> Option<(&str, Option<&str>)> {
    let is_name = |part: &str| {
        (1..=MAX_NAME).contains(&part.len())
            && !part.starts_with('-')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-$".contains(&byte))
    };
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    (is_name(user) && group.is_none_or(is_name)).then_some((user, group))
}

/// Finds the ids of a user, and of a group where one is named; `None` where the files do not know a name. A number is itself. A
/// user that is no root has no group of root's: where it would, or where nobody says, its group has its own number.
pub fn find(passwd: &[u8], groups: &[u8], user: &str, group: Option<&str>) -> Option<Identity> {
    let uid = user.parse().ok().or_else(|| named(passwd, user))?;
    let own =
        || lines(passwd).find(|fields| number(fields.get(2)) == Some(uid)).and_then(|fields| number(fields.get(3)));
    let gid = match group {
        Some(group) => Some(group.parse().ok().or_else(|| named(groups, group))?),
        None => own(),
    };
    Some(Identity { uid, gid: gid.filter(|gid| *gid != 0).unwrap_or(uid) })
}

/// The number in the first line of a name; both files have it in the third field.
fn named(text: &[u8], name: &str) -> Option<u32> {
    lines(text).filter(|fields| fields.first() == Some(&name.as_bytes())).find_map(|fields| number(fields.get(2)))
}

fn lines(text: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    text.split(|&byte| byte == b'\n').map(|line| line.split(|&byte| byte == b':').collect())
}

/// A number of a user or a group; the last one means "no change" to the kernel (setresuid(2)).
fn number(field: Option<&&[u8]>) -> Option<u32> {
    let number = str::from_utf8(field?).ok()?.parse().ok()?;
    (number != u32::MAX).then_some(number)
}

const MAX_NAME: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const USERS: &[u8] = b"root:x:0:0::/root:/bin/sh\nbroken\nx:x:y:1::/:\nx:x:4294967295:1::/:\n\
                           vscode:x:1000:1001::/home/vscode:/bin/bash\nops:x:7:0::/:\n";
    const GROUPS: &[u8] = b"root:x:0:\nstaff:x:50:vscode\n";

    #[test]
    fn names_and_numbers_are_found() {
        for (text, ids) in [
            ("vscode", Some((1000, 1001))),
            ("vscode:staff", Some((1000, 50))),
            ("vscode:7", Some((1000, 7))),
            ("1000", Some((1000, 1001))),
            ("1234", Some((1234, 1234))),
            ("1234:staff", Some((1234, 50))),
            ("1234:0", Some((1234, 1234))),
            ("ops", Some((7, 7))),
            ("root", Some((0, 0))),
            ("0:0", Some((0, 0))),
            ("x", None),
            ("nobody", None),
            ("vscode:nobody", None),
        ] {
            let (user, group) = split(text).unwrap();
            let found = find(USERS, GROUPS, user, group).map(|found| (found.uid, found.gid));
            assert_eq!(found, ids, "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["", ":", "a:", ":a", "a b", "-a", "a:b:c", "a\n", "a/b", "ä", &"a".repeat(65)] {
            assert_eq!(split(text), None, "{text:?}");
        }
        assert_eq!(split("DOMAIN.user$:1"), Some(("DOMAIN.user$", Some("1"))));
    }

    proptest! {
        #[test]
        fn no_file_makes_it_fail(passwd in proptest::collection::vec(any::<u8>(), 0..200), user in "[a-z0-9]{1,4}") {
            if let Some(found) = find(&passwd, &passwd, &user, Some(&user)) {
                prop_assert!(found.uid == 0 || found.gid != 0);
            }
        }
    }
}
