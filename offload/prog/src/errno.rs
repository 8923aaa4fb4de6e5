//! Errors of maps, with Linux's numbers.

use thiserror::Error;

/// Why a map refused, as Linux's maps say it (`include/uapi/asm-generic/errno-base.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[repr(i32)]
pub enum Errno {
    /// The map is read-only to whoever asks.
    #[error("EPERM: not permitted on this map")]
    Perm = 1,
    /// No such element, or the queue is empty.
    #[error("ENOENT: no such element")]
    NoEnt = 2,
    /// Full, or an index beyond the last.
    #[error("E2BIG: the map is full or the index beyond its last")]
    TooBig = 7,
    /// A ring buffer has no space now.
    #[error("EAGAIN: no space now")]
    Again = 11,
    /// The system gave no memory for it.
    #[error("ENOMEM: no memory")]
    NoMem = 12,
    /// More of the packet is asked for than there is.
    #[error("EFAULT: more of the packet than there is")]
    Fault = 14,
    /// The element is there already.
    #[error("EEXIST: the element is there already")]
    Exist = 17,
    /// Not an argument this kind of map takes.
    #[error("EINVAL: not what this kind of map takes")]
    Inval = 22,
    /// An LPM trie, or a worker's ring of perf events, is full.
    #[error("ENOSPC: no room")]
    NoSpc = 28,
    /// Not an operation of this kind of map (`EOPNOTSUPP`).
    #[error("EOPNOTSUPP: not an operation of this kind of map")]
    NotSupp = 95,
}

impl Errno {
    /// As helpers return it: negative.
    pub fn negative(self) -> i64 {
        -i64::from(self as i32)
    }
}

/// What a helper returns: 0 or the negative number.
pub(crate) fn to_helper(result: Result<(), Errno>) -> i64 {
    match result {
        Ok(()) => 0,
        Err(errno) => errno.negative(),
    }
}
