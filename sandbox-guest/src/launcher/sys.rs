//! The calls of a launch for which no safe wrapper exists.

#![expect(unsafe_code, reason = "clone, loop devices, mount attributes and filters have no safe wrapper")]

use std::ffi::{c_int, c_long, c_ulong};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::mount::MountAttrFlags;
use rustix::process::Pid;
use rustix::thread::UnshareFlags;

use crate::sys::exit;

/// Runs `body` in a child with namespaces of its own (`CLONE_NEW*` of clone(2)), which exits when that returns.
pub(super) fn spawn_into(namespaces: c_int, body: &mut dyn FnMut()) -> io::Result<Pid> {
    let flags = c_long::from(namespaces | libc::SIGCHLD);
    // SAFETY: with no stack and no flag that shares anything, this is fork(2); the process has one thread, so no lock is
    // held and no state is half-changed.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0_u64, 0_u64, 0_u64, 0_u64) } {
        0 => {
            body();
            exit(1)
        }
        child => i32::try_from(child)
            .ok()
            .filter(|&child| child > 0)
            .and_then(Pid::from_raw)
            .ok_or_else(io::Error::last_os_error),
    }
}

/// Makes and opens files as somebody else from now on (setfsuid(2), setfsgid(2)).
pub(super) fn act_on_files_as(uid: u32, gid: u32) {
    // SAFETY: take plain numbers; neither tells whether it worked, and the owners of what is made will.
    unsafe {
        libc::setfsgid(gid);
        libc::setfsuid(uid);
    }
}

/// Leaves namespaces for new ones (unshare(2)).
pub(super) fn unshare(namespaces: UnshareFlags) -> io::Result<()> {
    // SAFETY: the process has one thread, and descriptors stay as they are.
    Ok(unsafe { rustix::thread::unshare_unsafe(namespaces) }?)
}

/// The kernel's `struct mount_attr` (`mount_setattr(2)`).
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    namespace: u64,
}

/// Sets attributes of one mount, and shows its files with the owners of a user namespace (`mount_setattr(2)`).
pub(super) fn set_mount_attributes(
    mount: BorrowedFd<'_>,
    set: MountAttrFlags,
    namespace: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut attributes = MountAttributes { set: set.bits().into(), clear: 0, propagation: 0, namespace: 0 };
    if let Some(namespace) = namespace {
        attributes.set |= u64::from(MountAttrFlags::MOUNT_ATTR_IDMAP.bits());
        attributes.namespace = u64::from(namespace.as_raw_fd().unsigned_abs());
    }
    // SAFETY: the path is an empty C string, the structure outlives the call and has the size that is told.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw mut attributes,
            size_of::<MountAttributes>(),
        )
    };
    check(result)
}

/// `LOOP_CTL_GET_FREE` and `LOOP_CONFIGURE` (loop(4)).
const LOOP_CTL_GET_FREE: c_ulong = 0x4C82;
const LOOP_CONFIGURE: c_ulong = 0x4C0A;
/// `LO_FLAGS_AUTOCLEAR`: the device lets go of its file at the last close.
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// The number of a loop device that nobody uses yet.
pub(super) fn free_loop_device(control: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: takes no argument.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) };
    u32::try_from(number).map_err(|_| io::Error::last_os_error())
}

/// The kernel's `struct loop_config` with its `struct loop_info64`, as numbers: a file, a block size, 232 bytes of
/// settings of which only the flags are not zero, and 64 bytes that are kept free (loop(4)).
#[repr(C)]
struct LoopConfiguration {
    file: u32,
    block_size: u32,
    before_flags: [u32; 13],
    flags: u32,
    after_flags: [u32; 44],
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<LoopConfiguration>() == 8 + 232 + 64, "as large as the kernel's");

/// Puts a file behind a loop device, until the device is closed for the last time.
pub(super) fn configure_loop_device(device: BorrowedFd<'_>, file: BorrowedFd<'_>) -> io::Result<()> {
    let configuration = LoopConfiguration {
        file: file.as_raw_fd().unsigned_abs(),
        block_size: 0,
        before_flags: [0; 13],
        flags: LO_FLAGS_AUTOCLEAR,
        after_flags: [0; 44],
        reserved: [0; 8],
    };
    // SAFETY: the structure has the kernel's size and layout, and outlives the call.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, &raw const configuration) }.into())
}

/// `IFF_UP` and `IFF_RUNNING`, in the width that the request has (netdevice(7)).
const UP: i16 = 0x1 | 0x40;

/// Brings the loopback interface up (netdevice(7)).
pub(super) fn loopback_up() -> io::Result<()> {
    // SAFETY: takes plain numbers; the descriptor is new and owned by nobody else.
    let socket = unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(socket)
    };
    // SAFETY: all zeros is a valid `ifreq`.
    let mut request = unsafe { std::mem::zeroed::<libc::ifreq>() };
    for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
        *to = from.cast_signed() as _;
    }
    request.ifr_ifru.ifru_flags = UP;
    // SAFETY: the request outlives the call, and its name ends with a zero.
    check(unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) }.into())
}

/// Installs a filter, given as instructions of eight bytes each (seccomp(2)).
pub(super) fn install_filter(instructions: &[u8]) -> io::Result<()> {
    let mut program: Vec<libc::sock_filter> = instructions
        .chunks_exact(size_of::<libc::sock_filter>())
        .map(|bytes| libc::sock_filter {
            code: u16::from_ne_bytes([bytes[0], bytes[1]]),
            jt: bytes[2],
            jf: bytes[3],
            k: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        })
        .collect();
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: the program points to as many instructions as it says, which outlive the call; the kernel checks them.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    check(result)
}

/// Removes the capabilities that a mask does not hold from the bounding set (capabilities(7)).
pub(super) fn limit_bounding_set(kept: u64) -> io::Result<()> {
    for capability in (0..64_u64).filter(|capability| kept & (1 << capability) == 0) {
        // SAFETY: takes plain numbers.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0_u64, 0_u64, 0_u64) };
        if let Err(error) = check(result.into()) {
            // The kernel knows fewer.
            return if error.raw_os_error() == Some(libc::EINVAL) { Ok(()) } else { Err(error) };
        }
    }
    Ok(())
}

fn check(result: c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
