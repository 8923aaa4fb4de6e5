//! The appliance of the DASH reference's worked examples, packets by name, and what they moved.

use std::collections::BTreeMap;
use std::sync::Arc;

use dash_bpf::Object;
use dash_pipeline::model::Model;
use dash_pipeline::plan::Shape;
use dash_pipeline::template;
use dash_wire::stats::{EniStat, PortStat};
use dash_wire::tables::{
    EniMacKey, EniRow, FlowEntry, Globals, InboundKey, InboundRow, MappingKey, MappingRow, PaKey,
    Route4Key, Route6Key, RouteRow, TrustedVniKey, UnderlayKey, UnderlayRow, eni_flags,
    inbound_action, mapping_flags, route_action, underlay_flags,
};
use nic_target::{
    AclRuleRow, Capacity, Frame, Image, PacketEngine, Table, TableDelta, TableOp, Target, Update,
    Verdict,
};
use zerocopy::{Immutable, IntoBytes};

pub(crate) const VIP: [u8; 4] = [10, 0, 0, 1];
pub(crate) const VM_VNI: u32 = 4321;
pub(crate) const VNET_VNI: u32 = 45654;
pub(crate) const ENI: u32 = 3;
pub(crate) const DOWN_ENI: u32 = 4;
pub(crate) const ENI_MAC: [u8; 6] = [0xf4, 0x93, 0x9f, 0xef, 0xc4, 0x7e];
pub(crate) const DOWN_ENI_MAC: [u8; 6] = [0xf4, 0x93, 0x9f, 0xef, 0xc4, 0x7f];
pub(crate) const PEER_MAC: [u8; 6] = [0xf9, 0x22, 0x83, 0x99, 0x22, 0xa2];
pub(crate) const VM_HOST: [u8; 4] = [25, 1, 1, 1];
pub(crate) const PEER_PA: [u8; 4] = [101, 1, 2, 3];
pub(crate) const VM: [u8; 4] = [10, 1, 1, 10];
pub(crate) const PEER: [u8; 4] = [10, 1, 1, 1];
/// Port the underlay's default route names.
pub(crate) const OUT_PORT: u32 = 7;
pub(crate) const NEIGHBOR: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub(crate) const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
const VNET: u16 = 1;
const GROUP: u32 = 1;

pub(crate) fn put<K: IntoBytes + Immutable, V: IntoBytes + Immutable>(
    table: Table,
    key: K,
    value: V,
) -> TableOp {
    TableOp::Put {
        table,
        key: key.as_bytes().into(),
        value: value.as_bytes().into(),
    }
}

pub(crate) fn eni_row() -> EniRow {
    EniRow {
        mac: ENI_MAC,
        flags: eni_flags::ADMIN_UP | eni_flags::ROUTE_GROUP,
        vm_underlay_dip: VM_HOST,
        vm_vni: VM_VNI,
        vnet_vni: VNET_VNI,
        vnet: VNET,
        route_group: GROUP,
        ..EniRow::default()
    }
}

pub(crate) fn globals() -> Globals {
    Globals {
        vip: VIP,
        vm_vni: VM_VNI,
        vxlan_port: 4789u16.to_be_bytes(),
        encap_ttl: 64,
        flags: 0,
        sport_base: 5120,
        sport_mask: 127,
        ..Globals::default()
    }
}

pub(crate) fn route4(dst: [u8; 4], len: u32, action: u8) -> TableOp {
    let key = Route4Key {
        prefix_len: 32 + len,
        group: GROUP,
        dst,
    };
    put(
        Table::Route4,
        key,
        RouteRow {
            action,
            vnet: VNET,
            vni: VNET_VNI,
            ..RouteRow::default()
        },
    )
}

pub(crate) fn route6(dst: [u8; 16], len: u32, action: u8) -> TableOp {
    let key = Route6Key {
        prefix_len: 32 + len,
        group: GROUP,
        dst,
    };
    put(
        Table::Route6,
        key,
        RouteRow {
            action,
            vnet: VNET,
            vni: VNET_VNI,
            ..RouteRow::default()
        },
    )
}

