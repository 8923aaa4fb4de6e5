//! Packet buffers with headroom that circulate between ports and workers.
//!
//! A frame is either the program's own memory ([`Frame::new`]) or a buffer of a device ([`Lent`]: a
//! DPDK mbuf, a chunk of an AF_XDP area), so that a packet may be received, changed and sent without
//! a copy. Wherever a frame is dropped, its buffer goes back to whom it belongs.

#![expect(unsafe_code, reason = "frames over memory that a device lends")]

use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

/// Bytes in front of a received packet, for what a program pushes (`XDP_PACKET_HEADROOM`). Buffers of
/// devices may have fewer.
pub const HEADROOM: usize = 256;

/// Largest packet a buffer of our own holds: a 9,216-byte jumbo frame and encap.
pub const MAX_FRAME: usize = 9_600;

const OWN_SIZE: usize = HEADROOM + MAX_FRAME;

/// A kind of lent buffer: one static for each, so that a port can tell its own ([`Frame::into_lent`]).
#[derive(Debug)]
pub struct Lender {
    /// For messages.
    pub name: &'static str,
    /// Takes a buffer back; called once, on any thread.
    ///
    /// # Safety
    /// `handle` is that of a [`Lent`] with this lender, and the buffer is not used any more.
    pub release: unsafe fn(handle: NonNull<()>),
}

/// A buffer that a device lends.
#[derive(Clone, Copy, Debug)]
pub struct Lent {
    /// Who takes it back.
    pub lender: &'static Lender,
    /// What the lender knows it by.
    pub handle: NonNull<()>,
}

/// A packet in its buffer.
pub struct Frame {
    base: NonNull<u8>,
    size: u32,
    start: u32,
    end: u32,
    /// Port it came in on, or leaves by.
    pub port: u16,
    /// Clock at reception, ns.
    pub timestamp_ns: u64,
    /// `None`: the buffer is a boxed slice of `OWN_SIZE` bytes.
    lent: Option<Lent>,
}

// SAFETY: the buffer is used through the frame alone (a contract of `lend`, true of a box), and
// lenders take buffers back on any thread.
unsafe impl Send for Frame {}
// SAFETY: `&Frame` only reads.
unsafe impl Sync for Frame {}

impl Frame {
    /// An empty frame in memory of its own (allocates: pools keep frames, paths do not make them).
    pub fn new() -> Self {
        let buf = vec![0; OWN_SIZE].into_boxed_slice();
        Self {
            base: NonNull::from(Box::leak(buf)).cast(),
            size: OWN_SIZE as u32,
            start: HEADROOM as u32,
            end: HEADROOM as u32,
            port: 0,
            timestamp_ns: 0,
            lent: None,
        }
    }

    /// A frame over a device's buffer of `size` bytes, its packet at `start..end`.
    ///
    /// # Safety
    /// `base` points to `size` initialised, writable bytes that nothing else uses until the lender
    /// has them back, and `start <= end <= size`.
    pub unsafe fn lend(base: NonNull<u8>, size: u32, start: u32, end: u32, lent: Lent) -> Self {
        debug_assert!(start <= end && end <= size);
        Self {
            base,
            size,
            start,
            end,
            port: 0,
            timestamp_ns: 0,
            lent: Some(lent),
        }
    }

    /// The lender's handle and the packet's bounds, if this lender's buffer it is: the buffer is then
    /// the caller's to give back or to send. Otherwise the frame, as it was.
    ///
    /// # Errors
    /// It is another's.
    pub fn into_lent(self, lender: &'static Lender) -> Result<(NonNull<()>, u32, u32), Self> {
        match self.lent {
            Some(lent) if std::ptr::eq(lent.lender, lender) => {
                let frame = ManuallyDrop::new(self);
                Ok((lent.handle, frame.start, frame.end))
            }
            _ => Err(self),
        }
    }

    /// The lender's handle, if this lender's buffer it is.
    pub fn lent_by(&self, lender: &'static Lender) -> Option<NonNull<()>> {
        self.lent
            .filter(|lent| std::ptr::eq(lent.lender, lender))
            .map(|lent| lent.handle)
    }

    /// True when the buffer is a device's.
    #[inline]
    pub fn is_lent(&self) -> bool {
        self.lent.is_some()
    }

    #[inline]
    fn buf(&self) -> &[u8] {
        // SAFETY: `base` points to `size` initialised bytes, ours while `self` lives.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.size as usize) }
    }

