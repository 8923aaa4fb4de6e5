//! Four programs as machine code of ours, of the Linux kernel, of uBPF, and of a C compiler for this machine:
//! instructions that run for one packet.
//!
//! The sources are in `benches/programs`; clang builds them here. The kernel's code is a copy that runs in this
//! process (`dash_bench::kernel`), so it needs root. uBPF's is there with the path of a `libubpf.so` in `UBPF_LIBRARY`.
//! All must do the same to the packet.

#![expect(unsafe_code, reason = "machine code of others, shared libraries")]

mod build;
mod library;
mod ubpf;

use anyhow::{Context, Result, ensure};
use dash_bench::kernel::KernelCode;
use dash_bench::step;
use dash_prog::{Ingress, LoadOptions, Loaded, Packet};
use dash_wire::abi::RunCtx;

use build::Built;
use library::Library;

/// Where the frame is in its buffer.
const START: usize = 256;
const BUFFER: usize = 2048;

/// A program and what it is called in the performance goals.
const PROGRAMS: [(&str, &str); 4] = [
    ("a", "drop"),
    ("b", "rewrite"),
    ("c", "encap"),
    ("e", "flow"),
];

/// What a program did to a packet, and the instructions it took.
struct Run {
    code: u32,
    frame: Vec<u8>,
    instructions: usize,
}

/// The packet: UDP, 64 bytes.
fn frame() -> Vec<u8> {
    let mut frame = vec![0x5a; 64];
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    frame[12..14].copy_from_slice(&[8, 0]);
    let header = [
        0x45, 0, 0, 50, 0x12, 0x34, 0x40, 0, 64, 17, 0x3b, 0x5c, 10, 1, 2, 3, 10, 9, 8, 7,
    ];
    frame[14..34].copy_from_slice(&header);
    frame[34..42].copy_from_slice(&[0x9c, 0x40, 0, 53, 0, 30, 0x12, 0x34]);
    frame
}

/// The key that `flow.c` makes of it.
fn flow() -> [u8; 16] {
    let frame = frame();
    let mut key = [0; 16];
    key[..8].copy_from_slice(&frame[26..34]);
    key[8..12].copy_from_slice(&frame[34..38]);
    key[12] = frame[23];
    key
}

fn buffer() -> Vec<u8> {
    let mut buffer = vec![0; BUFFER];
    let frame = frame();
    buffer[START..START + frame.len()].copy_from_slice(&frame);
    buffer
}

/// A context for code that gets one like ours.
fn context(buffer: &mut [u8]) -> RunCtx {
    let range = buffer.as_mut_ptr_range();
    let data = range.start.wrapping_add(START);
    RunCtx {
        data,
        data_end: data.wrapping_add(frame().len()),
        data_meta: data,
        ingress_ifindex: 0,
        rx_queue_index: 0,
        egress_ifindex: 0,
        redirect_ifindex: 0,
        frame_start: range.start,
        frame_end: range.end,
        now_ns: 0,
        arrays: std::ptr::null(),
        maps: std::ptr::null(),
        helpers: std::ptr::null(),
        worker: std::ptr::null_mut(),
        cpu: 0,
        resume: 0,
        found_key: std::ptr::null(),
        found_value: std::ptr::null_mut(),
        memo: std::ptr::null_mut(),
        fuel: 0,
    }
}

/// What is in the buffer between a context's borders.
fn left(ctx: &RunCtx, buffer: &[u8]) -> Result<Vec<u8>> {
    let from = |at: *mut u8| at.addr().wrapping_sub(buffer.as_ptr().addr());
    let frame = buffer.get(from(ctx.data)..from(ctx.data_end));
    Ok(frame.context("the packet left its buffer")?.to_vec())
}

fn ours(built: &Built, mask_indexes: bool, fuel: Option<u64>) -> Result<Run> {
    let options = LoadOptions {
        mask_indexes,
        fuel,
        ..LoadOptions::default()
    };
    let loaded = Loaded::from_elf(&[&built.object], &options)?;
    if let Some(flows) = loaded.maps().get("flows") {
        flows.update(&flow(), &[0; 16], 0)?;
    }
    let mut runner = loaded
        .first()
        .and_then(|program| program.runner(0))
        .context("no program")?;
    let ranges = step::compiled_code()?;
    let mut buffer = buffer();
    let mut packet = Packet::new(&mut buffer, START..START + frame().len()).context("a frame")?;
    let ingress = Ingress::default();
    let (outcome, trace) = step::trace(&ranges, || runner.run(&mut packet, &ingress))?;
    if let Some(flows) = loaded.maps().get("flows") {
        let count = flows.lookup(&flow())?.context("the flow is there")?;
        ensure!(
            count == [1u64.to_ne_bytes(), 64u64.to_ne_bytes()].concat(),
            "ours counted {count:?}"
        );
    }
    Ok(Run {
        code: outcome.code,
        frame: packet.data().to_vec(),
        instructions: trace.inside.len(),
    })
}

