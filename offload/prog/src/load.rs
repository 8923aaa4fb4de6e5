//! From an object to programs that are ready to run.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use dash_bpf::elf::{self, ReadError};
use dash_bpf::helper::DASH_HOOK;
use dash_bpf::{DecodeError, Object, Op, Program as Code, decode};
use dash_native::{NativeError, Part, compile};
use dash_runtime::code::CodePages;
use dash_verify::{Judge, Policy, Verified, Verifier, VerifyError};
use nic_target::{NativeImage, TargetError};
use thiserror::Error;

use crate::helpers::{Services, probe};
use crate::map::{MapError, kind_name};
use crate::run::Runner;
use crate::set::{MapSet, Pins};

/// Who runs programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Engine {
    /// Machine code.
    #[default]
    Native,
    /// The checking interpreter: traps where the proof of a program's safety would be wrong.
    Interp,
}

impl Engine {
    /// Every engine.
    pub const ALL: [Self; 2] = [Self::Native, Self::Interp];

    /// Name as `--engine` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Interp => "interp",
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No engine has this name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("no engine {0:?}; there are native and interp")]
pub struct UnknownEngine(String);

impl FromStr for Engine {
    type Err = UnknownEngine;

    fn from_str(name: &str) -> Result<Self, UnknownEngine> {
        let found = Self::ALL.into_iter().find(|engine| engine.name() == name);
        found.ok_or_else(|| UnknownEngine(name.to_owned()))
    }
}

/// How an object is loaded.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Who runs its programs.
    pub engine: Engine,
    /// What the verifier demands, and who judges.
    pub policy: Policy,
    /// Folder for verdicts that outlive the process; see [`dash_verify::Options`].
    pub cache_dir: Option<PathBuf>,
    /// Workers there will be: maps per CPU have as many values, and a [`Runner`] is one of them.
    pub cpus: u32,
    /// Keep array indexes inside also where the processor guesses; see the crate's documentation.
    pub mask_indexes: bool,
    /// Instructions a run may take, if they are to be counted: then it ends as `XDP_ABORTED` and
    /// [out of fuel](crate::Outcome::out_of_fuel), the next time it jumps backwards, calls, or is called back. A second
    /// line behind the verifier, which proved that programs end.
    pub fuel: Option<u64>,
    /// Memory its maps may come to take together, in bytes.
    pub most_map_bytes: u64,
    /// Only programs of this section, and those that program arrays name.
    pub section: Option<String>,
    /// Maps that outlive objects: definitions pinned by name find theirs there, or put it there.
    pub pins: Option<Pins>,
    /// What helpers need of whoever runs programs.
    pub services: Services,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            engine: Engine::Native,
            policy: Policy {
                judge: Judge::Own,
                ..Policy::default()
            },
            cache_dir: None,
            cpus: 1,
            mask_indexes: true,
            fuel: None,
            most_map_bytes: 1 << 30,
            section: None,
            pins: None,
            services: Services::default(),
        }
    }
}

