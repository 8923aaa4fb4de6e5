//! Addresses, prefixes and ranges that are right by construction.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use thiserror::Error;

/// VXLAN network identifier, 1..=0xff_ffff.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Vni(u32);

impl Vni {
    /// `None` when 0 or wider than 24 bits.
    pub fn new(v: u32) -> Option<Self> {
        (1..=0xff_ffff).contains(&v).then_some(Self(v))
    }
    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Inclusive range of VNIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VniRange {
    /// First.
    pub min: Vni,
    /// Last, not below `min`.
    pub max: Vni,
}

/// Inclusive range of TCP/UDP ports, host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    /// First.
    pub min: u16,
    /// Last, not below `min`.
    pub max: u16,
}

/// An IPv6 address and which of its bits count. The mask may have holes, and the address bits
/// outside of it: both are as the controller sent them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MaskedIp {
    /// The address.
    pub addr: Ipv6Addr,
    /// The mask.
    pub mask: Ipv6Addr,
}

/// Ethernet address, wire order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Neither group bit nor all zero.
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A prefix with its host bits zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IpPrefix {
    addr: IpAddr,
    len: u8,
}

impl IpPrefix {
    /// Host bits are masked off (DASH choice 7.2); `None` when `len` is too long for the family.
    pub fn new(addr: IpAddr, len: u8) -> Option<Self> {
        let addr = match addr {
            IpAddr::V4(a) if len <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from(u32::from(a) & mask))
            }
            IpAddr::V6(a) if len <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(u128::from(a) & mask))
            }
            _ => return None,
        };
        Some(Self { addr, len })
    }
    /// The prefix that holds one address.
    pub fn host(addr: IpAddr) -> Self {
        let len = if addr.is_ipv4() { 32 } else { 128 };
        Self { addr, len }
    }
    /// From an address and a mask address, as DASH messages carry prefixes.
    ///
    /// # Errors
    /// When the families differ or the ones of the mask are not all in front.
    pub fn from_mask(addr: IpAddr, mask: IpAddr) -> Result<Self, PrefixError> {
        let (ones, contiguous) = match (addr, mask) {
            (IpAddr::V4(_), IpAddr::V4(m)) => {
                let m = u32::from(m);
                (m.leading_ones(), m.leading_ones() == m.count_ones())
            }
            (IpAddr::V6(_), IpAddr::V6(m)) => {
                let m = u128::from(m);
                (m.leading_ones(), m.leading_ones() == m.count_ones())
            }
            _ => return Err(PrefixError::MixedFamilies { addr, mask }),
        };
        if !contiguous {
            return Err(PrefixError::ScatteredMask { mask });
        }
        u8::try_from(ones)
            .ok()
            .and_then(|len| Self::new(addr, len))
            .ok_or(PrefixError::ScatteredMask { mask })
    }
    /// First address.
    pub fn addr(&self) -> IpAddr {
        self.addr
    }
    /// Mask length in bits, 0..=32 or 0..=128.
    pub fn prefix_len(&self) -> u8 {
        self.len
    }
    /// True when `ip` is of the same family and inside.
    pub fn contains(&self, ip: IpAddr) -> bool {
        Self::new(ip, self.len)
            .is_some_and(|p| p.addr == self.addr && p.addr.is_ipv4() == self.addr.is_ipv4())
    }
}

impl fmt::Display for IpPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl fmt::Debug for IpPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text or a pair of addresses is no prefix.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PrefixError {
    /// The part before the slash is no IPv4 or IPv6 address.
    #[error("`{text}` is not an IP address")]
    Address {
        /// What was found.
        text: String,
    },
    /// The part after the slash is neither a fitting length nor a mask address.
    #[error("`{text}` is not a mask length of 0..={max} or a mask address")]
    Length {
        /// What was found.
        text: String,
        /// Longest length of the address's family.
        max: u8,
    },
    /// Address and mask are of different families.
    #[error("address {addr} and mask {mask} are of different families")]
    MixedFamilies {
        /// The address.
        addr: IpAddr,
        /// The mask.
        mask: IpAddr,
    },
    /// The ones of the mask are not all in front.
    #[error("mask {mask} is not contiguous")]
    ScatteredMask {
        /// The mask.
        mask: IpAddr,
    },
}

/// Reads `addr/len`, `addr/mask-address` (contiguous) or a bare address (a host prefix).
impl FromStr for IpPrefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (addr_text, tail) = match text.split_once('/') {
            Some((addr, tail)) => (addr, Some(tail)),
            None => (text, None),
        };
        let addr: IpAddr = addr_text.parse().map_err(|_| PrefixError::Address {
            text: addr_text.to_owned(),
        })?;
        let Some(tail) = tail else {
            return Ok(Self::host(addr));
        };
        if let Ok(mask) = tail.parse::<IpAddr>() {
            return Self::from_mask(addr, mask);
        }
        // `u8::from_str` alone would take "+8".
        Some(tail)
            .filter(|t| t.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|t| t.parse().ok())
            .and_then(|len| Self::new(addr, len))
            .ok_or_else(|| PrefixError::Length {
                text: tail.to_owned(),
                max: Self::host(addr).len,
            })
    }
}
