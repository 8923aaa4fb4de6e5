//! Stack frames of a running program, and the view helpers get of them.

use crate::interp::MemFault;

/// Bytes of one frame.
pub const FRAME_SIZE: usize = 512;
/// Frames, the main program's included.
pub const MAX_FRAMES: usize = 8;

/// Where frames live: not a canonical address on x86-64 nor on aarch64, so never memory of the
/// process.
pub const STACK_BASE: u64 = 0x57ac_0000_0000_0000;
/// Distance between frames. Larger than a frame: what leaves one reaches no other.
const FRAME_STRIDE: u64 = 0x1_0000;

/// All frames. Frames `0..=depth` are live.
#[derive(Debug)]
pub(super) struct Stack {
    bytes: Box<[[u8; FRAME_SIZE]; MAX_FRAMES]>,
    /// One bit a byte: written since the frame was entered.
    written: Box<[[u64; FRAME_SIZE / 64]; MAX_FRAMES]>,
    depth: usize,
}

impl Stack {
    pub(super) fn new() -> Self {
        Self {
            bytes: Box::new([[0; FRAME_SIZE]; MAX_FRAMES]),
            written: Box::new([[0; FRAME_SIZE / 64]; MAX_FRAMES]),
            depth: 0,
        }
    }

    /// Only the main program's frame, nothing written.
    pub(super) fn reset(&mut self) {
        self.depth = 0;
        self.written[0] = [0; FRAME_SIZE / 64];
    }

    /// Enters a frame; false when there is no room.
    pub(super) fn push(&mut self) -> bool {
        match self.written.get_mut(self.depth + 1) {
            Some(written) => {
                *written = [0; FRAME_SIZE / 64];
                self.depth += 1;
                true
            }
            None => false,
        }
    }

    pub(super) fn pop(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// r10 of the current frame: one past its highest byte.
    pub(super) fn frame_pointer(&self) -> u64 {
        STACK_BASE + self.depth as u64 * FRAME_STRIDE + FRAME_SIZE as u64
    }

    /// Is this an address of the stack's range, valid or not?
    pub(super) fn owns(addr: u64) -> bool {
        addr >> 48 == STACK_BASE >> 48
    }

    /// (frame, offset) of `len` bytes inside one live frame.
    fn locate(&self, addr: u64, len: usize) -> Result<(usize, usize), MemFault> {
        let from = addr.checked_sub(STACK_BASE).ok_or(MemFault::OutsideFrame)?;
        let frame = usize::try_from(from / FRAME_STRIDE).map_err(|_| MemFault::OutsideFrame)?;
        let offset = (from % FRAME_STRIDE) as usize;
        let end = offset.checked_add(len).ok_or(MemFault::OutsideFrame)?;
        if frame > self.depth || end > FRAME_SIZE {
            return Err(MemFault::OutsideFrame);
        }
        Ok((frame, offset))
    }

    fn read(&self, addr: u64, len: usize) -> Result<&[u8], MemFault> {
        let (frame, offset) = self.locate(addr, len)?;
        let written = &self.written[frame];
        let all = (offset..offset + len).all(|at| written[at / 64] >> (at % 64) & 1 == 1);
        if !all {
            return Err(MemFault::Uninitialised);
        }
        Ok(&self.bytes[frame][offset..offset + len])
    }

    fn write(&mut self, addr: u64, len: usize) -> Result<&mut [u8], MemFault> {
        let (frame, offset) = self.locate(addr, len)?;
        for at in offset..offset + len {
            self.written[frame][at / 64] |= 1 << (at % 64);
        }
        Ok(&mut self.bytes[frame][offset..offset + len])
    }

    /// Little-endian value of up to 8 bytes.
    pub(super) fn load(&self, addr: u64, len: usize) -> Result<u64, MemFault> {
        let mut value = [0; 8];
        for (to, from) in value.iter_mut().zip(self.read(addr, len)?) {
            *to = *from;
        }
        Ok(u64::from_le_bytes(value))
    }

    pub(super) fn store(&mut self, addr: u64, len: usize, value: u64) -> Result<(), MemFault> {
        for (to, from) in self.write(addr, len)?.iter_mut().zip(value.to_le_bytes()) {
            *to = from;
        }
        Ok(())
    }

    pub(super) fn view(&mut self) -> StackView<'_> {
        StackView { stack: self }
    }
}

/// The live frames, for a helper that got a pointer into them.
#[derive(Debug)]
pub struct StackView<'a> {
    stack: &'a mut Stack,
}

impl StackView<'_> {
    /// Does this address belong to the stack's range? If so it is no address of the process.
    pub fn owns(&self, addr: u64) -> bool {
        Stack::owns(addr)
    }

    /// Bytes the program has written.
    ///
    /// # Errors
    /// They are not inside one live frame, or not all written yet.
    pub fn read(&self, addr: u64, len: usize) -> Result<&[u8], MemFault> {
        self.stack.read(addr, len)
    }

    /// Bytes to write; all of them count as written from now on, so write them all.
    ///
    /// # Errors
    /// They are not inside one live frame.
    pub fn write(&mut self, addr: u64, len: usize) -> Result<&mut [u8], MemFault> {
        self.stack.write(addr, len)
    }
}
