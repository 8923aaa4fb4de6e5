//! Verification of objects: rules, PREVAIL, cache, threads.

use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use dash_bpf::helper::PROTOTYPES;
use dash_bpf::{MapDef, MapKind, Object, Program, ProgramKind};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::cache::{Cache, Key, Source};
use crate::error::{ObjectRule, Reason, VerifyError};
use crate::judge::judge;
use crate::own::Limits;

/// Part of every verdict's key: change it when rules, model or PREVAIL change.
const VERSION: &str = "dash-verify 7, prevail 0.2.6";

/// PREVAIL recurses over nested loops; a stack overflow cannot be caught.
const THREAD_STACK: usize = 64 << 20;

/// Largest key or value of a map, in bytes.
const MAX_ELEMENT: u32 = 1 << 20;

/// Who decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Judge {
    /// Our own verifier: walks all paths, joins where they are too many.
    #[default]
    Own,
    /// Rules of ours, then PREVAIL.
    Prevail,
    /// Both must accept.
    Both,
}

/// No judge has this name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("no verifier {0:?}; there are own, prevail and both")]
pub struct UnknownJudge(String);

impl fmt::Display for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "own",
            Self::Prevail => "prevail",
            Self::Both => "both",
        })
    }
}

impl FromStr for Judge {
    type Err = UnknownJudge;

    fn from_str(name: &str) -> Result<Self, UnknownJudge> {
        match name {
            "own" => Ok(Self::Own),
            "prevail" => Ok(Self::Prevail),
            "both" => Ok(Self::Both),
            _ => Err(UnknownJudge(name.to_owned())),
        }
    }
}

/// What is demanded of programs. Part of a verdict's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Who decides.
    pub judge: Judge,
    /// What our own verifier may spend on a program.
    pub limits: Limits,
    /// Demand that array indices on the stack are provably in range. Not needed for safety: a
    /// look-up out of range yields null, and null must be checked for anyway. PREVAIL's alone.
    pub strict: bool,
    /// Demand a proof that every loop ends within 100,000 rounds. PREVAIL's alone: our own verifier
    /// always proves that programs end.
    pub check_termination: bool,
    /// Refuse longer programs, in instruction slots: PREVAIL's time grows faster than length and
    /// cannot be cut short.
    pub max_insns: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            judge: Judge::default(),
            limits: Limits::default(),
            strict: false,
            check_termination: true,
            max_insns: 16_384,
        }
    }
}

/// How a [`Verifier`] works.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Folder for verdicts that outlive the process. Whoever can write there can have programs
    /// accepted: it must belong to the verifying user alone.
    pub cache_dir: Option<PathBuf>,
    /// What is demanded.
    pub policy: Policy,
}

/// What a verifier did, counted in programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Judged, whatever the verdict.
    pub verified: u64,
    /// Verdicts found in memory.
    pub cache_hits_memory: u64,
    /// Verdicts found on disk.
    pub cache_hits_disk: u64,
}

/// Something a [`Verifier`] accepted, unchanged since: there is no other way to make one.
///
/// ```compile_fail
/// let forged = dash_verify::Verified(dash_bpf::Object::default());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// What was accepted.
    pub fn get(&self) -> &T {
        &self.0
    }

    /// What was accepted, no longer marked so.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Accepts or refuses objects.
///
/// Every program is judged on its own, with the context as its only argument: what holds for each
/// holds for any chain of tail calls among them. A verdict is about exactly the SHA-256 of its
/// code, the definitions of the object's maps (not their names), the helper table, the policy and
/// the version of this crate and PREVAIL.
#[derive(Debug)]
pub struct Verifier {
    policy: Policy,
    cache: Cache,
    counters: Counters,
}

impl Verifier {
    /// A verifier with an empty memory.
    pub fn new(options: Options) -> Self {
        let cache = Cache::new(options.cache_dir);
        Self {
            policy: options.policy,
            cache,
            counters: Counters::default(),
        }
    }

    /// What it did so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Verifies all programs of an object, those without a verdict yet on all cores.
    ///
    /// # Errors
    /// The object is inconsistent, or a program is not accepted: the one of lowest index, if
    /// several.
    pub fn verify(&mut self, object: &Object) -> Result<Verified<Object>, VerifyError> {
        check_object(object)?;
        let keys: Vec<Key> = object
            .programs
            .iter()
            .map(|p| key(p, &object.maps, self.policy))
            .collect();
        let mut verdicts: Vec<Option<Result<(), Reason>>> = Vec::with_capacity(keys.len());
        for key in &keys {
            verdicts.push(self.cache.get(*key).map(|(source, verdict)| {
                match source {
                    Source::Memory => self.counters.cache_hits_memory += 1,
                    Source::Disk => self.counters.cache_hits_disk += 1,
                }
                verdict
            }));
        }
        let missing: Vec<usize> = (0..verdicts.len())
            .filter(|index| verdicts[*index].is_none())
            .collect();
        for (index, verdict) in judge_all(object, &missing, self.policy) {
            self.counters.verified += 1;
            self.cache.put(keys[index], verdict.clone());
            verdicts[index] = Some(verdict);
        }
        for (index, (program, verdict)) in object.programs.iter().zip(verdicts).enumerate() {
            let verdict = verdict.unwrap_or_else(|| {
                Err(Reason::Panicked {
                    message: "the analysis did not finish".to_owned(),
                })
            });
            verdict.map_err(|reason| {
                let name = program.name.clone();
                let line = reason.pc().and_then(|pc| program.debug.line(pc));
                let line = line.cloned().map(Box::new);
                VerifyError::Program {
                    index,
                    name,
                    reason,
                    line,
                }
            })?;
        }
        Ok(Verified(object.clone()))
    }
}

