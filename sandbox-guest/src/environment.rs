//! The environment that a program starts with.
//!
//! What the host sets for every program, over that the image's own variables, then what the agent's entry in `/etc/passwd` says, then what the host asked for.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::io::Read;
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, accessat, fstat, openat, stat};
use sandbox_guest::sudo::PROGRAMS;
use sandbox_guest::user::MAX_FILE;
use sandbox_guest::wire::{Failure, Identity, Setup, Sudo};

use crate::agent::as_agent;
use crate::failure::{invalid, printable};

/// Where programs are looked up if the image does not say.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A variable: its name and its value.
type Variable = (Vec<u8>, Vec<u8>);

/// What every program of the agent finds in its environment.
#[derive(Debug)]
pub(crate) struct Environment {
    variables: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Environment {
    /// Makes it from the host's terms, the guest's own variables and the image's `/etc/passwd`.
    pub(crate) fn new(own: impl Iterator<Item = (OsString, OsString)>, setup: &Setup) -> Self {
        let agent = setup.agent;
        let mut variables = base(own, setup);
        let path = variables.entry(b"PATH".to_vec()).or_insert_with(|| DEFAULT_PATH.to_vec());
        if setup.sudo == Sudo::Offered {
            *path = [PROGRAMS.as_bytes(), b":", path].concat();
        }
        let mut account = find_account(&read("/etc/passwd"), agent.uid).unwrap_or_else(|| Account {
            name: b"agent".to_vec(),
            home: Vec::new(),
            shell: Vec::new(),
        });
        if !is_writable(&account.home, agent) {
            account.home = default_home(agent).to_vec();
        }
        set_account(&mut variables, account);
        Self { variables }
    }

    /// Makes that of root: what the agent can write is looked up last, and nothing of what the agent set is in it.
    pub(crate) fn of_root(own: impl Iterator<Item = (OsString, OsString)>, setup: &Setup) -> Self {
        let mut variables = base(own, setup);
        let usual: Vec<&[u8]> = DEFAULT_PATH.split(|&byte| byte == b':').collect();
        let others = variables.remove(b"PATH".as_slice()).unwrap_or_default();
        let others = others.split(|&byte| byte == b':').filter(|part| part.starts_with(b"/") && !usual.contains(part));
        let path: Vec<&[u8]> = usual.iter().copied().chain(others).collect();
        let path = path.join(&b':');
        let passwd = read("/etc/passwd");
        let root = Account { name: b"root".to_vec(), home: b"/root".to_vec(), shell: b"/bin/sh".to_vec() };
        set_account(&mut variables, find_account(&passwd, 0).unwrap_or(root));
        let agent = find_account(&passwd, setup.agent.uid).map_or_else(|| b"agent".to_vec(), |account| account.name);
        let number = |id: u32| id.to_string().into_bytes();
        variables.extend([
            (b"PATH".to_vec(), path),
            (b"PYTHONSAFEPATH".to_vec(), b"1".to_vec()),
            (b"SUDO_GID".to_vec(), number(setup.agent.gid)),
            (b"SUDO_UID".to_vec(), number(setup.agent.uid)),
            (b"SUDO_USER".to_vec(), agent),
        ]);
        Self { variables }
    }

    /// Adds what a request asked for.
    pub(crate) fn with(&self, asked: Vec<Variable>, terminal: bool) -> Result<Self, Failure> {
        let mut variables = self.variables.clone();
        if terminal {
            variables.entry(b"TERM".to_vec()).or_insert_with(|| b"xterm-256color".to_vec());
        }
        for (name, value) in asked {
            if name.is_empty() || name.contains(&b'=') || name.contains(&0) || value.contains(&0) {
                return Err(invalid(format!(
                    "environment: variable \"{}\", a name without \"=\" and NUL, and a value without NUL, is needed",
                    printable(&name)
                )));
            }
            variables.insert(name, value);
        }
        Ok(Self { variables })
    }

    /// A variable's value.
    pub(crate) fn value(&self, name: &str) -> Option<&[u8]> {
        self.variables.get(name.as_bytes()).map(Vec::as_slice)
    }

    /// The strings that `execve(2)` takes.
    pub(crate) fn strings(&self) -> Vec<CString> {
        let join = |(name, value): (&Vec<u8>, &Vec<u8>)| CString::new([name, &b"="[..], value].concat()).ok();
        self.variables.iter().filter_map(join).collect()
    }
}

/// What the host sets, and over it what the image does.
fn base(own: impl Iterator<Item = (OsString, OsString)>, setup: &Setup) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let own = own.map(|(name, value)| (name.into_vec(), value.into_vec()));
    let own = own.filter(|(name, _)| !name.starts_with(b"LD_") && name != b"HOSTNAME");
    let mut variables: BTreeMap<_, _> = setup.environment.iter().cloned().chain(own).collect();
    variables.entry(b"LANG".to_vec()).or_insert_with(|| b"C.UTF-8".to_vec());
    variables
}

