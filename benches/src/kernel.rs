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
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;

use anyhow::{Context, Result, bail, ensure};
use dash_bpf::op::Imm64;
use dash_bpf::{Insn, MapDef, MapKind, Object, Op, decode};
use dash_wire::abi::MapHandle;
use iced_x86::{Code, Decoder, DecoderOptions, Instruction, OpKind, Register};
use nic_linux::loader::{create_map, maps_of};
use nic_linux::rewrite::{self, World};
use nic_linux::sys::bpf::Map;

/// A table of ours in the place of a kernel map.
#[derive(Clone, Copy, Debug)]
pub struct TableAddress {
    /// Its operations.
    pub handle: *const MapHandle,
    /// Element 0, for arrays.
    pub array: Option<*mut u8>,
}

const PROG_LOAD: libc::c_int = 5;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const PROG_TYPE_XDP: u32 = 6;

#[repr(C)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

#[repr(C)]
struct InfoAttr {
    fd: u32,
    len: u32,
    info: u64,
}

/// Head of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct ProgInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_len: u32,
    xlated_len: u32,
    jited: u64,
    xlated: u64,
    load_time: u64,
    uid: u32,
    map_count: u32,
    map_ids: u64,
    name: [u8; 16],
    ifindex: u32,
    gpl: u32,
    netns_dev: u64,
    netns_ino: u64,
    ksym_count: u32,
    func_len_count: u32,
    ksyms: u64,
    func_lens: u64,
}

/// Calls bpf(2).
///
/// # Safety
/// `attr` is the attribute of `cmd`, and its pointers are valid for what the command does.
unsafe fn bpf<T>(cmd: libc::c_int, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the kernel touches at most `size_of::<T>()` bytes of `attr`; the rest is the caller's.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, cmd, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

fn load(insns: &[Insn]) -> io::Result<OwnedFd> {
    let code: Vec<[u8; 8]> = insns.iter().map(|insn| insn.to_bytes()).collect();
    let mut attr = LoadAttr {
        prog_type: PROG_TYPE_XDP,
        insn_cnt: code.len() as u32,
        insns: code.as_ptr().expose_provenance() as u64,
        license: c"Apache-2.0".as_ptr().expose_provenance() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
    };
    // SAFETY: `insn_cnt` slots at `insns` and a C string, alive through the call.
    let fd = unsafe { bpf(PROG_LOAD, &mut attr) }?;
    // SAFETY: the kernel just made the descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// One program's machine code.
#[derive(Debug)]
struct Jited {
    /// Where the kernel has it.
    address: u64,
    code: Vec<u8>,
}

fn jited(program: &OwnedFd) -> Result<Jited> {
    let ask = |info: &mut ProgInfo| {
        let mut attr = InfoAttr {
            fd: program.as_raw_fd() as u32,
            len: size_of::<ProgInfo>() as u32,
            info: std::ptr::from_mut(info).expose_provenance() as u64,
        };
        // SAFETY: `len` bytes at `info`, and in it counts and addresses of buffers that large, or 0.
        unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }
    };
    let mut sizes = ProgInfo::default();
    ask(&mut sizes)?;
    ensure!(
        sizes.jited_len > 0,
        "the kernel does not compile (bpf_jit_enable)"
    );
    ensure!(
        sizes.ksym_count == 1,
        "a program of {} functions",
        sizes.ksym_count
    );
    let mut code = vec![0u8; sizes.jited_len as usize];
    let mut address = 0u64;
    let mut info = ProgInfo {
        jited_len: sizes.jited_len,
        jited: code.as_mut_ptr().expose_provenance() as u64,
        ksym_count: 1,
        ksyms: (&raw mut address).expose_provenance() as u64,
        ..ProgInfo::default()
    };
    ask(&mut info)?;
    ensure!(
        address != 0 && info.jited != 0,
        "the kernel hides its code (not root, or kptr_restrict)"
    );
    Ok(Jited { address, code })
}

/// Names of the kernel's symbols by address, of those in `wanted`.
fn symbols(wanted: &HashMap<u64, ()>) -> Result<HashMap<u64, Vec<String>>> {
    let mut names: HashMap<u64, Vec<String>> = HashMap::new();
    for line in std::fs::read_to_string("/proc/kallsyms")?.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (Some(address), Some(name)) = (fields.next(), fields.nth(1)) else {
            continue;
        };
        let address = u64::from_str_radix(address, 16)?;
        if wanted.contains_key(&address) {
            names.entry(address).or_default().push(name.to_owned());
        }
    }
    Ok(names)
}

