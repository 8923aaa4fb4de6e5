//! One ENI, one route, two mappings: rows, images and packets for tests of the kernel's part.

use std::sync::Arc;

use dash_pipeline::plan::Shape;
use dash_pipeline::{lower, template, text};
use dash_wire::tables::{
    EniMacKey, EniRow, Globals, MappingKey, MappingRow, Route4Key, RouteRow, UnderlayKey,
    UnderlayRow, eni_flags, route_action, underlay_flags,
};
use nic_sim::Packet;
use nic_sim::packet::Layers;
use nic_sim::packet::last::{Ipv4, Vxlan};
use nic_target::{Capacity, Image, Table, TableDelta, TableOp, Update};
use zerocopy::IntoBytes;

pub(crate) const VIP: [u8; 4] = [10, 0, 0, 1];
pub(crate) const VM_HOST: [u8; 4] = [25, 1, 1, 1];
pub(crate) const PA: [u8; 4] = [101, 1, 2, 3];
pub(crate) const VM_VNI: u32 = 4321;
pub(crate) const VNET_VNI: u32 = 45654;
pub(crate) const ENI_MAC: [u8; 6] = [0xf4, 0x93, 0x9f, 0xef, 0xc4, 0x7e];
pub(crate) const VM: [u8; 4] = [10, 1, 1, 10];
pub(crate) const PEER: [u8; 4] = [10, 1, 1, 1];
const PEER_MAC: [u8; 6] = [0xf8, 0x22, 0x83, 0x99, 0x22, 0xa2];
const ROUTE_GROUP: u32 = 7;
const VNET: u16 = 1;

pub(crate) fn capacity() -> Capacity {
    Capacity {
        enis: 4,
        routes: 16,
        mappings: 16,
        inbound_rules: 16,
        trusted_vnis: 16,
        acl_groups: 4,
        underlay_routes: 16,
        flows: 8,
    }
}

/// eBPF without machine code, for a core that interprets.
pub(crate) fn image(shape: &Shape, capacity: &Capacity) -> Arc<Image> {
    let ir = template::pipeline_text(shape);
    let object = lower::lower(&text::parse(&ir).unwrap(), capacity).unwrap();
    let mut hash = [0; 32];
    hash[0] = u8::from(shape.underlay_routes) | u8::from(shape.trusted_vnis) << 1;
    Arc::new(Image {
        shape: hash,
        ir: ir.into(),
        object: Arc::new(object),
        native: None,
    })
}

pub(crate) fn update(image: Option<Arc<Image>>, ops: Vec<TableOp>) -> Update {
    Update {
        generation: 1,
        image,
        delta: Arc::new(TableDelta { ops }),
    }
}

pub(crate) fn put(table: Table, key: &[u8], value: &[u8]) -> TableOp {
    TableOp::Put {
        table,
        key: key.into(),
        value: value.into(),
    }
}

pub(crate) fn delete(table: Table, key: &[u8]) -> TableOp {
    TableOp::Delete {
        table,
        key: key.into(),
    }
}

fn eni_mac() -> EniMacKey {
    EniMacKey {
        mac: ENI_MAC,
        pad: [0; 2],
    }
}

/// The ENI, of index 0.
pub(crate) fn eni() -> Vec<TableOp> {
    let row = EniRow {
        mac: ENI_MAC,
        flags: eni_flags::ADMIN_UP | eni_flags::ROUTE_GROUP,
        vm_underlay_dip: VM_HOST,
        vm_vni: VM_VNI,
        vnet_vni: VNET_VNI,
        vnet: VNET,
        route_group: ROUTE_GROUP,
        ..EniRow::default()
    };
    vec![
        put(Table::EniMac, eni_mac().as_bytes(), &0u32.to_ne_bytes()),
        put(Table::Eni, &0u32.to_ne_bytes(), row.as_bytes()),
    ]
}

/// The end of the ENI.
pub(crate) fn no_eni() -> Vec<TableOp> {
    vec![
        delete(Table::EniMac, eni_mac().as_bytes()),
        delete(Table::Eni, &0u32.to_ne_bytes()),
    ]
}

/// Everything.
pub(crate) fn rows() -> Vec<TableOp> {
    let globals = Globals {
        vip: VIP,
        vm_vni: VM_VNI,
        vxlan_port: 4789u16.to_be_bytes(),
        encap_ttl: 64,
        flags: 0,
        sport_base: 5120,
        sport_mask: 127,
        ..Globals::default()
    };
    let route = Route4Key {
        prefix_len: 32 + 8,
        group: ROUTE_GROUP,
        dst: [10, 0, 0, 0],
    };
    let to_vnet = RouteRow {
        action: route_action::VNET,
        vnet: VNET,
        vni: VNET_VNI,
        ..RouteRow::default()
    };
    let mut ops = eni();
    ops.push(put(Table::Globals, &0u32.to_ne_bytes(), globals.as_bytes()));
    ops.push(put(Table::Route4, route.as_bytes(), to_vnet.as_bytes()));
    ops.push(mapping(PEER, PA));
    ops
}

/// A CA and its PA.
pub(crate) fn mapping(ca: [u8; 4], pa: [u8; 4]) -> TableOp {
    let mut ip = [0; 16];
    ip[12..].copy_from_slice(&ca);
    let key = MappingKey {
        vnet: VNET,
        v6: 0,
        pad: 0,
        ip,
    };
    let row = MappingRow {
        underlay_dip: pa,
        dmac: [0; 6],
        flags: 0,
    };
    put(Table::Mapping, key.as_bytes(), row.as_bytes())
}

/// An address and the port it is behind; `None`: its MAC is not known.
pub(crate) fn underlay(address: [u8; 4], port: u32, dmac: Option<[u8; 6]>) -> TableOp {
    let mut dst = [0; 16];
    dst[..4].copy_from_slice(&address);
    let key = UnderlayKey {
        prefix_len: 32 + 32,
        v6: 0,
        dst,
    };
    let row = UnderlayRow {
        port,
        flags: if dmac.is_some() {
            underlay_flags::RESOLVED
        } else {
            0
        },
        dmac: dmac.unwrap_or_default(),
        smac: [2, 0, 0, 0, 0, 0xdd],
        mtu: u16::MAX,
        pad: [0; 2],
    };
    put(Table::Underlay, key.as_bytes(), row.as_bytes())
}

/// A tunnel to the VIP.
fn tunnel(from: [u8; 4], vni: u32) -> Layers<Vxlan> {
    Packet::eth([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4(from, VIP)
        .udp(5137, 4789)
        .vxlan(vni)
}

/// What the VM sends to `PEER`.
pub(crate) fn from_vm() -> Layers<Ipv4> {
    tunnel(VM_HOST, VM_VNI)
        .eth(PEER_MAC, ENI_MAC)
        .ipv4(VM, PEER)
}

/// What `PEER` sends to the VM.
pub(crate) fn to_vm() -> Layers<Ipv4> {
    tunnel(PA, VNET_VNI).eth(ENI_MAC, PEER_MAC).ipv4(PEER, VM)
}
