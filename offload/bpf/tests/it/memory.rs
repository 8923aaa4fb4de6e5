//! An environment of one memory region, for bare programs.

use dash_bpf::interp::{BARE_BASE, Bare, BareHelpers, CallFault, HelperResult, StackView, Trap};
use dash_bpf::op::Op;

pub(crate) const BASE: u64 = BARE_BASE;

/// 5 ends the program when its argument is 0 and returns it otherwise; 6 reverses `r2` bytes of the
/// stack at `r1` into the stack at `r3`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Two;

pub(crate) type Memory = Bare<Two>;

/// Runs a bare program over `bytes`.
pub(crate) fn run(ops: &[Op], bytes: &[u8]) -> Result<u64, Trap> {
    memory(bytes).run(ops, 1_000_000)
}

pub(crate) fn memory(bytes: &[u8]) -> Memory {
    Bare {
        bytes: bytes.to_vec(),
        helpers: Two,
    }
}

impl BareHelpers for Two {
    fn arity(&self, helper: u32) -> usize {
        match helper {
            5 => 1,
            6 => 3,
            _ => 0,
        }
    }

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
