//! Loads an object into the kernel: its maps, its programs, its tail calls.

use std::io;
use std::sync::{Arc, OnceLock};

use dash_bpf::builder::{R0, R1};
use dash_bpf::decode::DecodeError;
use dash_bpf::helper::xdp_md;
use dash_bpf::map::{MapDef, MapKind};
use dash_bpf::op::AluOp;
use dash_bpf::program::TailCalls;
use dash_bpf::{Builder, Object, ProgramKind, Size};
use nic_target::frame::MAX_FRAME;
use thiserror::Error;

use crate::rewrite::{self, RewriteError, World};
use crate::sys::bpf::{self, Map, TestRun};

/// Why an object was not loaded. Nothing of it stays.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "fields are what the message says")]
pub enum LoadError {
    #[error("the object has no program")]
    NoProgram,
    #[error("program {program}: {error}")]
    Decode { program: String, error: DecodeError },
    #[error("program {program}: {error}")]
    Rewrite {
        program: String,
        error: RewriteError,
    },
    #[error("program {program} names map {map}, which the object does not have")]
    NoMap { program: String, map: u32 },
    #[error("map {map}: ACL classifier is not a kernel map")]
    AclMap { map: String },
    #[error(
        "creating map {map} ({kind:?}, {entries} entries of {key}+{value} bytes, up to {bytes} bytes in all): {source}"
    )]
    Map {
        map: String,
        kind: MapKind,
        entries: u32,
        key: u32,
        value: u32,
        bytes: u64,
        source: io::Error,
    },
    #[error("filling map {map}: {source}")]
    Fill { map: String, source: io::Error },
    #[error("a program array names program {program}, and there are {programs}")]
    TailCall { program: u32, programs: usize },
    #[error("asking how long packets may be: {reason}")]
    Probe { reason: String },
    #[error(transparent)]
    Program(#[from] bpf::LoadError),
}

impl LoadError {
    /// The message without its cause, where that is an error of the system's.
    pub(crate) fn what(&self) -> String {
        let text = self.to_string();
        match self {
            Self::Map { source, .. } | Self::Fill { source, .. } => text
                .strip_suffix(&format!(": {source}"))
                .unwrap_or(&text)
                .to_owned(),
            _ => text,
        }
    }
}

/// What an object is loaded for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To be [run](Loaded::run).
    TestRun,
    /// To be attached, or entered through a program array.
    Live {
        /// Program array (its index in the object) and slot that get what programs leave to control;
        /// their context is in r6 then.
        pass: Option<(u32, u32)>,
    },
}

/// Creates a map with its initial contents, with an error that names it and its size.
pub fn create_map(def: &MapDef) -> Result<Map, LoadError> {
    if def.kind == MapKind::Acl {
        return Err(LoadError::AclMap {
            map: def.name.clone(),
        });
    }
    let map = Map::create(def).map_err(|source| LoadError::Map {
        map: def.name.clone(),
        kind: def.kind,
        entries: def.max_entries,
        key: def.key_size,
        value: def.value_size,
        bytes: (u64::from(def.key_size) + u64::from(def.value_size)) * u64::from(def.max_entries),
        source,
    })?;
    if !def.contents.is_empty() {
        let filled = map.update(&0u32.to_ne_bytes(), &def.contents);
        filled.map_err(|source| LoadError::Fill {
            map: def.name.clone(),
            source,
        })?;
    }
    Ok(map)
}

/// An object in the kernel.
#[derive(Debug)]
pub struct Loaded {
    /// Kept open: closing a program array empties it.
    maps: Vec<Option<Arc<Map>>>,
    programs: Vec<bpf::Program>,
    /// What only test runs need.
    test: Option<TestRuns>,
}

#[derive(Debug)]
struct TestRuns {
    executor: Map,
    visible: usize,
}

impl Loaded {
    /// Loads `object`, with a map of `given` in place of each of its maps that has one, and new maps
    /// for the others that its programs name.
    pub fn load(
        object: &Object,
        given: impl Fn(u32) -> Option<Arc<Map>>,
        purpose: Purpose,
    ) -> Result<Self, LoadError> {
        let mut maps = vec![None; object.maps.len()];
        for index in maps_of(object)? {
            let map = match given(index) {
                Some(map) => map,
                None => Arc::new(create_map(&object.maps[index as usize])?),
            };
            maps[index as usize] = Some(map);
        }
        let fd_of = |index: u32| maps.get(index as usize)?.as_ref().map(|map| map.fd());
        let test = match purpose {
            Purpose::TestRun => Some(TestRuns {
                executor: create_map(&rewrite::executor_map())?,
                visible: visible_bytes()?,
            }),
            Purpose::Live { .. } => None,
        };
        let world = match (&test, purpose) {
            (Some(test), _) => World::TestRun {
                executor: test.executor.fd(),
            },
            (None, Purpose::Live { pass: Some(at) }) => World::Live {
                pass: fd_of(at.0).map(|array| (array, at.1)),
            },
            (None, _) => World::Live { pass: None },
        };
        let programs = object
            .programs
            .iter()
            .map(|p| {
                let code = rewrite::rewrite(&p.insns, fd_of, world).map_err(|error| {
                    LoadError::Rewrite {
                        program: p.name.clone(),
                        error,
                    }
                })?;
                Ok(bpf::Program::load(&p.name, p.kind, &code)?)
            })
            .collect::<Result<Vec<_>, LoadError>>()?;
        if programs.is_empty() {
            return Err(LoadError::NoProgram);
        }
        for calls in &object.tail_calls {
            if let Some(Some(map)) = maps.get(calls.map as usize) {
                fill(map, calls, &programs)?;
            }
        }
        Ok(Self {
            maps,
            programs,
            test,
        })
    }