fn set_account(variables: &mut BTreeMap<Vec<u8>, Vec<u8>>, account: Account) {
    variables.insert(b"USER".to_vec(), account.name.clone());
    variables.insert(b"LOGNAME".to_vec(), account.name);
    variables.insert(b"HOME".to_vec(), account.home);
    if account.shell.is_empty() {
        variables.remove(b"SHELL".as_slice());
    } else {
        variables.insert(b"SHELL".to_vec(), account.shell);
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Account {
    name: Vec<u8>,
    home: Vec<u8>,
    shell: Vec<u8>,
}

/// Finds a user in the text of a passwd(5) file; what is not an entry is passed over.
fn find_account(text: &[u8], uid: u32) -> Option<Account> {
    text.split(|&byte| byte == b'\n').find_map(|line| {
        let fields: Vec<&[u8]> = line.split(|&byte| byte == b':').collect();
        let &[name, _, id, _, _, home, shell] = fields.as_slice() else { return None };
        let id: u32 = str::from_utf8(id).ok()?.parse().ok()?;
        let plain = |field: &[u8]| !field.contains(&0);
        (id == uid && !name.is_empty() && home.starts_with(b"/") && plain(name) && plain(home) && plain(shell))
            .then(|| Account { name: name.to_vec(), home: home.to_vec(), shell: shell.to_vec() })
    })
}

/// Reads a file of users or groups if it is a regular file; the image may have put anything there.
pub(crate) fn read(path: &str) -> Vec<u8> {
    let mut text = Vec::new();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    if let Ok(file) = openat(CWD, path, flags, Mode::empty())
        && fstat(&file).is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::RegularFile)
    {
        // What could be read until an error is as good as a shorter file.
        let _ = std::fs::File::from(file).take(MAX_FILE).read_to_end(&mut text);
    }
    text
}

/// The home that sandboxes give where the image's user has none, or one that it cannot write to.
fn default_home(agent: Identity) -> &'static [u8] {
    if is_writable(HOME.as_bytes(), agent) { HOME.as_bytes() } else { b"/tmp" }
}

/// Whether the agent has a directory that it can write to.
pub(crate) fn is_writable(home: &[u8], agent: Identity) -> bool {
    let directory = || stat(home).is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Directory);
    let allowed = || Ok(accessat(CWD, home, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)?);
    !home.is_empty() && directory() && as_agent(agent, allowed).is_ok()
}

pub(crate) const HOME: &str = "/home/agent";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn terms() -> Setup {
        let agent = Identity { uid: 4_000_000_001, gid: 1 };
        Setup {
            protocol: 4,
            agent,
            lifetime: 1,
            processes: None,
            open_files: 1,
            user: None,
            environment: pairs(&[("X", "0"), ("Y", "0")]),
            sudo: Sudo::Denied,
            workspace: None,
        }
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<Variable> {
        list.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
    }

    #[test]
    fn an_account_is_found_by_its_number() {
        let text = b"root:x:0:0:root:/root:/bin/bash\nbroken\ndev:x:1000:1000:,,,:/home/dev:/bin/zsh\n";
        let account = find_account(text, 1000).unwrap();
        assert_eq!(account, Account { name: b"dev".into(), home: b"/home/dev".into(), shell: b"/bin/zsh".into() });
        assert_eq!(find_account(text, 7), None);
        assert_eq!(find_account(b"a:x:1000:1:::", 1000), None);
    }

    #[test]
    fn the_image_sets_the_base_and_the_request_has_the_last_word() {
        let own = [("LD_PRELOAD", "/evil.so"), ("PATH", "/opt/bin"), ("HOSTNAME", "h"), ("HOME", "/root"), ("X", "1")];
        let own = own.map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let base = Environment::new(own.into_iter(), &terms());
        assert_eq!((base.value("LD_PRELOAD"), base.value("HOSTNAME"), base.value("TERM")), (None, None, None));
        assert_eq!((base.value("PATH"), base.value("USER")), (Some(&b"/opt/bin"[..]), Some(&b"agent"[..])));
        assert_ne!(base.value("HOME"), Some(&b"/root"[..]));
        assert_eq!((base.value("X"), base.value("Y")), (Some(&b"1"[..]), Some(&b"0"[..])));
        let full = base.with(pairs(&[("X", "2"), ("HOME", "/h")]), true).unwrap();
        assert_eq!((full.value("X"), full.value("HOME")), (Some(&b"2"[..]), Some(&b"/h"[..])));
        assert_eq!(full.value("TERM"), Some(&b"xterm-256color"[..]));
        assert!(full.strings().iter().any(|string| string.as_bytes() == b"LANG=C.UTF-8"));
    }

    #[test]
    fn root_has_an_environment_of_its_own() {
        let own = [("PATH", "/opt/bin:.:/usr/bin:"), ("LD_PRELOAD", "/evil.so"), ("HOME", "/home/x"), ("X", "1")];
        let own = own.map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let root = Environment::of_root(own.clone().into_iter(), &terms());
        let path = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/bin";
        assert_eq!((root.value("PATH"), root.value("USER")), (Some(&path[..]), Some(&b"root"[..])));
        assert_eq!((root.value("LD_PRELOAD"), root.value("X")), (None, Some(&b"1"[..])));
        assert_eq!((root.value("SUDO_UID"), root.value("SUDO_GID")), (Some(&b"4000000001"[..]), Some(&b"1"[..])));
        assert_ne!(root.value("HOME"), Some(&b"/home/x"[..]));
        let offered = Environment::new(own.into_iter(), &Setup { sudo: Sudo::Offered, ..terms() });
        assert_eq!(offered.value("PATH"), Some(&b"/run/sandbox/bin:/opt/bin:.:/usr/bin:"[..]));
    }

    #[test]
    fn a_name_that_cannot_be_a_variable_is_refused() {
        let base = Environment::new(std::iter::empty(), &terms());
        for name in ["", "A=B", "A\0"] {
            assert!(base.with(pairs(&[(name, "v")]), false).is_err(), "{name:?}");
        }
        assert!(base.with(pairs(&[("A", "v\0")]), false).is_err());
    }

    proptest! {
        #[test]
        fn no_passwd_makes_it_fail(text in proptest::collection::vec(any::<u8>(), 0..400), uid: u32) {
            if let Some(account) = find_account(&text, uid) {
                prop_assert!(account.home.starts_with(b"/"));
            }
        }
    }
}
