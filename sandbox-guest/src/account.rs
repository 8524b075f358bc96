//! A name and a home for the agent, where the image has none, and the directory that it works in.
//!
//! All are made in the container's own layer, before anything of the agent's runs; the image is not changed. It is not
//! trusted either: no link of it is followed. Where the root cannot be written, the agent goes without a name, and its home is
//! one of the memory file systems.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, fchmod, fstat, mkdirat, openat, renameat_with, statat, unlinkat,
};
use sandbox_guest::user::{self, MAX_FILE};
use sandbox_guest::wire::Identity;

use crate::agent::as_agent;
use crate::environment::{HOME, is_writable, read};

/// Gives the agent what it lacks. What cannot be had is gone without.
pub(crate) fn provide(agent: Identity) {
    if let Ok(home) = entry(agent) {
        let _ = make_home(agent, &home);
        if !is_writable(home.as_bytes(), agent) {
            let _ = make_home(agent, HOME);
        }
    }
}

/// Finds whom the image means by the user that it names; none where its own files do not say.
pub(crate) fn find(named: &str) -> Option<Identity> {
    let (name, group) = user::split(named)?;
    user::find(&read("/etc/passwd"), &read("/etc/group"), name, group)
}

/// Makes the directory that the agent works in. Where it cannot be had, whoever fills it is told so by the kernel.
pub(crate) fn provide_workspace(agent: Identity, path: &[u8]) {
    if let Ok(path) = std::str::from_utf8(path) {
        let _ = make_workspace(agent, path);
    }
}

fn make_workspace(agent: Identity, path: &str) -> io::Result<()> {
    let mut names = path.split('/').filter(|name| !name.is_empty());
    let Some(name) = names.next_back() else { return Ok(()) };
    let mut parent = directory("/")?;
    for above in names {
        let made = writable(&parent, || Ok(mkdirat(&parent, above, Mode::from_raw_mode(0o755))?));
        let found = openat(&parent, above, DIRECTORY | OFlags::NOFOLLOW, Mode::empty());
        // What is there already need not be made.
        parent = found.map_err(|error| made.err().unwrap_or_else(|| error.into()))?;
    }
    writable(&parent, || {
        // One that the image has goes, if it holds nothing; one that holds something is the image's.
        let _ = unlinkat(&parent, name, AtFlags::REMOVEDIR);
        make_own(agent, &parent, name)
    })
}

/// Does something in a directory that root can write meanwhile. Podman's root directory has mode 0555; root here lacks the
/// capability to write to it all the same, and may change the mode of what it owns.
fn writable<T>(directory: &OwnedFd, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let mode = Mode::from_raw_mode(fstat(directory)?.st_mode);
    if mode.contains(Mode::WUSR) {
        return work();
    }
    fchmod(directory, mode | Mode::WUSR)?;
    let done = work();
    fchmod(directory, mode)?;
    done
}

/// Makes the entry in `/etc/passwd` (passwd(5)), and one for the group; returns the home that the entry names.
fn entry(agent: Identity) -> io::Result<String> {
    let etc = directory("/etc")?;
    let (mut users, text) = open(&etc, "passwd")?;
    if let Some(fields) = line_of(&text, 2, agent.uid) {
        return Ok(fields.get(5).copied().unwrap_or_default().to_owned());
    }
    let (mut groups, known) = open(&etc, "group")?;
    let taken = |text: &str| text.lines().any(|line| line.split(':').next() == Some("agent"));
    let name = if taken(&text) || taken(&known) { format!("agent-{}", agent.uid) } else { "agent".to_owned() };
    if line_of(&known, 2, agent.gid).is_none() {
        append(&mut groups, &known, &format!("{name}:x:{}:\n", agent.gid))?;
    }
    let home = format!("/home/{name}");
    let shell = SHELLS.into_iter().find(|shell| std::path::Path::new(shell).exists()).unwrap_or_default();
    append(&mut users, &text, &format!("{name}:x:{}:{}::{home}:{shell}\n", agent.uid, agent.gid))?;
    Ok(home)
}

