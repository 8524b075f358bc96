//! Where a running sandbox keeps what joins it to its container.
//!
//! ```text
//! ROOT/             mode 0700, the caller's
//! ROOT/ID/          mode 0700, the caller's; what the caller adds (a supervisor's socket) lies here
//! ROOT/ID/owner     the process that holds the sandbox, for the reaper
//! ROOT/ID/exposed   the directory of the host that the agent may write to, if there is one, and what is covered of it
//! ROOT/ID/placeholders   what was made in the workspace, to be removed with the rest
//! ROOT/ID/guest/    mode 0700, owned by the user that is root inside; the container's one mount besides the workspace
//! ROOT/ID/guest/guest    the guest's program
//! ROOT/ID/guest/socket   the guest's socket, until the guest has connected
//! ```
//!
//! Where root inside is another user outside, that user's engine must find what it mounts: it may then pass through the
//! first two (mode 0711, and 0710 with its group), and still list and read nothing there. Where root inside is a
//! third, or the caller cannot give it anything, the second has mode 0711 too, and its name is what nobody else knows.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use sandbox_guest::wire::{GUEST_PROGRAM, GUEST_SOCKET};
use tokio::net::UnixListener;

use crate::cover;
use crate::{Error, ErrorKind, Exposed, Owner, Result, SandboxId};

/// A path in a socket's address has at most 107 bytes and a zero (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// The file that names what was made in the workspace.
const PLACEHOLDERS: &str = "placeholders";

/// The file that names what the agent may write to.
const EXPOSED: &str = "exposed";

/// The file that names the owner.
const OWNER: &str = "owner";

/// The directory below which every sandbox of one user has its run directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRoot(PathBuf);

impl RunRoot {
    /// Uses a directory, which is made with mode 0700 when it is first needed.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The run directory of a sandbox.
    pub fn of(&self, sandbox: SandboxId) -> PathBuf {
        self.0.join(sandbox.to_string())
    }

    /// The sandboxes that have a run directory here.
    ///
    /// # Errors
    /// `Io`; a root that does not exist has none.
    pub fn sandboxes(&self) -> Result<Vec<SandboxId>> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.error(error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| self.error(error))?;
            found.extend(entry.file_name().to_str().and_then(|name| name.parse::<SandboxId>().ok()));
        }
        found.sort_unstable();
        Ok(found)
    }

    /// The directories of this machine that the agents of these sandboxes may write to.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn exposed(&self) -> Result<Vec<Exposed>> {
        let mut all = Vec::new();
        for sandbox in self.sandboxes()? {
            match fs::read(self.of(sandbox).join(EXPOSED)) {
                Ok(text) => {
                    let mut paths = text.split(|byte| *byte == 0).map(|path| PathBuf::from(OsStr::from_bytes(path)));
                    let directory = paths.next().unwrap_or_default();
                    all.push(Exposed { directory, covered: paths.collect() });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(self.error(error)),
            }
        }
        Ok(all)
    }

    fn error(&self, error: io::Error) -> Error {
        Error::io(format!("cannot use the run directory {}", self.0.display()), error)
    }

    /// Makes the root if it is missing, and refuses one that others could write to.
    ///
    /// # Errors
    /// `Denied` for one that is open to others, else those of the host's system.
    pub fn ensure(&self) -> Result<()> {
        ensure_private(&self.0, "run directory")
    }
}

impl Default for RunRoot {
    /// `/run/sandbox` for root, `/run/user/UID/sandbox` for anybody else.
    fn default() -> Self {
        match rustix::process::geteuid().as_raw() {
            0 => Self::new("/run/sandbox"),
            uid => Self::new(format!("/run/user/{uid}/sandbox")),
        }
    }
}

/// One sandbox's run directory.
#[derive(Clone, Debug)]
pub(crate) struct RunDirectory {
    path: PathBuf,
}

impl RunDirectory {
    /// Names the directory, which need not exist.
    pub(crate) fn named(root: &RunRoot, sandbox: SandboxId) -> Self {
        Self { path: root.of(sandbox) }
    }