pub(crate) fn inbound(sip: [u8; 4], len: u32, action: u8) -> TableOp {
    let key = InboundKey {
        prefix_len: 64 + len,
        eni: ENI,
        vni: VNET_VNI,
        sip,
    };
    put(
        Table::Inbound,
        key,
        InboundRow {
            action,
            pad: 0,
            vnet: VNET,
            ..InboundRow::default()
        },
    )
}

pub(crate) fn neighbor(flags: u32) -> TableOp {
    let row = UnderlayRow {
        port: OUT_PORT,
        flags,
        dmac: NEIGHBOR,
        smac: OWN,
        mtu: u16::MAX,
        pad: [0; 2],
    };
    put(
        Table::Underlay,
        UnderlayKey {
            prefix_len: 32,
            v6: 0,
            dst: [0; 16],
        },
        row,
    )
}

pub(crate) fn trusted(eni: [u8; 2], vni: u32) -> TableOp {
    let [_, a, b, c] = vni.to_be_bytes();
    put(
        Table::TrustedVni,
        TrustedVniKey {
            prefix_len: 40,
            eni,
            vni: [a, b, c],
            pad: [0; 3],
        },
        1u32,
    )
}

/// An ACL rule that matches everything.
pub(crate) fn any_rule(action: u32) -> AclRuleRow {
    AclRuleRow {
        action,
        protocols: None,
        src: None,
        dst: None,
        src_ports: None,
        dst_ports: None,
    }
}

/// Rows of example E1 and E9: one ENI, one VNET, one peer, and some routes beside.
pub(crate) fn rows() -> Vec<TableOp> {
    let mac_key = |mac| EniMacKey { mac, pad: [0; 2] };
    let mut peer = [0; 16];
    peer[12..].copy_from_slice(&PEER);
    let mapping = MappingRow {
        underlay_dip: PEER_PA,
        dmac: PEER_MAC,
        flags: mapping_flags::SET_DMAC,
    };
    vec![
        put(Table::Globals, 0u32, globals()),
        put(Table::EniMac, mac_key(ENI_MAC), ENI),
        put(Table::Eni, ENI, eni_row()),
        put(Table::EniMac, mac_key(DOWN_ENI_MAC), DOWN_ENI),
        put(
            Table::Eni,
            DOWN_ENI,
            EniRow {
                flags: eni_flags::ROUTE_GROUP,
                ..eni_row()
            },
        ),
        route4([10, 1, 0, 0], 16, route_action::VNET),
        route4([10, 2, 5, 0], 24, route_action::DROP),
        route4([30, 0, 0, 0], 16, route_action::DIRECT),
        put(
            Table::Mapping,
            MappingKey {
                vnet: VNET,
                v6: 0,
                pad: 0,
                ip: peer,
            },
            mapping,
        ),
        inbound(PEER_PA, 32, inbound_action::DECAP_PA_VALIDATE),
        put(
            Table::PaValidation,
            PaKey {
                vnet: VNET,
                pad: 0,
                sip: PEER_PA,
            },
            1u32,
        ),
        neighbor(underlay_flags::RESOLVED),
    ]
}

pub(crate) fn full_shape() -> Shape {
    Shape {
        trusted_vnis: true,
        acl_out: 0b11111,
        acl_in: 0b11111,
        inbound_pa_validation: true,
        underlay_routes: true,
        ..Shape::default()
    }
}

/// A model with `rows`, room for `flows` connections, and the IR `ir`.
pub(crate) fn model_of(ir: &str, rows: Vec<TableOp>, flows: u32) -> Model {
    let mut model = Model::new(&Capacity {
        flows,
        enis: 8,
        ..Capacity::default()
    });
    let image = Image {
        shape: [0; 32],
        ir: ir.into(),
        object: Arc::new(Object::default()),
        native: None,
    };
    let update = Update {
        generation: 1,
        image: Some(Arc::new(image)),
        delta: Arc::new(TableDelta { ops: rows }),
    };
    model
        .apply(&update)
        .expect("the rows and the pipeline are good");
    model
}

/// The appliance of the examples, every stage present.
pub(crate) fn appliance() -> Model {
    appliance_with(Vec::new())
}

