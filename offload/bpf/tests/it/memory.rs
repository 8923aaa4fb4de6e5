//! An environment of one memory region, for bare programs.

use dash_bpf::interp::{CallFault, Env, HelperResult, Interp, MemFault, StackView, Trap};
use dash_bpf::op::{Op, Size};

/// Where the region lies; an address no test can guess by accident.
pub(crate) const BASE: u64 = 0x1_0000_0000;

pub(crate) struct Memory {
    pub(crate) bytes: Vec<u8>,
}

impl Memory {
    fn at(&mut self, addr: u64, len: usize) -> Result<&mut [u8], MemFault> {
        let from = addr
            .checked_sub(BASE)
            .and_then(|at| usize::try_from(at).ok());
        let from = from.ok_or(MemFault::Unmapped)?;
        let to = from.checked_add(len).ok_or(MemFault::Unmapped)?;
        self.bytes.get_mut(from..to).ok_or(MemFault::Unmapped)
    }

    /// Runs a bare program: r1 = memory (0 without any), r2 = its length.
    pub(crate) fn run(&mut self, ops: &[Op]) -> Result<u64, Trap> {
        let start = if self.bytes.is_empty() { 0 } else { BASE };
        let len = self.bytes.len() as u64;
        Interp::new(1_000_000).run(&[ops], 0, &[start, len], self)
    }
}

impl Env for Memory {
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
        match helper {
            5 => 1,
            6 => 3,
            _ => 0,
        }
    }

    /// 5 ends the program when its argument is 0 and returns it otherwise; 6 reverses `r2` bytes
    /// of the stack at `r1` into the stack at `r3`.
    fn call(
        &mut self,
        helper: u32,
        args: [u64; 5],
        stack: &mut StackView<'_>,
    ) -> Result<HelperResult, CallFault> {
        match helper {
            5 if args[0] == 0 => Ok(HelperResult::Unwind(0)),
            5 => Ok(HelperResult::Value(args[0])),
            6 => {
                let len = args[1] as usize;
                let from = |argument| move |fault| CallFault::Memory { argument, fault };
                let mut bytes = stack.read(args[0], len).map_err(from(1))?.to_vec();
                bytes.reverse();
                stack
                    .write(args[2], len)
                    .map_err(from(3))?
                    .copy_from_slice(&bytes);
                Ok(HelperResult::Value(0))
            }
            _ => Err(CallFault::UnknownHelper),
        }
    }
}
