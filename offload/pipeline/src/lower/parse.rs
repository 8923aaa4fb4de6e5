//! The parsers: every header read is proved inside the packet, every length cross-checked.

use dash_bpf::builder::{Label, R0, R1, R2, R3, R4, R5};
use dash_bpf::helper::{self, XdpAction, xdp_md};
use dash_bpf::op::{AluOp, Cond as C};
use dash_bpf::{Reg, Size};
use dash_wire::drop::DropReason;
use dash_wire::tables::{FlowKey, Meta, encap, flow_flags};
use std::mem::offset_of;

use super::LowerError;
use super::stage::{CTX, META, StageLower};
use crate::ir::Expr;
use special::Special;

/// EtherTypes as a little-endian 16-bit load of the wire bytes gives them.
const ETH_IPV4: i32 = 0x0008;
const ETH_IPV6: i32 = 0xdd86;
const ETH_ARP: i32 = 0x0608;
const ETH_VLAN: i32 = 0x0081;
const ETH_SERVICE_VLAN: i32 = 0xa888;
/// More-fragments bit and fragment offset of IPv4, loaded the same way.
pub(super) const FRAGMENT_BITS: i32 = 0xff3f;
/// The offset alone.
const OFFSET_BITS: i32 = 0xff1f;

const ETH: i16 = 14;
const TCP: i32 = 6;
const UDP: i32 = 17;
const ICMP: i32 = 1;
const ICMPV6: i32 = 58;
const GRE: i32 = 47;
/// GRE of version 0 with a key and nothing else, over Ethernet (RFC 7637), loaded the same way.
const GRE_KEY_ETHERNET: i32 = 0x5865_0020;

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

/// The key's last 8 bytes while they are put together. They are stored whole, as the key is soon
/// read in words, which bytes from several stores would have to wait for.
const TAIL: Reg = Reg::R8;

/// Where a field is in [`TAIL`], in bits.
macro_rules! bit {
    ($field:ident) => {
        const {
            assert!(offset_of!(FlowKey, sport) + 8 == size_of::<FlowKey>());
            ((offset_of!(FlowKey, $field) - offset_of!(FlowKey, sport)) * 8) as i32
        }
    };
}

mod special;

pub(super) use special::FRAGMENT;

/// ICMP of a family.
#[derive(Clone, Copy)]
struct Echo {
    /// Its protocol number.
    icmp: i32,
    request: i32,
    reply: i32,
}

const ICMP_ECHO: Echo = Echo {
    icmp: ICMP,
    request: 8,
    reply: 0,
};
const ICMPV6_ECHO: Echo = Echo {
    icmp: ICMPV6,
    request: 128,
    reply: 129,
};

