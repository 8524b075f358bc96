//! Gathers what a container's tree is made of, below one directory, in the namespace at hand.
//!
//! | name | what |
//! | --- | --- |
//! | `l` | the image, read-only, with the owners of the user namespace |
//! | `t0`, `t1` … | directories of the host that belong to the image, in the same way |
//! | `d` | the container's own layer: `u`, `u0` … for what is written, `w`, `w0` … for the overlays' own work, `b0` … for what is mounted |
//! | `dev` | the devices |
//! | `b0`, `b1` … | the host's directories |
//! | `b0u`, `b1u` … | trees of the host that are laid below what the container writes, as `ub0u` and `wb0u` in `d` |
//! | `r` | the new root |

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, XattrFlags, chmodat, chownat, fstat, makedev, mkdirat, mknodat,
    openat, openat2, removexattr, setxattr, symlinkat,
};
use rustix::mount::MountAttrFlags;
use rustix::process::{Gid, Uid, fchdir};
use sandbox_guest::launch::{Bind, Identities, Launch, Layer, Step, bind_name, blank_name, underlay_name};
use sandbox_guest::wire::Identity;

use super::mounts::{HARMLESS, READ_ONLY, attach, attach_here, copy, filesystem};
use super::outside::empty_user_namespace;
use super::sys::{configure_loop_device, free_loop_device};
use super::{Broken, During as _};

/// From where the parts are gathered.
#[derive(Debug)]
pub(super) enum Namespaces {
    /// From inside the new namespaces, by whoever started the launch without privilege.
    Inside,
    /// From outside, with privilege, for the user namespace that is given.
    Outside(OwnedFd),
}

