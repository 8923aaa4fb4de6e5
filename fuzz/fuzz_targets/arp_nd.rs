//! ARP and Neighbor Discovery: any frame is a message or nothing, and answers answer.

#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use nic_targets::neighbor::{Message, answer, learned, parse};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

fuzz_target!(|frame: &[u8]| {
    let _ = learned(frame);
    let own: Vec<IpAddr> = match parse(frame) {
        Some(Message::Request { target, .. }) => vec![target],
        _ => return,
    };
    if let Some(reply) = answer(frame, &own, MAC) {
        let Some(Message::Reply { owner, mac }) = parse(&reply) else {
            panic!("the answer {reply:02x?} is none");
        };
        assert_eq!((owner, mac), (own[0], MAC));
    }
});
