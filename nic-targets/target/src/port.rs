//! What a worker receives from and sends to ([`Port`]), and what control sees of a device
//! ([`Device`]).

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
    /// Bytes of those sent, from Ethernet header to the end.
    pub octets: u64,
    /// Dropped: queue full, longer than the MTU, link down.
    pub dropped: usize,
}

/// A queue pair of a NIC, owned by one worker. Methods never block and never allocate per frame.
pub trait Port: Send {
    /// For messages and metrics.
    fn name(&self) -> &str;
    /// Own MAC.
    fn mac(&self) -> [u8; 6];
    /// Longest IP packet it sends, as it was when the port was opened. Default: nobody knows.
    fn mtu(&self) -> Option<u32> {
        None
    }
    /// Pushes at most `max` received frames to `burst`, with `port` = `index` and `timestamp_ns` set.
    /// Frames are the port's own ([`Frame::lend`]), or empty ones from `pool` that it fills.
    fn rx(
        &mut self,
        index: u16,
        pool: &mut FramePool,
        burst: &mut Vec<Frame>,
        max: usize,
    ) -> io::Result<Rx>;
    /// Sends all of `frames` in order and gives back every buffer that is not its own to `pool`.
    /// Lent frames may come from another queue or port of the same lender: a worker also sends what
    /// others received.
    fn tx(&mut self, pool: &mut FramePool, frames: &mut Vec<Frame>) -> io::Result<Tx>;
    /// Called once on the worker's thread, before the first burst. Default: nothing.
    fn start(&mut self) -> io::Result<()> {
        Ok(())
    }
    /// Called when nothing was received: wait a little or return at once. Default: return.
    fn idle(&mut self) {}
    /// True when `timestamp_ns` of received frames is the only clock (captures, simulation).
    fn virtual_time(&self) -> bool {
        false
    }
}

/// State of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Up, at this many Mbit/s; `None` when the device has no rate.
    Up(Option<u32>),
    /// Down: what is sent is dropped and counted.
    Down,
    /// The device is not there any more.
    Gone,
}

/// A device as control sees it: all its queues. Never used on a worker's thread.
pub trait Device: Send {
    /// Same as of its ports.
    fn name(&self) -> &str;
    /// Own MAC.
    fn mac(&self) -> [u8; 6];
    /// State of its link now.
    fn link(&mut self) -> Link;
    /// Counters of the device's own, by the names it gives them (DPDK's xstats, `ethtool -S`). Counted
    /// since it was opened.
    fn xstats(&mut self) -> io::Result<Vec<(String, u64)>>;
}