    #[inline]
    fn buf_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `buf`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.size as usize) }
    }

    /// The packet.
    #[inline]
    pub fn data(&self) -> &[u8] {
        &self.buf()[self.start as usize..self.end as usize]
    }
    /// The packet, to change in place.
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8] {
        let bounds = self.start as usize..self.end as usize;
        &mut self.buf_mut()[bounds]
    }
    /// Length of the packet, bytes.
    #[inline]
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }
    /// True when there is no packet in it.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }
    /// Space for a packet to be received into, at full headroom; at most [`MAX_FRAME`].
    #[inline]
    pub fn space_mut(&mut self) -> &mut [u8] {
        let from = HEADROOM.min(self.size as usize);
        &mut self.buf_mut()[from..]
    }
    /// Makes the packet the first `len` bytes of [`space_mut`](Self::space_mut); false (and empty)
    /// when it does not fit.
    #[inline]
    pub fn set_len(&mut self, len: usize) -> bool {
        let from = HEADROOM.min(self.size as usize);
        let fits = len <= self.size as usize - from;
        self.start = from as u32;
        self.end = (from + if fits { len } else { 0 }) as u32;
        fits
    }
    /// Copies a packet in; false when it does not fit.
    #[inline]
    pub fn fill(&mut self, data: &[u8]) -> bool {
        if !self.set_len(data.len()) {
            return false;
        }
        self.data_mut().copy_from_slice(data);
        true
    }
    /// The whole buffer and the packet's bounds in it, for who runs programs on it.
    #[inline]
    pub fn parts_mut(&mut self) -> (&mut [u8], usize, usize) {
        let (start, end) = (self.start as usize, self.end as usize);
        (self.buf_mut(), start, end)
    }
    /// Moves the packet's bounds after a program did; false (unchanged) when they are not
    /// `start <= end <= buffer`.
    #[inline]
    pub fn set_bounds(&mut self, start: usize, end: usize) -> bool {
        let ok = start <= end && end <= self.size as usize;
        if ok {
            // Not above `size`, which is 32 bits.
            (self.start, self.end) = (start as u32, end as u32);
        }
        ok
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        match self.lent {
            // SAFETY: the handle is the lender's (`lend`), and nobody uses the buffer after us.
            Some(lent) => unsafe { (lent.lender.release)(lent.handle) },
            None => {
                let slice = std::ptr::slice_from_raw_parts_mut(self.base.as_ptr(), OWN_SIZE);
                // SAFETY: `new` leaked this box, of this length, and frames are not cloned.
                drop(unsafe { Box::from_raw(slice) });
            }
        }
    }
}

impl Default for Frame {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("port", &self.port)
            .field("timestamp_ns", &self.timestamp_ns)
            .field("len", &self.len())
            .field("lender", &self.lent.map(|lent| lent.lender.name))
            .finish()
    }
}

/// Frames of our own that are not in use. Bounded by construction: `take` gives `None` when all are
/// out.
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
    #[inline]
    pub fn take(&mut self) -> Option<Frame> {
        self.free.pop()
    }
    /// Gives a frame back: here, or to its lender.
    #[inline]
    pub fn give(&mut self, frame: Frame) {
        if !frame.is_lent() {
            self.free.push(frame);
        }
    }
    /// Frames left.
    pub fn available(&self) -> usize {
        self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use std::ptr::NonNull;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::{Frame, FramePool, HEADROOM, Lender, Lent, MAX_FRAME};

    static RELEASED: AtomicUsize = AtomicUsize::new(0);
    static OURS: Lender = Lender {
        name: "test",
        release,
    };
    static OTHERS: Lender = Lender {
        name: "test",
        release,
    };

    unsafe fn release(handle: NonNull<()>) {
        // SAFETY: handles here are leaked boxes of 64 bytes.
        drop(unsafe { Box::from_raw(handle.cast::<[u8; 64]>().as_ptr()) });
        RELEASED.fetch_add(1, Ordering::Relaxed);
    }

    fn lent(start: u32, end: u32) -> Frame {
        let memory = NonNull::from(Box::leak(Box::new([7u8; 64])));
        let lent = Lent {
            lender: &OURS,
            handle: memory.cast(),
        };
        // SAFETY: the memory is 64 bytes that only the frame uses.
        unsafe { Frame::lend(memory.cast(), 64, start, end, lent) }
    }

    #[test]
    fn a_lent_buffer_goes_back_once_wherever_its_frame_ends() {
        let mut pool = FramePool::new(1);
        let mut frame = lent(8, 16);
        assert_eq!(frame.data(), [7; 8]);
        assert!(frame.set_bounds(0, 64) && !frame.set_bounds(0, 65) && !frame.set_bounds(9, 8));
        frame.data_mut().fill(1);
        pool.give(frame);
        assert_eq!(RELEASED.load(Ordering::Relaxed), 1);
        assert_eq!(pool.available(), 1, "a lent frame does not stay in a pool");

        let frame = lent(1, 3).into_lent(&OTHERS).expect_err("another lender's");
        let (handle, start, end) = frame.into_lent(&OURS).expect("ours");
        assert_eq!((start, end), (1, 3));
        assert_eq!(RELEASED.load(Ordering::Relaxed), 1, "now the caller's");
        // SAFETY: handed over above, not used since.
        unsafe { release(handle) };
        assert_eq!(RELEASED.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn own_frames_hold_jumbo_packets_and_refuse_longer_ones() {
        let mut frame = Frame::new();
        assert!(frame.fill(&[9; MAX_FRAME]));
        assert_eq!((frame.len(), frame.data()[MAX_FRAME - 1]), (MAX_FRAME, 9));
        assert!(!frame.fill(&[9; MAX_FRAME + 1]));
        assert!(frame.is_empty());
        let (buf, start, end) = frame.parts_mut();
        assert_eq!(
            (buf.len(), start, end),
            (HEADROOM + MAX_FRAME, HEADROOM, HEADROOM)
        );
        assert!(frame.into_lent(&OURS).is_err());
    }
}
