//! Native code of a bare program as an executable that runs it once.
//!
//! The file is static and position-dependent: one segment of code, one of data, no libraries and no
//! C. Its start calls the program with memory, length and helpers, then writes r0 (8 bytes,
//! little-endian) and the memory to its standard output and ends. Helper 5, the only one of the
//! public suite, returns its argument; every other helper ends the process with [`NO_HELPER`].

use dash_native::{Machine, NativeCode};
use dash_wire::abi::HELPER_SLOTS;
use object::elf;

/// Exit status of a program that called a helper that is not there.
pub const NO_HELPER: i32 = 70;

/// The helper that is there (`unwind` of the public suite).
const UNWIND: usize = 5;

/// Where the code segment goes. Everything is below 2 GiB, which RISC-V's two-instruction constants
/// reach.
const CODE: u64 = 0x1000_0000;
/// Where the data segment goes.
const DATA: u64 = 0x4000_0000;
const PAGE: u64 = 0x1_0000;
const HEADERS: u64 = 64 + 2 * 56;
/// From the data segment's start to r0, which the memory follows: an array of helpers lies before.
const RESULT: u64 = 8 * HELPER_SLOTS as u64;

/// The executable's bytes.
pub fn executable(code: &NativeCode, memory: &[u8]) -> Vec<u8> {
    let result = DATA + RESULT;
    let places = Places {
        memory: result + 8,
        len: memory.len() as u64,
        helpers: DATA,
        result,
    };
    // Its length does not depend on the addresses in it.
    let len = start(code.machine, &places, CODE).bytes.len() as u64;
    let body = (CODE + HEADERS + len).next_multiple_of(code.align as u64);
    let start = start(code.machine, &places, body + code.entry_offset as u64);
    let at = |offset: usize| CODE + HEADERS + offset as u64;

    let mut text = start.bytes;
    text.resize((body - CODE - HEADERS) as usize, 0);
    text.extend_from_slice(&code.code);
    let mut data = Vec::with_capacity(RESULT as usize + 8 + memory.len());
    for helper in 0..HELPER_SLOTS {
        let offset = match helper {
            UNWIND => start.unwind,
            _ => start.missing,
        };
        data.extend_from_slice(&at(offset).to_le_bytes());
    }
    data.extend_from_slice(&[0; 8]);
    data.extend_from_slice(memory);

    let code_len = HEADERS + text.len() as u64;
    let data_offset = code_len.next_multiple_of(PAGE);
    let mut file = header(code.machine);
    file.extend(segment(elf::PF_R | elf::PF_X, 0, CODE, code_len));
    file.extend(segment(
        elf::PF_R | elf::PF_W,
        data_offset,
        DATA,
        data.len() as u64,
    ));
    file.extend(text);
    file.resize(data_offset as usize, 0);
    file.extend(data);
    file
}

/// The ELF header: entry right after the program headers.
fn header(machine: Machine) -> Vec<u8> {
    let (number, flags) = match machine {
        Machine::X86_64 => (elf::EM_X86_64, 0),
        Machine::Aarch64 => (elf::EM_AARCH64, 0),
        Machine::Riscv64 => (
            elf::EM_RISCV,
            elf::EF_RISCV_RVC | elf::EF_RISCV_FLOAT_ABI_DOUBLE,
        ),
    };
    let mut out = Vec::with_capacity(HEADERS as usize);
    out.extend(elf::ELFMAG);
    out.extend([elf::ELFCLASS64, elf::ELFDATA2LSB, elf::EV_CURRENT]);
    out.resize(16, 0);
    out.extend(elf::ET_EXEC.to_le_bytes());
    out.extend(number.to_le_bytes());
    out.extend(1u32.to_le_bytes());
    out.extend((CODE + HEADERS).to_le_bytes());
    // Program headers follow; no section headers.
    out.extend(64u64.to_le_bytes());
    out.extend(0u64.to_le_bytes());
    out.extend(flags.to_le_bytes());
    for half in [64u16, 56, 2, 64, 0, 0] {
        out.extend(half.to_le_bytes());
    }
    out
}

fn segment(flags: u32, offset: u64, address: u64, len: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(56);
    out.extend(elf::PT_LOAD.to_le_bytes());
    out.extend(flags.to_le_bytes());
    for word in [offset, address, address, len, len, PAGE] {
        out.extend(word.to_le_bytes());
    }
    out
}

/// Addresses the start needs, and the memory's length.
struct Places {
    memory: u64,
    len: u64,
    helpers: u64,
    result: u64,
}

/// Machine code of the start and of helpers.
struct Start {
    bytes: Vec<u8>,
    /// Offset of the helper that returns its first argument.
    unwind: usize,
    /// Offset of the helper that ends the process.
    missing: usize,
}