    /// Makes the directory with the guest in it, for `owner` to use inside, and for `engine` to find.
    pub(crate) fn prepare(&self, root: &RunRoot, guest: &[u8], owner: (u32, u32), engine: (u32, u32)) -> Result<()> {
        root.ensure()?;
        let length = self.socket().as_os_str().len();
        if length > MAX_SOCKET_PATH {
            let message =
                format!("run directory {} is too long: its socket's path has {length} bytes", self.path.display());
            return Err(Error::new(ErrorKind::InvalidInput, message).with_hint(format!(
                "at most {MAX_SOCKET_PATH} bytes are allowed (unix(7)): name a shorter directory"
            )));
        }
        let mine = |error| Error::io(format!("cannot write the run directory {}", self.path.display()), error);
        let private = |path: &Path| DirBuilder::new().mode(0o700).create(path);
        private(&self.path).map_err(mine)?;
        fs::write(self.path.join(OWNER), Owner::current()?.to_string()).map_err(mine)?;
        let directory = self.guest_directory();
        private(&directory).map_err(mine)?;
        if !is_me(owner) {
            let_pass(root.path(), &self.path, owner.1, engine.1).map_err(mine)?;
        }
        let program = directory.join(GUEST_PROGRAM);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o500).open(&program).map_err(mine)?;
        file.write_all(guest).map_err(mine)?;
        for path in [&program, &directory] {
            give(path, owner).map_err(mine)?;
        }
        Ok(())
    }

    /// Who holds the sandbox; `None` if the directory does not say.
    pub(crate) fn owner(&self) -> Option<Owner> {
        fs::read_to_string(self.path.join(OWNER)).ok()?.parse().ok()
    }

    /// Notes what of the host the agent may write to, before it can.
    pub(crate) fn expose(&self, exposed: &Exposed) -> Result<()> {
        let mut text = exposed.directory.as_os_str().as_bytes().to_vec();
        for part in &exposed.covered {
            text.push(0);
            text.extend(part.as_os_str().as_bytes());
        }
        fs::write(self.path.join(EXPOSED), text)
            .map_err(|error| Error::io(format!("cannot write the run directory {}", self.path.display()), error))
    }

    /// Listens for the guest, who is `owner`.
    pub(crate) fn listen(&self, owner: (u32, u32)) -> Result<UnixListener> {
        let socket = self.socket();
        let listen = || {
            let listener = UnixListener::bind(&socket)?;
            give(&socket, owner)?;
            Ok(listener)
        };
        listen().map_err(|error: io::Error| Error::io(format!("cannot listen on {}", socket.display()), error))
    }

    /// Removes the socket's name: whoever comes later finds no door.
    pub(crate) fn close_door(&self) -> Result<()> {
        fs::remove_file(self.socket())
            .map_err(|error| Error::io(format!("cannot remove {}", self.socket().display()), error))
    }

    /// What is mounted into the container.
    pub(crate) fn guest_directory(&self) -> PathBuf {
        self.path.join("guest")
    }

    fn socket(&self) -> PathBuf {
        self.guest_directory().join(GUEST_SOCKET)
    }

    /// The file that names what is made in the workspace.
    pub(crate) fn placeholders(&self) -> PathBuf {
        self.path.join(PLACEHOLDERS)
    }

    /// Removes everything, also in the workspace; `Ok` means that it is gone.
    pub(crate) fn remove(&self) -> Result<()> {
        cover::clear(&self.placeholders())?;
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(format!("cannot remove the run directory {}", self.path.display()), error))
            }
            _ => Ok(()),
        }
    }
}

/// Makes a directory if it is missing, and refuses one that others could write to.
pub(crate) fn ensure_private(path: &Path, what: &str) -> Result<()> {
    let shown = path.display();
    let failed = |error| Error::io(format!("cannot use {what} {shown}"), error);
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    let data = fs::symlink_metadata(path).map_err(failed)?;
    let owner = rustix::process::geteuid().as_raw();
    if !data.is_dir() || data.uid() != owner || data.mode() & 0o022 != 0 {
        return Err(Error::new(ErrorKind::Denied, format!("{what} {shown} is open to other users"))
            .with_hint(format!("make it a directory of user {owner} with mode 0700, or name another")));
    }
    Ok(())
}

