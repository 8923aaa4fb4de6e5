//! Completes checksums that a sender left to hardware that is not there.

/// Sums `frame[start..]` into the 16-bit field `offset` bytes after `start`, which holds the sum of
/// the pseudo header. False, and nothing changed, when the field is not inside the frame.
pub(crate) fn complete(frame: &mut [u8], start: u16, offset: u16) -> bool {
    let start = usize::from(start);
    let field = start + usize::from(offset);
    if frame.get(field..field + 2).is_none() {
        return false;
    }
    let mut sum = 0u64;
    let mut words = frame[start..].chunks_exact(2);
    for word in &mut words {
        sum += u64::from(u16::from_be_bytes([word[0], word[1]]));
    }
    if let [last] = words.remainder() {
        sum += u64::from(*last) << 8;
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // A UDP checksum of 0 would say "none"; all ones is the same sum.
    let value = match !(sum as u16) {
        0 => 0xffff,
        value => value,
    };
    frame[field..field + 2].copy_from_slice(&value.to_be_bytes());
    true
}

#[cfg(test)]
mod tests {
    use nic_sim::Packet;
    use nic_sim::checksum::Sum;
    use proptest::prelude::*;

    use super::complete;

    proptest! {
        #[test]
        fn completing_a_pseudo_header_sum_gives_the_full_checksum(
            payload in prop::collection::vec(any::<u8>(), 0..200), src: [u8; 4], dst: [u8; 4], tcp: bool,
        ) {
            let ip = Packet::eth([2; 6], [4; 6]).ipv4(src, dst);
            let (whole, protocol, offset, header) = if tcp {
                (ip.tcp(7, 9).payload(&payload).build(), 6, 16, 20)
            } else {
                (ip.udp(7, 9).payload(&payload).build(), 17, 6, 8)
            };
            let mut partial = whole.clone();
            let pseudo = !Sum::new().pseudo_v4(src.into(), dst.into(), protocol, (header + payload.len()) as u32).finish();
            let field = 34 + usize::from(offset);
            partial[field..field + 2].copy_from_slice(&pseudo.to_be_bytes());
            prop_assert!(complete(&mut partial, 34, offset));
            // The two zeros of one's complement are one number.
            if whole[field..field + 2] != [0, 0] {
                prop_assert_eq!(partial, whole);
            }
        }

        #[test]
        fn a_field_outside_the_frame_is_refused(mut frame in prop::collection::vec(any::<u8>(), 0..64), start: u16, offset: u16) {
            let before = frame.clone();
            let inside = usize::from(start) + usize::from(offset) + 2 <= frame.len();
            prop_assert_eq!(complete(&mut frame, start, offset), inside);
            if !inside {
                prop_assert_eq!(frame, before);
            }
        }
    }
}
