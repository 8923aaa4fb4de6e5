//! The Internet checksum (RFC 1071).

use std::net::{Ipv4Addr, Ipv6Addr};

/// A ones' complement sum over pieces of data.
///
/// ```
/// use nic_sim::checksum::Sum;
/// // The example of RFC 1071 section 3.
/// let sum = Sum::new().with(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
/// assert_eq!(sum.finish(), !0xddf2);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Of nothing.
    pub fn new() -> Self {
        Self(0)
    }
    /// With `data` as big-endian 16-bit words, a zero byte after an odd end: only the last piece
    /// of a message may be odd.
    #[must_use]
    pub fn with(mut self, data: &[u8]) -> Self {
        let mut words = data.chunks_exact(2);
        for word in &mut words {
            self.0 += u64::from(u16::from_be_bytes([word[0], word[1]]));
        }
        if let [last] = words.remainder() {
            self.0 += u64::from(*last) << 8;
        }
        self
    }
    /// With the pseudo header of RFC 9293 section 3.1.
    #[must_use]
    pub fn pseudo_v4(self, src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, len: u32) -> Self {
        self.with(&src.octets())
            .with(&dst.octets())
            .number(len)
            .number(protocol.into())
    }
    /// With the pseudo header of RFC 8200 section 8.1.
    #[must_use]
    pub fn pseudo_v6(self, src: Ipv6Addr, dst: Ipv6Addr, next_header: u8, len: u32) -> Self {
        self.with(&src.octets())
            .with(&dst.octets())
            .number(len)
            .number(next_header.into())
    }
    /// With a 32-bit number.
    #[must_use]
    fn number(self, n: u32) -> Self {
        self.with(&n.to_be_bytes())
    }
    /// The checksum: 0 for a message that carries its right one.
    pub fn finish(self) -> u16 {
        let mut sum = self.0;
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }
}