fn make_home(agent: Identity, home: &str) -> io::Result<()> {
    match home.rsplit_once('/') {
        Some((parent, name)) if !parent.is_empty() && !name.is_empty() => make_own(agent, &directory(parent)?, name),
        _ => Ok(()),
    }
}

/// Makes a directory that is the agent's alone, unless it is there. Root may give nothing away, so the agent makes it where
/// everybody may write for a moment, and root moves it to where only root may. That is beside its place, since `/tmp` may
/// be another file system.
fn make_own(agent: Identity, parent: &OwnedFd, name: &str) -> io::Result<()> {
    if statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
        return Ok(());
    }
    mkdirat(parent, FRESH, Mode::RWXU)?;
    let done = make_within(agent, parent, name);
    unlinkat(parent, FRESH, AtFlags::REMOVEDIR)?;
    done
}

fn make_within(agent: Identity, parent: &OwnedFd, name: &str) -> io::Result<()> {
    let open = |within: &OwnedFd, name: &str| openat(within, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty());
    let everybody = Mode::from_raw_mode(0o777);
    let temporary = open(parent, FRESH)?;
    fchmod(&temporary, everybody)?;
    let made = as_agent(agent, || {
        mkdirat(&temporary, FRESH, Mode::RWXU)?;
        let made = open(&temporary, FRESH)?;
        // A directory that goes elsewhere is written, too.
        fchmod(&made, everybody)?;
        Ok(made)
    })?;
    renameat_with(&temporary, FRESH, parent, name, RenameFlags::NOREPLACE)?;
    as_agent(agent, || Ok(fchmod(&made, Mode::from_raw_mode(0o700))?))
}

/// Opens a directory, through no link. It goes step by step, since gVisor has no openat2(2).
fn directory(path: &str) -> io::Result<OwnedFd> {
    let mut found = openat(CWD, "/", DIRECTORY, Mode::empty())?;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        found = openat(&found, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
    }
    Ok(found)
}

/// Opens a file of users or groups, and reads what is in it; one that is missing is made.
fn open(etc: &OwnedFd, name: &str) -> io::Result<(File, String)> {
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = openat(etc, name, flags, Mode::from_raw_mode(0o644))?;
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut file = File::from(file);
    let mut bytes = Vec::new();
    (&mut file).take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    String::from_utf8(bytes).map(|text| (file, text)).map_err(|_| io::ErrorKind::InvalidData.into())
}

fn append(file: &mut File, before: &str, line: &str) -> io::Result<()> {
    let start = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
    file.write_all(format!("{start}{line}").as_bytes())
}

/// Finds the line in which a field is a number.
fn line_of(text: &str, field: usize, number: u32) -> Option<Vec<&str>> {
    text.lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.get(field).and_then(|id| id.parse::<u32>().ok()) == Some(number))
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// What a directory is called until it is where it belongs.
const FRESH: &str = ".sandbox-fresh";
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_by_its_number() {
        let text = "root:x:0:0::/root:/bin/sh\nbroken\na:x:10:5::/home/a:\n";
        assert_eq!(line_of(text, 2, 10).unwrap()[5], "/home/a");
        assert_eq!((line_of(text, 2, 5), line_of("", 2, 0)), (None, None));
    }

    #[test]
    fn an_entry_begins_a_line_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let etc = File::open(directory.path()).unwrap().into();
        std::fs::write(directory.path().join("passwd"), "x:x:1:1::/:").unwrap();
        let (mut file, text) = open(&etc, "passwd").unwrap();
        append(&mut file, &text, "y\n").unwrap();
        assert_eq!(std::fs::read_to_string(directory.path().join("passwd")).unwrap(), "x:x:1:1::/:\ny\n");
        std::os::unix::fs::symlink("passwd", directory.path().join("group")).unwrap();
        assert!(open(&etc, "group").is_err(), "a link is not followed");
    }
}
