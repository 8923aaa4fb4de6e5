//! What a worker receives from and sends to.

use std::io;

use crate::frame::{Frame, FramePool};

/// Outcome of a receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rx {
    /// This many frames were added; 0 means nothing waits now.
    Received(usize),
    /// No frame will ever come again (a capture file ended, an interface is gone).
    End,
}

/// Frames that a send could and could not place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tx {
    /// Sent.
    pub sent: usize,
    /// Dropped: queue full, longer than the MTU, link down.
    pub dropped: usize,
}

/// A queue pair of a NIC. Methods never block and never allocate per frame.
pub trait Port: Send {
    /// For messages and metrics.
    fn name(&self) -> &str;
    /// Own MAC.
    fn mac(&self) -> [u8; 6];
    /// Takes empty frames from `pool`, fills them (data, `port` = `index`, `timestamp_ns`) and
    /// pushes at most `max` to `burst`.
    fn rx(
        &mut self,
        index: u16,
        pool: &mut FramePool,
        burst: &mut Vec<Frame>,
        max: usize,
    ) -> io::Result<Rx>;
    /// Sends all of `frames` in order and gives every buffer back to `pool`.
    fn tx(&mut self, pool: &mut FramePool, frames: &mut Vec<Frame>) -> io::Result<Tx>;
    /// Called when nothing was received: wait a little or return at once. Default: return.
    fn idle(&mut self) {}
    /// True when `timestamp_ns` of received frames is the only clock (captures, simulation).
    fn virtual_time(&self) -> bool {
        false
    }
}
