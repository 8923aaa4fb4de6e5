//! System calls behind safe types: network devices ([`netdev`], [`rtnl`], [`ethtool`]), raw packet sockets
//! ([`packet`]), AF_XDP sockets ([`xsk`]) and their memory ([`umem`]), eBPF maps, programs and links
//! ([`bpf`]), and arrays as memory ([`mapped`]).

#![expect(
    unsafe_code,
    reason = "the one place where this crate calls the kernel"
)]

pub mod bpf;
pub mod ethtool;
pub mod mapped;
pub mod netdev;
pub mod packet;
pub mod rtnl;
pub mod umem;
pub mod xsk;

use std::io;

/// Result of a call that gives -1 and `errno` on failure.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// `CLOCK_MONOTONIC`, ns: the clock of `bpf_ktime_get_ns`.
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is a writable timespec that lives through the call, which writes nothing else.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    // The monotonic clock is not negative, and fits 584 years of nanoseconds.
    (now.tv_sec as u64)
        .wrapping_mul(1_000_000_000)
        .wrapping_add(now.tv_nsec as u64)
}

/// Raises the limit on locked memory as far as allowed (kernels before 5.11 charge maps to it).
pub fn raise_memlock() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a writable rlimit that lives through the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) } != 0 {
        return;
    }
    let all = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    let most = libc::rlimit {
        rlim_cur: limit.rlim_max,
        rlim_max: limit.rlim_max,
    };
    for wanted in [all, most] {
        // SAFETY: `wanted` is a readable rlimit that lives through the call.
        if unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &wanted) } == 0 {
            return;
        }
    }
}
