//! Programs at the hooks of a pipeline: from [`Program`] to [`dash_runtime::hooks::Link`].

use dash_bpf::MapKind;
use dash_runtime::hooks::{HookRunner, HookVerdict, Link};
use dash_wire::abi::RunCtx;
use dash_wire::hook::{DashMeta, META_MAP};
use thiserror::Error;
use zerocopy::IntoBytes as _;

use crate::load::Program;
use crate::map::Map;
use crate::run::{Outcome, Runner, Target};

/// One worker's way to run a program at a hook.
#[derive(Debug)]
struct Hooked {
    runner: Runner,
    /// The map that tells of the packet, if the object has one.
    about: Option<Map>,
}

impl HookRunner for Hooked {
    unsafe fn run_in(&mut self, ctx: &mut RunCtx, about: &DashMeta) -> HookVerdict {
        self.tell(about);
        // SAFETY: by contract; what is proven safe leaves borders inside the buffer and in order.
        verdict(&unsafe { self.runner.run_in(ctx) })
    }
}

impl Hooked {
    /// Puts what is known of the packet into the program's map, if it has one.
    fn tell(&self, about: &DashMeta) {
        if let Some(map) = &self.about {
            // `link` saw that it has such an element. Only a frozen map refuses, and stays as it was.
            let _ = map.set_for_cpu(self.runner.cpu(), &[0; 4], about.as_bytes());
        }
    }
}

#[inline]
fn verdict(outcome: &Outcome) -> HookVerdict {
    let port = match outcome.target {
        Some(Target::Port(port)) => u16::try_from(port).ok(),
        // No target of ours has sockets behind its ports.
        Some(Target::Socket(_)) | None => None,
    };
    HookVerdict {
        action: outcome.action,
        port,
        out_of_fuel: outcome.out_of_fuel,
    }
}

/// Why a program cannot be at a hook.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HookError {
    /// The object has a map `dash_meta` that is another than `dash_bpf.h` defines.
    #[error(
        "its map {META_MAP} is a {kind:?} of {value_size}-byte values with keys of {key_size} bytes: \
         take DASH_META of dash_bpf.h, a per-CPU array of {} bytes, or another name",
        size_of::<DashMeta>()
    )]
    Meta {
        /// What it is.
        kind: MapKind,
        /// Bytes of its keys.
        key_size: u32,
        /// Bytes of its values.
        value_size: u32,
    },
    /// It was loaded for fewer workers than there are.
    #[error("it was loaded for fewer than {workers} workers")]
    Workers {
        /// Workers there are.
        workers: u32,
    },
}

/// What `workers` workers run a program with at a hook. Before each run, element 0 of the object's map
/// `dash_meta`, where it has one, is told of the packet.
///
/// # Errors
/// That map is not the one of `dash_bpf.h` (a per-CPU array of [`DashMeta`]), or the program was loaded for fewer
/// workers.
pub fn link(program: &Program, workers: u32) -> Result<Link, HookError> {
    let about = program.maps().get(META_MAP);
    if let Some(def) = about.map(Map::def) {
        let fits = def.kind == MapKind::PercpuArray
            && def.key_size == 4
            && def.value_size as usize == size_of::<DashMeta>();
        if !fits {
            return Err(HookError::Meta {
                kind: def.kind,
                key_size: def.key_size,
                value_size: def.value_size,
            });
        }
    }
    let runner = |cpu| {
        let about = about.cloned();
        let runner = program.runner(cpu)?;
        Some(Box::new(Hooked { runner, about }) as Box<dyn HookRunner>)
    };
    let runners: Option<Vec<_>> = (0..workers).map(runner).collect();
    Ok(Link::new(runners.ok_or(HookError::Workers { workers })?))
}