/// Head of `struct xdp_buff`, the context of programs as the kernel compiles them.
#[repr(C)]
struct XdpBuff {
    data: *mut u8,
    data_end: *mut u8,
    data_meta: *mut u8,
    data_hard_start: *mut u8,
    rxq: *const RxQueue,
    txq: *const u8,
    frame_size: u32,
    flags: u32,
}

/// Head of `struct xdp_rxq_info`.
#[repr(C)]
struct RxQueue {
    device: *const u8,
    index: u32,
}

/// Zeros where a `struct net_device` would be: interface 0.
static DEVICE: [u64; 1024] = [0; 1024];

// What helpers do here. Each is called by kernel code over tables of ours, with their addresses.

/// # Safety
/// As [`MapHandle::lookup`].
unsafe extern "C" fn lookup(map: *const MapHandle, key: *const u8) -> *mut u8 {
    // SAFETY: the caller's contract.
    unsafe { ((*map).lookup)(map, key) }
}
/// # Safety
/// As [`MapHandle::update`].
unsafe extern "C" fn update(
    map: *const MapHandle,
    key: *const u8,
    value: *const u8,
    flags: u64,
) -> i64 {
    // SAFETY: the caller's contract.
    unsafe { ((*map).update)(map, key, value, flags) }
}
/// # Safety
/// As [`MapHandle::delete`].
unsafe extern "C" fn delete(map: *const MapHandle, key: *const u8) -> i64 {
    // SAFETY: the caller's contract.
    unsafe { ((*map).delete)(map, key) }
}
/// # Safety
/// As [`MapHandle::push`].
unsafe extern "C" fn push(map: *const MapHandle, value: *const u8, flags: u64) -> i64 {
    // SAFETY: the caller's contract.
    unsafe { ((*map).push)(map, value, flags) }
}
/// # Safety
/// As [`MapHandle::pop`].
unsafe extern "C" fn pop(map: *const MapHandle, value: *mut u8) -> i64 {
    // SAFETY: the caller's contract.
    unsafe { ((*map).pop)(map, value) }
}
/// `bpf_xdp_adjust_head`.
///
/// # Safety
/// `xdp` is the context of the run.
unsafe extern "C" fn adjust_head(xdp: *mut XdpBuff, delta: i32) -> i64 {
    // SAFETY: the caller's contract; nothing else refers to it while the program runs.
    let xdp = unsafe { &mut *xdp };
    let new = xdp.data.wrapping_offset(delta as isize);
    let last = xdp.data_end.wrapping_sub(14);
    if new < xdp.data_hard_start || new > last {
        return -22;
    }
    xdp.data = new;
    xdp.data_meta = new;
    0
}

/// `bpf_xdp_adjust_tail`, to shrink only.
///
/// # Safety
/// As [`adjust_head`].
unsafe extern "C" fn adjust_tail(xdp: *mut XdpBuff, delta: i32) -> i64 {
    // SAFETY: the caller's contract; nothing else refers to it while the program runs.
    let xdp = unsafe { &mut *xdp };
    let new = xdp.data_end.wrapping_offset(delta as isize);
    if delta > 0 || new < xdp.data.wrapping_add(14) {
        return -22;
    }
    xdp.data_end = new;
    0
}

