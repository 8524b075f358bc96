//! The calls for which no safe wrapper exists.
//!
//! All unsafe code of the guest is here. What makes most of it sound is one rule: the guest has a single thread, so a
//! child of `fork(2)` is a whole process, which may allocate and lock as it likes.

#![expect(unsafe_code, reason = "fork, execve and signal dispositions have no safe wrapper")]

use std::ffi::{CStr, CString, c_int};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::{Duration, Instant};

use rustix::process::Pid;

/// The highest signal of Linux (signal(7)).
const LAST_SIGNAL: c_int = 64;

/// How long a process that has no room yet is tried again.
const MAX_CROWD: Duration = Duration::from_millis(250);

/// Runs `body` in a child, which exits with the status that it returns, and gives the child's process id.
///
/// A process counts until it has been reaped, and whoever waits for the end of its output may see that earlier. So a
/// sandbox that is full right now is tried again for a moment.
pub(crate) fn spawn(body: &mut dyn FnMut() -> u8) -> io::Result<Pid> {
    let latest = Instant::now() + MAX_CROWD;
    loop {
        match fork(body) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < latest => {
                std::thread::sleep(Duration::from_millis(1));
            }
            result => return result,
        }
    }
}

fn fork(body: &mut dyn FnMut() -> u8) -> io::Result<Pid> {
    // SAFETY: the process has one thread (see the module), so no lock is held and no state is half-changed.
    match unsafe { libc::fork() } {
        0 => {
            let bomb = ExitOnDrop;
            let status = body();
            std::mem::forget(bomb);
            exit(status)
        }
        ..0 => Err(io::Error::last_os_error()),
        child => Pid::from_raw(child).ok_or_else(io::Error::last_os_error),
    }
}

/// Ends a child that unwinds, before it could return into its parent's frames.
struct ExitOnDrop;

impl Drop for ExitOnDrop {
    fn drop(&mut self) {
        exit(101)
    }
}

/// Ends this process at once, running nothing that its parent has registered.
pub(crate) fn exit(status: u8) -> ! {
    // SAFETY: `_exit` takes any status and does not return.
    unsafe { libc::_exit(c_int::from(status)) }
}

/// Replaces this process by a program; returns only if that failed.
pub(crate) fn execute(program: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
    };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: both arrays end with a null pointer, and their strings outlive the call.
    unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// The kernel's `struct sigaction` for a default disposition: handler, flags, restorer and mask (`rt_sigaction(2)`).
static DEFAULT_ACTION: [u64; 4] = [0; 4];

/// Gives every signal its default disposition and blocks none.
pub(crate) fn default_signals() {
    for signal in 1..=LAST_SIGNAL {
        // By number, since C libraries keep two signals to themselves, and whoever started us may ignore those too.
        // SAFETY: all zeros is the kernel's `sigaction` for the default, with an 8-byte mask, and installs no handler;
        // signals that cannot be changed are refused with an error that is harmless.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, &raw const DEFAULT_ACTION, ptr::null_mut::<u64>(), 8) };
    }
    // SAFETY: the set is initialised by `sigemptyset` before it is read, and no old set is asked for.
    unsafe {
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// Ignores a signal. For `SIGCHLD` that makes the kernel reap children (wait(2), notes).
pub(crate) fn ignore_signal(signal: c_int) {
    // SAFETY: installs no handler.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Blocks signals and gives a descriptor that becomes readable when one of them has come (signalfd(2)).
pub(crate) fn signal_descriptor(signals: &[c_int]) -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by `sigemptyset` before it is read; the descriptor is new and owned by nobody else.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        for &signal in signals {
            libc::sigaddset(&raw mut set, signal);
        }
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let descriptor = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if descriptor < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(descriptor)) }
    }
}

/// How many bytes a signal descriptor gives for each signal, of which the first four are its number (signalfd(2)).
pub(crate) const SIGNAL_INFO: usize = size_of::<libc::signalfd_siginfo>();

/// Sends a signal to a process, or to a group if `target` is negative (kill(2)).
pub(crate) fn kill(target: i32, signal: c_int) -> io::Result<()> {
    // SAFETY: takes plain numbers.
    check(unsafe { libc::kill(target, signal) })
}

/// This process's group; 0 if its leader is outside the PID namespace (credentials(7)).
pub(crate) fn group() -> i32 {
    // SAFETY: no memory is involved, and it cannot fail.
    unsafe { libc::getpgrp() }
}