/// The appliance with further rows, which win over the usual ones.
pub(crate) fn appliance_with(more: Vec<TableOp>) -> Model {
    let mut all = rows();
    all.extend(more);
    model_of(&template::pipeline_text(&full_shape()), all, 16)
}

/// Changes rows, not code.
pub(crate) fn change(model: &mut Model, ops: Vec<TableOp>) {
    let update = Update {
        generation: 2,
        image: None,
        delta: Arc::new(TableDelta { ops }),
    };
    model.apply(&update).expect("the rows are good");
}

pub(crate) fn frame_at(packet: &[u8], now_ms: u64) -> Frame {
    let mut frame = Frame::new();
    assert!(frame.fill(packet));
    frame.port = 1;
    frame.timestamp_ns = now_ms * 1_000_000;
    frame
}

/// Runs a packet at a time in milliseconds.
pub(crate) fn run(model: &mut Model, packet: &[u8], now_ms: u64) -> (Verdict, Vec<u8>) {
    let mut frame = frame_at(packet, now_ms);
    let verdict = model.run(&mut frame).expect("there is a pipeline");
    (verdict, frame.data().to_vec())
}

/// Every counter that is not zero, ENI counters as `ENI/NAME`, all without their SAI prefixes.
pub(crate) fn counters(model: &mut Model) -> BTreeMap<String, u64> {
    let snapshot = model.counters().expect("the model always answers");
    assert_eq!(snapshot.port.len(), PortStat::COUNT);
    let port = PortStat::ALL
        .iter()
        .zip(&snapshot.port)
        .map(|(s, n)| (short(s.name()).to_owned(), *n));
    let eni = snapshot.eni.iter().flat_map(|(eni, block)| {
        assert_eq!(block.len(), EniStat::COUNT);
        EniStat::ALL
            .iter()
            .zip(block)
            .map(move |(s, n)| (format!("{eni}/{}", short(s.name())), *n))
    });
    port.chain(eni).filter(|(_, n)| *n != 0).collect()
}

fn short(name: &str) -> &str {
    name.trim_start_matches("SAI_PORT_STAT_")
        .trim_start_matches("SAI_ENI_STAT_")
}

/// What `act` added to the counters.
pub(crate) fn moved<T>(
    model: &mut Model,
    act: impl FnOnce(&mut Model) -> T,
) -> (T, BTreeMap<String, u64>) {
    let before = counters(model);
    let result = act(model);
    let mut after = counters(model);
    after.retain(|name, n| {
        *n -= before.get(name).copied().unwrap_or_default();
        *n != 0
    });
    (result, after)
}

/// Expected counters of [`moved`]: `name` without the ENI for port counters, `+name` for the ENI's.
pub(crate) fn expected(list: &[(&str, u64)]) -> BTreeMap<String, u64> {
    let name = |name: &str| {
        name.strip_prefix('+')
            .map_or(name.to_owned(), |n| format!("{ENI}/{n}"))
    };
    list.iter().map(|(n, count)| (name(n), *count)).collect()
}

pub(crate) fn flows(model: &mut Model) -> Vec<FlowEntry> {
    model.flows().expect("the model always answers")
}

/// An inner packet in its tunnel.
#[derive(Clone, Debug)]
pub(crate) struct Pkt {
    pub(crate) outer_sip: [u8; 4],
    pub(crate) outer_dip: [u8; 4],
    pub(crate) outer_tos: u8,
    pub(crate) vni: u32,
    pub(crate) smac: [u8; 6],
    pub(crate) dmac: [u8; 6],
    pub(crate) tos: u8,
    pub(crate) sip: [u8; 4],
    pub(crate) dip: [u8; 4],
    pub(crate) proto: u8,
    pub(crate) l4: Vec<u8>,
}

impl Pkt {
    /// From the VM, as in V1.
    pub(crate) fn outbound() -> Self {
        Self {
            outer_sip: VM_HOST,
            outer_dip: VIP,
            outer_tos: 0,
            vni: VM_VNI,
            smac: ENI_MAC,
            dmac: [0, 0, 0x5e, 0, 1, 1],
            tos: 0,
            sip: VM,
            dip: PEER,
            proto: 17,
            l4: udp(1000, 2000),
        }
    }