impl Start {
    /// From 32-bit instructions: the start, then the helpers.
    fn words(start: &[u32], unwind: &[u32], missing: &[u32]) -> Self {
        let words = start.iter().chain(unwind).chain(missing);
        Self {
            bytes: words.flat_map(|word| word.to_le_bytes()).collect(),
            unwind: 4 * start.len(),
            missing: 4 * (start.len() + unwind.len()),
        }
    }
}

/// The start for the program at `entry`.
fn start(machine: Machine, to: &Places, entry: u64) -> Start {
    match machine {
        Machine::X86_64 => x86_64(to, entry),
        Machine::Aarch64 => aarch64(to, entry),
        Machine::Riscv64 => riscv64(to, entry),
    }
}

fn x86_64(to: &Places, entry: u64) -> Start {
    // mov r64, imm64; registers in the processor's numbering
    let load = |register: u8, value: u64| {
        let mut out = vec![0x48, 0xb8 | register];
        out.extend(value.to_le_bytes());
        out
    };
    let (rax, rdx, rsi, rdi) = (0, 2, 6, 7);
    let syscall = [0x0f, 0x05];
    let start = [
        load(rdi, to.memory),
        load(rsi, to.len),
        load(rdx, to.helpers),
        load(rax, entry),
        vec![0xff, 0xd0], // call rax; the kernel aligned the stack
        load(rsi, to.result),
        vec![0x48, 0x89, 0x06], // mov [rsi], rax
        load(rdx, 8 + to.len),
        load(rdi, 1),
        load(rax, 1), // write
        syscall.to_vec(),
        load(rdi, 0),
        load(rax, 231), // exit_group
        syscall.to_vec(),
    ]
    .concat();
    // mov rax, rsi; ret
    let unwind = vec![0x48, 0x89, 0xf0, 0xc3];
    let missing = [
        load(rdi, NO_HELPER as u64),
        load(rax, 231),
        syscall.to_vec(),
    ]
    .concat();
    Start {
        unwind: start.len(),
        missing: start.len() + unwind.len(),
        bytes: [start, unwind, missing].concat(),
    }
}

fn aarch64(to: &Places, entry: u64) -> Start {
    // movz and movk of 16 bits each
    let load = |register: u32, value: u64| {
        (0..4).map(move |part: u32| {
            let opcode = if part == 0 { 0xd280_0000 } else { 0xf280_0000 };
            let bits = (value >> (16 * part)) as u32 & 0xffff;
            opcode | part << 21 | bits << 5 | register
        })
    };
    let (write, exit, svc) = (64, 94, 0xd400_0001);
    let mut start = Vec::new();
    start.extend(load(0, to.memory));
    start.extend(load(1, to.len));
    start.extend(load(2, to.helpers));
    start.extend(load(16, entry));
    start.push(0xd63f_0000 | 16 << 5); // blr x16
    start.extend(load(1, to.result));
    start.push(0xf900_0000 | 1 << 5); // str x0, [x1]
    start.extend(load(0, 1));
    start.extend(load(2, 8 + to.len));
    start.extend(load(8, write));
    start.push(svc);
    start.extend(load(0, 0));
    start.extend(load(8, exit));
    start.push(svc);
    let unwind = [0xaa01_03e0, 0xd65f_03c0]; // mov x0, x1; ret
    let missing: Vec<u32> = load(0, NO_HELPER as u64)
        .chain(load(8, exit))
        .chain([svc])
        .collect();
    Start::words(&start, &unwind, &missing)
}

fn riscv64(to: &Places, entry: u64) -> Start {
    // lui and addiw; addiw adds a signed number, so lui rounds
    let load = |register: u32, value: u64| {
        let value = value as u32;
        let high = value.wrapping_add(0x800) & 0xffff_f000;
        let low = value & 0xfff;
        [
            high | register << 7 | 0x37,
            low << 20 | register << 15 | register << 7 | 0x1b,
        ]
    };
    let (a0, a1, a2, a7, t0) = (10, 11, 12, 17, 5);
    let (write, exit, ecall) = (64, 94, 0x73);
    let start = [
        &load(a0, to.memory)[..],
        &load(a1, to.len),
        &load(a2, to.helpers),
        &load(t0, entry),
        &[t0 << 15 | 1 << 7 | 0x67], // jalr ra, t0
        &load(a1, to.result),
        &[a0 << 20 | a1 << 15 | 3 << 12 | 0x23], // sd a0, (a1)
        &load(a0, 1),
        &load(a2, 8 + to.len),
        &load(a7, write),
        &[ecall],
        &load(a0, 0),
        &load(a7, exit),
        &[ecall],
    ]
    .concat();
    let unwind = [a1 << 15 | a0 << 7 | 0x13, 1 << 15 | 0x67]; // mv a0, a1; ret
    let missing = [&load(a0, NO_HELPER as u64)[..], &load(a7, exit), &[ecall]].concat();
    Start::words(&start, &unwind, &missing)
}
