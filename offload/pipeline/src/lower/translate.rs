//! `translate`: IPv4 to IPv6 and back, ports, and the checksums that follow (DASH reference 3.4, 3.8).
//!
//! New addresses and ports are those of the other direction's key, turned round, so nothing of them
//! is kept a second time. TCP and UDP alone are translated: policy drops the rest.

use dash_bpf::builder::{Label, R0, R1, R2, R4, R5};
use dash_bpf::helper;
use dash_bpf::op::{AluOp, Cond as C};
use dash_bpf::{Reg, Size};
use dash_wire::drop::DropReason;
use dash_wire::tables::{FlowActions, FlowKey, Meta, flow_action};
use std::mem::offset_of;

use super::parse::{FRAGMENT, FRAGMENT_BITS};
use super::stage::{CTX, META, StageLower};

/// One's complement sum of what is new, less what was old.
const DELTA: Reg = Reg::R8;
/// Header bytes across a move of the packet's start; then rounds of the full sum.
const HEADER: Reg = Reg::R9;

const ETH: i16 = 14;
const IPV4: i16 = 20;
const IPV6: i16 = 40;
const TCP: i32 = 6;
const UDP: i32 = 17;
/// EtherTypes as a little-endian 16-bit load of the wire bytes gives them.
const ETH_IPV4: i32 = 0x0008;
const ETH_IPV6: i32 = 0xdd86;
/// Bytes that one round of the full sum takes.
const ROUND: i32 = 64;
/// Rounds that the longest datagram in a frame takes: frames end before 10,000 bytes.
const ROUNDS: i32 = 256;

macro_rules! meta {
    ($field:ident) => {
        offset_of!(Meta, $field) as i16
    };
}
macro_rules! key {
    ($which:ident, $field:ident) => {
        (offset_of!(Meta, $which) + offset_of!(FlowKey, $field)) as i16
    };
}

