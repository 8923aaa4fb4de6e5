//! Arrays, plain and per CPU. Programs compiled to machine code index them without a call.

use dash_bpf::{MapDef, MapKind};
use dash_runtime::tables::update_flags::NOEXIST;

use super::{Who, check_flags};
use crate::errno::Errno;
use crate::memory::{Shared, copy};

/// An array.
#[derive(Debug)]
pub(crate) struct Array {
    value: usize,
    stride: usize,
    entries: u32,
    /// Arrays there are: one a CPU.
    copies: usize,
    /// Bytes of an element as control sees it: padded in arrays per CPU, however many there are.
    shown: usize,
    memory: Shared,
}

impl Array {
    pub(crate) fn new(def: &MapDef, cpus: u32) -> Result<Self, Errno> {
        let per_cpu = def.kind == MapKind::PercpuArray;
        let copies = if per_cpu { cpus as usize } else { 1 };
        Self::with_value(def, def.value_size as usize, copies)
    }

    /// With values of another size than the definition's.
    pub(crate) fn with_value(def: &MapDef, value: usize, copies: usize) -> Result<Self, Errno> {
        if def.key_size != 4 || value == 0 || def.max_entries == 0 {
            return Err(Errno::Inval);
        }
        let stride = value.next_multiple_of(8);
        let bytes = stride
            .checked_mul(def.max_entries as usize)
            .and_then(|one| one.checked_mul(copies))
            .ok_or(Errno::TooBig)?;
        let array = Self {
            value,
            stride,
            entries: def.max_entries,
            copies,
            shown: match def.kind {
                MapKind::PercpuArray => copies * stride,
                _ => value,
            },
            memory: Shared::new(bytes)?,
        };
        for copy in 0..copies {
            let most = def.contents.len().min(value);
            let at = copy * array.size();
            array.memory.write(at, &def.contents[..most]);
        }
        Ok(array)
    }

    /// Bytes of one CPU's array.
    pub(crate) fn size(&self) -> usize {
        self.stride * self.entries as usize
    }

    pub(crate) fn entries(&self) -> u32 {
        self.entries
    }

    /// Element 0 of a CPU's array.
    pub(crate) fn base(&self, cpu: u32) -> *mut u8 {
        let copy = if self.copies > 1 { cpu as usize } else { 0 };
        self.memory.at(copy.min(self.copies - 1) * self.size())
    }

    /// Address of an element of a CPU; null beyond the last.
    pub(crate) fn element(&self, cpu: u32, index: u32) -> *mut u8 {
        match index < self.entries && (self.copies == 1 || (cpu as usize) < self.copies) {
            true => {
                let copy = if self.copies > 1 { cpu as usize } else { 0 };
                self.memory
                    .at(copy * self.size() + index as usize * self.stride)
            }
            false => std::ptr::null_mut(),
        }
    }

    /// # Safety
    /// `value` points to `value_size` readable bytes; for control and an array per CPU to as many
    /// padded to 8 as there are CPUs.
    pub(crate) unsafe fn update(
        &self,
        who: Who,
        index: u32,
        value: *const u8,
        flags: u64,
    ) -> Result<(), Errno> {
        check_flags(flags)?;
        if index >= self.entries {
            return Err(Errno::TooBig);
        }
        if flags == NOEXIST {
            return Err(Errno::Exist);
        }
        match who {
            Who::Control if self.copies > 1 => {
                for cpu in 0..self.copies {
                    let to = self.element(cpu as u32, index);
                    // SAFETY: the element's bytes, and those of the caller's contract.
                    unsafe { copy(to, value.add(cpu * self.stride), self.value) };
                }
            }
            Who::Control | Who::Program(_) => {
                let cpu = match who {
                    Who::Program(cpu) => cpu,
                    Who::Control => 0,
                };
                let to = self.element(cpu, index);
                if to.is_null() {
                    return Err(Errno::TooBig);
                }
                // SAFETY: as above.
                unsafe { copy(to, value, self.value) };
            }
        }
        Ok(())
    }

    /// An element, of all CPUs.
    pub(crate) fn read(&self, index: u32) -> Option<Vec<u8>> {
        if index >= self.entries {
            return None;
        }
        let at = index as usize * self.stride;
        let mut values = vec![0; self.shown];
        for (cpu, to) in values.chunks_mut(self.stride).enumerate() {
            self.memory
                .read(cpu * self.size() + at, &mut to[..self.value]);
        }
        Some(values)
    }
}