    /// From the peer, as in V6.
    pub(crate) fn inbound() -> Self {
        Self {
            outer_sip: PEER_PA,
            vni: VNET_VNI,
            smac: PEER_MAC,
            dmac: ENI_MAC,
            sip: PEER,
            dip: VM,
            l4: udp(2000, 1000),
            ..Self::outbound()
        }
    }

    pub(crate) fn tcp(self, sport: u16, dport: u16, flags: u8) -> Self {
        let mut l4 = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
        l4.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0x20, 0, 0, 0, 0, 0]);
        Self {
            proto: 6,
            l4,
            ..self
        }
    }

    /// ICMP of a type with an identifier.
    pub(crate) fn icmp(self, ty: u8, id: u16) -> Self {
        let [a, b] = id.to_be_bytes();
        Self {
            proto: 1,
            l4: vec![ty, 0, 0, 0, a, b, 0, 1],
            ..self
        }
    }

    pub(crate) fn inner_ip(&self) -> Vec<u8> {
        let mut ip = vec![0x45, self.tos];
        ip.extend((20 + self.l4.len() as u16).to_be_bytes());
        ip.extend([0, 0, 0, 0, 64, self.proto, 0, 0]);
        ip.extend(self.sip);
        ip.extend(self.dip);
        fix_checksum(&mut ip);
        ip.extend(&self.l4);
        ip
    }

    pub(crate) fn inner(&self) -> Vec<u8> {
        ethernet(self.dmac, self.smac, 0x0800, &self.inner_ip())
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.around(&self.inner())
    }

    /// The tunnel headers of this packet around another inner frame.
    pub(crate) fn around(&self, inner: &[u8]) -> Vec<u8> {
        let udp_len = 16 + inner.len() as u16;
        let mut ip = vec![0x45, self.outer_tos];
        ip.extend((20 + udp_len).to_be_bytes());
        ip.extend([0, 0, 0, 0, 64, 17, 0, 0]);
        ip.extend(self.outer_sip);
        ip.extend(self.outer_dip);
        fix_checksum(&mut ip);
        ip.extend(5137u16.to_be_bytes());
        ip.extend(4789u16.to_be_bytes());
        ip.extend(udp_len.to_be_bytes());
        ip.extend([0, 0, 0x08, 0, 0, 0]);
        ip.extend(&self.vni.to_be_bytes()[1..]);
        ip.push(0);
        ip.extend(inner);
        ethernet(OWN, NEIGHBOR, 0x0800, &ip)
    }
}

pub(crate) fn ethernet(dmac: [u8; 6], smac: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [dmac, smac].concat();
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

pub(crate) fn udp(sport: u16, dport: u16) -> Vec<u8> {
    let mut l4 = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
    l4.extend([0, 16, 0, 0]);
    l4.extend(b"DASHTEST");
    l4
}

/// An IPv6 packet with a traffic class.
pub(crate) fn ipv6(class: u8, sip: [u8; 16], dip: [u8; 16], next: u8, payload: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x60 | class >> 4, class << 4, 0, 0];
    ip.extend((payload.len() as u16).to_be_bytes());
    ip.extend([next, 64]);
    ip.extend(sip);
    ip.extend(dip);
    ip.extend(payload);
    ip
}

/// Writes the checksum of the IPv4 header (20 bytes) at the start of `ip`.
pub(crate) fn fix_checksum(ip: &mut [u8]) {
    ip[10..12].fill(0);
    let mut sum: u32 = ip[..20]
        .chunks(2)
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])))
        .sum();
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    ip[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// Bytes of a golden dump of the DASH reference: hex digits, blanks ignored.
pub(crate) fn hex(dump: &str) -> Vec<u8> {
    let digits: Vec<u8> = dump
        .chars()
        .filter_map(|c| c.to_digit(16))
        .map(|d| d as u8)
        .collect();
    digits.chunks(2).map(|d| d[0] << 4 | d[1]).collect()
}