/// Judges these programs, one thread a core. Largest first: the longest one decides when all are
/// done.
fn judge_all(
    object: &Object,
    indices: &[usize],
    policy: Policy,
) -> Vec<(usize, Result<(), Reason>)> {
    let mut order = indices.to_vec();
    order.sort_by_key(|index| std::cmp::Reverse(object.programs[*index].insns.len()));
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(order.len()));
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        while let Some(index) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            let program = &object.programs[*index];
            let verdict = match program.kind {
                ProgramKind::Xdp => judge(program, &object.maps, policy),
                ProgramKind::Raw => Err(Reason::Kind),
            };
            let mut done = done.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            done.push((*index, verdict));
        }
    };
    thread::scope(|scope| {
        for _ in 0..cores.min(order.len()) {
            // Without a thread to spare, its share is done by the others, or reported as not done.
            let _ = thread::Builder::new()
                .stack_size(THREAD_STACK)
                .spawn_scoped(scope, work);
        }
    });
    done.into_inner()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn key(program: &Program, maps: &[MapDef], policy: Policy) -> Key {
    let mut hash = Sha256::new();
    let mut field = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    field(VERSION.as_bytes());
    field(format!("{policy:?}").as_bytes());
    field(format!("{PROTOTYPES:?}").as_bytes());
    field(format!("{:?}", program.kind).as_bytes());
    for map in maps {
        field(of_map(map).as_bytes());
        // Of maps that programs cannot write, proofs use what is in them.
        field(if map.read_only() { &map.contents } else { &[] });
        let inner = map.inner.as_ref();
        field(
            inner
                .map_or(String::new(), |inner| of_map(&inner.template))
                .as_bytes(),
        );
    }
    let code: Vec<u8> = program
        .insns
        .iter()
        .flat_map(|insn| insn.to_bytes())
        .collect();
    field(&code);
    Key(hash.finalize().into())
}

/// What a proof knows of a map.
fn of_map(map: &MapDef) -> String {
    let MapDef {
        kind,
        key_size,
        value_size,
        max_entries,
        flags,
        ..
    } = map;
    format!("{kind:?} {key_size} {value_size} {max_entries} {flags}")
}

fn check_object(object: &Object) -> Result<(), ObjectRule> {
    if object.programs.is_empty() {
        return Err(ObjectRule::NoProgram);
    }
    for (index, map) in object.maps.iter().enumerate() {
        let template = map.inner.as_ref().map(|inner| &inner.template);
        if let Some(why) = map_fault(map).or_else(|| template.and_then(template_fault)) {
            return Err(ObjectRule::Map {
                index,
                name: map.name.clone(),
                why,
            });
        }
    }
    for contents in &object.tail_calls {
        let map = usize::try_from(contents.map)
            .ok()
            .and_then(|index| object.maps.get(index));
        let at = |why| {
            Err(ObjectRule::TailCalls {
                map: contents.map,
                why,
            })
        };
        let Some(map) = map else {
            return at("no such map");
        };
        if map.kind != MapKind::ProgArray {
            return at("not a program array");
        }
        if contents.programs.len() > map.max_entries as usize {
            return at("more programs than slots");
        }
        let exists = |index: &u32| (*index as usize) < object.programs.len();
        if !contents.programs.iter().flatten().all(exists) {
            return at("no such program");
        }
    }
    Ok(())
}

fn template_fault(map: &MapDef) -> Option<&'static str> {
    match map_fault(map) {
        Some(_) => Some("what it holds is no map"),
        None if map.kind.holds_maps() => Some("a map of maps in a map of maps"),
        None => None,
    }
}

fn map_fault(map: &MapDef) -> Option<&'static str> {
    let keyless = matches!(map.kind, MapKind::Queue | MapKind::Stack | MapKind::RingBuf);
    let indexed = matches!(
        map.kind,
        MapKind::Array
            | MapKind::PercpuArray
            | MapKind::ProgArray
            | MapKind::DevMap
            | MapKind::XskMap
            | MapKind::ArrayOfMaps
    );
    // Loaders give an array of perf events a slot for each processor.
    if map.max_entries == 0 && map.kind != MapKind::PerfEventArray {
        Some("no capacity")
    } else if keyless != (map.key_size == 0) {
        Some("queues, stacks and ring buffers have no key; all others have")
    } else if indexed && map.key_size != 4 {
        Some("the key of an array is 4 bytes")
    } else if map.value_size == 0 && map.kind != MapKind::RingBuf {
        Some("no value")
    } else if map.key_size > MAX_ELEMENT || map.value_size > MAX_ELEMENT {
        Some("key or value too large")
    } else if map.kind == MapKind::LpmTrie && map.key_size < 5 {
        Some("the key of an LPM trie is a 4-byte length and at least one byte")
    } else {
        None
    }
}
