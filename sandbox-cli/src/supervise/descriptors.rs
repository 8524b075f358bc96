//! Keeps descriptors that this process was handed, knowingly or not, from the processes that it starts.
#![expect(unsafe_code, reason = "descriptors that nobody owns can only be named by their numbers")]

use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::{FdFlags, fcntl_setfd};

/// Marks everything above standard error to be closed when another program is executed (`FD_CLOEXEC`, fcntl(2)).
pub(super) fn keep_from_children() -> io::Result<()> {
    let entries = std::fs::read_dir("/proc/self/fd")?;
    for number in entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
        if number <= 2 {
            continue;
        }
        // SAFETY: the number came from the kernel a moment ago, is not negative, and is used for one call that takes a
        // number of no descriptor for an error and changes nothing but a flag that the standard library sets as well.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        match fcntl_setfd(descriptor, FdFlags::CLOEXEC) {
            // The directory's own descriptor may be closed by now.
            Ok(()) | Err(rustix::io::Errno::BADF) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_descriptor_that_would_be_inherited_is_not() {
        let (_read, write) = io::pipe().unwrap();
        fcntl_setfd(&write, FdFlags::empty()).unwrap();
        let sees = || {
            let path = format!("/proc/self/fd/{}", write.as_raw_fd());
            Command::new("ls").arg(path).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
        };
        assert!(sees());
        keep_from_children().unwrap();
        assert!(!sees());
    }
}
