//! One program before its judges.

use std::panic::{AssertUnwindSafe, catch_unwind};

use dash_bpf::decode::decode;
use dash_bpf::{Insn, MapDef, Program};
use prevail::crab::ebpf_domain::DomainContext;
use prevail::crab::var_registry::VariableRegistry;
use prevail::fwd_analyzer::analyze;
use prevail::ir::program::Program as ControlFlow;
use prevail::ir::unmarshal::{UnmarshalError, unmarshal};
use prevail::spec::config::{EbpfRuntimeConfig, EbpfVerifierOptions, VerbosityOptions};
use prevail::spec::vm_isa::EbpfInst;

use crate::error::Reason;
use crate::model::{Model, model};
use crate::own::{Limits, Seen, Walked};
use crate::platform::Platform;
use crate::verifier::{Judge, Policy};
use crate::{own, rules};

/// Judges one program on its own.
pub(crate) fn judge(program: &Program, maps: &[MapDef], policy: Policy) -> Result<(), Reason> {
    let max = policy.max_insns;
    if program.insns.len() > max {
        return Err(Reason::TooLong {
            len: program.insns.len(),
            max,
        });
    }
    let ops = decode(&program.insns)?;
    if policy.judge != Judge::Prevail {
        own::check(&ops, maps, &policy.limits, None)
            .map_err(|objection| Reason::Own(Box::new(objection)))?;
    }
    if policy.judge == Judge::Own {
        return Ok(());
    }
    let facts = rules::check(&ops, maps).map_err(|(pc, rule)| Reason::Rule { pc, rule })?;
    let model = model(&ops, &facts).map_err(Reason::Model)?;
    // PREVAIL asserts its own invariants and panics where they fail: on some input it will. That
    // is "not proven", not a reason to end the process. Nothing it touched outlives the closure.
    let verdict = catch_unwind(AssertUnwindSafe(|| prove(&model, maps, policy)));
    verdict.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        let first = text.and_then(|t| t.lines().next()).unwrap_or("no message");
        Err(Reason::Panicked {
            message: first.to_owned(),
        })
    })
}

/// What our own verifier says of one program, what that took, and on demand the instructions it
/// walked with what it knew before each: what [`Verifier`](crate::Verifier) decides by, to be
/// looked at.
///
/// # Errors
/// The program is not accepted.
pub fn examine(
    program: &Program,
    maps: &[MapDef],
    limits: &Limits,
    log: Option<&mut Vec<Seen>>,
) -> Result<Walked, Reason> {
    let ops = decode(&program.insns)?;
    own::check(&ops, maps, limits, log).map_err(|objection| Reason::Own(Box::new(objection)))
}

fn options(policy: Policy) -> EbpfVerifierOptions {
    EbpfVerifierOptions {
        runtime: EbpfRuntimeConfig {
            strict: policy.strict,
            // RFC 9669 defines the results, and our engines give them.
            allow_division_by_zero: true,
            setup_constraints: true,
            big_endian: false,
            check_for_termination: policy.check_termination,
            ..EbpfRuntimeConfig::default()
        },
        verbosity_opts: VerbosityOptions::default(),
        must_have_exit: true,
        mock_map_fds: true,
    }
}

fn slot(insn: &Insn) -> EbpfInst {
    EbpfInst {
        opcode: insn.code,
        dst_src: insn.regs,
        offset: insn.off,
        imm: insn.imm,
    }
}

fn prove(model: &Model, maps: &[MapDef], policy: Policy) -> Result<(), Reason> {
    let origin = |slot: usize| model.origin.get(slot).copied();
    let platform = Platform::new(maps);
    let mut info = platform.program_info();
    let options = options(policy);
    let slots: Vec<EbpfInst> = model.insns.iter().map(slot).collect();
    let sequence = unmarshal(&slots, &mut Vec::new(), &info, &platform, &options).map_err(|e| {
        let pc = match &e {
            UnmarshalError::InvalidInstruction { pc, .. } => origin(*pc),
            _ => None,
        };
        Reason::Prevail {
            pc,
            reason: e.to_string(),
        }
    })?;
    let program =
        ControlFlow::from_sequence(&sequence, &mut info, &platform, &options).map_err(|e| {
            Reason::Prevail {
                pc: None,
                reason: e.to_string(),
            }
        })?;
    let context = DomainContext {
        program_info: &info,
        program: &program,
        runtime: &options.runtime,
        options: &options,
        platform: &platform,
    };
    let result = analyze(&program, &context, &mut VariableRegistry::new());
    if !result.failed {
        return Ok(());
    }
    let (pc, reason) = match result.find_first_error() {
        Some(error) => {
            let from = error.label.map(|label| label.from);
            let slot = from.and_then(|from| usize::try_from(from).ok());
            (slot.and_then(origin), error.message)
        }
        None => (None, "not proven".to_owned()),
    };
    Err(Reason::Prevail { pc, reason })
}
