//! A flow table that another processor reads too: its connections in that processor's memory, and
//! word to it of every connection that comes and goes.
//!
//! The kernel's XDP programs are such a reader: they refresh connections (time, packets, bytes), and
//! the core that owns the table does all the rest.

use std::fmt::Debug;
use std::ptr::NonNull;
use std::sync::Arc;

use dash_wire::tables::FlowEntry;

/// Hears of connections, on the thread that owns the table and before it goes on.
pub trait FlowMirror: Send + Debug {
    /// Both keys of a connection are in the index now, and its entry is whole.
    fn added(&mut self, slot: u32, flow: &FlowEntry);
    /// A connection is out of the index; its slot may be another's as soon as this returns. Also said
    /// of one that never was [`added`](Self::added) because its second key was taken.
    fn removed(&mut self, slot: u32, flow: &FlowEntry);
}

/// Memory for the connections, by slot.
///
/// # Safety
/// `len` zeroed or valid bytes at `base`, 8-byte aligned, readable and writable as plain memory while
/// the value lives. Nobody else writes them but in aligned words of at most 8 bytes, of which each
/// is right on its own.
pub unsafe trait SlabMemory: Send + Sync + Debug {
    /// First byte.
    fn base(&self) -> NonNull<u8>;
    /// Bytes.
    fn len(&self) -> usize;
    /// No bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What makes a flow table a shared one.
#[derive(Debug)]
pub struct SharedFlows {
    /// Where connections are: at least the slab's size (`Table::FlowSlab`).
    pub slab: Arc<dyn SlabMemory>,
    /// What ENIs used of their limits (`Table::QosState`): times are moved on by both.
    pub limits: Arc<dyn SlabMemory>,
    /// Who hears of them.
    pub mirror: Box<dyn FlowMirror>,
}