impl StageLower<'_> {
    /// r2 = packet start, r3 = packet end.
    pub(super) fn load_packet(&mut self) {
        self.b.load(Size::W, R2, CTX, xdp_md::DATA);
        self.b.load(Size::W, R3, CTX, xdp_md::DATA_END);
    }

    /// Jumps unless `base + len <= r3`. Uses r0.
    pub(super) fn need(&mut self, base: Reg, len: i32, otherwise: Label) {
        self.b.mov(R0, base);
        self.b.alu(AluOp::Add, R0, len);
        self.b.jump_if(C::Gt, R0, R3, otherwise);
    }

    pub(super) fn parse_underlay(&mut self) {
        let malformed = self.drop_label(DropReason::OuterMalformed);
        let fragment = self.drop_label(DropReason::OuterFragment);
        let vip_miss = self.drop_label(DropReason::VipMiss);
        self.b.comment("parse underlay");
        self.b.call(helper::KTIME_GET_NS);
        self.b.store(Size::Dw, META, meta!(now_ns), R0);
        self.b.store(Size::B, META, meta!(drop), 0);
        self.load_packet();
        self.b.mov(R5, R3);
        self.b.alu(AluOp::Sub, R5, R2);
        self.b.store(Size::W, META, meta!(frame_len), R5);
        self.need(R2, i32::from(ETH), malformed);
        // Swapped, as the answer has them. Each access takes two bytes more than the address, and the
        // next one, `acl` in the end, overwrites them.
        self.swap_macs();
        self.b.store(Size::W, META, meta!(acl), 0);

        let (ipv4, pass) = (self.b.label(), self.b.label());
        self.b.load(Size::H, R1, R2, 12);
        self.b.jump_if(C::Eq, R1, ETH_IPV4, ipv4);
        self.b.jump_if(C::Eq, R1, ETH_ARP, pass);
        self.b.jump_if(C::Ne, R1, ETH_IPV6, vip_miss);
        // Neighbour discovery is control's; no VIP of this release is IPv6.
        self.need(R2, i32::from(ETH) + 41, vip_miss);
        self.b.load(Size::B, R1, R2, ETH + 6);
        self.b.jump_if(C::Ne, R1, ICMPV6, vip_miss);
        self.b.load(Size::B, R1, R2, ETH + 40);
        self.b.jump_if(C::Lt, R1, 133, vip_miss);
        self.b.jump_if(C::Gt, R1, 137, vip_miss);
        self.b.bind(pass);
        self.exit(XdpAction::Pass);

        self.b.bind(ipv4);
        self.need(R2, i32::from(ETH) + 20, malformed);
        self.b.load(Size::B, R4, R2, ETH);
        self.b.mov(R1, R4);
        self.b.alu(AluOp::Rsh, R1, 4);
        self.b.jump_if(C::Ne, R1, 4, malformed);
        self.b.alu(AluOp::And, R4, 0xf);
        self.b.jump_if(C::Lt, R4, 5, malformed);
        self.b.alu(AluOp::Lsh, R4, 2);
        // r4 = header length, r1 = total length, r5 = frame length.
        self.b.load(Size::H, R1, R2, ETH + 2);
        self.b.be16(R1);
        self.b.jump_if(C::Lt, R1, R4, malformed);
        self.b.alu(AluOp::Add, R1, i32::from(ETH));
        self.b.jump_if(C::Gt, R1, R5, malformed);
        self.header_checksum(malformed);

        self.b.load(Size::H, R1, R2, ETH + 6);
        self.b.alu(AluOp::And, R1, FRAGMENT_BITS);
        self.b.jump_if(C::Ne, R1, 0, fragment);
        self.b.load(Size::B, R1, R2, ETH + 1);
        self.b.store(Size::B, META, meta!(outer_tos), R1);
        self.copy(META, meta!(outer_sip), R2, ETH + 12, 8);
    }

    /// Source, then destination MAC of the frame at r2, at least 14 bytes long. Uses r1. Writes two
    /// bytes behind them.
    fn swap_macs(&mut self) {
        const { assert!(offset_of!(Meta, outer_dmac) == offset_of!(Meta, outer_smac) + 6) };
        const { assert!(offset_of!(Meta, acl) == offset_of!(Meta, outer_dmac) + 6) };
        self.b.load(Size::Dw, R1, R2, 6);
        self.b.store(Size::Dw, META, meta!(outer_smac), R1);
        self.b.load(Size::Dw, R1, R2, 0);
        self.b.store(Size::Dw, META, meta!(outer_dmac), R1);
    }

    /// Sums the IPv4 header at r2 + 14, r4 bytes long; uses r0, r1, r5. The one's complement sum
    /// does not depend on byte order (RFC 1071), so words are added as loaded.
    ///
    /// Folding the sum would give its remainder by 0xffff, and as the sum is not 0 (the version is not)
    /// the header is good when that is 0. A multiple of 0xffff times the inverse of 0xffff modulo
    /// 2^64 is the quotient; any other number gives more than the greatest quotient.
    fn header_checksum(&mut self, malformed: Label) {
        let folded = self.b.label();
        self.b.load(Size::W, R5, R2, ETH);
        for word in 1..5 {
            self.b.load(Size::W, R1, R2, ETH + word * 4);
            self.b.alu(AluOp::Add, R5, R1);
        }
        // Options, at most ten words, each proved on its own.
        for word in 5..15 {
            self.b.jump_if(C::Le, R4, i32::from(word * 4), folded);
            self.need(R2, i32::from(ETH + (word + 1) * 4), malformed);
            self.b.load(Size::W, R1, R2, ETH + word * 4);
            self.b.alu(AluOp::Add, R5, R1);
        }
        self.b.bind(folded);
        // The greatest quotient; minus it is the inverse, since 0xffff * it = 2^64 - 1.
        const GREATEST: u64 = u64::MAX / 0xffff;
        const { assert!(GREATEST.wrapping_neg().wrapping_mul(0xffff) == 1) };
        self.b.load_imm64(R1, GREATEST);
        self.b.alu(AluOp::Mul, R5, R1);
        self.b.neg(R5);
        self.b.jump_if(C::Gt, R5, R1, malformed);
    }

    /// Folds a sum of up to 16 32-bit words into its low 16 bits; those above are anything. Uses r1.
    pub(super) fn fold(&mut self, sum: Reg) {
        // At most 2^36 -> 2^20 + 2^16 -> 2^16 + 2^4 -> 2^16 - 1: each adds what is above the low half.
        for round in 0..3 {
            self.b.mov(R1, sum);
            self.b.alu(AluOp::Rsh, R1, 16);
            if round < 2 {
                self.b.alu(AluOp::And, sum, 0xffff);
            }
            self.b.alu(AluOp::Add, sum, R1);
        }
    }

    pub(super) fn parse_vxlan(&mut self, port: &Expr) -> Result<(), LowerError> {
        let malformed = self.drop_label(DropReason::OuterMalformed);
        self.b.comment("parse vxlan");
        self.load_packet();
        self.need(R2, i32::from(ETH) + 20, malformed);
        self.b.load(Size::B, R1, R2, ETH + 9);
        self.b.jump_if(C::Ne, R1, UDP, malformed);
        self.b.load(Size::H, R5, R2, ETH + 2);
        self.b.be16(R5);
        self.b.load(Size::B, R4, R2, ETH);
        self.b.alu(AluOp::And, R4, 0xf);
        self.b.alu(AluOp::Lsh, R4, 2);
        self.b.alu(AluOp::Add, R2, R4);
        // r2 + 14 is the UDP header; it, VXLAN and the inner Ethernet header are 30 bytes.
        self.need(R2, i32::from(ETH) + 30, malformed);
        self.b.load(Size::H, R1, R2, ETH + 4);
        self.b.be16(R1);
        self.b.jump_if(C::Lt, R1, 30, malformed);
        self.b.alu(AluOp::Add, R1, R4);
        self.b.jump_if(C::Gt, R1, R5, malformed);
        self.b.load(Size::H, R1, R2, ETH + 2);
        self.eval_b2(port, R5)?;
        self.b.jump_if(C::Ne, R1, R5, malformed);
        self.b.load(Size::B, R1, R2, ETH + 8);
        self.b.alu(AluOp::And, R1, 8);
        self.b.jump_if(C::Eq, R1, 0, malformed);
        self.b.load(Size::W, R1, R2, ETH + 12);
        self.b.be32(R1);
        self.b.alu(AluOp::Rsh, R1, 8);
        self.b.store(Size::W, META, meta!(vni), R1);
        // Four bytes, then eight: each address then lies in what one store wrote from four bytes on, and
        // a load of it need not wait for the cache.
        self.copy(META, meta!(inner_dmac), R2, ETH + 16, 4);
        self.copy(META, meta!(inner_dmac) + 4, R2, ETH + 20, 8);
        Ok(())
    }

    /// As [`parse_vxlan`](Self::parse_vxlan), or GRE with a key over Ethernet.
    pub(super) fn parse_encap(&mut self, port: &Expr) -> Result<(), LowerError> {
        let malformed = self.drop_label(DropReason::OuterMalformed);
        let (gre, done) = (self.b.label(), self.b.label());
        self.any_encap = true;
        self.load_packet();
        self.need(R2, i32::from(ETH) + 20, malformed);
        self.b.load(Size::B, R1, R2, ETH + 9);
        self.b.jump_if(C::Eq, R1, GRE, gre);
        self.parse_vxlan(port)?;
        self.b.jump(done);

        self.b.bind(gre);
        self.b.comment("parse nvgre");
        self.b.load(Size::H, R5, R2, ETH + 2);
        self.b.be16(R5);
        self.b.load(Size::B, R4, R2, ETH);
        self.b.alu(AluOp::And, R4, 0xf);
        self.b.alu(AluOp::Lsh, R4, 2);
        self.b.alu(AluOp::Add, R2, R4);
        // r2 + 14 is the GRE header; it and the inner Ethernet header are 22 bytes.
        self.need(R2, i32::from(ETH) + 22, malformed);
        self.b.alu(AluOp::Add, R4, 22);
        self.b.jump_if(C::Gt, R4, R5, malformed);
        self.b.load(Size::W, R1, R2, ETH);
        self.b.jump_if(C::Ne, R1, GRE_KEY_ETHERNET, malformed);
        self.b.load(Size::W, R1, R2, ETH + 4);
        self.b.be32(R1);
        self.b.alu(AluOp::Rsh, R1, 8);
        self.b.store(Size::W, META, meta!(vni), R1);
        self.copy(META, meta!(inner_dmac), R2, ETH + 8, 12);
        self.b.bind(done);
        Ok(())
    }

    /// Drops VXLAN from source ports other than `base..=base + mask`.
    pub(super) fn guard_sport(&mut self, base: &Expr, mask: &Expr) -> Result<(), LowerError> {
        let malformed = self.drop_label(DropReason::OuterMalformed);
        let refused = self.drop_label(DropReason::VxlanSport);
        let done = self.b.label();
        self.b.comment("guard sport");
        self.load_packet();
        self.need(R2, i32::from(ETH) + 20, malformed);
        if self.any_encap {
            self.b.load(Size::B, R1, R2, ETH + 9);
            self.b.jump_if(C::Eq, R1, GRE, done);
        }
        self.b.load(Size::B, R4, R2, ETH);
        self.b.alu(AluOp::And, R4, 0xf);
        self.b.alu(AluOp::Lsh, R4, 2);
        self.b.alu(AluOp::Add, R2, R4);
        self.need(R2, i32::from(ETH) + 2, malformed);
        self.b.load(Size::H, R1, R2, ETH);
        self.b.be16(R1);
        self.eval(base, R2)?;
        self.b.alu(AluOp::Sub, R1, R2);
        self.b.alu(AluOp::And, R1, 0xffff);
        self.eval(mask, R2)?;
        self.b.jump_if(C::Gt, R1, R2, refused);
        self.b.bind(done);
        Ok(())
    }

    /// Notes the kind of the received encap.
    pub(super) fn origin(&mut self) {
        let malformed = self.drop_label(DropReason::OuterMalformed);
        let vxlan = self.b.label();
        self.b.comment("origin");
        self.b
            .store(Size::B, META, meta!(learn), i32::from(encap::VXLAN));
        if self.any_encap {
            self.load_packet();
            self.need(R2, i32::from(ETH) + 20, malformed);
            self.b.load(Size::B, R1, R2, ETH + 9);
            self.b.jump_if(C::Ne, R1, GRE, vxlan);
            self.b
                .store(Size::B, META, meta!(learn), i32::from(encap::NVGRE));
        }
        self.b.bind(vxlan);
    }

    /// Drops everything up to and including the VXLAN or NVGRE header.
    pub(super) fn decap(&mut self) {
        let malformed = self.drop_label(DropReason::OuterMalformed);
        let internal = self.drop_label(DropReason::Internal);
        self.b.comment("decap");
        self.load_packet();
        self.need(R2, i32::from(ETH) + 20, malformed);
        self.b.load(Size::B, R4, R2, ETH);
        self.b.alu(AluOp::And, R4, 0xf);
        self.b.alu(AluOp::Lsh, R4, 2);
        self.b.alu(AluOp::Add, R4, i32::from(ETH) + 16);
        if self.any_encap {
            let vxlan = self.b.label();
            self.b.load(Size::B, R1, R2, ETH + 9);
            self.b.jump_if(C::Ne, R1, GRE, vxlan);
            self.b.alu(AluOp::Sub, R4, 8);
            self.b.bind(vxlan);
        }
        self.b.mov(R1, CTX);
        self.b.mov(R2, R4);
        self.b.call(helper::XDP_ADJUST_HEAD);
        self.b.jump_if(C::Ne, R0, 0, internal);
    }

    pub(super) fn parse_inner(&mut self) -> Result<(), LowerError> {
        let malformed = self.drop_label(DropReason::InnerMalformed);
        let unsupported = self.drop_label(DropReason::InnerUnsupported);
        let at = Special {
            fragment: self.b.label(),
            extension: self.b.label(),
            icmp: [self.b.label(), self.b.label()],
            ecn: self.b.label(),
            finish: self.b.label(),
            malformed,
        };
        self.b.comment("parse inner");
        self.load_packet();
        self.b.mov(R5, R3);
        self.b.alu(AluOp::Sub, R5, R2);
        self.need(R2, i32::from(ETH), malformed);
        self.b.load(Size::H, TAIL, META, meta!(eni));
        self.b.alu(AluOp::Lsh, TAIL, bit!(eni));
        self.b.store(Size::B, META, meta!(tcp_flags), 0);
        self.b.store(Size::W, META, meta!(acl_sport), 0);

        let v6 = self.b.label();
        let (not_ip, not_plain) = (self.b.label(), self.b.label());
        self.b.load(Size::H, R1, R2, 12);
        self.b.jump_if(C::Eq, R1, ETH_IPV6, v6);
        self.b.jump_if(C::Ne, R1, ETH_IPV4, not_ip);

        self.need(R2, i32::from(ETH) + 20, malformed);
        self.b.load(Size::B, R1, R2, ETH);
        self.b.mov(R4, R1);
        self.b.alu(AluOp::Rsh, R4, 4);
        self.b.jump_if(C::Ne, R4, 4, malformed);
        self.b.jump_if(C::Ne, R1, 0x45, not_plain);
        self.b.load(Size::H, R4, R2, ETH + 2);
        self.b.be16(R4);
        self.b.jump_if(C::Lt, R4, 20, malformed);
        self.b.mov(R1, R4);
        self.b.alu(AluOp::Add, R1, i32::from(ETH));
        self.b.jump_if(C::Gt, R1, R5, malformed);
        self.b.store(Size::H, META, meta!(inner_len), R1);
        self.b.load(Size::H, R1, R2, ETH + 6);
        self.b.alu(AluOp::And, R1, FRAGMENT_BITS);
        self.b.jump_if(C::Ne, R1, 0, at.fragment);
        self.addresses4();
        self.flags(0);
        self.b.load(Size::B, R5, R2, ETH + 9);
        self.proto();
        self.b.alu(AluOp::Sub, R4, 20);
        self.l4(ETH + 20, ICMP_ECHO, malformed, Some(at.icmp[0]), None);
        self.b.load(Size::B, R1, R2, ETH + 1);
        self.b.alu(AluOp::And, R1, 3);
        self.b.jump(at.ecn);

        // r1 = type.
        self.b.bind(not_ip);
        let vlan = self.drop_label(DropReason::InnerVlan);
        self.b.jump_if(C::Eq, R1, ETH_VLAN, vlan);
        self.b.jump_if(C::Eq, R1, ETH_SERVICE_VLAN, vlan);
        self.b.jump(unsupported);
        // r1 = version 4 and a header length other than 5 words.
        self.b.bind(not_plain);
        let options = self.drop_label(DropReason::InnerOptions);
        self.b.jump_if(C::Lt, R1, 0x45, malformed);
        self.b.jump(options);

        self.b.bind(v6);
        self.need(R2, i32::from(ETH) + 40, malformed);
        self.b.load(Size::B, R1, R2, ETH);
        self.b.alu(AluOp::Rsh, R1, 4);
        self.b.jump_if(C::Ne, R1, 6, malformed);
        self.b.load(Size::H, R4, R2, ETH + 4);
        self.b.be16(R4);
        self.b.mov(R1, R4);
        self.b.alu(AluOp::Add, R1, i32::from(ETH) + 40);
        self.b.jump_if(C::Gt, R1, R5, malformed);
        self.b.store(Size::H, META, meta!(inner_len), R1);
        self.copy(META, key!(sip), R2, ETH + 8, 16);
        self.copy(META, key!(dip), R2, ETH + 24, 16);
        self.flags(flow_flags::V6);
        self.b.load(Size::B, R5, R2, ETH + 6);
        self.proto();
        self.l4(
            ETH + 40,
            ICMPV6_ECHO,
            malformed,
            Some(at.icmp[1]),
            Some(at.extension),
        );
        self.b.load(Size::B, R1, R2, ETH + 1);
        self.b.alu(AluOp::Rsh, R1, 4);
        self.b.alu(AluOp::And, R1, 3);
        self.b.jump(at.ecn);

        self.special(at);

        // r1 = inner ECN. RFC 6040: congestion cannot be handed to a transport that does not know it.
        self.b.bind(at.ecn);
        let ok = self.b.label();
        let not_capable = self.drop_label(DropReason::EcnNotCapable);
        self.b.jump_if(C::Ne, R1, 0, ok);
        self.b.load(Size::B, R4, META, meta!(outer_tos));
        self.b.alu(AluOp::And, R4, 3);
        self.b.jump_if(C::Eq, R4, 3, not_capable);
        self.b.bind(ok);
        self.b.bind(at.finish);
        Ok(())
    }

    /// The key's addresses, from the IPv4 header of the inner frame at r2. Uses r1.
    fn addresses4(&mut self) {
        for (field, off) in [(key!(sip), 12), (key!(dip), 16)] {
            self.b.store(Size::Dw, META, field, 0);
            self.b.load(Size::W, R1, R2, ETH + off);
            self.b.alu(AluOp::Lsh, R1, 32);
            self.b.store(Size::Dw, META, field + 8, R1);
        }
    }

    /// `key.flags` in TAIL, from the direction. Uses r1.
    fn flags(&mut self, family: u8) {
        self.b.load(Size::B, R1, META, meta!(direction));
        self.b
            .alu(AluOp::Lsh, R1, i32::from(flow_flags::DIRECTION_SHIFT));
        if family != 0 {
            self.b.alu(AluOp::Or, R1, i32::from(family));
        }
        self.b.alu(AluOp::Lsh, R1, bit!(flags));
        self.b.alu(AluOp::Or, TAIL, R1);
    }

    /// `key.proto` in TAIL, from r5. Uses r1.
    fn proto(&mut self) {
        self.b.mov(R1, R5);
        self.b.alu(AluOp::Lsh, R1, bit!(proto));
        self.b.alu(AluOp::Or, TAIL, R1);
    }

    /// Ports, flags and identifiers of the transport header at a constant offset of r2; r4 = its
    /// length, r5 = its protocol. Stores the key's last 8 bytes. Goes to `errors` with ICMP of other types
    /// (r1), to `other` with other protocols.
    fn l4(
        &mut self,
        off: i16,
        echo: Echo,
        malformed: Label,
        errors: Option<Label>,
        other: Option<Label>,
    ) {
        let (not_tcp, ports, not_udp, end) = (
            self.b.label(),
            self.b.label(),
            self.b.label(),
            self.b.label(),
        );
        self.b.jump_if(C::Ne, R5, TCP, not_tcp);
        self.b.jump_if(C::Lt, R4, 20, malformed);
        self.need(R2, i32::from(off) + 20, malformed);
        self.b.load(Size::B, R1, R2, off + 13);
        self.b.store(Size::B, META, meta!(tcp_flags), R1);
        self.b.jump(ports);

        self.b.bind(not_tcp);
        self.b.jump_if(C::Ne, R5, UDP, not_udp);
        self.b.jump_if(C::Lt, R4, 8, malformed);
        self.b.bind(ports);
        self.need(R2, i32::from(off) + 8, malformed);
        self.b.load(Size::W, R1, R2, off);
        self.b.alu(AluOp::Or, TAIL, R1);
        self.b.store(Size::W, META, meta!(acl_sport), R1);
        self.b.jump(end);

        self.b.bind(not_udp);
        self.b.jump_if(C::Ne, R5, echo.icmp, other.unwrap_or(end));
        self.b.jump_if(C::Lt, R4, 8, malformed);
        self.need(R2, i32::from(off) + 8, malformed);
        let is_echo = self.b.label();
        self.b.load(Size::B, R1, R2, off);
        self.b.jump_if(C::Eq, R1, echo.request, is_echo);
        self.b.jump_if(C::Ne, R1, echo.reply, errors.unwrap_or(end));
        self.b.bind(is_echo);
        // The identifier stands for both ports, so request and reply are one flow.
        self.b.load(Size::H, R1, R2, off + 4);
        self.b.alu(AluOp::Or, TAIL, R1);
        self.b.alu(AluOp::Lsh, R1, bit!(dport));
        self.b.alu(AluOp::Or, TAIL, R1);
        self.b.bind(end);
        self.b.store(Size::Dw, META, key!(sport), TAIL);
    }
}
