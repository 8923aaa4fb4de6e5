//! Redirects of load balancers (DASH reference 4.9): seen on the encapsulated packet, read from the
//! inner frame, done to the flow whose packet they quote.
//!
//! What a redirect says about the new way is kept in the metadata where the other direction's key
//! goes: a redirect makes no flow.

use dash_bpf::builder::{Label, R0, R1, R2, R3, R4, R5};
use dash_bpf::op::{AluOp, Cond as C};
use dash_bpf::{Reg, Size};
use dash_wire::drop::DropReason;
use dash_wire::stats::EniStat;
use dash_wire::tables::{
    Direction, FlowActions, FlowEntry, FlowHalf, FlowKey, Globals, Meta, encap, flow_action,
    flow_flags, flow_mark, redirect,
};
use nic_target::Table;
use std::mem::{offset_of, size_of};

use super::flow::{ENTRY, SLOT, side_at};
use super::stage::{META, StageLower};

const ETH: i16 = 14;
const IPV4: i16 = 20;
const IPV6: i16 = 40;
const GRE_HEADER: i16 = 8;
const TCP: i32 = 6;
const ICMP: i32 = 1;
const ICMPV6: i32 = 58;
const GRE: i32 = 47;
/// EtherTypes as a little-endian 16-bit load of the wire bytes gives them.
const ETH_IPV4: i32 = 0x0008;
const ETH_IPV6: i32 = 0xdd86;
/// More-fragments bit and fragment offset of IPv4, loaded the same way.
const FRAGMENT_BITS: i32 = 0xff3f;
/// ICMP type of a redirect.
const ICMP_REDIRECT: i32 = 5;
/// The same of ICMPv6.
const ICMPV6_REDIRECT: i32 = 137;
/// ICMP: type, code, checksum, gateway.
const ICMP_HEADER: i16 = 8;
/// ICMPv6: type, code, checksum, reserved, target, destination.
const ICMPV6_HEADER: i16 = 40;
/// Option in front of the quoted header: type, length, reserved.
const OPTION_HEADER: i16 = 8;
/// Its type: a redirected header (RFC 4861, 4.6.3).
const REDIRECTED_HEADER: i32 = 4;
/// Bytes quoted behind the IP header: ports and sequence number.
const QUOTED_L4: i16 = 8;
/// What is said about the new way: version, family, encap, its id, address, MAC.
const INFO: i16 = 22;
/// Version 1, as a little-endian load of the wire bytes gives it.
const VERSION: i32 = 0x0100_0000;
/// `AF_INET`, loaded the same way.
const AF_INET: i32 = 0x0200;
/// Encap types of the message (A37), loaded the same way.
const INFO_NVGRE: i32 = 0x0100;
const INFO_VXLAN: i32 = 0x0200;

macro_rules! meta {
    ($field:ident) => {
        offset_of!(Meta, $field) as i16
    };
}
macro_rules! key {
    ($field:ident) => {
        (offset_of!(Meta, key) + offset_of!(FlowKey, $field)) as i16
    };
}
macro_rules! action {
    ($field:ident) => {
        (offset_of!(Meta, actions) + offset_of!(FlowActions, $field)) as i16
    };
}

/// Where the packet's words about the new way are kept.
const fn info(at: i16) -> i16 {
    meta!(rkey) + at
}
const INFO_FAMILY: i16 = info(4);
const INFO_ENCAP: i16 = info(6);
const INFO_ID: i16 = info(8);
const INFO_DIP: i16 = info(12);
const INFO_MAC: i16 = info(16);

/// The key's last 8 bytes while they are put together.
const TAIL: Reg = Reg::R8;

/// Where a field is in [`TAIL`], in bits.
macro_rules! bit {
    ($field:ident) => {
        const { ((offset_of!(FlowKey, $field) - offset_of!(FlowKey, sport)) * 8) as i32 }
    };
}

