//! Bare programs: one region of memory, helpers of the caller's, no context and no maps.

use super::{CallFault, Env, HelperResult, Interp, MemFault, StackView, Trap};
use crate::op::{Op, Size};

/// Address of the region in a program's eyes: one that no program guesses by accident.
pub const BARE_BASE: u64 = 0x1_0000_0000;

/// Helpers of bare programs.
pub trait BareHelpers {
    /// How many registers from r1 the helper reads.
    fn arity(&self, helper: u32) -> usize;

    /// Runs a helper.
    ///
    /// # Errors
    /// There is no such helper, or its arguments are not allowed.
    fn call(
        &mut self,
        helper: u32,
        args: [u64; 5],
        stack: &mut StackView<'_>,
    ) -> Result<HelperResult, CallFault>;
}

/// The memory and the helpers of a bare program.
#[derive(Clone, Debug)]
pub struct Bare<H> {
    /// What r1 points to; what the program leaves there.
    pub bytes: Vec<u8>,
    /// What it may call.
    pub helpers: H,
}

impl<H: BareHelpers> Bare<H> {
    /// Runs a program that [`decode`](fn@crate::decode) let through, of at most `fuel`
    /// instructions: r1 = the memory (0 without any), r2 = its length.
    ///
    /// # Errors
    /// The run was stopped.
    pub fn run(&mut self, ops: &[Op], fuel: u64) -> Result<u64, Trap> {
        let start = if self.bytes.is_empty() { 0 } else { BARE_BASE };
        let len = self.bytes.len() as u64;
        Interp::new(fuel).run(&[ops], 0, &[start, len], self)
    }

    fn at(&mut self, addr: u64, len: usize) -> Result<&mut [u8], MemFault> {
        let from = addr
            .checked_sub(BARE_BASE)
            .and_then(|at| usize::try_from(at).ok());
        let from = from.ok_or(MemFault::Unmapped)?;
        let to = from.checked_add(len).ok_or(MemFault::Unmapped)?;
        self.bytes.get_mut(from..to).ok_or(MemFault::Unmapped)
    }
}

impl<H: BareHelpers> Env for Bare<H> {
    fn load(&mut self, addr: u64, size: Size) -> Result<u64, MemFault> {
        let mut value = [0; 8];
        value[..size.bytes()].copy_from_slice(self.at(addr, size.bytes())?);
        Ok(u64::from_le_bytes(value))
    }

    fn store(&mut self, addr: u64, size: Size, value: u64) -> Result<(), MemFault> {
        let bytes = value.to_le_bytes();
        self.at(addr, size.bytes())?
            .copy_from_slice(&bytes[..size.bytes()]);
        Ok(())
    }

    fn map_address(&mut self, _: u32) -> Result<u64, MemFault> {
        Err(MemFault::NoMap)
    }

    fn load_packet(&mut self, off: usize, size: Size) -> Option<u64> {
        let bytes = self.bytes.get(off..off.checked_add(size.bytes())?)?;
        Some(
            bytes
                .iter()
                .fold(0, |value, byte| value << 8 | u64::from(*byte)),
        )
    }

    fn arity(&self, helper: u32) -> usize {
        self.helpers.arity(helper)
    }

    fn required(&self, helper: u32) -> usize {
        self.helpers.arity(helper)
    }

    fn call(
        &mut self,
        helper: u32,
        args: [u64; 5],
        stack: &mut StackView<'_>,
    ) -> Result<HelperResult, CallFault> {
        self.helpers.call(helper, args, stack)
    }
}
