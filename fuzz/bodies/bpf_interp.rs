//! Any program that decodes runs to an end over any memory: a result or a trap.

use dash_bpf::interp::{CallFault, Env, HelperResult, Interp, MemFault, StackView};
use dash_bpf::{Insn, Size, decode};

const BASE: u64 = 0x1000_0000;

struct Memory(Vec<u8>);

impl Memory {
    fn at(&mut self, addr: u64, size: Size) -> Result<&mut [u8], MemFault> {
        let start = addr.checked_sub(BASE).ok_or(MemFault::Unmapped)? as usize;
        let end = start.checked_add(size.bytes()).ok_or(MemFault::Unmapped)?;
        self.0.get_mut(start..end).ok_or(MemFault::Unmapped)
    }
}

impl Env for Memory {
    fn load(&mut self, addr: u64, size: Size) -> Result<u64, MemFault> {
        let mut value = [0; 8];
        let bytes = self.at(addr, size)?;
        value[..bytes.len()].copy_from_slice(bytes);
        Ok(u64::from_le_bytes(value))
    }
    fn store(&mut self, addr: u64, size: Size, value: u64) -> Result<(), MemFault> {
        let bytes = self.at(addr, size)?;
        let len = bytes.len();
        bytes.copy_from_slice(&value.to_le_bytes()[..len]);
        Ok(())
    }
    fn map_address(&mut self, _: u32) -> Result<u64, MemFault> {
        Err(MemFault::NoMap)
    }
    fn call(
        &mut self,
        helper: u32,
        args: [u64; 5],
        _: &mut StackView<'_>,
    ) -> Result<HelperResult, CallFault> {
        match helper {
            0..32 => Ok(HelperResult::Value(args[0] ^ u64::from(helper))),
            32 => Ok(HelperResult::TailCall(args[0] as usize)),
            33 => Ok(HelperResult::Unwind(args[0])),
            _ => Err(CallFault::UnknownHelper),
        }
    }
}

pub(crate) fn run(data: &[u8]) {
    let Some((len, rest)) = data.split_first() else {
        return;
    };
    let Some((memory, code)) = rest.split_at_checked(usize::from(*len)) else {
        return;
    };
    let insns: Vec<Insn> = code
        .as_chunks()
        .0
        .iter()
        .map(|slot| Insn::from_bytes(*slot))
        .collect();
    if let Ok(ops) = decode(&insns) {
        let mut interp = Interp::new(10_000);
        let mut env = Memory(memory.to_vec());
        let _ = interp.run(&[ops], 0, &[BASE, memory.len() as u64], &mut env);
        assert!(interp.executed() <= 10_000);
    }
}