/// Mounts the scratch directory and goes there.
pub(super) fn enter_scratch(launch: &Launch) -> Result<(), Broken> {
    let enter = || -> io::Result<()> {
        let place =
            openat(CWD, launch.scratch.as_slice(), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let scratch = filesystem("tmpfs", &[("size", "1m"), ("mode", "0755")], HARMLESS)?;
        attach(&scratch, &place)?;
        Ok(fchdir(&scratch)?)
    };
    enter().during(Step::Layer, "mount the scratch directory")
}

/// Gathers all parts in the current directory; gives the number of the loop device below the layer.
pub(super) fn gather(launch: &Launch, namespaces: &Namespaces) -> Result<Option<u32>, Broken> {
    for name in ["l", "d", "dev", "r"] {
        mkdirat(CWD, name, Mode::from_raw_mode(0o755)).during(Step::Layer, "prepare the scratch directory")?;
    }
    let owner = match namespaces {
        Namespaces::Inside => None,
        Namespaces::Outside(_) => Some(outside(&launch.identities, launch.identities.first)),
    };
    let number = layer(launch, owner).during(Step::Layer, "mount the container's own layer")?;
    image(&launch.image, "l", namespaces).during(Step::Image, "mount the image")?;
    for (index, tree) in launch.trees.iter().enumerate() {
        let name = format!("t{index}");
        let show = || -> io::Result<()> {
            mkdirat(CWD, &name, Mode::from_raw_mode(0o755))?;
            image(tree, &name, namespaces)
        };
        show().during(Step::Image, format!("mount the image's {}", tree.escape_ascii()))?;
    }
    devices(namespaces, owner).during(Step::System, "make the devices")?;
    for (index, underlay) in launch.underlays.iter().enumerate() {
        let show = || {
            let source = resolved(&underlay.source)?;
            let owners = underlay.owner.map(|(host, inside)| one_owner(host, inside)).transpose()?;
            let name = underlay_name(index);
            mkdirat(CWD, &name, Mode::from_raw_mode(0o755))?;
            attach_here(&copy(source.as_fd(), "", HARMLESS | READ_ONLY, owners.as_ref().map(AsFd::as_fd))?, &name)
        };
        show().during(Step::Bind, format!("mount the host's {}", underlay.source.escape_ascii()))?;
    }
    for (index, bind) in launch.binds.iter().enumerate() {
        let doing = || format!("mount the host's {}", Path::new(OsStr::from_bytes(&bind.source)).display());
        bring(launch, bind, index).during(Step::Bind, doing())?;
    }
    Ok(number)
}

/// Who somebody inside is, outside.
pub(super) fn outside(identities: &Identities, whom: Identity) -> Identity {
    let of = |map: &[(u32, u32, u32)], id: u32| {
        let line = map.iter().find(|(inside, _, length)| id >= *inside && id - inside < *length);
        line.map_or(u32::MAX, |(inside, outside, _)| outside.saturating_add(id - inside))
    };
    Identity { uid: of(&identities.users, whom.uid), gid: of(&identities.groups, whom.gid) }
}

fn give(name: &str, owner: Option<Identity>) -> io::Result<()> {
    let Some(Identity { uid, gid }) = owner else { return Ok(()) };
    Ok(chownat(CWD, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn layer(launch: &Launch, owner: Option<Identity>) -> io::Result<Option<u32>> {
    let (mount, number) = match &launch.layer {
        Layer::Directory(path) => (copy(CWD, path.as_slice(), HARMLESS, None)?, None),
        Layer::Memory { bytes, inodes } => {
            let (size, inodes) = (bytes.to_string(), inodes.to_string());
            let options = [("size", size.as_str()), ("nr_inodes", &inodes), ("mode", "0755")];
            (filesystem("tmpfs", &options, HARMLESS)?, None)
        }
        Layer::Image(path) => {
            let path = Path::new(OsStr::from_bytes(path));
            let file = File::options().read(true).write(true).open(path)?;
            let (number, device) = loop_device(&file)?;
            let source = format!("/dev/loop{number}");
            // Nothing is kept after the last unmount, so that neither a journal nor a table need be written; what is
            // removed inside gives its space back to the host (ext4(5)).
            let options =
                [("source", source.as_str()), ("noinit_itable", ""), ("discard", ""), ("errors", "remount-ro")];
            let mount = filesystem("ext4", &options, HARMLESS)?;
            drop(device);
            fs::remove_file(path)?;
            (mount, Some(number))
        }
    };
    attach_here(&mount, "d")?;
    if let Layer::Memory { .. } = launch.layer {
        // Kernels before 6.6 keep none in memory, and there an overlay cannot mark what was replaced (tmpfs(5)).
        setxattr("d", "user.overlay.tried", b"y", XattrFlags::empty())?;
        removexattr("d", "user.overlay.tried")?;
    }
    let trees = (0..launch.trees.len()).map(|index| index.to_string());
    for suffix in trees.chain([String::new()]) {
        for name in [format!("d/u{suffix}"), format!("d/w{suffix}")] {
            mkdirat(CWD, &name, Mode::from_raw_mode(0o755))?;
            give(&name, owner)?;
        }
    }
    for (index, underlay) in launch.underlays.iter().enumerate() {
        let [upper, work] = ["u", "w"].map(|part| format!("d/{part}{}", underlay_name(index)));
        mkdirat(CWD, &upper, Mode::from_raw_mode(0o755))?;
        give(&upper, owner.and(Some(outside(&launch.identities, underlay.writer))))?;
        mkdirat(CWD, &work, Mode::from_raw_mode(0o755))?;
        give(&work, owner)?;
    }
    for (index, blank) in launch.blanks.iter().enumerate() {
        let name = format!("d/{}", blank_name(index));
        mkdirat(CWD, &name, Mode::RWXU)?;
        give(&name, owner.and(Some(outside(&launch.identities, blank.owner))))?;
    }
    Ok(number)
}

/// Puts a file behind a loop device that nobody uses; others may look for one at the same time.
fn loop_device(file: &File) -> io::Result<(u32, File)> {
    let control = File::options().read(true).write(true).open("/dev/loop-control")?;
    for _ in 0..MAX_ATTEMPTS {
        let number = free_loop_device(control.as_fd())?;
        let device = File::options().read(true).write(true).open(format!("/dev/loop{number}"))?;
        match configure_loop_device(device.as_fd(), file.as_fd()) {
            Ok(()) => return Ok((number, device)),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EBUSY))
}

/// How often another may be quicker.
const MAX_ATTEMPTS: u32 = 1000;

fn image(path: &[u8], name: &str, namespaces: &Namespaces) -> io::Result<()> {
    let owners = match namespaces {
        Namespaces::Inside => None,
        Namespaces::Outside(namespace) => Some(namespace.as_fd()),
    };
    attach_here(&copy(CWD, path, HARMLESS | READ_ONLY, owners)?, name)
}

/// Fills `/dev` with what every program may count on, and nothing else.
fn devices(namespaces: &Namespaces, owner: Option<Identity>) -> io::Result<()> {
    let nosuid = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    attach_here(&filesystem("tmpfs", &[("size", "64k"), ("mode", "0755")], nosuid)?, "dev")?;
    for (name, major, minor) in DEVICES {
        let path = format!("dev/{name}");
        match namespaces {
            Namespaces::Outside(_) => {
                let mode = Mode::from_raw_mode(0o666);
                mknodat(CWD, &path, FileType::CharacterDevice, mode, makedev(major, minor))?;
                // Whatever the mask is.
                chmodat(CWD, &path, mode, AtFlags::empty())?;
                give(&path, owner)?;
            }
            // A user namespace has no devices of its own, so the host's are shown.
            Namespaces::Inside => {
                File::create_new(&path)?;
                let device = copy(CWD, format!("/dev/{name}"), MountAttrFlags::empty(), None)?;
                attach_here(&device, &path)?;
            }
        }
    }
    for name in ["dev/mqueue", "dev/pts", "dev/shm"] {
        mkdirat(CWD, name, Mode::from_raw_mode(0o755))?;
        give(name, owner)?;
    }
    for (name, target) in LINKS {
        symlinkat(target, CWD, name)?;
        give(name, owner)?;
    }
    give("dev", owner)
}

/// Numbers of devices (null(4), full(4), random(4), tty(4)).
const DEVICES: [(&str, u32, u32); 6] =
    [("full", 1, 7), ("null", 1, 3), ("random", 1, 8), ("tty", 5, 0), ("urandom", 1, 9), ("zero", 1, 5)];

const LINKS: [(&str, &str); 5] = [
    ("dev/fd", "/proc/self/fd"),
    ("dev/ptmx", "pts/ptmx"),
    ("dev/stderr", "/proc/self/fd/2"),
    ("dev/stdin", "/proc/self/fd/0"),
    ("dev/stdout", "/proc/self/fd/1"),
];

/// Brings a directory or a file of the host; its path was resolved before, and no link may have taken a part's place since.
fn bring(launch: &Launch, bind: &Bind, index: usize) -> io::Result<()> {
    let source = resolved(&bind.source)?;
    let attributes = if bind.writable { HARMLESS } else { HARMLESS | READ_ONLY };
    let namespace = bind.owner.map(|(host, inside)| match launch.bundle {
        None => one_owner(host, inside),
        Some(_) => one_owner_by(outside(&launch.identities, launch.identities.first), host, inside),
    });
    let namespace = namespace.transpose()?;
    let mount = copy(source.as_fd(), "", attributes, namespace.as_ref().map(AsFd::as_fd))?;
    let name = bind_name(index);
    match kind(&source)? {
        FileType::Directory => mkdirat(CWD, &name, Mode::from_raw_mode(0o755))?,
        FileType::RegularFile => drop(File::create_new(&name)?),
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    }
    attach_here(&mount, &name)
}

/// Opens what was resolved before, by its name.
fn resolved(path: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    Ok(openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?)
}

fn kind(file: &OwnedFd) -> io::Result<FileType> {
    Ok(FileType::from_raw_mode(fstat(file)?.st_mode))
}

/// A user namespace that shows one owner as another, and everybody else as nobody: so nothing can be made in anybody
/// else's name.
fn one_owner(host: Identity, shown: Identity) -> io::Result<OwnedFd> {
    empty_user_namespace(&Identities {
        users: vec![(host.uid, shown.uid, 1)],
        groups: vec![(host.gid, shown.gid, 1)],
        first: host,
        privileged: true,
    })
}

/// The same where somebody else makes what is made and gives it to the owner at once, as gVisor does: nobody on the host has that id,
/// which is its own here.
fn one_owner_by(maker: Identity, host: Identity, shown: Identity) -> io::Result<OwnedFd> {
    empty_user_namespace(&Identities {
        users: vec![(host.uid, shown.uid, 1), (maker.uid, maker.uid, 1)],
        groups: vec![(host.gid, shown.gid, 1), (maker.gid, maker.gid, 1)],
        first: host,
        privileged: true,
    })
}

/// Copies a mount of the current directory to a place below the new root.
pub(super) fn place(name: &str, target: &OwnedFd) -> io::Result<()> {
    attach(&copy(CWD, name, MountAttrFlags::empty(), None)?, target)
}
