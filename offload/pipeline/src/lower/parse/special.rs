//! What few packets are: fragments, IPv6 extension headers, ICMP errors. Other packets pay nothing for
//! them.
//!
//! - The first fragment of a datagram goes the way of a whole packet, and what the later ones lack
//!   is written down. A later one gets it from there, or is dropped.
//! - An ICMP error gets the key that an answer to the packet it quotes has.
//!
//! Neither has a say in policy: later fragments and ICMP errors are marked in the key, so that they
//! miss every flow until a stage behind the look-up takes the mark off.

use super::*;
use crate::lower::Flows;
use dash_wire::tables::{FRAGMENT_NS, FragmentRow};
use nic_target::Table;

/// 0, or what kind of fragment: [`MORE`], [`LATER`].
const STATE: Reg = Reg::R9;
/// Others follow.
const MORE: i32 = 1;
/// It is not the first.
const LATER: i32 = 2;

const HOP_BY_HOP: i32 = 0;
const ROUTING: i32 = 43;
pub(in crate::lower) const FRAGMENT: i32 = 44;
const DESTINATION: i32 = 60;
/// Headers that are walked, of any kind; the type behind the last is a protocol like others.
const WALKED: usize = 4;

const FP: Reg = Reg::R10;
const BPF_ANY: i32 = 0;

macro_rules! rkey {
    ($field:ident) => {
        (offset_of!(Meta, rkey) + offset_of!(FlowKey, $field)) as i16
    };
}

/// Where the special ways begin and end.
#[derive(Clone, Copy)]
pub(super) struct Special {
    /// An IPv4 fragment: r2 = packet, r4 = total length.
    pub(super) fragment: Label,
    /// No transport of IPv6: r4 = payload length, r5 = its type, which is in the key.
    pub(super) extension: Label,
    /// ICMP of other types than echo: r1 = type, r4 = its length.
    pub(super) icmp: [Label; 2],
    /// r1 = inner ECN.
    pub(super) ecn: Label,
    /// Behind it all.
    pub(super) finish: Label,
    pub(super) malformed: Label,
}

