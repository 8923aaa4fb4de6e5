//! The kernel's code, with operands that are ours.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use dash_bpf::op::Imm64;
use dash_bpf::{MapDef, MapKind, Op};
use iced_x86::{Code, Decoder, DecoderOptions, Instruction, OpKind, Register};

use super::TableAddress;
use super::load::{Jited, symbols};
use super::pages::Pages;
use super::stands::{Stand, stand};

/// Puts copies of all programs, and the stands behind them, into one block of code.
pub(super) struct Copier<'a, F> {
    pub(super) images: &'a [Jited],
    pub(super) defs: &'a [MapDef],
    pub(super) table: &'a F,
    pub(super) by_fd: HashMap<i64, u32>,
    pub(super) executor_fd: i64,
    pub(super) executor: u64,
    pub(super) pointers: Vec<Box<[*mut u8]>>,
    pub(super) zero: Pages,
    /// Of the copies in `out`.
    pub(super) offsets: Vec<usize>,
    pub(super) out: Vec<u8>,
    /// Symbols called, and the offsets of what stands for them.
    pub(super) stands: Vec<(u64, usize)>,
    /// Maps by the kernel's addresses of them, by descriptor.
    pub(super) known: HashMap<u64, Imm64>,
}

/// Bytes of a stand for a helper. The kernel aligns its stack to 8 bytes, we to 16:
/// `push rbp; mov rbp, rsp; and rsp, -16; mov rax, ADDRESS; call rax; leave; ret`.
const STAND: usize = 32;