/// What stands for a symbol of the kernel.
enum Stand {
    Call(usize),
    Return,
}

fn stand(name: &str) -> Option<Stand> {
    let call = |f: *const ()| Some(Stand::Call(f.expose_provenance()));
    match name {
        "__htab_map_lookup_elem" | "htab_map_lookup_elem" | "trie_lookup_elem" => {
            call(lookup as *const ())
        }
        "htab_map_update_elem" | "htab_lru_map_update_elem" => call(update as *const ()),
        "htab_map_delete_elem" | "htab_lru_map_delete_elem" => call(delete as *const ()),
        "queue_stack_map_push_elem" => call(push as *const ()),
        "queue_map_pop_elem" | "stack_map_pop_elem" => call(pop as *const ()),
        "bpf_xdp_adjust_head" => call(adjust_head as *const ()),
        "bpf_xdp_adjust_tail" => call(adjust_tail as *const ()),
        "__x86_return_thunk" | "srso_return_thunk" | "its_return_thunk" => Some(Stand::Return),
        _ => None,
    }
}

/// Pages of this process.
#[derive(Debug)]
struct Pages {
    start: NonNull<u8>,
    len: usize,
}

impl Pages {
    fn new(len: usize, flags: libc::c_int) -> Result<Self> {
        // SAFETY: an anonymous mapping at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            bail!("mapping pages: {}", io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).context("mapping pages")?;
        Ok(Self { start, len })
    }
    fn address(&self) -> usize {
        self.start.as_ptr().expose_provenance()
    }
    /// Copies bytes in and makes the pages executable.
    fn seal(&mut self, bytes: &[u8]) -> Result<()> {
        ensure!(bytes.len() <= self.len, "code is longer than its pages");
        // SAFETY: the mapping is ours, writable until the next call, and that long.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.as_ptr(), bytes.len()) };
        // SAFETY: a mapping of ours, whole.
        let done = unsafe {
            libc::mprotect(
                self.start.as_ptr().cast(),
                self.len,
                libc::PROT_READ | libc::PROT_EXEC,
            )
        };
        ensure!(
            done == 0,
            "making code executable: {}",
            io::Error::last_os_error()
        );
        Ok(())
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: a mapping of ours that nobody can use after `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
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

/// Puts copies of all programs, and the stands behind them, into one block of code.
struct Copier<'a, F> {
    images: &'a [Jited],
    defs: &'a [MapDef],
    table: &'a F,
    by_fd: HashMap<i64, u32>,
    executor_fd: i64,
    executor: u64,
    pointers: Vec<Box<[*mut u8]>>,
    zero: Pages,
    /// Of the copies in `out`.
    offsets: Vec<usize>,
    out: Vec<u8>,
    /// Symbols called, and the offsets of what stands for them.
    stands: Vec<(u64, usize)>,
    /// Maps by the kernel's addresses of them, by descriptor.
    known: HashMap<u64, Imm64>,
}

/// Bytes of a stand for a helper. The kernel aligns its stack to 8 bytes, we to 16:
/// `push rbp; mov rbp, rsp; and rsp, -16; mov rax, ADDRESS; call rax; leave; ret`.
const STAND: usize = 32;

impl<F: Fn(u32) -> Option<TableAddress>> Copier<'_, F> {
    fn copy(&mut self, sources: &[Vec<Op>]) -> Result<(Pages, Range<usize>)> {
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
        let mut wanted = HashMap::new();
        for image in self.images {
            for instruction in Self::instructions(image) {
                if let Some(target) = branch(&instruction)
                    && self.program_at(target).is_none()
                {
                    wanted.insert(target, ());
                }
            }
        }
        let names = symbols(&wanted)?;
        self.out.resize(self.out.len().next_multiple_of(64), 0xcc);
        for target in wanted.into_keys() {
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
        let mut maps = std::collections::HashSet::new();
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