/// Gives a path to a user who is somebody else outside than inside. Who cannot give anything away lets that user in with all
/// others, who do not get that far: see [`let_pass`].
fn give(path: &Path, (uid, gid): (u32, u32)) -> io::Result<()> {
    if is_me((uid, gid)) {
        return Ok(());
    }
    if rustix::process::geteuid().is_root() {
        return chown(path, Some(uid), Some(gid));
    }
    let data = fs::symlink_metadata(path)?;
    let of_owner = if data.is_dir() { 0o500 } else { 0o700 };
    let mode = data.permissions().mode() & 0o777;
    fs::set_permissions(path, Permissions::from_mode(mode | (mode & of_owner) >> 6))
}

fn is_me(owner: (u32, u32)) -> bool {
    owner == (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

/// Lets a group pass through a run directory, and everybody through the root, where the names cannot be guessed. Where two groups
/// must pass, or none can be let in, everybody passes who knows the name.
fn let_pass(root: &Path, directory: &Path, group: u32, engine: u32) -> io::Result<()> {
    let mode = fs::metadata(root)?.permissions().mode() & 0o7777;
    if mode & 0o011 != 0o011 {
        fs::set_permissions(root, Permissions::from_mode(mode | 0o011))?;
    }
    if !rustix::process::geteuid().is_root() || group != engine {
        return fs::set_permissions(directory, Permissions::from_mode(0o711));
    }
    chown(directory, None, Some(group))?;
    fs::set_permissions(directory, Permissions::from_mode(0o710))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_directory_is_private_and_goes_away() {
        let temporary = tempfile::tempdir().unwrap();
        let root = RunRoot::new(temporary.path().join("run"));
        let id = SandboxId::random().unwrap();
        let directory = RunDirectory::named(&root, id);
        let me = rustix::process::geteuid().as_raw();
        directory.prepare(&root, b"program", (me, me), (me, me)).unwrap();
        for path in [root.path().to_owned(), root.of(id), directory.guest_directory()] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o700);
        }
        assert_eq!(root.sandboxes().unwrap(), [id]);
        assert_eq!(directory.owner(), Some(Owner::current().unwrap()));
        directory.remove().unwrap();
        directory.remove().unwrap();
        assert!(root.sandboxes().unwrap().is_empty());
    }

    #[test]
    fn another_user_may_pass_and_do_nothing_else() {
        let temporary = tempfile::tempdir().unwrap();
        let root = RunRoot::new(temporary.path().join("run"));
        let id = SandboxId::random().unwrap();
        let directory = RunDirectory::named(&root, id);
        let prepared = directory.prepare(&root, b"program", (54_321, 54_322), (54_321, 54_322));
        if rustix::process::geteuid().as_raw() != 0 {
            // Only root gives files away; whoever cannot lets that user in with others.
            prepared.unwrap();
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&root.of(id)), mode(&directory.guest_directory())), (0o711, 0o705));
            return;
        }
        prepared.unwrap();
        for (path, mode, uid, gid) in [
            (root.path().to_owned(), 0o711, 0, 0),
            (root.of(id), 0o710, 0, 54_322),
            (directory.guest_directory(), 0o700, 54_321, 54_322),
            (directory.guest_directory().join(GUEST_PROGRAM), 0o500, 54_321, 54_322),
        ] {
            let data = fs::metadata(&path).unwrap();
            assert_eq!((data.mode() & 0o7777, data.uid(), data.gid()), (mode, uid, gid), "{}", path.display());
        }
        root.ensure().unwrap();
    }

    #[test]
    fn a_root_that_others_can_write_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        fs::set_permissions(temporary.path(), Permissions::from_mode(0o777)).unwrap();
        let root = RunRoot::new(temporary.path());
        let directory = RunDirectory::named(&root, SandboxId::random().unwrap());
        assert_eq!(directory.prepare(&root, b"", (0, 0), (0, 0)).unwrap_err().kind(), ErrorKind::Denied);
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_refused_before_anything_is_made() {
        let temporary = tempfile::tempdir().unwrap();
        let root = RunRoot::new(temporary.path().join("x".repeat(90)));
        let directory = RunDirectory::named(&root, SandboxId::random().unwrap());
        assert_eq!(directory.prepare(&root, b"", (0, 0), (0, 0)).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert!(root.sandboxes().unwrap().is_empty());
    }
}