impl<F: Fn(u32) -> Option<TableAddress>> Copier<'_, F> {
    /// Makes the copy executable; gives it, and where the programs in it are.
    pub(super) fn copy(&mut self, sources: &[Vec<Op>]) -> Result<(Pages, Range<usize>)> {
        for image in self.images {
            self.out.resize(self.out.len().next_multiple_of(64), 0xcc);
            self.offsets.push(self.out.len());
            self.out.extend_from_slice(&image.code);
        }
        let programs_end = self.out.len();
        self.add_stands()?;
        self.learn(sources)?;
        for index in 0..self.images.len() {
            self.patch(index)
                .with_context(|| format!("program {index}"))?;
        }
        let mut pages = Pages::new(self.out.len().next_multiple_of(4096), 0)?;
        pages.seal(&self.out)?;
        let start = pages.address();
        Ok((pages, start..start + programs_end))
    }

    fn instructions(image: &Jited) -> Vec<Instruction> {
        Decoder::with_ip(64, &image.code, image.address, DecoderOptions::NONE)
            .into_iter()
            .collect()
    }

    /// The program that an address is in.
    fn program_at(&self, address: u64) -> Option<usize> {
        self.images
            .iter()
            .position(|i| (i.address..i.address + i.code.len() as u64).contains(&address))
    }

    /// Finds every symbol of the kernel that is called and lays down what stands for it.
    fn add_stands(&mut self) -> Result<()> {
        let mut wanted = HashSet::new();
        for image in self.images {
            for instruction in Self::instructions(image) {
                if let Some(target) = branch(&instruction)
                    && self.program_at(target).is_none()
                {
                    wanted.insert(target);
                }
            }
        }
        let names = symbols(&wanted)?;
        self.out.resize(self.out.len().next_multiple_of(64), 0xcc);
        for target in wanted {
            let names = names.get(&target).map_or(&[][..], |names| names);
            let stand = names.iter().find_map(|name| stand(name));
            let stand = stand.with_context(|| {
                format!("code calls {names:?} at {target:#x}, for which nothing stands here")
            })?;
            self.stands.push((target, self.out.len()));
            let end = self.out.len() + STAND;
            match stand {
                Stand::Call(address) => {
                    let before = [0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xe4, 0xf0, 0x48, 0xb8];
                    self.out.extend_from_slice(&before);
                    self.out.extend_from_slice(&address.to_le_bytes());
                    self.out.extend_from_slice(&[0xff, 0xd0, 0xc9, 0xc3]);
                }
                Stand::Return => self.out.push(0xc3),
            }
            self.out.resize(end, 0xcc);
        }
        Ok(())
    }

    /// Finds out which map is at which address of the kernel: programs load them in the order of the
    /// bytecode. From programs of which the kernel left something out (it removes code that it proves
    /// dead) nothing is learnt; they name the same maps.
    fn learn(&mut self, sources: &[Vec<Op>]) -> Result<()> {
        for (image, source) in self.images.iter().zip(sources) {
            let loads: Vec<Imm64> = source
                .iter()
                .filter_map(|op| match op {
                    Op::LoadImm64 {
                        imm: imm @ (Imm64::Map(_) | Imm64::MapValue { .. }),
                        ..
                    } => Some(*imm),
                    _ => None,
                })
                .collect();
            let instructions = Self::instructions(image);
            let addresses: Vec<u64> = instructions.iter().filter_map(kernel_address).collect();
            if loads.len() != addresses.len() {
                continue;
            }
            for (load, address) in loads.into_iter().zip(addresses) {
                let before = self.known.insert(address, load);
                ensure!(
                    before.is_none_or(|before| before == load),
                    "{before:?} and {load:?} are both at {address:#x}"
                );
            }
        }
        let mut maps = HashSet::new();
        ensure!(
            self.known.values().all(|map| maps.insert(*map)),
            "a map is at two addresses"
        );
        Ok(())
    }

    /// Changes the operands of a program's copy.
    fn patch(&mut self, index: usize) -> Result<()> {
        let image = &self.images[index];
        let base = self.offsets[index];
        let instructions = Self::instructions(image);
        for (at, instruction) in instructions.iter().enumerate() {
            let offset = base + (instruction.ip() - image.address) as usize;
            let end = offset + instruction.len();
            let following = |n: usize| instructions.get(at + n);
            ensure!(!instruction.is_invalid(), "no instruction at {offset:#x}");
            if let Some(kernel) = kernel_address(instruction) {
                let map = self.known.get(&kernel).copied();
                let map = map.with_context(|| format!("no map is at {kernel:#x}"))?;
                let ours = match map {
                    Imm64::MapValue { map, offset } => {
                        ensure!(i64::from(map) == self.executor_fd, "a value of map {map}");
                        self.executor + u64::from(offset)
                    }
                    Imm64::Map(map) => {
                        self.map_address(i64::from(map), instruction.op0_register(), following(1))?
                    }
                    other => bail!("{other:?} is no map"),
                };
                self.out[end - 8..end].copy_from_slice(&ours.to_le_bytes());
            } else if let Some(target) = branch(instruction) {
                if self.program_at(target) == Some(index) {
                    continue;
                }
                let to = match self.program_at(target) {
                    Some(other) => {
                        self.offsets[other] + (target - self.images[other].address) as usize
                    }
                    None => {
                        self.unstep(index, &instructions[at + 1..])?;
                        let stand = self.stands.iter().find(|(symbol, _)| *symbol == target);
                        stand.context("a call of nothing")?.1
                    }
                };
                ensure!(instruction.len() >= 5, "a short branch leaves the program");
                let relative = i32::try_from(to as i64 - end as i64)?;
                self.out[end - 4..end].copy_from_slice(&relative.to_le_bytes());
            } else if instruction.segment_prefix() == Register::GS {
                ensure!(
                    instruction.memory_base() == Register::None
                        && instruction.memory_index() == Register::None,
                    "per-CPU data not at a fixed address: {instruction:?}"
                );
                let zero = i32::try_from(self.zero.address())?;
                let place = displacement(image, instruction)?;
                self.out[base + place..base + place + 4].copy_from_slice(&zero.to_le_bytes());
            } else {
                ensure!(
                    !instruction.is_ip_rel_memory_operand(),
                    "an operand relative to the instruction: {instruction:?}"
                );
            }
        }
        Ok(())
    }

    /// What takes the place of a map's address. The kernel adds the offset of an array's elements
    /// right after it loads the address.
    fn map_address(
        &mut self,
        fd: i64,
        register: Register,
        next: Option<&Instruction>,
    ) -> Result<u64> {
        let map = *self
            .by_fd
            .get(&fd)
            .with_context(|| format!("no map {fd}"))?;
        let def = &self.defs[map as usize];
        if def.kind == MapKind::ProgArray {
            return Ok(0);
        }
        let ours = (self.table)(map).with_context(|| format!("no table for map {}", def.name))?;
        let Some(array) = ours.array.filter(|_| def.kind.is_array()) else {
            return Ok(ours.handle.expose_provenance() as u64);
        };
        let step = next.filter(|next| {
            next.op0_register() == register
                && matches!(
                    next.code(),
                    Code::Add_rm64_imm32 | Code::Add_rm64_imm8 | Code::Add_RAX_imm32
                )
        });
        let step = step
            .with_context(|| format!("map {}: its elements are not at once reached", def.name))?
            .immediate(1);
        let elements = match def.kind {
            MapKind::PercpuArray => {
                let stride = def.stride() as usize;
                let pointers: Box<[*mut u8]> = (0..def.max_entries as usize)
                    .map(|element| array.wrapping_add(element * stride))
                    .collect();
                let address = pointers.as_ptr().expose_provenance();
                self.pointers.push(pointers);
                address
            }
            _ => array.expose_provenance(),
        };
        Ok((elements as u64).wrapping_sub(step))
    }

    /// After a look-up in a hash table the kernel steps from the element to its value, unless it is
    /// null: `test rax, rax; je; add rax, step`.
    fn unstep(&mut self, index: usize, following: &[Instruction]) -> Result<()> {
        let image = &self.images[index];
        let [test, jump, add, ..] = following else {
            return Ok(());
        };
        let steps = test.code() == Code::Test_rm64_r64
            && test.op0_register() == Register::RAX
            && jump.code() == Code::Je_rel8_64
            && jump.near_branch64() == add.next_ip()
            && add.op0_register() == Register::RAX
            && matches!(
                add.code(),
                Code::Add_rm64_imm8 | Code::Add_RAX_imm32 | Code::Add_rm64_imm32
            );
        if steps {
            let start = (add.ip() - image.address) as usize;
            let mut decoder =
                Decoder::with_ip(64, &image.code[start..], add.ip(), DecoderOptions::NONE);
            let add = decoder.decode();
            let constants = decoder.get_constant_offsets(&add);
            let at = self.offsets[index] + start + constants.immediate_offset();
            self.out[at..at + constants.immediate_size()].fill(0);
        }
        Ok(())
    }
}

/// The address of the kernel's that an instruction loads.
fn kernel_address(instruction: &Instruction) -> Option<u64> {
    (instruction.code() == Code::Mov_r64_imm64)
        .then(|| instruction.immediate64())
        .filter(|address| *address >= 0xffff_8000_0000_0000)
}

/// Target of a direct branch or call.
fn branch(instruction: &Instruction) -> Option<u64> {
    matches!(instruction.op0_kind(), OpKind::NearBranch64).then(|| instruction.near_branch64())
}

/// Where in an image an instruction has its 4 displacement bytes.
fn displacement(image: &Jited, instruction: &Instruction) -> Result<usize> {
    let start = (instruction.ip() - image.address) as usize;
    let mut decoder = Decoder::with_ip(
        64,
        &image.code[start..],
        instruction.ip(),
        DecoderOptions::NONE,
    );
    let decoded = decoder.decode();
    let constants = decoder.get_constant_offsets(&decoded);
    ensure!(
        constants.displacement_size() == 4,
        "a displacement of another size"
    );
    Ok(start + constants.displacement_offset())
}
