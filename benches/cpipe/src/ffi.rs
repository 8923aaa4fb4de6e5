//! The C side's layouts and functions, and the safe type over them.

#![expect(unsafe_code, reason = "calls of C functions")]

use std::ptr::NonNull;

use dash_wire::tables::{FlowActions, FlowKey, flow_action};
use thiserror::Error;

use crate::EniStats;

/// Packets that are run together, at most.
pub const BURST: usize = 32;

/// What goes into every packet.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Globals {
    /// The card's address.
    pub vip: [u8; 4],
    /// VNI of packets from VMs.
    pub vm_vni: u32,
    /// VXLAN's UDP port, network order.
    pub vxlan_port: [u8; 2],
    /// TTL of encaps.
    pub ttl: u8,
    /// Zero.
    pub pad: u8,
}

/// Counters of one direction of a flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowStats {
    /// Packets.
    pub packets: u64,
    /// Bytes of inner frames.
    pub bytes: u64,
    /// Clock at the last packet, ns.
    pub last_seen_ns: u64,
}

#[repr(C)]
struct Actions {
    sip: [u8; 4],
    dip: [u8; 4],
    vni: u32,
    dmac: [u8; 6],
    sport: [u8; 2],
    set_dmac: u32,
}

#[repr(C)]
struct Packet {
    data: *mut u8,
    len: u32,
    pad: u32,
}

#[repr(C)]
struct Opaque {
    _private: [u8; 0],
}

unsafe extern "C" {
    fn cpipe_new(globals: *const Globals, flows: u32, enis: u32) -> *mut Opaque;
    fn cpipe_free(p: *mut Opaque);
    fn cpipe_add_eni(p: *mut Opaque, mac: *const u8, eni: u16) -> i32;
    fn cpipe_add_flow(p: *mut Opaque, key: *const FlowKey, actions: *const Actions) -> i32;
    fn cpipe_run(p: *mut Opaque, packets: *mut Packet, n: u32, now_ns: u64);
    fn cpipe_flow_stats(p: *const Opaque, key: *const FlowKey, out: *mut FlowStats) -> i32;
    fn cpipe_eni_stats(p: *const Opaque, eni: u16, out: *mut EniStats) -> i32;
}

/// Why a pipeline is not made, or takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// No memory for its tables, or a size that no table has.
    #[error("no C pipeline with {flows} flows and {enis} ENIs: no memory, or not a size it has")]
    New {
        /// Keys asked for.
        flows: u32,
        /// ENIs asked for.
        enis: u32,
    },
    /// The table is full.
    #[error("the table of {0} is full")]
    Full(&'static str),
    /// It has encap by VXLAN alone.
    #[error("a flow without VXLAN encap")]
    NotVxlan,
}

/// The pipeline and its tables.
#[derive(Debug)]
pub struct Pipeline(NonNull<Opaque>);

// SAFETY: the C side has no state outside what the pointer leads to, and no thread-local state.
unsafe impl Send for Pipeline {}

impl Pipeline {
    /// Empty tables for so many flow keys (two a connection) and ENIs.
    ///
    /// # Errors
    /// There is no memory, or a number is 0 or too large.
    pub fn new(globals: &Globals, flows: u32, enis: u32) -> Result<Self, Error> {
        // SAFETY: `globals` is a valid `struct cpipe_globals` for the call; the C side copies it.
        let p = unsafe { cpipe_new(globals, flows, enis) };
        NonNull::new(p).map(Self).ok_or(Error::New { flows, enis })
    }

    /// Adds an ENI.
    ///
    /// # Errors
    /// There is no room, or the index is not below the number of ENIs.
    pub fn add_eni(&mut self, mac: [u8; 6], eni: u16) -> Result<(), Error> {
        // SAFETY: `self.0` is a live pipeline, borrowed exclusively; `mac` has six bytes.
        let done = unsafe { cpipe_add_eni(self.0.as_ptr(), mac.as_ptr(), eni) };
        if done == 0 {
            Ok(())
        } else {
            Err(Error::Full("ENIs"))
        }
    }

    /// Adds one direction of a flow, or replaces its actions.
    ///
    /// # Errors
    /// There is no room, or the actions are not an encap by VXLAN.
    pub fn add_flow(&mut self, key: &FlowKey, actions: &FlowActions) -> Result<(), Error> {
        if actions.actions & flow_action::ENCAP_U0 == 0 || actions.u0_encap != 1 {
            return Err(Error::NotVxlan);
        }
        let actions = Actions {
            sip: actions.u0_sip,
            dip: actions.u0_dip,
            vni: actions.u0_vni,
            dmac: actions.dmac,
            sport: actions.sport,
            set_dmac: u32::from(actions.actions & flow_action::SET_DMAC != 0),
        };
        // SAFETY: `self.0` is a live pipeline, borrowed exclusively; both structs are as the header
        // has them (`FlowKey` is `repr(C)`, 40 bytes, asserted below) and only read.
        let done = unsafe { cpipe_add_flow(self.0.as_ptr(), key, &raw const actions) };
        if done == 0 {
            Ok(())
        } else {
            Err(Error::Full("flows"))
        }
    }