impl StageLower<'_> {
    /// Nothing falls in or out.
    pub(super) fn special(&mut self, at: Special) {
        let end = self.b.label();
        self.b.bind(at.icmp[0]);
        self.icmp_error(at.ecn);
        self.b.bind(at.icmp[1]);
        self.icmpv6_error(at.ecn);
        self.b.bind(at.fragment);
        self.fragment(at.malformed, end);
        self.b.bind(at.extension);
        self.extensions(at.malformed, end);
        self.b.bind(end);
        self.special_end(at);
    }

    fn fragment(&mut self, malformed: Label, end: Label) {
        self.b.comment("a fragment");
        let later = self.b.label();
        self.addresses4();
        self.flags(0);
        self.b.load(Size::H, STATE, R2, ETH + 6);
        self.b.be16(STATE);
        self.b.load(Size::H, R1, R2, ETH + 4);
        self.b.store(Size::H, META, rkey!(sport), R1);
        self.b.store(Size::H, META, rkey!(dport), 0);
        self.b.load(Size::B, R5, R2, ETH + 9);
        self.proto();
        self.b.alu(AluOp::Sub, R4, 20);
        self.b.mov(R1, STATE);
        self.b.alu(AluOp::And, R1, 0x1fff);
        self.b.alu(AluOp::Rsh, STATE, 13);
        self.b.alu(AluOp::And, STATE, MORE);
        self.b.jump_if(C::Ne, R1, 0, later);
        self.l4(ETH + 20, ICMP_ECHO, malformed, None, None);
        self.b.jump(end);
        self.b.bind(later);
        self.b.alu(AluOp::Or, STATE, LATER);
        self.b.store(Size::Dw, META, key!(sport), TAIL);
        self.b.jump(end);
    }

    fn extensions(&mut self, malformed: Label, end: Label) {
        self.b.comment("extension headers");
        let (transport, later) = (self.b.label(), self.b.label());
        // The type is in the key already.
        self.b.mov(R1, R5);
        self.b.alu(AluOp::Lsh, R1, bit!(proto));
        self.b.alu(AluOp::Xor, TAIL, R1);
        self.b.mov(STATE, 0);
        // The header at hand is always at the same offset of r2, which moves.
        const AT: i16 = ETH + 40;
        for _ in 0..WALKED {
            let (walk, fragment, next) = (self.b.label(), self.b.label(), self.b.label());
            self.b.jump_if(C::Eq, R5, FRAGMENT, fragment);
            self.b.jump_if(C::Eq, R5, HOP_BY_HOP, walk);
            self.b.jump_if(C::Eq, R5, ROUTING, walk);
            self.b.jump_if(C::Ne, R5, DESTINATION, transport);
            self.b.bind(walk);
            self.b.jump_if(C::Lt, R4, 8, malformed);
            self.need(R2, i32::from(AT) + 8, malformed);
            self.b.load(Size::B, R5, R2, AT);
            self.b.load(Size::B, R1, R2, AT + 1);
            self.b.alu(AluOp::Add, R1, 1);
            self.b.alu(AluOp::Lsh, R1, 3);
            self.b.jump_if(C::Gt, R1, R4, malformed);
            self.b.alu(AluOp::Sub, R4, R1);
            self.b.alu(AluOp::Add, R2, R1);
            self.b.jump(next);

            self.b.bind(fragment);
            self.b.jump_if(C::Lt, R4, 8, malformed);
            self.need(R2, i32::from(AT) + 8, malformed);
            self.b.load(Size::W, R1, R2, AT + 4);
            self.b.store(Size::W, META, rkey!(sport), R1);
            self.b.load(Size::H, STATE, R2, AT + 2);
            self.b.be16(STATE);
            self.b.load(Size::B, R5, R2, AT);
            self.b.alu(AluOp::Sub, R4, 8);
            self.b.alu(AluOp::Add, R2, 8);
            self.b.mov(R1, STATE);
            self.b.alu(AluOp::Rsh, R1, 3);
            self.b.alu(AluOp::And, STATE, MORE);
            self.b.jump_if(C::Ne, R1, 0, later);
            self.b.bind(next);
        }
        self.b.bind(transport);
        self.proto();
        self.l4(AT, ICMPV6_ECHO, malformed, None, None);
        self.b.jump(end);
        self.b.bind(later);
        self.b.alu(AluOp::Or, STATE, LATER);
        self.b.mov(R5, FRAGMENT);
        self.proto();
        self.b.store(Size::Dw, META, key!(sport), TAIL);
        self.b.jump(end);
    }

    /// The key is in the metadata, and the identification of a fragment where the ports of the other key
    /// will be.
    fn special_end(&mut self, at: Special) {
        let not_capable = self.drop_label(DropReason::EcnNotCapable);
        let (v4, capable) = (self.b.label(), self.b.label());
        self.load_packet();
        self.need(R2, i32::from(ETH) + 20, at.malformed);
        self.b.load(Size::B, R4, META, key!(flags));
        self.b.alu(AluOp::And, R4, i32::from(flow_flags::V6));
        self.b.load(Size::B, R1, R2, ETH + 1);
        self.b.jump_if(C::Eq, R4, 0, v4);
        self.b.alu(AluOp::Rsh, R1, 4);
        self.b.bind(v4);
        self.b.alu(AluOp::And, R1, 3);
        self.b.jump_if(C::Ne, R1, 0, capable);
        self.b.load(Size::B, R4, META, meta!(outer_tos));
        self.b.alu(AluOp::And, R4, 3);
        self.b.jump_if(C::Eq, R4, 3, not_capable);
        self.b.bind(capable);
        self.b.jump_if(C::Eq, STATE, 0, at.finish);
        if self.flows == Flows::Shared {
            // The processor behind has the table, and needs to see them all.
            self.mark();
        } else {
            self.connect(at.finish);
            self.mark();
        }
        self.b.jump(at.finish);
    }

    /// Writes down what a first fragment says, and is done; a later one gets it and falls through.
    fn connect(&mut self, done: Label) {
        let unknown = self.drop_label(DropReason::InnerFragment);
        let (later, v4, last) = (self.b.label(), self.b.label(), self.b.label());
        const { assert!(offset_of!(FlowKey, dip) == offset_of!(FlowKey, sip) + 16) };
        self.copy(META, rkey!(sip), META, key!(sip), 32);
        self.b.load(Size::H, R1, META, key!(eni));
        self.b.store(Size::H, META, rkey!(eni), R1);
        self.b.load(Size::B, R4, META, key!(flags));
        self.b.store(Size::B, META, rkey!(flags), R4);
        self.b.load(Size::B, R1, META, key!(proto));
        self.b.alu(AluOp::And, R4, i32::from(flow_flags::V6));
        self.b.jump_if(C::Eq, R4, 0, v4);
        self.b.mov(R1, FRAGMENT);
        self.b.bind(v4);
        self.b.store(Size::B, META, rkey!(proto), R1);
        let key = (META, rkey!(sip));
        self.b.mov(R1, STATE);
        self.b.alu(AluOp::And, R1, LATER);
        self.b.jump_if(C::Ne, R1, 0, later);

        let row = self.alloc(size_of::<FragmentRow>());
        macro_rules! row {
            ($field:ident) => {
                offset_of!(FragmentRow, $field) as i16
            };
        }
        const { assert!(offset_of!(FragmentRow, dport) == offset_of!(FragmentRow, sport) + 2) };
        const { assert!(offset_of!(FragmentRow, pad) == offset_of!(FragmentRow, proto) + 1) };
        self.b.load(Size::Dw, R1, META, meta!(now_ns));
        self.b.alu(AluOp::Add, R1, FRAGMENT_NS as i32);
        self.b.store(Size::Dw, FP, row + row!(expires_ns), R1);
        self.b.load(Size::W, R1, META, key!(sport));
        self.b.store(Size::W, FP, row + row!(sport), R1);
        // With the padding behind it.
        self.b.load(Size::B, R1, META, key!(proto));
        self.b.store(Size::W, FP, row + row!(proto), R1);
        self.address(R3, FP, row);
        self.b.mov(R4, BPF_ANY);
        self.call_with_key(Table::Fragments, key, helper::MAP_UPDATE_ELEM);
        self.release(size_of::<FragmentRow>());
        self.b.jump(done);

        self.b.bind(later);
        self.call_with_key(Table::Fragments, key, helper::MAP_LOOKUP_ELEM);
        self.b.jump_if(C::Eq, R0, 0, unknown);
        self.b.load(Size::Dw, R1, R0, row!(expires_ns));
        self.b.load(Size::Dw, R2, META, meta!(now_ns));
        self.b.jump_if(C::Ge, R2, R1, unknown);
        self.b.load(Size::W, R1, R0, row!(sport));
        self.b.store(Size::W, META, key!(sport), R1);
        self.b.load(Size::B, R1, R0, row!(proto));
        self.b.store(Size::B, META, key!(proto), R1);
        self.b.alu(AluOp::And, STATE, MORE);
        self.b.jump_if(C::Ne, STATE, 0, last);
        self.call_with_key(Table::Fragments, key, helper::MAP_DELETE_ELEM);
        self.b.bind(last);
    }

    fn mark(&mut self) {
        self.b.load(Size::B, R1, META, key!(flags));
        self.b
            .alu(AluOp::Or, R1, i32::from(flow_flags::LATER_FRAGMENT));
        self.b.store(Size::B, META, key!(flags), R1);
    }

    fn icmp_error(&mut self, done: Label) {
        const L4: i16 = ETH + 20;
        const QUOTED: i16 = L4 + 8;
        self.b.comment("an ICMP error");
        let miss = self.drop_label(DropReason::IcmpErrorMiss);
        let (known, ecn) = (self.b.label(), self.b.label());
        // Unreachable, source quench, time exceeded, parameter problem.
        for kind in [3, 4, 11, 12] {
            self.b.jump_if(C::Eq, R1, kind, known);
        }
        self.b.store(Size::Dw, META, key!(sport), TAIL);
        self.b.jump(ecn);
        self.b.bind(known);
        // A header and the first 8 bytes behind it.
        self.b.jump_if(C::Lt, R4, 36, miss);
        self.need(R2, i32::from(L4) + 36, miss);
        self.b.load(Size::B, R1, R2, QUOTED);
        self.b.jump_if(C::Ne, R1, 0x45, miss);
        self.b.load(Size::H, R1, R2, QUOTED + 6);
        self.b.alu(AluOp::And, R1, OFFSET_BITS);
        self.b.jump_if(C::Ne, R1, 0, miss);
        // Who gets the error sent the packet.
        self.b.load(Size::W, R1, R2, QUOTED + 12);
        self.b.load(Size::W, R0, R2, ETH + 16);
        self.b.jump_if(C::Ne, R1, R0, miss);
        self.b.load(Size::W, R1, R2, QUOTED + 16);
        self.b.store(Size::W, META, key!(sip) + 12, R1);
        self.b.load(Size::B, R5, R2, QUOTED + 9);
        self.quoted(QUOTED + 20, ICMP_ECHO);
        self.b.bind(ecn);
        self.b.load(Size::B, R1, R2, ETH + 1);
        self.b.alu(AluOp::And, R1, 3);
        self.b.jump(done);
    }

    fn icmpv6_error(&mut self, done: Label) {
        const L4: i16 = ETH + 40;
        const QUOTED: i16 = L4 + 8;
        self.b.comment("an ICMPv6 error");
        let miss = self.drop_label(DropReason::IcmpErrorMiss);
        let (other, ecn) = (self.b.label(), self.b.label());
        // Unreachable, too big, time exceeded, parameter problem.
        self.b.jump_if(C::Eq, R1, 0, other);
        self.b.jump_if(C::Gt, R1, 4, other);
        self.b.jump_if(C::Lt, R4, 56, miss);
        self.need(R2, i32::from(L4) + 56, miss);
        self.b.load(Size::B, R1, R2, QUOTED);
        self.b.alu(AluOp::Rsh, R1, 4);
        self.b.jump_if(C::Ne, R1, 6, miss);
        for word in [0, 8] {
            self.b.load(Size::Dw, R1, R2, QUOTED + 8 + word);
            self.b.load(Size::Dw, R0, R2, ETH + 24 + word);
            self.b.jump_if(C::Ne, R1, R0, miss);
        }
        self.copy(META, key!(sip), R2, QUOTED + 24, 16);
        self.b.load(Size::B, R5, R2, QUOTED + 6);
        self.quoted(QUOTED + 40, ICMPV6_ECHO);
        self.b.jump(ecn);
        self.b.bind(other);
        self.b.store(Size::Dw, META, key!(sport), TAIL);
        self.b.bind(ecn);
        self.b.load(Size::B, R1, R2, ETH + 1);
        self.b.alu(AluOp::Rsh, R1, 4);
        self.b.alu(AluOp::And, R1, 3);
        self.b.jump(done);
    }

    /// The key's last 8 bytes, from the quoted packet turned round: r5 = its protocol, and its
    /// transport header begins at `at` of r2.
    fn quoted(&mut self, at: i16, echo: Echo) {
        let (ports, identifier, keyed) = (self.b.label(), self.b.label(), self.b.label());
        // The key's protocol is ICMP so far.
        self.b.mov(R1, echo.icmp);
        self.b.alu(AluOp::Lsh, R1, bit!(proto));
        self.b.alu(AluOp::Xor, TAIL, R1);
        self.proto();
        self.b.jump_if(C::Eq, R5, TCP, ports);
        self.b.jump_if(C::Eq, R5, UDP, ports);
        self.b.jump_if(C::Ne, R5, echo.icmp, keyed);
        self.b.load(Size::B, R1, R2, at);
        self.b.jump_if(C::Eq, R1, echo.request, identifier);
        self.b.jump_if(C::Ne, R1, echo.reply, keyed);
        self.b.bind(identifier);
        self.b.load(Size::H, R1, R2, at + 4);
        self.b.alu(AluOp::Or, TAIL, R1);
        self.b.alu(AluOp::Lsh, R1, bit!(dport));
        self.b.alu(AluOp::Or, TAIL, R1);
        self.b.jump(keyed);
        self.b.bind(ports);
        self.b.load(Size::H, R1, R2, at + 2);
        self.b.alu(AluOp::Or, TAIL, R1);
        self.b.load(Size::H, R1, R2, at);
        self.b.alu(AluOp::Lsh, R1, bit!(dport));
        self.b.alu(AluOp::Or, TAIL, R1);
        self.b.bind(keyed);
        self.b.mov(R1, i32::from(flow_flags::ICMP_ERROR));
        self.b.alu(AluOp::Lsh, R1, bit!(flags));
        self.b.alu(AluOp::Or, TAIL, R1);
        self.b.store(Size::Dw, META, key!(sport), TAIL);
    }
}