impl StageLower<'_> {
    /// Drops fragments and what has extension headers.
    pub(super) fn translatable(&mut self) {
        let internal = self.drop_label(DropReason::Internal);
        let fragment = self.drop_label(DropReason::InnerFragment);
        let refused = self.drop_label(DropReason::NotTranslatable);
        let (v6, done) = (self.b.label(), self.b.label());
        self.b.comment("translatable");
        self.load_packet();
        self.need(R2, i32::from(ETH + IPV4), internal);
        self.b.load(Size::H, R1, R2, 12);
        self.b.jump_if(C::Eq, R1, ETH_IPV6, v6);
        self.b.load(Size::H, R1, R2, ETH + 6);
        self.b.alu(AluOp::And, R1, FRAGMENT_BITS);
        self.b.jump_if(C::Eq, R1, 0, done);
        self.b.jump(fragment);
        self.b.bind(v6);
        self.b.load(Size::B, R1, R2, ETH + 6);
        self.b.load(Size::B, R4, META, key!(key, proto));
        self.b.jump_if(C::Eq, R1, R4, done);
        self.b.jump_if(C::Eq, R1, FRAGMENT, fragment);
        self.b.jump(refused);
        self.b.bind(done);
    }

    pub(super) fn translate(&mut self) {
        let (not_46, done) = (self.b.label(), self.b.label());
        let actions = (offset_of!(Meta, actions) + offset_of!(FlowActions, actions)) as i16;
        self.b.load(Size::H, R4, META, actions);
        self.b.mov(R1, R4);
        self.b.alu(AluOp::And, R1, i32::from(flow_action::NAT46));
        self.b.jump_if(C::Eq, R1, 0, not_46);
        self.make_ipv6(done);
        self.b.bind(not_46);
        self.b.alu(AluOp::And, R4, i32::from(flow_action::NAT64));
        self.b.jump_if(C::Eq, R4, 0, done);
        self.make_ipv4(done);
        self.b.bind(done);
    }

    /// Every way out is `done`.
    fn make_ipv6(&mut self, done: Label) {
        let internal = self.drop_label(DropReason::Internal);
        self.b.comment("IPv4 to IPv6");
        self.load_packet();
        self.need(R2, i32::from(ETH + IPV4) + 8, internal);
        self.sum_old(26, 2, ETH + IPV4);
        self.sum_new(key!(rkey, sip), 8);

        // Version, traffic class, flow label 0, payload length, next header, hop limit: eight bytes
        // as they lie in the packet.
        self.b.load(Size::B, R1, R2, ETH + 1);
        self.b.mov(HEADER, R1);
        self.b.alu(AluOp::Rsh, HEADER, 4);
        self.b.alu(AluOp::Or, HEADER, 0x60);
        self.b.alu(AluOp::And, R1, 0x0f);
        self.b.alu(AluOp::Lsh, R1, 12);
        self.b.alu(AluOp::Or, HEADER, R1);
        self.payload_len(R1, ETH + IPV4);
        self.b.be16(R1);
        self.b.alu(AluOp::Lsh, R1, 32);
        self.b.alu(AluOp::Or, HEADER, R1);
        self.b.load(Size::B, R1, R2, ETH + 9);
        self.b.alu(AluOp::Lsh, R1, 48);
        self.b.alu(AluOp::Or, HEADER, R1);
        self.b.load(Size::B, R1, R2, ETH + 8);
        self.b.alu(AluOp::Lsh, R1, 56);
        self.b.alu(AluOp::Or, HEADER, R1);

        let grown = IPV6 - IPV4;
        self.move_start(-grown, internal);
        self.need(R2, i32::from(ETH + IPV6) + 8, internal);
        self.copy(R2, 0, R2, grown, 12);
        self.b.store(Size::H, R2, 12, ETH_IPV6);
        self.b.store(Size::Dw, R2, ETH, HEADER);
        self.copy(R2, ETH + 8, META, key!(rkey, dip), 16);
        self.copy(R2, ETH + 24, META, key!(rkey, sip), 16);
        self.ports(ETH + IPV6);
        self.checksum(ETH + IPV6, true, done);
    }

    /// Falls through, or jumps to `done`.
    fn make_ipv4(&mut self, done: Label) {
        let internal = self.drop_label(DropReason::Internal);
        self.b.comment("IPv6 to IPv4");
        self.load_packet();
        self.need(R2, i32::from(ETH + IPV6) + 8, internal);
        self.sum_old(ETH + 8, 8, ETH + IPV6);
        self.sum_new(key!(rkey, sip), 8);

        // r4: version, header length, TOS, total length; r5: TTL and protocol, as they will lie.
        self.b.load(Size::B, R4, R2, ETH);
        self.b.alu(AluOp::And, R4, 0x0f);
        self.b.alu(AluOp::Lsh, R4, 4);
        self.b.load(Size::B, R1, R2, ETH + 1);
        self.b.alu(AluOp::Rsh, R1, 4);
        self.b.alu(AluOp::Or, R4, R1);
        self.b.alu(AluOp::Lsh, R4, 8);
        self.b.alu(AluOp::Or, R4, 0x45);
        self.payload_len(R1, ETH + IPV6 - IPV4);
        self.b.be16(R1);
        self.b.alu(AluOp::Lsh, R1, 16);
        self.b.alu(AluOp::Or, R4, R1);
        self.b.load(Size::B, R5, R2, ETH + 7);
        self.b.load(Size::B, R1, R2, ETH + 6);
        self.b.alu(AluOp::Lsh, R1, 8);
        self.b.alu(AluOp::Or, R5, R1);

        // The new headers end where the old ones do.
        let shrunk = IPV6 - IPV4;
        let ip = ETH + shrunk;
        self.copy(R2, shrunk, R2, 0, 12);
        self.b.store(Size::H, R2, shrunk + 12, ETH_IPV4);
        self.b.store(Size::W, R2, ip, R4);
        self.b.store(Size::W, R2, ip + 4, 0);
        self.b.store(Size::H, R2, ip + 8, R5);
        self.b.alu(AluOp::Add, R4, R5);
        for (to, from) in [(12, key!(rkey, dip)), (16, key!(rkey, sip))] {
            self.b.load(Size::W, R1, META, from + 12);
            self.b.store(Size::W, R2, ip + to, R1);
            self.b.alu(AluOp::Add, R4, R1);
        }
        self.fold(R4);
        self.b.alu(AluOp::Xor, R4, 0xffff);
        self.b.store(Size::H, R2, ip + 10, R4);
        self.ports(ETH + IPV6);

        self.move_start(shrunk, internal);
        self.checksum(ETH + IPV4, false, done);
    }

    /// Moves the packet's start and `inner_len` with it; r2 and r3 as [`load_packet`] leaves them.
    ///
    /// [`load_packet`]: Self::load_packet
    fn move_start(&mut self, by: i16, internal: Label) {
        self.b.mov(R1, CTX);
        self.b.mov(R2, i32::from(by));
        self.b.call(helper::XDP_ADJUST_HEAD);
        self.b.jump_if(C::Ne, R0, 0, internal);
        self.b.load(Size::H, R1, META, meta!(inner_len));
        self.b.alu(AluOp::Sub, R1, i32::from(by));
        self.b.store(Size::H, META, meta!(inner_len), R1);
        self.load_packet();
    }

    /// `dst` = length of the frame behind its first `headers` bytes.
    fn payload_len(&mut self, dst: Reg, headers: i16) {
        self.b.load(Size::H, dst, META, meta!(inner_len));
        self.b.alu(AluOp::Sub, dst, i32::from(headers));
    }

    /// DELTA = complement of the sum of `words` words of addresses and one of ports.
    fn sum_old(&mut self, addresses: i16, words: i16, ports: i16) {
        self.b.load(Size::W, DELTA, R2, ports);
        for word in 0..words {
            self.b.load(Size::W, R1, R2, addresses + word * 4);
            self.b.alu(AluOp::Add, DELTA, R1);
        }
        self.complement(DELTA);
    }

    /// A folded sum's complement, in 16 bits.
    fn complement(&mut self, sum: Reg) {
        self.fold(sum);
        self.b.alu(AluOp::Xor, sum, 0xffff);
        self.b.alu(AluOp::And, sum, 0xffff);
    }

    /// Adds the addresses and ports of `rkey`. A sum does not mind which is the source.
    fn sum_new(&mut self, addresses: i16, words: i16) {
        for word in 0..words {
            self.b.load(Size::W, R1, META, addresses + word * 4);
            self.b.alu(AluOp::Add, DELTA, R1);
        }
        self.b.load(Size::W, R1, META, key!(rkey, sport));
        self.b.alu(AluOp::Add, DELTA, R1);
    }

    fn ports(&mut self, l4: i16) {
        self.b.load(Size::H, R1, META, key!(rkey, dport));
        self.b.store(Size::H, R2, l4, R1);
        self.b.load(Size::H, R1, META, key!(rkey, sport));
        self.b.store(Size::H, R2, l4 + 2, R1);
    }

    /// RFC 1624 equation 3 with DELTA on the transport header at r2 + `l4`.
    fn checksum(&mut self, l4: i16, to_ipv6: bool, done: Label) {
        let internal = self.drop_label(DropReason::Internal);
        let (udp, no_sum, not_zero) = (self.b.label(), self.b.label(), self.b.label());
        self.b.load(Size::B, R1, META, key!(key, proto));
        self.b.jump_if(C::Eq, R1, UDP, udp);
        self.b.jump_if(C::Ne, R1, TCP, done);
        self.need(R2, i32::from(l4) + 20, internal);
        self.b.load(Size::H, R4, R2, l4 + 16);
        self.update(R4);
        self.b.store(Size::H, R2, l4 + 16, R4);
        self.b.jump(done);

        self.b.bind(udp);
        self.need(R2, i32::from(l4) + 8, internal);
        self.b.load(Size::H, R4, R2, l4 + 6);
        self.b.jump_if(C::Eq, R4, 0, no_sum);
        self.update(R4);
        self.b.bind(not_zero);
        // 0 says that there is none (RFC 768).
        let stored = self.b.label();
        self.b.jump_if(C::Ne, R4, 0, stored);
        self.b.mov(R4, 0xffff);
        self.b.bind(stored);
        self.b.store(Size::H, R2, l4 + 6, R4);
        self.b.jump(done);

        self.b.bind(no_sum);
        if to_ipv6 {
            self.whole_sum(l4, internal);
            self.load_packet();
            self.need(R2, i32::from(l4) + 8, internal);
            self.b.jump(not_zero);
        }
    }

    /// `sum` = the checksum that says `sum` less the old and with the new.
    fn update(&mut self, sum: Reg) {
        self.b.alu(AluOp::Xor, sum, 0xffff);
        self.b.alu(AluOp::Add, sum, DELTA);
        self.complement(sum);
    }

    /// r4 = checksum of the UDP datagram at r2 + `l4`, whose own is 0, under the addresses of `rkey`.
    fn whole_sum(&mut self, l4: i16, internal: Label) {
        self.b.comment("the whole checksum");
        let malformed = self.drop_label(DropReason::InnerMalformed);
        let (round, rest) = (self.b.label(), self.b.label());
        // r4 = length.
        self.b.load(Size::H, R4, R2, l4 + 4);
        self.b.be16(R4);
        self.b.jump_if(C::Lt, R4, 8, malformed);
        self.b.jump_if(C::Ge, R4, ROUND * ROUNDS, internal);
        self.payload_len(R1, l4);
        self.b.jump_if(C::Gt, R4, R1, malformed);
        self.b.mov(R1, R4);
        self.b.be16(R1);
        self.b.mov(DELTA, R1);
        self.b.alu(AluOp::Add, DELTA, UDP << 8);
        for word in 0..8 {
            self.b.load(Size::W, R1, META, key!(rkey, sip) + word * 4);
            self.b.alu(AluOp::Add, DELTA, R1);
        }
        // Each round says anew where it is, so that nothing has to be known of the one before.
        self.b.mov(HEADER, 0);
        self.b.bind(round);
        self.b.jump_if(C::Ge, HEADER, ROUNDS, rest);
        self.b.mov(R1, HEADER);
        self.b.alu(AluOp::Lsh, R1, ROUND.ilog2() as i32);
        self.b.mov(R0, R1);
        self.b.alu(AluOp::Add, R0, ROUND);
        self.b.jump_if(C::Gt, R0, R4, rest);
        self.part(l4);
        self.need(R5, ROUND, internal);
        self.add_words(ROUND as i16);
        self.b.alu(AluOp::Add, HEADER, 1);
        self.b.jump(round);

        self.b.bind(rest);
        self.b.mov(R1, R4);
        self.part(l4);
        for size in [32, 16, 8, 4, 2, 1] {
            let skip = self.b.label();
            self.b.mov(R1, R4);
            self.b.alu(AluOp::And, R1, size);
            self.b.jump_if(C::Eq, R1, 0, skip);
            self.need(R5, size, internal);
            self.add_words(size as i16);
            self.b.alu(AluOp::Add, R5, size);
            self.b.bind(skip);
        }
        // A sum of up to 4,200 words is below 2^45: three folds are enough for it too.
        self.complement(DELTA);
        self.b.mov(R4, DELTA);
    }

    /// r5 = the datagram's part that byte r1 is in.
    fn part(&mut self, l4: i16) {
        self.b.alu(AluOp::And, R1, (ROUNDS - 1) * ROUND);
        self.b.mov(R5, R2);
        self.b.alu(AluOp::Add, R5, R1);
        self.b.alu(AluOp::Add, R5, i32::from(l4));
    }

    /// Adds `len` bytes at r5 to DELTA: words, or what is less than one.
    fn add_words(&mut self, len: i16) {
        let size = match len {
            1 => Size::B,
            2 => Size::H,
            _ => Size::W,
        };
        for at in (0..len).step_by(size.bytes()) {
            self.b.load(size, R1, R5, at);
            self.b.alu(AluOp::Add, DELTA, R1);
        }
    }
}
