//! What of the kernel's file systems no sandbox may see, and what its root may not write.

/// What is hidden: what tells a kernel's or a host's secrets to any user, and what administers the machine.
pub(crate) const MASKED: [&str; 24] = [
    "/proc/acpi",       // switches of the machine
    "/proc/asound",     // the host's sound cards
    "/proc/cmdline",    // boot parameters may hold secrets
    "/proc/config.gz",  // which weaknesses the kernel was built with
    "/proc/diskstats",  // what other tenants do
    "/proc/interrupts", // a side channel on keystrokes (moby GHSA-6fw5-f8r9-fgfm)
    "/proc/kallsyms",   // addresses of the kernel, where kptr_restrict is 0
    "/proc/kcore",      // memory of the host
    "/proc/key-users",  // users of the host
    "/proc/keys",       // keys of the host
    "/proc/latency_stats",
    "/proc/modules",     // which weaknesses are loaded
    "/proc/sched_debug", // processes of the host
    "/proc/scsi",        // removes devices, when written
    "/proc/softirqs",    // what other tenants do
    "/proc/timer_list",  // addresses of the kernel
    "/proc/timer_stats",
    "/sys/block", // the host's disks
    "/sys/dev/block",
    "/sys/devices/virtual/dmi",      // serial numbers of the machine
    "/sys/devices/virtual/powercap", // a power side channel (CVE-2020-8694)
    "/sys/firmware",                 // tables of the firmware
    "/sys/kernel",                   // addresses, types and debugging of the kernel
    "/sys/module",                   // parameters of drivers
];

/// What root inside may not write (proc(5)).
pub(crate) const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
