//! Shapes to images: IR text, eBPF, proof, machine code; each shape once.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use dash_bpf::Object;
use dash_native::{Listing, NativeCode, Part};
use dash_pipeline::plan::Shape;
use dash_pipeline::template::{APPLY_STAGE, FLOW_STAGE};
use dash_pipeline::{lower, template, text};
use dash_verify::{Judge, Policy, Verified, Verifier};
use nic_target::image::ShapeHash;
use nic_target::{Capacity, Image, NativeImage, Table};
use sha2::{Digest, Sha256};

use crate::error::CompileError;

/// What compiling cost so far. A change of rows moves none of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompileStats {
    /// Stages that the verifier judged.
    pub stages_verified: u64,
    /// Stages whose verdict was known, from memory or from disk.
    pub stages_from_cache: u64,
    /// Images that were compiled to machine code.
    pub native_compiled: u64,
    /// Images found by their shape, so that nothing of the above was needed.
    pub images_from_cache: u64,
}

/// Makes images and remembers them by shape.
#[derive(Debug)]
pub struct Compiler {
    capacity: Capacity,
    native: bool,
    verifier: Verifier,
    images: HashMap<ShapeHash, Arc<Image>>,
    native_compiled: u64,
    images_from_cache: u64,
}

impl Compiler {
    /// A compiler for targets of this capacity. `judge` decides of programs and `cache_dir` keeps its
    /// verdicts between runs; `native` asks for machine code beside eBPF.
    pub fn new(capacity: Capacity, judge: Judge, cache_dir: Option<PathBuf>, native: bool) -> Self {
        let policy = Policy {
            judge,
            ..Policy::default()
        };
        let options = dash_verify::Options { cache_dir, policy };
        Self {
            capacity,
            native,
            verifier: Verifier::new(options),
            images: HashMap::new(),
            native_compiled: 0,
            images_from_cache: 0,
        }
    }

    /// The image of a shape.
    pub fn image(&mut self, shape: &Shape) -> Result<Arc<Image>, CompileError> {
        let ir = template::pipeline_text(shape);
        let hash = shape_hash(&ir, &self.capacity);
        if let Some(image) = self.images.get(&hash) {
            self.images_from_cache += 1;
            return Ok(Arc::clone(image));
        }
        let object = lower::lower(&text::parse(&ir)?, &self.capacity)?;
        let verified = self.verifier.verify(&object)?;
        let native = if self.native {
            self.native_compiled += 1;
            Some(native_image(&verified)?)
        } else {
            None
        };
        let image = Arc::new(Image {
            shape: hash,
            ir: ir.into(),
            object: Arc::new(verified.into_inner()),
            native,
        });
        self.images.insert(hash, Arc::clone(&image));
        Ok(image)
    }

    /// Text forms of an image's machine code, made whether or not the image has any.
    pub fn listing(&mut self, image: &Image) -> Result<(NativeCode, Listing), CompileError> {
        let verified = self.verifier.verify(&image.object)?;
        Ok(dash_native::compile_with_listing(
            &verified,
            &dash_native::Options::default(),
        )?)
    }

    /// What was done so far.
    pub fn stats(&self) -> CompileStats {
        let counters = self.verifier.counters();
        CompileStats {
            stages_verified: counters.verified,
            stages_from_cache: counters.cache_hits_memory + counters.cache_hits_disk,
            native_compiled: self.native_compiled,
            images_from_cache: self.images_from_cache,
        }
    }
}

/// What an image depends on: the pipeline, and the capacities, which are in its map definitions.
fn shape_hash(ir: &str, capacity: &Capacity) -> ShapeHash {
    let Capacity {
        enis,
        routes,
        mappings,
        inbound_rules,
        trusted_vnis,
        acl_groups,
        underlay_routes,
        flows,
    } = *capacity;
    let mut hash = Sha256::new();
    for n in [
        enis,
        routes,
        mappings,
        inbound_rules,
        trusted_vnis,
        acl_groups,
        underlay_routes,
        flows,
    ] {
        hash.update(n.to_le_bytes());
    }
    hash.update(ir.as_bytes());
    hash.finalize().into()
}

/// Compiles for this machine.
#[expect(
    unsafe_code,
    reason = "the one place where a proof, the machine and the code meet"
)]
fn native_image(verified: &Verified<Object>) -> Result<NativeImage, CompileError> {
    let compile = |part| {
        let isa = dash_native::Isa::Host;
        let options = dash_native::Options {
            part,
            found: Some(Table::FlowIndex.index()),
            memo: Some(Table::EniMac.index()),
            ..dash_native::Options::for_isa(isa)
        };
        dash_native::compile(verified, &options)
    };
    let programs = &verified.get().programs;
    let place = |name| programs.iter().position(|p| p.name == name);
    let (Some(flow), Some(apply)) = (place(FLOW_STAGE), place(APPLY_STAGE)) else {
        let NativeCode {
            code, entry_offset, ..
        } = compile(Part::Whole)?;
        // SAFETY: as below.
        return Ok(unsafe { NativeImage::new(code.into(), entry_offset) });
    };
    let (flow, apply) = (flow as u32, apply as u32);
    let first = compile(Part::Before(flow))?;
    let mut code = first.code;
    let mut add = |part| -> Result<usize, CompileError> {
        let part = compile(part)?;
        code.resize(code.len().next_multiple_of(part.align), 0);
        let entry = code.len() + part.entry_offset;
        code.extend_from_slice(&part.code);
        Ok(entry)
    };
    let (hit, miss) = (
        add(Part::Path(flow, apply))?,
        add(Part::Resume(flow, apply))?,
    );
    // SAFETY: the code is dash-native's for the machine we run on, made from an object that has a
    // `Verified`, which only the verifier hands out, and whose maps it was verified with; the
    // compiler's promise is that such code is sound to run under `dash_wire::abi`.
    Ok(unsafe { NativeImage::in_parts(code.into(), first.entry_offset, hit, miss) })
}
