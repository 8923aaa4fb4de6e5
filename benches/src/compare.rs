//! The same packets through our machine code and the kernel's, instruction by instruction.
//!
//! What is counted, on both sides alike: machine instructions of compiled code that run, every
//! prologue, bounds check of the program, array look-up the compiler inlined, and tail call among
//! them. Not counted, on both sides alike: bodies of helpers and maps that are called, and whoever
//! calls the program. The bytecode is the same but for the clock, which for the kernel is a load from
//! a map (two instructions of bytecode) in the place of a call, because a test run has no other way
//! to the packet's time; ours is a load too.
//!
//! That the kernel's code is really run is checked: bytes, verdict, counters and flows are equal.

#![expect(unsafe_code, reason = "machine code over the tables of a core")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use dash_bpf::helper::XdpAction;
use dash_engine::{Engine, Options};
use dash_runtime::Core;
use dashctl::engines::EngineName;
use nic_target::{Frame, Table, Target, Verdict};

use crate::kernel::{KernelCode, TableAddress};
use crate::step;
use crate::world::{self, Rows, Runner};

/// One packet's instructions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What packet.
    pub name: &'static str,
    /// Of our code.
    pub native: usize,
    /// Of the kernel's.
    pub kernel: usize,
    /// All that our process runs for the packet: receive, clock and binding too.
    pub process: u64,
}

/// The comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// Packets.
    pub lines: Vec<Line>,
    /// Bytes of our code.
    pub native_bytes: usize,
    /// Bytes of the kernel's.
    pub kernel_bytes: usize,
    /// By program, for each line: instructions of the kernel's code.
    pub kernel_by_program: Vec<BTreeMap<String, usize>>,
}

/// A core whose tables the kernel's code runs over.
struct KernelRunner {
    engine: Engine<Core>,
    code: KernelCode,
    frame: Frame,
}

fn core(name: EngineName, cache: Option<PathBuf>) -> Result<Engine<Core>> {
    let capacity = EngineName::Kernel.capacity();
    let engine = match name {
        EngineName::Native => dash_runtime::Engine::Native,
        _ => dash_runtime::Engine::Interp,
    };
    let target = Core::new(engine, &capacity)?;
    let options = Options {
        native: name == EngineName::Native,
        ..world::options(capacity, cache)
    };
    Ok(Engine::new(options, Box::new(target))?)
}

impl KernelRunner {
    fn start(cache: Option<PathBuf>) -> Result<Self> {
        let mut engine = core(EngineName::Interp, cache)?;
        world::configure(&mut engine, &world::rows(Rows::WithoutAcl)?)?;
        let object = engine.image().object.clone();
        let target = engine.target_mut();
        let code = KernelCode::new(&object, |index| {
            let table = *Table::ALL.get(index as usize)?;
            if let Some(map) = target.tables().map(table) {
                return Some(TableAddress {
                    handle: map.handle,
                    array: map.array.map(|array| array.base()),
                });
            }
            let map = target.generation().tables().map(table)?;
            Some(TableAddress {
                handle: map.handle(),
                array: map.array().map(|array| array.base()),
            })
        })?;
        Ok(Self {
            engine,
            code,
            frame: Frame::new(),
        })
    }

    /// Runs a packet; the instructions it took.
    fn run(&mut self, now_ns: u64, packet: &[u8]) -> Result<(Verdict, Vec<usize>)> {
        ensure!(self.frame.fill(packet), "the packet is too long");
        let programs = self.code.programs();
        let (buffer, start, end) = self.frame.parts_mut();
        let (outcome, trace) = step::trace(&[programs], || {
            // SAFETY: the tables are those of the engine's core, which lives as long as `self`, was
            // not changed since their addresses were taken, and is not used during the call; arrays
            // have the object's capacity, as both come from one `Capacity`.
            unsafe { self.code.run(now_ns, buffer, start, end) }
        })?;
        ensure!(
            self.frame.set_bounds(outcome.start, outcome.end),
            "the packet left its buffer"
        );
        let verdict = match XdpAction::from_r0(outcome.code) {
            XdpAction::Tx => Verdict::Send(0),
            XdpAction::Drop => Verdict::Drop,
            XdpAction::Pass => Verdict::Pass,
            other => bail!("the kernel's code returned {other:?}"),
        };
        Ok((verdict, trace.inside))
    }
}

/// Runs the first and a later packet of an outbound and of an inbound flow both ways.
///
/// # Errors
/// Not root, no native code, or the two do not do the same.
pub fn compare(cache: Option<PathBuf>) -> Result<Comparison> {
    let mut ours = Runner::new(core(EngineName::Native, cache.clone())?, Rows::WithoutAcl)?;
    // Asked now: neighbouring mappings become one, and the kernel's code comes next.
    let ranges = step::compiled_code()?;
    ensure!(!ranges.is_empty(), "no compiled code in this process");
    let mut theirs = KernelRunner::start(cache)?;
    let own_code = {
        let image = ours.engine().image();
        ensure!(
            image.object == theirs.engine.image().object,
            "the two run different bytecode"
        );
        image
            .native
            .as_ref()
            .context("no native code")?
            .code()
            .len()
    };

    let mut lines = Vec::new();
    let mut by_program = Vec::new();
    let packets = [
        (
            "outbound, first of a flow",
            world::outbound(7, world::SMALL),
        ),
        ("outbound, established", world::outbound(7, world::SMALL)),
        ("inbound, first of a flow", world::inbound(8, world::SMALL)),
        ("inbound, established", world::inbound(8, world::SMALL)),
        (
            "outbound IPv6, first of a flow",
            world::outbound_v6(9, world::SMALL),
        ),
        (
            "outbound IPv6, established",
            world::outbound_v6(9, world::SMALL),
        ),
    ];
    for (name, packet) in packets {
        ours.advance(1000);
        let (verdict, trace) = step::trace(&ranges, || ours.run(&packet))?;
        let verdict = verdict?;
        ensure!(matches!(verdict, Verdict::Send(_)), "{name}: {verdict:?}");
        let (their_verdict, their_trace) = theirs.run(ours.now(), &packet)?;
        ensure!(
            verdict == their_verdict && ours.output() == theirs.frame.data(),
            "{name}: the two do not send the same packet"
        );
        lines.push(Line {
            name,
            native: trace.inside.len(),
            kernel: their_trace.len(),
            process: trace.total,
        });
        by_program.push(split(&theirs.code, &their_trace));
    }
    ensure!(
        ours.engine().target_mut().counters()? == theirs.engine.target_mut().counters()?
            && ours.engine().target_mut().flows()? == theirs.engine.target_mut().flows()?,
        "the two do not count the same"
    );
    Ok(Comparison {
        lines,
        native_bytes: own_code,
        kernel_bytes: theirs.code.lengths().iter().map(|(_, len)| len).sum(),
        kernel_by_program: by_program,
    })
}

/// Instructions by program.
fn split(code: &KernelCode, trace: &[usize]) -> BTreeMap<String, usize> {
    let mut by_program = BTreeMap::new();
    for at in trace {
        *by_program
            .entry(code.program_of(*at).to_owned())
            .or_default() += 1;
    }
    by_program
}
