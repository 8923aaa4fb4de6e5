//! The three ways to run an image. All run the same bytecode over the same tables.

use std::sync::Arc;

use dash_bpf::{MapDef, MapKind, Object};
use nic_target::{Image, TargetError};

use crate::code::CodePages;

pub(crate) mod interp;
pub(crate) mod rbpf;

/// Who executes programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Engine {
    /// Machine code of the image.
    Native,
    /// The checking interpreter of dash-bpf.
    Interp,
    /// The interpreter of the crate rbpf, for programs within its instruction set.
    Rbpf,
}

impl Engine {
    /// Every engine.
    pub const ALL: &'static [Self] = &[Self::Native, Self::Interp, Self::Rbpf];

    /// By [`name`](Self::name).
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|engine| engine.name() == name)
    }

    /// Name as `--engine` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Interp => "interp",
            Self::Rbpf => "rbpf",
        }
    }
}

/// An image in the form its engine runs.
#[derive(Debug)]
pub enum Code {
    /// Mapped machine code.
    Native(CodePages),
    /// Decoded programs.
    Interp(interp::Programs),
    /// Programs within rbpf's instruction set; linked to addresses by each core.
    Rbpf(rbpf::Programs),
}

impl Code {
    /// Makes an image ready to run over tables of these definitions.
    pub(crate) fn prepare(
        engine: Engine,
        image: &Image,
        defs: &[MapDef],
    ) -> Result<Self, TargetError> {
        check_maps(engine, &image.object, defs)?;
        match engine {
            Engine::Native => match &image.native {
                Some(native) => CodePages::map(native).map(Self::Native),
                None => Err(unsupported(engine, "it has no machine code")),
            },
            Engine::Interp => interp::Programs::new(&image.object).map(Self::Interp),
            Engine::Rbpf => rbpf::Programs::new(&image.object).map(Self::Rbpf),
        }
    }
}

pub(crate) fn unsupported(engine: Engine, reason: impl ToString) -> TargetError {
    TargetError::Unsupported {
        engine: engine.name(),
        reason: reason.to_string(),
    }
}

/// A program was verified against its object's maps: ours must be those, and hold every index that
/// was proved in range.
fn check_maps(engine: Engine, object: &Object, defs: &[MapDef]) -> Result<(), TargetError> {
    for (index, map) in object.maps.iter().enumerate() {
        let fits = defs.get(index).is_some_and(|def| {
            let array = matches!(def.kind, MapKind::Array | MapKind::PercpuArray);
            (map.kind, map.key_size, map.value_size) == (def.kind, def.key_size, def.value_size)
                && (!array || map.max_entries <= def.max_entries)
        });
        if !fits {
            return Err(unsupported(
                engine,
                format!("map {index} ({}) is not the table of that number", map.name),
            ));
        }
    }
    Ok(())
}

/// Contents of program arrays: by map, then by slot, the program.
#[derive(Clone, Debug, Default)]
pub(crate) struct TailCalls(Vec<(u32, Arc<[Option<u32>]>)>);

impl TailCalls {
    pub(crate) fn new(engine: Engine, object: &Object) -> Result<Self, TargetError> {
        for calls in &object.tail_calls {
            if let Some(program) = calls
                .programs
                .iter()
                .flatten()
                .find(|&&p| p as usize >= object.programs.len())
            {
                return Err(unsupported(
                    engine,
                    format!("a tail call leads to program {program}, which is not there"),
                ));
            }
        }
        Ok(Self(
            object
                .tail_calls
                .iter()
                .map(|t| (t.map, t.programs.as_slice().into()))
                .collect(),
        ))
    }

    /// The program in a slot of a program array.
    pub(crate) fn program(&self, map: u32, slot: u32) -> Option<usize> {
        let (_, programs) = self.0.iter().find(|(of, _)| *of == map)?;
        programs
            .get(slot as usize)
            .copied()
            .flatten()
            .map(|p| p as usize)
    }
}

/// A range of addresses a program may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region {
    pub(crate) start: usize,
    pub(crate) len: usize,
    pub(crate) writable: bool,
    /// Index of the map it is of.
    pub(crate) map: usize,
}

impl Region {
    /// First byte.
    pub(crate) fn address(&self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.start)
    }

    /// Are all `len` bytes at `at` inside?
    pub(crate) fn holds(&self, at: usize, len: usize) -> bool {
        at.checked_sub(self.start)
            .is_some_and(|from| from <= self.len && len <= self.len - from)
    }
}
