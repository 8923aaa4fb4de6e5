//! Packet buffers: fixed blocks with headroom that circulate between ports and workers.

/// Bytes in front of a received packet, for what a program pushes (`XDP_PACKET_HEADROOM`).
pub const HEADROOM: usize = 256;

/// Largest packet a buffer holds: a 9,216-byte jumbo frame and encap.
pub const MAX_FRAME: usize = 9_600;

/// A packet in its buffer.
#[derive(Debug)]
pub struct Frame {
    buf: Box<[u8]>,
    start: usize,
    end: usize,
    /// Port it came in on, or leaves by.
    pub port: u16,
    /// Clock at reception, ns.
    pub timestamp_ns: u64,
}

impl Frame {
    /// An empty frame (allocates: pools keep frames, paths do not make them).
    pub fn new() -> Self {
        Self {
            buf: vec![0; HEADROOM + MAX_FRAME].into_boxed_slice(),
            start: HEADROOM,
            end: HEADROOM,
            port: 0,
            timestamp_ns: 0,
        }
    }
    /// The packet.
    pub fn data(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }
    /// The packet, to change in place.
    pub fn data_mut(&mut self) -> &mut [u8] {
        &mut self.buf[self.start..self.end]
    }
    /// Space for a packet to be received into, at full headroom.
    pub fn space_mut(&mut self) -> &mut [u8] {
        &mut self.buf[HEADROOM..]
    }
    /// Makes the packet the first `len` bytes of [`space_mut`](Self::space_mut); false (and empty)
    /// when it does not fit.
    pub fn set_len(&mut self, len: usize) -> bool {
        self.start = HEADROOM;
        let fits = len <= MAX_FRAME;
        self.end = HEADROOM + if fits { len } else { 0 };
        fits
    }
    /// Copies a packet in; false when it is longer than [`MAX_FRAME`].
    pub fn fill(&mut self, data: &[u8]) -> bool {
        if !self.set_len(data.len()) {
            return false;
        }
        self.data_mut().copy_from_slice(data);
        true
    }
    /// The whole buffer and the packet's bounds in it, for who runs programs on it.
    pub fn parts_mut(&mut self) -> (&mut [u8], usize, usize) {
        (&mut self.buf, self.start, self.end)
    }
    /// Moves the packet's bounds after a program did; false (unchanged) when they are not
    /// `start <= end <= buffer`.
    pub fn set_bounds(&mut self, start: usize, end: usize) -> bool {
        let ok = start <= end && end <= self.buf.len();
        if ok {
            (self.start, self.end) = (start, end);
        }
        ok
    }
}

impl Default for Frame {
    fn default() -> Self {
        Self::new()
    }
}

/// Frames not in use. Bounded by construction: `take` gives `None` when all are out.
#[derive(Debug)]
pub struct FramePool {
    free: Vec<Frame>,
}

impl FramePool {
    /// A pool of `n` frames.
    pub fn new(n: usize) -> Self {
        Self {
            free: (0..n).map(|_| Frame::new()).collect(),
        }
    }
    /// One frame, if any is left.
    pub fn take(&mut self) -> Option<Frame> {
        self.free.pop()
    }
    /// Gives a frame back.
    pub fn give(&mut self, frame: Frame) {
        self.free.push(frame);
    }
    /// Frames left.
    pub fn available(&self) -> usize {
        self.free.len()
    }
}
