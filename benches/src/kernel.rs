//! Code of the Linux kernel's JIT, copied here and run over our tables.
//!
//! The kernel loads, verifies and compiles an object as it always does; `BPF_OBJ_GET_INFO_BY_FD`
//! gives the machine code back (to root). The copy is the kernel's, instruction by instruction. Only
//! operands are changed, and none changes length or form:
//!
//! * addresses of maps (`movabs`) become those of the runtime's tables;
//! * calls of helpers become calls of the runtime's maps, through a few instructions outside the copies;
//! * the step from a kernel hash element to its value becomes 0, as a look-up here returns the value;
//! * the base of per-CPU data (`gs:`) becomes a zero;
//! * jumps from program to program (the kernel's direct tail calls) lead to the copy.
//!
//! What is not recognised is an error, not a guess.

#![expect(unsafe_code, reason = "bpf(2), executable pages, foreign machine code")]

use std::collections::HashMap;
use std::ops::Range;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use dash_bpf::{Object, decode};
use dash_wire::abi::MapHandle;
use nic_linux::loader::{create_map, maps_of};
use nic_linux::rewrite::{self, World};
use nic_linux::sys::bpf::Map;

use copy::Copier;
use load::{jited, load};
use pages::Pages;
use stands::{DEVICE, RxQueue, XdpBuff};

mod copy;
mod load;
mod pages;
mod stands;

/// A table of ours in the place of a kernel map.
#[derive(Clone, Copy, Debug)]
pub struct TableAddress {
    /// Its operations.
    pub handle: *const MapHandle,
    /// Element 0, for arrays.
    pub array: Option<*mut u8>,
}

/// An object as the kernel compiled it, in this process.
#[derive(Debug)]
pub struct KernelCode {
    /// Holds the copies; `entry` is in it.
    _code: Pages,
    entry: usize,
    /// The copies, without what helpers go through.
    programs: Range<usize>,
    lengths: Vec<(String, usize)>,
    offsets: Vec<usize>,
    /// Value of the executor map: the clock, and the redirect.
    executor: Box<[u64; rewrite::EXECUTOR_VALUE / 8]>,
    /// Keeps what the code has addresses of.
    _pointers: Vec<Box<[*mut u8]>>,
    _zero: Pages,
}

/// Where a run left the packet in its buffer, and what it returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// r0.
    pub code: u32,
    /// First byte of the packet in the buffer.
    pub start: usize,
    /// One past its last.
    pub end: usize,
}

impl KernelCode {
    /// Loads an object into the kernel and copies what it compiled. `table` gives ours by map index.
    ///
    /// # Errors
    /// Not root, the kernel refuses a program or hides its code, or the code has something this
    /// module does not know.
    pub fn new(object: &Object, table: impl Fn(u32) -> Option<TableAddress>) -> Result<Self> {
        nic_linux::sys::raise_memlock();
        let executor_map = create_map(&rewrite::executor_map())?;
        let world = World::TestRun {
            executor: executor_map.fd(),
        };
        let mut maps: HashMap<u32, Map> = HashMap::new();
        for index in maps_of(object)? {
            maps.insert(index, create_map(&object.maps[index as usize])?);
        }
        let (mut loaded, mut sources) = (Vec::new(), Vec::new());
        for program in &object.programs {
            let fd = |index: u32| maps.get(&index).map(Map::fd);
            let insns = rewrite::rewrite(&program.insns, fd, world)?;
            let fd = load(&insns)
                .with_context(|| format!("the kernel's verdict on program {}", program.name))?;
            sources.push(decode(&insns)?);
            loaded.push(fd);
        }
        for calls in &object.tail_calls {
            let Some(map) = maps.get(&calls.map) else {
                continue;
            };
            for (slot, program) in (0u32..).zip(&calls.programs) {
                let Some(fd) = program.and_then(|p| loaded.get(p as usize)) else {
                    continue;
                };
                map.update(&slot.to_ne_bytes(), &fd.as_raw_fd().to_ne_bytes())?;
            }
        }
        let images = loaded.iter().map(jited).collect::<Result<Vec<_>>>()?;

        let by_fd: HashMap<i64, u32> = maps
            .iter()
            .map(|(index, map)| (i64::from(map.fd()), *index))
            .collect();
        let mut executor = Box::new([0u64; rewrite::EXECUTOR_VALUE / 8]);
        let mut copier = Copier {
            images: &images,
            defs: &object.maps,
            table: &table,
            by_fd,
            executor_fd: i64::from(executor_map.fd()),
            executor: executor.as_mut_ptr().expose_provenance() as u64,
            pointers: Vec::new(),
            zero: Pages::new(4096, libc::MAP_32BIT)?,
            offsets: Vec::new(),
            out: Vec::new(),
            stands: Vec::new(),
            known: HashMap::new(),
        };
        let (code, programs) = copier.copy(&sources)?;
        let entry = code.address() + copier.offsets.first().copied().context("no program")?;
        let names = object.programs.iter().map(|p| p.name.clone());
        let lengths = names
            .zip(images.iter().map(|image| image.code.len()))
            .collect();
        Ok(Self {
            _code: code,
            entry,
            programs,
            lengths,
            offsets: copier.offsets,
            executor,
            _pointers: copier.pointers,
            _zero: copier.zero,
        })
    }

    /// Addresses of the programs' copies.
    pub fn programs(&self) -> Range<usize> {
        self.programs.clone()
    }

    /// Bytes of machine code of each program, by name.
    pub fn lengths(&self) -> &[(String, usize)] {
        &self.lengths
    }

    /// Name of the program that an address of [`programs`](Self::programs) is in.
    pub fn program_of(&self, address: usize) -> &str {
        let offset = address.wrapping_sub(self.programs.start);
        let after = self.offsets.partition_point(|start| *start <= offset);
        self.lengths
            .get(after.wrapping_sub(1))
            .map_or("?", |(name, _)| name)
    }

    /// Runs the first program on the packet `buffer[start..end]`.
    ///
    /// # Safety
    /// The tables given to [`new`](Self::new) are alive and nothing else uses them meanwhile; there
    /// are as many elements in the arrays as the object's maps say.
    pub unsafe fn run(
        &mut self,
        now_ns: u64,
        buffer: &mut [u8],
        start: usize,
        end: usize,
    ) -> Outcome {
        self.executor[0] = now_ns;
        let base = buffer.as_mut_ptr();
        let queue = RxQueue {
            device: DEVICE.as_ptr().cast(),
            index: 0,
        };
        let mut xdp = XdpBuff {
            data: base.wrapping_add(start),
            data_end: base.wrapping_add(end),
            data_meta: base.wrapping_add(start),
            data_hard_start: base,
            rxq: &raw const queue,
            txq: std::ptr::null(),
            frame_size: buffer.len() as u32,
            flags: 0,
        };
        // SAFETY: the kernel's XDP entry, `unsigned int (const void *ctx, const struct bpf_insn *)`,
        // in executable pages; the C calling convention of x86-64.
        let entry = unsafe {
            std::mem::transmute::<*const u8, unsafe extern "C" fn(*mut XdpBuff, *const u8) -> u32>(
                std::ptr::with_exposed_provenance(self.entry),
            )
        };
        // SAFETY: the kernel's verifier accepted the code for such a context; the tables are the
        // caller's promise.
        let code = unsafe { entry(&raw mut xdp, std::ptr::null()) };
        Outcome {
            code,
            start: xdp.data.addr().wrapping_sub(base.addr()),
            end: xdp.data_end.addr().wrapping_sub(base.addr()),
        }
    }
}
