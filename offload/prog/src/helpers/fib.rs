//! `bpf_fib_lookup`: programs ask where a packet would be sent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of `struct bpf_fib_lookup`.
pub const PARAMS: usize = 64;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// `BPF_FIB_LOOKUP_DIRECT` to `BPF_FIB_LOOKUP_MARK`.
const FLAGS: u64 = 0x3f;
/// `BPF_FIB_LOOKUP_SKIP_NEIGH`: MAC addresses are not wanted.
const SKIP_NEIGH: u64 = 4;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// Port the packet came in on.
    pub ifindex: u32,
    /// Where it comes from.
    pub source: IpAddr,
    /// Where it goes.
    pub destination: IpAddr,
    /// Length of the packet from its IP header on; 0 when that shall not be checked.
    pub length: u16,
}

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Send it there (`BPF_FIB_LKUP_RET_SUCCESS`).
    Forward {
        /// Port it leaves by.
        ifindex: u32,
        /// Next hop's address; the destination where it is on the link.
        next_hop: IpAddr,
        /// The port's MAC address.
        source: [u8; 6],
        /// The next hop's; `None` when nobody knows it yet (`BPF_FIB_LKUP_RET_NO_NEIGH`).
        destination: Option<[u8; 6]>,
        /// Largest IP packet the port takes, in bytes.
        mtu: u16,
    },
    /// The table says to drop it (`BPF_FIB_LKUP_RET_BLACKHOLE`).
    Drop,
    /// It is not to be forwarded: it is for this machine, or nothing leads there (`BPF_FIB_LKUP_RET_NOT_FWDED`).
    NotForwarded,
}

/// Whoever knows routes and neighbours. Asked on the packet path, so it should not wait.
pub trait Fib: Send + Sync {
    /// Where a packet goes.
    fn lookup(&self, query: &Query) -> Answer;
}

// `BPF_FIB_LKUP_RET_*`.
const SUCCESS: i64 = 0;
const BLACKHOLE: i64 = 1;
const NOT_FWDED: i64 = 4;
const NO_NEIGH: i64 = 7;
const FRAG_NEEDED: i64 = 8;

/// Answers in `struct bpf_fib_lookup`: family at 0, length at 6, ifindex at 8, addresses at 16 and 32, VLAN at
/// 48, MACs at 52 and 58.
pub(crate) fn lookup(fib: Option<&dyn Fib>, params: &mut [u8; PARAMS], flags: u64) -> i64 {
    let invalid = crate::Errno::Inval.negative();
    if flags & !FLAGS != 0 {
        return invalid;
    }
    let address = |at: usize, params: &[u8; PARAMS]| {
        let four: [u8; 4] = std::array::from_fn(|i| params[at + i]);
        let sixteen: [u8; 16] = std::array::from_fn(|i| params[at + i]);
        match params[0] {
            AF_INET => Some(IpAddr::V4(Ipv4Addr::from(four))),
            AF_INET6 => Some(IpAddr::V6(Ipv6Addr::from(sixteen))),
            _ => None,
        }
    };
    let (Some(source), Some(destination)) = (address(16, params), address(32, params)) else {
        return -97; // EAFNOSUPPORT
    };
    let length = u16::from_ne_bytes([params[6], params[7]]);
    let query = Query {
        ifindex: u32::from_ne_bytes(std::array::from_fn(|i| params[8 + i])),
        source,
        destination,
        length,
    };
    let answer = fib.map_or(Answer::NotForwarded, |fib| fib.lookup(&query));
    let Answer::Forward {
        ifindex,
        next_hop,
        source,
        destination,
        mtu,
    } = answer
    else {
        return match answer {
            Answer::Drop => BLACKHOLE,
            _ => NOT_FWDED,
        };
    };
    params[8..12].copy_from_slice(&ifindex.to_ne_bytes());
    if length > mtu {
        params[6..8].copy_from_slice(&mtu.to_ne_bytes());
        return FRAG_NEEDED;
    }
    // A next hop of the other family does not fit the question's; Linux then changes the family.
    match next_hop {
        IpAddr::V4(hop) => {
            params[0] = AF_INET;
            params[32..36].copy_from_slice(&hop.octets());
        }
        IpAddr::V6(hop) => {
            params[0] = AF_INET6;
            params[32..48].copy_from_slice(&hop.octets());
        }
    }
    params[48..52].fill(0);
    if flags & SKIP_NEIGH != 0 {
        return SUCCESS;
    }
    let Some(destination) = destination else {
        return NO_NEIGH;
    };
    params[52..58].copy_from_slice(&source);
    params[58..64].copy_from_slice(&destination);
    SUCCESS
}