    /// Runs a burst of at most [`BURST`] packets in place. `lens` are the lengths received in `bufs`
    /// and become those to be sent, 0 for a packet that this path does not forward.
    ///
    /// # Panics
    /// More packets than a burst, fewer lengths than packets, or a length beyond its buffer.
    pub fn run(&mut self, bufs: &mut [&mut [u8]], lens: &mut [u32], now_ns: u64) {
        assert!(bufs.len() <= BURST && lens.len() == bufs.len());
        let mut packets = [const {
            Packet {
                data: std::ptr::null_mut(),
                len: 0,
                pad: 0,
            }
        }; BURST];
        for ((packet, buf), len) in packets.iter_mut().zip(bufs.iter_mut()).zip(lens.iter()) {
            assert!(*len as usize <= buf.len());
            packet.data = buf.as_mut_ptr();
            packet.len = *len;
        }
        // SAFETY: `self.0` is a live pipeline, borrowed exclusively. The first `bufs.len()` packets
        // point to buffers borrowed exclusively, of at least `len` bytes; the C side reads and writes
        // within `data..data + len` (every header it touches is checked against `len`, and what it
        // writes is no longer than what it received).
        unsafe {
            cpipe_run(
                self.0.as_ptr(),
                packets.as_mut_ptr(),
                bufs.len() as u32,
                now_ns,
            );
        }
        for (len, packet) in lens.iter_mut().zip(&packets) {
            *len = packet.len;
        }
    }

    /// Counters of one direction of a flow; `None` if there is none.
    pub fn flow_stats(&self, key: &FlowKey) -> Option<FlowStats> {
        let mut stats = FlowStats::default();
        // SAFETY: `self.0` is a live pipeline that nobody changes meanwhile; `key` is read and
        // `stats` written, both as the header has them.
        let found = unsafe { cpipe_flow_stats(self.0.as_ptr(), key, &raw mut stats) };
        (found == 0).then_some(stats)
    }

    /// Counters of an ENI; `None` if the index is not below the number of ENIs.
    pub fn eni_stats(&self, eni: u16) -> Option<EniStats> {
        let mut stats = EniStats::default();
        // SAFETY: as in `flow_stats`.
        let found = unsafe { cpipe_eni_stats(self.0.as_ptr(), eni, &raw mut stats) };
        (found == 0).then_some(stats)
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        // SAFETY: made by `cpipe_new`, freed once.
        unsafe { cpipe_free(self.0.as_ptr()) };
    }
}

const _: () = assert!(size_of::<FlowKey>() == 40 && align_of::<FlowKey>() == 2);
const _: () = assert!(size_of::<Actions>() == 24 && size_of::<Globals>() == 12);
const _: () = assert!(size_of::<Packet>() == 16 && size_of::<EniStats>() == 12 * 8);

#[cfg(test)]
mod tests {
    use super::*;

    fn pipeline(flows: u32) -> Pipeline {
        let globals = Globals {
            vip: [10, 0, 0, 1],
            vm_vni: 9,
            vxlan_port: 4789u16.to_be_bytes(),
            ttl: 64,
            pad: 0,
        };
        Pipeline::new(&globals, flows, 2).expect("small tables")
    }

    fn key(n: u32) -> FlowKey {
        let mut key = FlowKey {
            proto: 17,
            flags: 2,
            ..FlowKey::default()
        };
        // Alike in all but the addresses.
        key.sip[12..].copy_from_slice(&n.to_be_bytes());
        key.dip[12..].copy_from_slice(&[10, 0, 0, 1]);
        key
    }

    fn encap(vni: u32) -> FlowActions {
        FlowActions {
            actions: flow_action::ENCAP_U0,
            u0_encap: 1,
            u0_vni: vni,
            ..FlowActions::default()
        }
    }

    #[test]
    fn a_table_holds_what_it_was_made_for_and_refuses_more() {
        for flows in [1, 7, 100, 5_000, 60_000, 131_072] {
            let mut p = pipeline(flows);
            for n in 0..flows {
                p.add_flow(&key(n), &encap(n)).expect("room for all");
            }
            assert_eq!(
                p.add_flow(&key(flows), &encap(0)),
                Err(Error::Full("flows"))
            );
            // Again is a change, not another.
            p.add_flow(&key(0), &encap(7)).expect("it is there");
            assert!((0..flows).all(|n| p.flow_stats(&key(n)).is_some()));
            assert_eq!(p.flow_stats(&key(flows)), None);
        }
    }

    #[test]
    fn what_it_cannot_do_is_refused() {
        let bare = FlowActions::default();
        assert_eq!(pipeline(1).add_flow(&key(0), &bare), Err(Error::NotVxlan));
        assert_eq!(pipeline(1).add_eni([2; 6], 2), Err(Error::Full("ENIs")));
        assert_eq!(pipeline(1).eni_stats(2), None);
    }

    /// Whatever the bytes, nothing is read or written outside them: buffers end at their length.
    #[test]
    fn short_and_odd_packets_are_not_forwarded() {
        let mut p = pipeline(1);
        for len in 0..200usize {
            for fill in [0, 0x45, 0xff] {
                let mut buf = vec![fill; len];
                let before = buf.clone();
                let mut lens = [len as u32];
                p.run(&mut [&mut buf[..]], &mut lens, 1);
                assert_eq!(lens, [0]);
                assert_eq!(buf, before);
            }
        }
        p.run(&mut [], &mut [], 1);
    }
}
