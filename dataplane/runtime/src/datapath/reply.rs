//! The other direction of a connection, before policy says what it is: a guess, for prefetching.

use dash_wire::tables::{Direction, FlowKey, flow_flags};

/// What the other direction's key most likely is: that of a connection that is not translated.
pub(super) fn reply(key: &FlowKey) -> FlowKey {
    const BOTH: u8 = Direction::Outbound as u8 ^ Direction::Inbound as u8;
    FlowKey {
        sip: key.dip,
        dip: key.sip,
        sport: key.dport,
        dport: key.sport,
        flags: key.flags ^ BOTH << flow_flags::DIRECTION_SHIFT,
        ..*key
    }
}

#[cfg(test)]
mod tests {
    use super::{FlowKey, reply};

    #[test]
    fn the_reply_to_the_reply_is_the_key_and_another_direction_lies_between() {
        let key = FlowKey {
            sip: [1; 16],
            dip: [2; 16],
            sport: [3, 4],
            dport: [5, 6],
            eni: 7,
            proto: 6,
            // Outbound, IPv6.
            flags: 0b011,
        };
        let back = FlowKey {
            sip: [2; 16],
            dip: [1; 16],
            sport: [5, 6],
            dport: [3, 4],
            // Inbound, IPv6.
            flags: 0b101,
            ..key
        };
        assert_eq!(reply(&key), back);
        assert_eq!(reply(&back), key);
    }
}