fn native(library: &Library) -> Result<Run> {
    if let Ok(add) = library.function("add") {
        let key = flow();
        // SAFETY: `int add(const struct key *)` of `map.h`; the key is as large.
        let added = unsafe {
            std::mem::transmute::<*const (), unsafe extern "C" fn(*const u8) -> i32>(add)(
                key.as_ptr(),
            )
        };
        ensure!(added == 0, "the flow was not added");
    }
    let program = library.function("program")?;
    let mut buffer = buffer();
    let mut ctx = context(&mut buffer);
    // SAFETY: `int program(struct context *)` of the sources.
    let program = unsafe {
        std::mem::transmute::<*const (), unsafe extern "C" fn(*mut RunCtx) -> u32>(program)
    };
    let ranges = library.code()?;
    // SAFETY: `struct context` is how `RunCtx` starts, and the frame is the buffer's.
    let (code, trace) = step::trace(&ranges, || unsafe { program(&raw mut ctx) })?;
    Ok(Run {
        code,
        frame: left(&ctx, &buffer)?,
        instructions: trace.inside.len(),
    })
}

fn kernel(built: &Built) -> Result<Run> {
    let object = dash_bpf::elf::link(&[&built.object])?;
    let mut code = KernelCode::new(&object, |_| None)?;
    let mut buffer = buffer();
    let programs = code.programs();
    let end = START + frame().len();
    let (outcome, trace) = step::trace(&[programs], || {
        // SAFETY: the program has no maps.
        unsafe { code.run(0, &mut buffer, START, end) }
    })?;
    let frame = buffer.get(outcome.start..outcome.end);
    Ok(Run {
        code: outcome.code,
        frame: frame.context("the packet left its buffer")?.to_vec(),
        instructions: trace.inside.len(),
    })
}

/// Instructions, or why there is no figure; all that there is does what the first does.
fn same(name: &str, who: &str, expected: &Run, run: Result<Run>) -> Result<Option<usize>> {
    match run {
        Ok(run) => {
            ensure!(
                (run.code, &run.frame) == (expected.code, &expected.frame),
                "{name}: {who} does something else"
            );
            Ok(Some(run.instructions))
        }
        Err(e) => {
            eprintln!("SKIP: {name}, {who}: {e:#}");
            Ok(None)
        }
    }
}

fn ratio(ours: usize, other: Option<usize>) -> String {
    other.map_or_else(
        || "-".to_owned(),
        |other| format!("{:.2}", ours as f64 / other as f64),
    )
}

fn number(n: Option<usize>) -> String {
    n.map_or_else(|| "-".to_owned(), |n| n.to_string())
}

fn main() -> Result<()> {
    let kernel_why = nic_linux::KernelEngine::unavailable();
    println!(
        "{:12} {:>6} {:>6} {:>7} {:>5} {:>7} {:>6} {:>8} {:>8} {:>7} {:>6}",
        "program",
        "slots",
        "ours",
        "masked",
        "fuel",
        "clang",
        "kernel",
        "uBPF",
        "/clang",
        "/kernel",
        "/uBPF"
    );
    for (letter, name) in PROGRAMS {
        let Some(built) = Built::new(name)? else {
            eprintln!("SKIP: no clang");
            return Ok(());
        };
        let plain = ours(&built, false, None)?;
        let masked = ours(&built, true, None)?;
        let counted = ours(&built, false, Some(1 << 20))?;
        let library = Library::open(&built.shared_object)?;
        let c = same(name, "C", &plain, native(&library))?;
        let kernel = match (&kernel_why, name) {
            // Its map's code is its own.
            (_, "flow") => None,
            (Some(why), _) => {
                eprintln!("SKIP: {name}, kernel: {why}");
                None
            }
            (None, _) => same(name, "the kernel", &plain, kernel(&built))?,
        };
        let other = match ubpf::library() {
            Some(path) => same(name, "uBPF", &plain, ubpf::run(&path, &built, &library))?,
            None => None,
        };
        println!(
            "{:12} {:>6} {:>6} {:>7} {:>5} {:>7} {:>6} {:>8} {:>8} {:>7} {:>6}",
            format!("{letter} {name}"),
            built.slots()?,
            plain.instructions,
            masked.instructions,
            counted.instructions,
            number(c),
            number(kernel),
            number(other),
            ratio(plain.instructions, c),
            ratio(plain.instructions, kernel),
            ratio(plain.instructions, other),
        );
        for (what, path) in &built.others {
            let run = Library::open(path).and_then(|library| native(&library));
            let c = same(name, what, &plain, run)?;
            println!("{:>27} {:>7}  {what}", "", number(c));
        }
    }
    Ok(())
}