/// Where a redirect quotes a packet.
struct Quote {
    /// What the quoted IP header begins with: version, and of IPv4 the header's length.
    version: (i32, i32),
    ip: i16,
    protocol: i16,
    sip: i16,
    dip: i16,
    l4: i16,
}

impl StageLower<'_> {
    /// Sets `redirect` from the encapsulated packet. Never drops.
    pub(super) fn spot_redirect(&mut self) {
        let (known, v6, none) = (self.b.label(), self.b.label(), self.b.label());
        self.b.comment("spot redirect");
        self.b
            .store(Size::B, META, meta!(redirect), i32::from(redirect::NONE));
        self.load_packet();
        self.need(R2, i32::from(ETH + IPV4), none);
        self.b.load(Size::B, R1, R2, ETH + 9);
        self.b.jump_if(C::Ne, R1, GRE, none);
        self.b.load(Size::B, R4, R2, ETH);
        self.b.alu(AluOp::And, R4, 0xf);
        self.b.alu(AluOp::Lsh, R4, 2);
        self.b.alu(AluOp::Add, R2, R4);
        // r2 + 14 is the GRE header, which was parsed.
        const INNER: i16 = ETH + GRE_HEADER;
        const IP: i16 = INNER + ETH;
        self.need(R2, i32::from(IP + IPV4) + 1, none);
        self.b.load(Size::W, R5, R2, ETH + 4);
        self.b.be32(R5);
        self.b.alu(AluOp::Rsh, R5, 8);
        self.b.mov(R4, i32::from(redirect::VIP));
        self.b.jump_if(C::Eq, R5, redirect::VIP_KEY as i32, known);
        self.b.mov(R4, i32::from(redirect::ILB));
        self.b.jump_if(C::Ne, R5, redirect::ENCAP_KEY as i32, none);
        self.b.bind(known);
        self.b.load(Size::H, R1, R2, INNER + 12);
        self.b.jump_if(C::Eq, R1, ETH_IPV6, v6);
        self.b.jump_if(C::Ne, R1, ETH_IPV4, none);
        self.b.load(Size::B, R1, R2, IP);
        self.b.jump_if(C::Ne, R1, 0x45, none);
        self.b.load(Size::H, R1, R2, IP + 6);
        self.b.alu(AluOp::And, R1, FRAGMENT_BITS);
        self.b.jump_if(C::Ne, R1, 0, none);
        self.b.load(Size::B, R1, R2, IP + 9);
        self.b.jump_if(C::Ne, R1, ICMP, none);
        self.b.load(Size::B, R1, R2, IP + IPV4);
        self.b.jump_if(C::Ne, R1, ICMP_REDIRECT, none);
        self.b.store(Size::B, META, meta!(redirect), R4);
        self.b.jump(none);

        self.b.bind(v6);
        self.b.jump_if(C::Ne, R5, redirect::ENCAP_KEY as i32, none);
        self.need(R2, i32::from(IP + IPV6) + 1, none);
        self.b.load(Size::B, R1, R2, IP);
        self.b.alu(AluOp::Rsh, R1, 4);
        self.b.jump_if(C::Ne, R1, 6, none);
        self.b.load(Size::B, R1, R2, IP + 6);
        self.b.jump_if(C::Ne, R1, ICMPV6, none);
        self.b.load(Size::B, R1, R2, IP + IPV6);
        self.b.jump_if(C::Ne, R1, ICMPV6_REDIRECT, none);
        self.b
            .store(Size::B, META, meta!(redirect), i32::from(redirect::V6));
        self.b.bind(none);
    }

    /// Sets `key` to that of what answers the quoted packet, which is how its flow is found.
    pub(super) fn parse_redirect(&mut self) {
        let (v6, malformed, done) = (self.b.label(), self.b.label(), self.b.label());
        self.b.comment("parse redirect");
        self.load_packet();
        self.b.mov(R5, R3);
        self.b.alu(AluOp::Sub, R5, R2);
        self.b.load(Size::H, TAIL, META, meta!(eni));
        self.b.alu(AluOp::Lsh, TAIL, bit!(eni));
        self.b.store(Size::B, META, meta!(tcp_flags), 0);
        self.b.store(Size::W, META, meta!(acl_sport), 0);
        self.b.store(Size::H, META, meta!(inner_len), 0);
        self.b.load(Size::B, R1, META, meta!(redirect));
        self.b.jump_if(C::Eq, R1, i32::from(redirect::V6), v6);

        const V4: i16 = ETH + IPV4 + ICMP_HEADER;
        let end = V4 + IPV4 + QUOTED_L4 + INFO;
        self.need(R2, i32::from(end), malformed);
        self.b.load(Size::H, R4, R2, ETH + 2);
        self.b.be16(R4);
        self.b.alu(AluOp::Add, R4, i32::from(ETH));
        self.whole(end, malformed);
        let quote = Quote {
            version: (0, 0x45),
            ip: V4,
            protocol: V4 + 9,
            sip: V4 + 12,
            dip: V4 + 16,
            l4: V4 + IPV4,
        };
        for (field, from) in [(key!(sip), quote.dip), (key!(dip), quote.sip)] {
            self.b.store(Size::Dw, META, field, 0);
            self.b.load(Size::W, R1, R2, from);
            self.b.alu(AluOp::Lsh, R1, 32);
            self.b.store(Size::Dw, META, field + 8, R1);
        }
        self.quoted_packet(&quote, 0, malformed);
        self.b.jump(done);

        self.b.bind(v6);
        const V6: i16 = ETH + IPV6 + ICMPV6_HEADER;
        let end = V6 + OPTION_HEADER + IPV6 + QUOTED_L4 + INFO;
        self.need(R2, i32::from(end), malformed);
        self.b.load(Size::H, R4, R2, ETH + 4);
        self.b.be16(R4);
        self.b.alu(AluOp::Add, R4, i32::from(ETH + IPV6));
        self.whole(end, malformed);
        self.b.load(Size::B, R1, R2, V6);
        self.b.jump_if(C::Ne, R1, REDIRECTED_HEADER, malformed);
        let ip = V6 + OPTION_HEADER;
        let quote = Quote {
            version: (4, 6),
            ip,
            protocol: ip + 6,
            sip: ip + 8,
            dip: ip + 24,
            l4: ip + IPV6,
        };
        self.copy(META, key!(sip), R2, quote.dip, 16);
        self.copy(META, key!(dip), R2, quote.sip, 16);
        self.quoted_packet(&quote, flow_flags::V6, malformed);
        self.b.jump(done);

        self.b.bind(malformed);
        self.b.store(
            Size::B,
            META,
            meta!(redirect),
            i32::from(redirect::MALFORMED),
        );
        self.b.bind(done);
        self.b.store(Size::Dw, META, key!(sport), TAIL);
    }

    /// r4 = end of the inner packet, by its length: in the frame, r5 bytes long, and not before `end`.
    fn whole(&mut self, end: i16, malformed: Label) {
        self.b.jump_if(C::Gt, R4, R5, malformed);
        self.b.jump_if(C::Lt, R4, i32::from(end), malformed);
    }

    /// The rest of the key, turned round, in TAIL; and what is said of the new way.
    fn quoted_packet(&mut self, quote: &Quote, family: u8, malformed: Label) {
        self.b.load(Size::B, R1, R2, quote.ip);
        let (shift, version) = quote.version;
        if shift != 0 {
            self.b.alu(AluOp::Rsh, R1, shift);
        }
        self.b.jump_if(C::Ne, R1, version, malformed);
        let inbound = (Direction::Inbound as i32) << flow_flags::DIRECTION_SHIFT;
        self.b.mov(R1, inbound | i32::from(family));
        self.b.alu(AluOp::Lsh, R1, bit!(flags));
        self.b.alu(AluOp::Or, TAIL, R1);
        self.b.load(Size::B, R1, R2, quote.protocol);
        self.b.alu(AluOp::Lsh, R1, bit!(proto));
        self.b.alu(AluOp::Or, TAIL, R1);
        self.b.load(Size::H, R1, R2, quote.l4);
        self.b.alu(AluOp::Lsh, R1, bit!(dport));
        self.b.alu(AluOp::Or, TAIL, R1);
        self.b.load(Size::H, R1, R2, quote.l4 + 2);
        self.b.alu(AluOp::Or, TAIL, R1);
        self.copy(META, info(0), R2, quote.l4 + QUOTED_L4, INFO as usize);
    }

    /// Finds the flow and changes the side that sent the quoted packet.
    pub(super) fn flow_redirect(&mut self) {
        let malformed = self.drop_label(DropReason::FastPathMalformed);
        let miss = self.drop_label(DropReason::FastPathFlowMiss);
        self.b.comment("flow redirect");
        self.b.load(Size::B, R2, META, meta!(redirect));
        self.b
            .jump_if(C::Eq, R2, i32::from(redirect::MALFORMED), malformed);
        self.b.load(Size::W, R1, META, info(0));
        self.b.jump_if(C::Ne, R1, VERSION, malformed);
        self.b.load(Size::H, R1, META, INFO_FAMILY);
        self.b.jump_if(C::Ne, R1, AF_INET, malformed);
        let encap_known = self.b.label();
        self.b.load(Size::H, R1, META, INFO_ENCAP);
        self.b.jump_if(C::Eq, R1, INFO_NVGRE, encap_known);
        self.b.jump_if(C::Ne, R1, INFO_VXLAN, malformed);
        self.b.bind(encap_known);
        self.b.load(Size::W, R1, META, INFO_DIP);
        self.b.jump_if(C::Eq, R1, 0, malformed);
        let no_id = self.b.label();
        self.b.jump_if(C::Ne, R2, i32::from(redirect::VIP), no_id);
        self.b.load(Size::W, R1, META, INFO_ID);
        self.b.jump_if(C::Eq, R1, 0, malformed);
        self.b.be32(R1);
        self.b.alu(AluOp::Rsh, R1, 24);
        self.b.jump_if(C::Ne, R1, 0, malformed);
        self.b.bind(no_id);
        self.b.load(Size::B, R1, META, key!(proto));
        self.b.jump_if(C::Ne, R1, TCP, miss);

        self.find(miss);
        let (first, done) = (self.b.label(), self.b.label());
        self.b.alu(AluOp::And, SLOT, 1);
        self.b.jump_if(C::Eq, SLOT, 0, first);
        self.redirect_side(0, miss);
        self.b.jump(done);
        self.b.bind(first);
        self.redirect_side(1, miss);
        self.b.bind(done);
    }

    /// The new decision of one side of ENTRY.
    fn redirect_side(&mut self, side: u8, miss: Label) {
        let internal = self.drop_label(DropReason::Internal);
        let actions = side_at(side) + offset_of!(FlowHalf, actions) as i16;
        let other = side_at(1 - side) + offset_of!(FlowHalf, actions) as i16;
        let (keep, encapped, nvgre, common) = (
            self.b.label(),
            self.b.label(),
            self.b.label(),
            self.b.label(),
        );
        // This side keeps the other's second encap where a MAC would go: it is no side to change.
        self.b.load(
            Size::H,
            R1,
            ENTRY,
            other + offset_of!(FlowActions, actions) as i16,
        );
        self.b.alu(AluOp::And, R1, i32::from(flow_action::ENCAP_U1));
        self.b.jump_if(C::Ne, R1, 0, miss);
        self.take_actions(side);
        self.b.load(Size::H, R5, META, action!(actions));
        self.b.mov(R1, R5);
        self.b.alu(AluOp::And, R1, i32::from(flow_action::ENCAP_U0));
        self.b.load(Size::B, R2, META, meta!(redirect));
        self.b.jump_if(C::Ne, R2, i32::from(redirect::VIP), keep);

        // An encap where there was none: from the VIP, over a port of the flow's.
        self.b.jump_if(C::Ne, R1, 0, encapped);
        self.lookup_array(Table::Globals, 0);
        self.b.jump_if(C::Eq, R0, 0, internal);
        self.b
            .load(Size::W, R1, R0, offset_of!(Globals, vip) as i16);
        self.b.store(Size::W, META, action!(u0_sip), R1);
        let key = side_at(side) + offset_of!(FlowHalf, key) as i16;
        self.copy(META, meta!(key), ENTRY, key, size_of::<FlowKey>());
        self.spread(meta!(key));
        self.b.store(Size::H, META, action!(sport), R2);
        self.b.load(Size::H, R5, META, action!(actions));
        self.b.alu(AluOp::Or, R5, i32::from(flow_action::ENCAP_U0));
        self.b.bind(encapped);
        self.b.mov(R2, i32::from(encap::NVGRE));
        self.b.load(Size::H, R1, META, INFO_ENCAP);
        self.b.jump_if(C::Eq, R1, INFO_NVGRE, nvgre);
        self.b.mov(R2, i32::from(encap::VXLAN));
        self.b.bind(nvgre);
        self.b.store(Size::B, META, action!(u0_encap), R2);
        self.b.load(Size::W, R1, META, INFO_ID);
        self.b.be32(R1);
        self.b.store(Size::W, META, action!(u0_vni), R1);
        self.b.jump(common);

        self.b.bind(keep);
        self.b.jump_if(C::Eq, R1, 0, miss);
        self.b.jump_if(C::Ne, R2, i32::from(redirect::V6), common);
        self.b.mov(R1, R5);
        self.b.alu(AluOp::And, R1, i32::from(flow_action::ENCAP_U1));
        self.b.jump_if(C::Eq, R1, 0, common);
        self.b.alu(AluOp::Xor, R5, i32::from(flow_action::ENCAP_U1));
        self.b.store(Size::B, META, action!(u1), 0);

        self.b.bind(common);
        self.b.alu(AluOp::Or, R5, i32::from(flow_action::SET_DMAC));
        self.b.store(Size::H, META, action!(actions), R5);
        self.copy(META, action!(u0_dip), META, INFO_DIP, 4);
        self.copy(META, action!(dmac), META, INFO_MAC, 6);

        // The same again changes and counts nothing.
        let (changed, done) = (self.b.label(), self.b.label());
        let marks = offset_of!(FlowEntry, marks) as i16;
        let marked = i32::from(flow_mark::REDIRECTED);
        for word in (0..size_of::<FlowActions>() as i16).step_by(8) {
            self.b.load(Size::Dw, R1, META, meta!(actions) + word);
            self.b.load(Size::Dw, R2, ENTRY, actions + word);
            self.b.jump_if(C::Ne, R1, R2, changed);
        }
        self.b.load(Size::B, R1, ENTRY, marks);
        self.b.alu(AluOp::And, R1, marked);
        self.b.jump_if(C::Ne, R1, 0, done);
        self.b.bind(changed);
        self.copy(
            ENTRY,
            actions,
            META,
            meta!(actions),
            size_of::<FlowActions>(),
        );
        self.count_one(EniStat::FlowUpdated);
        self.b.load(Size::B, R1, ENTRY, marks);
        self.b.mov(R2, R1);
        self.b.alu(AluOp::And, R2, marked);
        self.b.jump_if(C::Ne, R2, 0, done);
        self.b.alu(AluOp::Or, R1, marked);
        self.b.store(Size::B, ENTRY, marks, R1);
        self.count_one(EniStat::LbFastPathActiveFlow);
        self.b.bind(done);
    }
}