/// Why an object cannot run.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The bytes are no object.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// No program is in the section asked for.
    #[error("no program in section {wanted:?}; there are {}", .there.join(", "))]
    NoProgram {
        /// The section.
        wanted: String,
        /// Sections with programs.
        there: Vec<String>,
    },
    /// A program is not accepted.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// A map cannot be made.
    #[error(transparent)]
    Map(#[from] MapError),
    /// A map is of a kind that is not here.
    #[error("map {map}: there are no maps of kind {kind} here: {why}")]
    MapKind {
        /// Its name.
        map: String,
        /// Its kind, as bpftool has it.
        kind: &'static str,
        /// Why not.
        why: &'static str,
    },
    /// Its maps would take too much memory.
    #[error("maps of {bytes} bytes; {most} are allowed")]
    MapMemory {
        /// What they may come to take.
        bytes: u64,
        /// What is allowed.
        most: u64,
    },
    /// The map pinned under a name is another than the object defines.
    #[error("the map pinned as {0} is not the one this object defines")]
    Pinned(String),
    /// There is no machine code for a program.
    #[error("program {program}: {source}; the interpreter can run it")]
    Native {
        /// Its name.
        program: String,
        /// Why.
        #[source]
        source: NativeError,
    },
    /// A program calls a helper that is not there.
    #[error("program {program}, instruction {pc}: helper {helper} is not there")]
    Helper {
        /// Its name.
        program: String,
        /// Slot of the call.
        pc: usize,
        /// Number and name of the helper.
        helper: String,
    },
    /// The system gave no pages for code.
    #[error(transparent)]
    Pages(#[from] TargetError),
    /// A program is malformed: the verifier decodes it too, so this does not happen after it.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// An object, verified, with its maps, ready to run. Clones are the same.
#[derive(Clone, Debug)]
pub struct Loaded(Arc<Shared>);

/// What programs of an object share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) object: Verified<Object>,
    pub(crate) maps: MapSet,
    pub(crate) form: Form,
    pub(crate) services: Services,
    pub(crate) cpus: u32,
    pub(crate) fuel: Option<u64>,
    /// Programs look maps up in maps: runs are pinned.
    pub(crate) pinned: bool,
}

/// All programs, in the form their engine runs.
#[derive(Debug)]
pub(crate) enum Form {
    Native(Vec<CodePages>),
    Interp(Vec<Vec<Op>>),
}

impl Loaded {
    /// Loads ELF files, linked.
    ///
    /// # Errors
    /// They cannot be read or linked, a program is not accepted, or something of it is not there.
    pub fn from_elf(files: &[&[u8]], options: &LoadOptions) -> Result<Self, LoadError> {
        Self::from_object(elf::link(files)?, options)
    }

    /// Loads an object.
    ///
    /// # Errors
    /// A program is not accepted, or something of it is not there.
    pub fn from_object(object: Object, options: &LoadOptions) -> Result<Self, LoadError> {
        let object = match &options.section {
            Some(section) => select(object, section)?,
            None => object,
        };
        let mut verifier = Verifier::new(dash_verify::Options {
            cache_dir: options.cache_dir.clone(),
            policy: options.policy,
        });
        let object = verifier.verify(&object)?;
        Self::from_verified(object, options)
    }

    /// Loads an object that is verified already.
    ///
    /// # Errors
    /// Something of it is not there.
    pub fn from_verified(
        object: Verified<Object>,
        options: &LoadOptions,
    ) -> Result<Self, LoadError> {
        check_helpers(&object)?;
        check_maps(&object)?;
        let pins = options.pins.as_ref();
        let maps = MapSet::new(&object, options.cpus, options.most_map_bytes, pins)?;
        let form = match options.engine {
            Engine::Native => Form::Native(native(&object, options)?),
            Engine::Interp => Form::Interp(
                object
                    .programs
                    .iter()
                    .map(|program| decode(&program.insns))
                    .collect::<Result<_, _>>()?,
            ),
        };
        Ok(Self(Arc::new(Shared {
            pinned: object.maps.iter().any(|map| map.kind.holds_maps()),
            object,
            maps,
            form,
            services: options.services.clone(),
            cpus: options.cpus,
            fuel: options.fuel,
        })))
    }

    /// The object.
    pub fn object(&self) -> &Verified<Object> {
        &self.0.object
    }

    /// Its maps.
    pub fn maps(&self) -> &MapSet {
        &self.0.maps
    }

    /// Its programs, in the object's order.
    pub fn programs(&self) -> impl Iterator<Item = Program> + '_ {
        (0..self.0.object.programs.len()).map(|index| Program {
            shared: Arc::clone(&self.0),
            index,
        })
    }

    /// A program by name or, where no program has the name, the first one of that section.
    pub fn program(&self, name: &str) -> Option<Program> {
        let by_name = self.programs().find(|program| program.name() == name);
        by_name.or_else(|| self.programs().find(|p| p.section() == name))
    }

    /// The first program.
    pub fn first(&self) -> Option<Program> {
        self.programs().next()
    }
}

/// A program of a [`Loaded`]. Clones are the same.
#[derive(Clone, Debug)]
pub struct Program {
    pub(crate) shared: Arc<Shared>,
    pub(crate) index: usize,
}

impl Program {
    fn code(&self) -> &Code {
        &self.shared.object.programs[self.index]
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.code().name
    }

    /// Section it comes from.
    pub fn section(&self) -> &str {
        self.code().section_name()
    }

    /// Its number in its object: what program arrays take.
    pub fn number(&self) -> u32 {
        self.index as u32
    }

    /// Instruction slots.
    pub fn instructions(&self) -> usize {
        self.code().insns.len()
    }

    /// Maps of its object.
    pub fn maps(&self) -> &MapSet {
        &self.shared.maps
    }

