//! Redirects of load balancers, read from their bytes (DASH reference 4.9).
//!
//! ```text
//! IPv4: Ethernet | IPv4 | ICMP 8 | quoted IPv4 20, 8 bytes of TCP | info
//! IPv6: Ethernet | IPv6 | ICMPv6 40 | option 8, quoted IPv6 40, 8 bytes of TCP | info
//! info: version 4 | family 2 | encap 2 | its id 4 | address 4 | MAC 6
//! ```

use dash_wire::tables::{encap, redirect};

use super::packet::{ETH, ETH_IPV4, ETH_IPV6, ICMP, ICMPV6, at, u8_at, u16_at};

/// Type of an ICMP redirect.
const V4_TYPE: u8 = 5;
/// Type of an ICMPv6 redirect.
const V6_TYPE: u8 = 137;
/// Type of the option with the quoted header (RFC 4861).
const REDIRECTED_HEADER: u8 = 4;
const VERSION: u32 = 1;
const AF_INET: u16 = 2;

/// The end points of the quoted packet, as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quoted {
    pub(super) v6: bool,
    pub(super) proto: u8,
    /// IPv4 in the last 4 bytes.
    pub(super) sip: [u8; 16],
    pub(super) dip: [u8; 16],
    pub(super) sport: [u8; 2],
    pub(super) dport: [u8; 2],
}

/// The way to take from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// SAI's number.
    pub(super) encap: u8,
    /// VNI or VSID.
    pub(super) id: u32,
    pub(super) dip: [u8; 4],
    pub(super) dmac: [u8; 6],
}

/// What kind of redirect an inner frame is that came in NVGRE with this key.
pub(super) fn spot(key: u32, inner: &[u8]) -> u8 {
    let ip = inner.get(ETH..).unwrap_or_default();
    match at(inner, 12) {
        Some(ETH_IPV4) => {
            let whole = u16_at(ip, 6).is_some_and(|word| word & 0x3fff == 0);
            let is = u8_at(ip, 0) == Some(0x45)
                && whole
                && u8_at(ip, 9) == Some(ICMP)
                && u8_at(ip, 20) == Some(V4_TYPE);
            match key {
                redirect::VIP_KEY if is => redirect::VIP,
                redirect::ENCAP_KEY if is => redirect::ILB,
                _ => redirect::NONE,
            }
        }
        Some(ETH_IPV6) => {
            let is = key == redirect::ENCAP_KEY
                && u8_at(ip, 0).is_some_and(|first| first >> 4 == 6)
                && u8_at(ip, 6) == Some(ICMPV6)
                && u8_at(ip, 40) == Some(V6_TYPE);
            if is { redirect::V6 } else { redirect::NONE }
        }
        _ => redirect::NONE,
    }
}

/// Reads a redirect of some kind: what it quotes, and what it says. `None` for a packet too short, or
/// without a quoted header where one belongs.
pub(super) fn parse(kind: u8, inner: &[u8]) -> Option<(Quoted, [u8; 22])> {
    let ip = inner.get(ETH..)?;
    if kind == redirect::V6 {
        let len = 40 + usize::from(u16_at(ip, 4)?);
        let icmp = ip.get(..len)?.get(40..)?;
        let option = icmp.get(40..)?;
        let quoted = option.get(8..)?;
        let info = at(quoted, 48)?;
        if u8_at(option, 0)? != REDIRECTED_HEADER || u8_at(quoted, 0)? >> 4 != 6 {
            return None;
        }
        let quoted = Quoted {
            v6: true,
            proto: u8_at(quoted, 6)?,
            sip: at(quoted, 8)?,
            dip: at(quoted, 24)?,
            sport: at(quoted, 40)?,
            dport: at(quoted, 42)?,
        };
        return Some((quoted, info));
    }
    let len = usize::from(u16_at(ip, 2)?);
    let quoted = ip.get(..len)?.get(28..)?;
    let info = at(quoted, 28)?;
    if u8_at(quoted, 0)? != 0x45 {
        return None;
    }
    let address = |offset| {
        let [a, b, c, d] = at(quoted, offset)?;
        Some([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d])
    };
    let quoted = Quoted {
        v6: false,
        proto: u8_at(quoted, 9)?,
        sip: address(12)?,
        dip: address(16)?,
        sport: at(quoted, 20)?,
        dport: at(quoted, 22)?,
    };
    Some((quoted, info))
}

/// Checks what a redirect of some kind says.
pub(super) fn way(kind: u8, info: &[u8; 22]) -> Option<Way> {
    let id = u32::from_be_bytes(at(info, 8)?);
    let dip: [u8; 4] = at(info, 12)?;
    let encap = match u16_at(info, 6)? {
        1 => encap::NVGRE,
        2 => encap::VXLAN,
        _ => return None,
    };
    let good = u32::from_be_bytes(at(info, 0)?) == VERSION
        && u16_at(info, 4)? == AF_INET
        && dip != [0; 4]
        && (kind != redirect::VIP || (1..1 << 24).contains(&id));
    good.then_some(Way {
        encap,
        id,
        dip,
        dmac: at(info, 16)?,
    })
}
