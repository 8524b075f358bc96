//! A name and a home for the agent, where the image has none.
//!
//! Both are made in the container's own layer, before anything of the agent's runs; the image is not changed. It is not
//! trusted either: no link of it is followed. Where the root cannot be written, the agent goes without a name, and its home is
//! one of the memory file systems.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;

use rustix::fs::{
    CWD, FileType, Mode, OFlags, RenameFlags, ResolveFlags, fchmod, fstat, mkdirat, openat, openat2, renameat_with,
    statat,
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

/// Makes a home that is the agent's alone. Root may give nothing away, so the agent makes it where everybody may, and root
/// moves it to where only root may.
fn make_home(agent: Identity, home: &str) -> io::Result<()> {
    let Some((parent, name)) = home.rsplit_once('/').filter(|(parent, name)| !parent.is_empty() && !name.is_empty())
    else {
        return Ok(());
    };
    let parent = directory(parent)?;
    if statat(&parent, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).is_ok() {
        return Ok(());
    }
    let temporary = directory("/tmp")?;
    let made = as_agent(agent, || {
        mkdirat(&temporary, FRESH, Mode::RWXU)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(&temporary, FRESH, flags, Mode::empty())?;
        // A directory that goes elsewhere is written, too.
        fchmod(&made, Mode::from_raw_mode(0o777))?;
        Ok(made)
    })?;
    renameat_with(&temporary, FRESH, &parent, name, RenameFlags::NOREPLACE)?;
    as_agent(agent, || Ok(fchmod(&made, Mode::from_raw_mode(0o700))?))
}

fn directory(path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?)
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

/// What a home is called until it is where it belongs.
const FRESH: &str = ".sandbox-home";
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
