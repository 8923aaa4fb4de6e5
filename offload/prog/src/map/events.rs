//! Arrays of perf events: records from programs to one reader outside, each worker's in order.
//!
//! In Linux a reader opens an event for each processor, and programs write to that of the processor they run on.
//! Here each worker has a ring from the start, of [`RING`] bytes; a record that finds no room is counted as lost.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use dash_bpf::MapDef;

use super::ring::Ring;
use crate::errno::Errno;

/// Bytes of a worker's ring, headers of records among them.
const RING: u32 = 1 << 16;

/// Of the flags: which slot, and the slot of the processor that the program runs on (`BPF_F_CURRENT_CPU`).
const INDEX: u64 = 0xffff_ffff;
/// Of the flags: how many bytes of the packet follow the record's own (`BPF_F_CTXLEN_MASK`).
const CTXLEN: u64 = 0xf_ffff << 32;

/// An array of perf events.
#[derive(Debug)]
pub(crate) struct Events {
    /// Slots there are for programs.
    slots: u32,
    /// By worker.
    rings: Box<[Ring]>,
    lost: AtomicU64,
    /// The ring that the reader looks at first.
    turn: AtomicU32,
}

/// Memory of such a map, in bytes.
pub(crate) fn memory(cpus: u32) -> u64 {
    u64::from(cpus) * u64::from(RING)
}

impl Events {
    pub(crate) fn new(def: &MapDef, cpus: u32) -> Result<Self, Errno> {
        if def.key_size != 4 || def.value_size != 4 {
            return Err(Errno::Inval);
        }
        // Loaders make as many slots as there are processors when there are to be none.
        let slots = if def.max_entries == 0 {
            cpus
        } else {
            def.max_entries
        };
        let rings = (0..cpus.min(slots)).map(|_| Ring::with_size(RING));
        Ok(Self {
            slots,
            rings: rings.collect::<Result<_, _>>()?,
            lost: AtomicU64::new(0),
            turn: AtomicU32::new(0),
        })
    }

    /// `bpf_perf_event_output` of a program on a worker: `size` bytes, and as many of the packet's as the flags say.
    ///
    /// # Safety
    /// `size` bytes are readable at `data`, and the packet's at its address.
    pub(crate) unsafe fn output(
        &self,
        cpu: u32,
        flags: u64,
        (data, size): (*const u8, u64),
        (packet, packet_len): (*const u8, usize),
    ) -> Result<(), Errno> {
        let of_packet = ((flags & CTXLEN) >> 32) as usize;
        if flags & !(INDEX | CTXLEN) != 0 {
            return Err(Errno::Inval);
        }
        if of_packet > packet_len {
            return Err(Errno::Fault);
        }
        let slot = match flags & INDEX {
            INDEX => cpu,
            slot => slot as u32,
        };
        if slot >= self.slots {
            return Err(Errno::TooBig);
        }
        let ring = self.rings.get(slot as usize).ok_or(Errno::NoEnt)?;
        // Another processor's event is not this one's to write.
        if slot != cpu {
            return Err(Errno::NotSupp);
        }
        // SAFETY: by contract, and so much of the packet is there.
        let put = unsafe { ring.put([(data, size as usize), (packet, of_packet)]) };
        put.map_err(|_| {
            self.lost.fetch_add(1, Ordering::Relaxed);
            Errno::NoSpc
        })
    }

    /// The next record, removed: workers' in turns.
    pub(crate) fn next(&self) -> Option<Vec<u8>> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed) as usize;
        let count = self.rings.len();
        (0..count).find_map(|n| self.rings[(first % count + n) % count].next())
    }

    /// Records that found no room.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Bytes not read yet.
    pub(crate) fn waiting(&self) -> u64 {
        self.rings.iter().map(|ring| ring.query(0)).sum()
    }
}