    /// A map by its index in the object; `None` when no program names it.
    pub fn map(&self, index: u32) -> Option<&Arc<Map>> {
        self.maps.get(index as usize)?.as_ref()
    }

    /// Program 0.
    pub fn entry(&self) -> Option<&bpf::Program> {
        self.programs.first()
    }

    /// Longest packet to run ([`visible_bytes`]); 0 when it was not loaded for test runs.
    pub fn longest(&self) -> usize {
        self.test.as_ref().map_or(0, |test| test.visible)
    }

    /// Runs program 0 on a packet at `now_ns`. Gives the outcome, and the interface of a redirect.
    pub fn run(&self, now_ns: u64, packet: &[u8], out: &mut [u8]) -> io::Result<(TestRun, u32)> {
        let key = 0u32.to_ne_bytes();
        let mut value = [0; rewrite::EXECUTOR_VALUE];
        value[..8].copy_from_slice(&now_ns.to_ne_bytes());
        let (Some(TestRuns { executor, .. }), Some(entry)) = (&self.test, self.entry()) else {
            return Err(io::Error::other("not loaded for test runs"));
        };
        executor.update(&key, &value)?;
        let run = entry.test_run(packet, out)?;
        let mut after = Vec::with_capacity(rewrite::EXECUTOR_VALUE);
        executor.lookup(&key, &mut after)?;
        let port = after
            .get(rewrite::REDIRECTED_TO as usize..)
            .and_then(|b| b.first_chunk());
        Ok((run, port.map_or(0, |b| u32::from_ne_bytes(*b))))
    }
}

/// Bytes of a packet that a program sees in a test run: what is longer gets the rest in fragments, out
/// of reach of programs that are not made for them, so their verdict would be about a shorter packet.
///
/// Asked of the kernel once, by a program that returns how much it sees.
pub fn visible_bytes() -> Result<usize, LoadError> {
    static LIMIT: OnceLock<usize> = OnceLock::new();
    if let Some(&limit) = LIMIT.get() {
        return Ok(limit);
    }
    let mut b = Builder::new();
    b.load(Size::W, R0, R1, xdp_md::DATA_END);
    b.load(Size::W, R1, R1, xdp_md::DATA);
    b.alu(AluOp::Sub, R0, R1);
    b.exit();
    let insns = b.finish().map_err(|e| LoadError::Probe {
        reason: e.to_string(),
    })?;
    let program = bpf::Program::load("visible", ProgramKind::Xdp, &insns)?;
    let packet = [0; MAX_FRAME];
    let limit = match program.test_run(&packet, &mut [0; MAX_FRAME]) {
        Ok(run) => run.retval as usize,
        // A kernel that makes no fragments refuses what does not fit.
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => MAX_FRAME,
        Err(e) => {
            return Err(LoadError::Probe {
                reason: e.to_string(),
            });
        }
    };
    Ok(*LIMIT.get_or_init(|| limit))
}

/// Indices of the maps that any program of an object names, ascending; all exist.
pub fn maps_of(object: &Object) -> Result<Vec<u32>, LoadError> {
    let mut all = Vec::new();
    for program in &object.programs {
        let name = || program.name.clone();
        let maps = rewrite::maps_of(&program.insns).map_err(|error| LoadError::Decode {
            program: name(),
            error,
        })?;
        if let Some(&map) = maps.iter().find(|&&map| map as usize >= object.maps.len()) {
            return Err(LoadError::NoMap {
                program: name(),
                map,
            });
        }
        all.extend(maps);
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

fn fill(map: &Map, calls: &TailCalls, programs: &[bpf::Program]) -> Result<(), LoadError> {
    for (slot, program) in (0u32..).zip(&calls.programs) {
        let Some(program) = *program else { continue };
        let missing = LoadError::TailCall {
            program,
            programs: programs.len(),
        };
        let program = programs.get(program as usize).ok_or(missing)?;
        map.set_program(slot, program)
            .map_err(|source| LoadError::Fill {
                map: map.def().name.clone(),
                source,
            })?;
    }
    Ok(())
}