/// Closes every descriptor from 3 on; for a process that owns none yet.
pub(crate) fn close_inherited() {
    if close_range(0).is_err() {
        for descriptor in 3..FALLBACK_DESCRIPTORS {
            // SAFETY: called before this process opens or owns any descriptor from 3 on.
            unsafe { libc::close(descriptor) };
        }
    }
}

/// Marks every descriptor from 3 on to be closed by `execve(2)`.
pub(crate) fn close_on_execute() {
    if close_range(libc::CLOSE_RANGE_CLOEXEC.cast_signed()).is_err() {
        for descriptor in 3..FALLBACK_DESCRIPTORS {
            // SAFETY: sets a flag; a descriptor that is not open is refused with an error that is harmless.
            unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}

/// How far descriptors are searched where `close_range(2)` is missing (before Linux 5.11, or filtered).
const FALLBACK_DESCRIPTORS: RawFd = 4096;

fn close_range(flags: c_int) -> io::Result<()> {
    // SAFETY: takes plain numbers; the callers say who owns what is closed. By number, since old C libraries lack it.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Calls that a filter of ours stops, each of them harmless in a process that is about to end.
///
/// Without a filter, none of them fails with `EPERM` for an unprivileged process, unless the whole machine has them off.
pub(crate) const FILTERED: [&str; 4] = ["add_key", "io_uring_setup", "socket(AF_VSOCK)", "unshare(CLONE_NEWUSER)"];

/// Tries the calls of [`FILTERED`], in that order; tells which of them were not refused.
pub(crate) fn get_through() -> [bool; FILTERED.len()] {
    let key = || {
        // SAFETY: null pointers and a size of 0 are refused by the kernel before it reads anything.
        got_through(unsafe { libc::syscall(libc::SYS_add_key, 0_usize, 0_usize, 0_usize, 0_usize, 0) })
    };
    let ring = || {
        // SAFETY: as above; a ring of no entries with no parameters is never made.
        got_through(unsafe { libc::syscall(libc::SYS_io_uring_setup, 0, 0_usize) })
    };
    let socket = || {
        // SAFETY: no memory is involved; a descriptor that comes back is closed with the process.
        got_through(unsafe { libc::syscall(libc::SYS_socket, libc::AF_VSOCK, libc::SOCK_STREAM, 0) })
    };
    let namespace = || {
        // SAFETY: no memory is involved; the process is single-threaded and ends after its report.
        got_through(unsafe { libc::syscall(libc::SYS_unshare, libc::CLONE_NEWUSER) })
    };
    [key(), ring(), socket(), namespace()]
}

/// Whether a call was let through to the kernel: it returned, or failed for a reason of its own.
fn got_through(returned: libc::c_long) -> bool {
    returned >= 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EPERM)
}

/// Removes every capability but these from the bounding set; `EPERM` without `CAP_SETPCAP` (capabilities(7)).
pub(crate) fn limit_bounding_set(kept: u64) -> io::Result<()> {
    for capability in (0..64_u64).filter(|capability| kept & (1 << capability) == 0) {
        // SAFETY: takes plain numbers.
        if let Err(error) = check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0_u64, 0_u64, 0_u64) }) {
            return if error.raw_os_error() == Some(libc::EINVAL) { Ok(()) } else { Err(error) };
        }
    }
    Ok(())
}

/// Whether this process can gain no privilege (`PR_GET_NO_NEW_PRIVS`).
pub(crate) fn no_new_privileges() -> bool {
    // SAFETY: takes plain numbers.
    unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0_u64, 0_u64, 0_u64, 0_u64) == 1 }
}

/// The capabilities in the bounding set.
pub(crate) fn bounding_set() -> u64 {
    let holds = |capability: &u64| {
        // SAFETY: takes plain numbers; a capability that the kernel does not know is -1.
        unsafe { libc::prctl(libc::PR_CAPBSET_READ, *capability, 0_u64, 0_u64, 0_u64) == 1 }
    };
    (0..64_u64).filter(holds).fold(0, |set, capability| set | 1 << capability)
}

/// The real, effective and saved user ids, and the same of the group.
pub(crate) fn identities() -> io::Result<([u32; 3], [u32; 3])> {
    let (mut user, mut group) = ([0; 3], [0; 3]);
    let [real, effective, saved] = &mut user;
    // SAFETY: the pointers are to distinct, live integers of the right type.
    check(unsafe { libc::getresuid(real, effective, saved) })?;
    let [real, effective, saved] = &mut group;
    // SAFETY: as above.
    check(unsafe { libc::getresgid(real, effective, saved) })?;
    Ok((user, group))
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