    /// Who runs it.
    pub fn engine(&self) -> Engine {
        match self.shared.form {
            Form::Native(_) => Engine::Native,
            Form::Interp(_) => Engine::Interp,
        }
    }

    /// What worker `cpu` runs it with; `None` beyond [`LoadOptions::cpus`]. A worker's runners may not
    /// run at the same time as another's of the same number do: values per CPU would be one for both.
    pub fn runner(&self, cpu: u32) -> Option<Runner> {
        (cpu < self.shared.cpus).then(|| Runner::new(self.clone(), cpu))
    }
}

/// The programs of a section, and those that program arrays name.
fn select(mut object: Object, section: &str) -> Result<Object, LoadError> {
    let named = |index: usize| {
        let calls = object.tail_calls.iter().flat_map(|calls| &calls.programs);
        calls.flatten().any(|&program| program as usize == index)
    };
    let is_in = |program: &Code| program.section_name() == section || program.name == section;
    if !object.programs.iter().any(is_in) {
        return Err(LoadError::NoProgram {
            wanted: section.to_owned(),
            there: object
                .programs
                .iter()
                .map(|program| program.section_name().to_owned())
                .collect(),
        });
    }
    // Those of the section first: the first one is what runs.
    let mut order: Vec<usize> = (0..object.programs.len())
        .filter(|&index| is_in(&object.programs[index]))
        .collect();
    let others = (0..object.programs.len())
        .filter(|index| !order.contains(index) && named(*index))
        .collect::<Vec<_>>();
    order.extend(others);
    for program in object
        .tail_calls
        .iter_mut()
        .flat_map(|calls| &mut calls.programs)
    {
        let before = program.take();
        *program = before.and_then(|before| {
            let at = order.iter().position(|&index| index == before as usize);
            at.map(|at| at as u32)
        });
    }
    object.programs = order
        .into_iter()
        .map(|index| object.programs[index].clone())
        .collect();
    Ok(object)
}

/// The verifier knows helpers that we have not. What is called by a register's number is not told here,
/// so that is refused too.
fn check_helpers(object: &Object) -> Result<(), LoadError> {
    for program in &object.programs {
        for (pc, op) in decode(&program.insns)?.iter().enumerate() {
            let helper = match *op {
                Op::Call { helper } if probe::find(helper).is_some() => continue,
                Op::Call { helper: DASH_HOOK } => {
                    format!("{DASH_HOOK} (dash_hook), the pipeline's own,")
                }
                Op::Call { helper } => match dash_bpf::helper::name(helper) {
                    Some(name) => format!("{helper} ({name})"),
                    None => helper.to_string(),
                },
                Op::CallReg { .. } => "called by register".to_owned(),
                _ => continue,
            };
            let program = program.name.clone();
            return Err(LoadError::Helper {
                program,
                pc,
                helper,
            });
        }
    }
    Ok(())
}

/// The verifier knows kinds of maps that we have not.
fn check_maps(object: &Object) -> Result<(), LoadError> {
    for def in &object.maps {
        let inner = def.inner.as_ref().map(|inner| inner.template.kind);
        for kind in inner.into_iter().chain([def.kind]) {
            let (there, why) = probe::map_kind(kind);
            if !there {
                return Err(LoadError::MapKind {
                    map: def.name.clone(),
                    kind: kind_name(kind),
                    why,
                });
            }
        }
    }
    Ok(())
}

/// Machine code of each program alone.
fn native(object: &Verified<Object>, options: &LoadOptions) -> Result<Vec<CodePages>, LoadError> {
    let mut codes = Vec::with_capacity(object.programs.len());
    for (index, program) in object.programs.iter().enumerate() {
        let options = dash_native::Options {
            part: Part::Alone(index as u32),
            mask_indexes: options.mask_indexes,
            // `map::View` starts with what such code reads.
            hash_maps: true,
            fuel: options.fuel.is_some(),
            ..dash_native::Options::default()
        };
        let code = compile(object, &options).map_err(|source| LoadError::Native {
            program: program.name.clone(),
            source,
        })?;
        // SAFETY: compiled for this machine from a verified object. It runs with the object's maps, as
        // `MapSet::new` made or checked them, and a context made by `Runner`, and neither `found` nor
        // `memo` was asked for.
        let image = unsafe { NativeImage::new(code.code.into(), code.entry_offset) };
        codes.push(CodePages::map(&image)?);
    }
    Ok(codes)
}
