//! What the kernel says about a network device over rtnetlink(7): state, counters, XDP program.
//!
//! Unlike sysfs, a socket always speaks of the network namespace it was opened in.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::check;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;

// Attributes of linux/if_link.h.
const IFLA_IFNAME: u16 = 3;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_STATS64: u16 = 23;
const IFLA_CARRIER: u16 = 33;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
/// The ids of the native, SKB and hardware hooks, in `IFLA_XDP`.
const IFLA_XDP_IDS: [u16; 3] = [5, 6, 7];
/// `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`, which share the type's field.
const TYPE_MASK: u16 = 0x3fff;

/// Bytes of `nlmsghdr` and of `ifinfomsg`.
const HEADER: usize = 16;

/// Names of the counters in `struct rtnl_link_stats64`, in its order.
pub const STATS: [&str; 25] = [
    "rx_packets",
    "tx_packets",
    "rx_bytes",
    "tx_bytes",
    "rx_errors",
    "tx_errors",
    "rx_dropped",
    "tx_dropped",
    "multicast",
    "collisions",
    "rx_length_errors",
    "rx_over_errors",
    "rx_crc_errors",
    "rx_frame_errors",
    "rx_fifo_errors",
    "rx_missed_errors",
    "tx_aborted_errors",
    "tx_carrier_errors",
    "tx_fifo_errors",
    "tx_heartbeat_errors",
    "tx_window_errors",
    "rx_compressed",
    "tx_compressed",
    "rx_nohandler",
    "rx_otherhost_dropped",
];

/// The kernel's view of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkInfo {
    /// Its name now.
    pub name: String,
    /// RFC 2863 state; 6 is up, 0 is unknown (as of devices that have no carrier).
    pub operstate: u8,
    /// Its wire carries.
    pub carrier: bool,
    /// `IFF_UP`.
    pub up: bool,
    /// Id of an XDP program on it.
    pub xdp: Option<u32>,
    /// Counters, by [`STATS`]; older kernels have fewer.
    pub stats: Vec<u64>,
}

/// Asks about the device with this index; `ENODEV` when there is none (any more).
pub fn link(ifindex: u32) -> io::Result<LinkInfo> {
    // SAFETY: takes numbers only.
    let fd = check(unsafe {
        libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            libc::NETLINK_ROUTE,
        )
    })?;
    // SAFETY: `fd` was just opened and nobody else holds it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut request = [0u8; 2 * HEADER];
    request[..4].copy_from_slice(&(2 * HEADER as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&RTM_GETLINK.to_ne_bytes());
    request[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    request[20..24].copy_from_slice(&ifindex.to_ne_bytes());
    // SAFETY: the kernel reads the request's bytes, borrowed through the call. A netlink socket
    // that is not connected sends to the kernel.
    let sent = unsafe { libc::send(fd.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut answer = vec![0u8; 64 << 10];
    let len = loop {
        // SAFETY: the kernel writes at most `len` bytes to `answer`, exclusive through the call.
        let len =
            unsafe { libc::recv(fd.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0) };
        if len >= 0 {
            break len as usize;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    };
    parse(answer.get(..len).unwrap_or_default())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Type and value of each attribute; ends at the first that does not fit.
fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(rest, 0)?);
        let value = rest.get(4..len)?;
        let kind = u16_at(rest, 2)? & TYPE_MASK;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn parse(answer: &[u8]) -> io::Result<LinkInfo> {
    let short = || io::Error::other("rtnetlink gave an answer that is cut short");
    let len = u32_at(answer, 0).ok_or_else(short)? as usize;
    let message = answer.get(..len).ok_or_else(short)?;
    match u16_at(message, 4).ok_or_else(short)? {
        RTM_NEWLINK => {}
        NLMSG_ERROR => {
            let errno = u32_at(message, HEADER).ok_or_else(short)? as i32;
            return Err(io::Error::from_raw_os_error(errno.wrapping_neg()));
        }
        other => return Err(io::Error::other(format!("rtnetlink answered type {other}"))),
    }
    let flags = u32_at(message, HEADER + 8).ok_or_else(short)?;
    let mut info = LinkInfo {
        up: flags & libc::IFF_UP as u32 != 0,
        ..LinkInfo::default()
    };
    for (kind, value) in attributes(message.get(2 * HEADER..).ok_or_else(short)?) {
        match kind {
            IFLA_IFNAME => {
                let name = value.split(|&b| b == 0).next().unwrap_or_default();
                info.name = String::from_utf8_lossy(name).into_owned();
            }
            IFLA_OPERSTATE => info.operstate = value.first().copied().unwrap_or_default(),
            IFLA_CARRIER => info.carrier = value.first().is_some_and(|&c| c != 0),
            IFLA_STATS64 => {
                let words = value.chunks_exact(8).filter_map(|w| w.first_chunk());
                info.stats = words.map(|w| u64::from_ne_bytes(*w)).collect();
            }
            IFLA_XDP => info.xdp = xdp(value),
            _ => {}
        }
    }
    Ok(info)
}

/// Id of the program in an `IFLA_XDP`; of the first when several hooks have one.
fn xdp(nested: &[u8]) -> Option<u32> {
    let (mut attached, mut id) = (0, None);
    for (kind, value) in attributes(nested) {
        if kind == IFLA_XDP_ATTACHED {
            attached = value.first().copied().unwrap_or_default();
        } else if kind == IFLA_XDP_PROG_ID || IFLA_XDP_IDS.contains(&kind) {
            id = id.or(u32_at(value, 0));
        }
    }
    id.filter(|_| attached != 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn loopback_is_described() {
        let index = super::super::netdev::device("lo").map(|d| d.index);
        let info = link(index.expect("every namespace has lo")).expect("and describes it");
        assert_eq!((info.name.as_str(), info.xdp), ("lo", None));
        assert!(info.stats.len() >= 23, "{info:?}");
        let error = link(0x7fff_0000).expect_err("no such index");
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }

    #[test]
    fn a_program_is_found_in_its_attribute() {
        let attr = |kind: u16, value: &[u8]| {
            let mut bytes = ((value.len() + 4) as u16).to_ne_bytes().to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let none = attr(IFLA_XDP_ATTACHED, &[0]);
        assert_eq!(xdp(&none), None);
        let native = [
            attr(IFLA_XDP_ATTACHED, &[1]),
            attr(IFLA_XDP_PROG_ID, &77u32.to_ne_bytes()),
        ];
        assert_eq!(xdp(&native.concat()), Some(77));
        let both = [attr(IFLA_XDP_ATTACHED, &[4]), attr(6, &9u32.to_ne_bytes())];
        assert_eq!(xdp(&both.concat()), Some(9));
    }

    proptest! {
        #[test]
        fn any_answer_is_read_or_refused(mut answer in prop::collection::vec(any::<u8>(), 0..200), kind in prop_oneof![Just(RTM_NEWLINK), Just(NLMSG_ERROR), any::<u16>()]) {
            let len = answer.len() as u32;
            if let Some(head) = answer.get_mut(..6) {
                head[..4].copy_from_slice(&len.to_ne_bytes());
                head[4..].copy_from_slice(&kind.to_ne_bytes());
            }
            let _ = parse(&answer);
        }
    }
}
