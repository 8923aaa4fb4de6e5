//! `dashctl prog`: users' own eBPF objects, after bpftool.

mod daemon;
mod run;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use dash_bpf::disasm::{Text, with_source};
use dash_bpf::elf::{self, Loaded, load_with};
use dash_bpf::map::Pinning;
use dash_bpf::{MapDef, Object, Program, decode};
use dash_verify::{Limits, Options, Policy, Reason, Verifier, VerifyError, examine};
use serde_json::{Value, json};

use crate::cli::{Files, Prog, Selected, Verify};

/// What `prog verify` says of a program that is not accepted.
const REJECTED: u8 = 1;
/// What it says when there is nothing to judge.
const NOT_LOADED: u8 = 2;
/// What an error in writing is about.
const OUTPUT: &str = "standard output";

pub(crate) fn run(command: &Prog) -> Result<ExitCode> {
    let done = match command {
        Prog::Verify(args) => return verify(args),
        Prog::Show(args) => show(args),
        Prog::Dump(args) => dump(args),
        Prog::Run(args) => run::run(args),
        Prog::Load(args) => daemon::load(args),
        Prog::Unload(args) => daemon::unload(args),
        Prog::Attach(args) => daemon::attach(args),
        Prog::Detach(args) => super::link::detach(&args.link, args.print),
        Prog::List(args) => daemon::list(args),
        Prog::Profile(args) => daemon::profile(args),
    };
    done.map(|()| ExitCode::SUCCESS)
}

pub(super) fn print(text: &str) -> Result<()> {
    let out = std::io::stdout().lock().write_all(text.as_bytes());
    out.context(OUTPUT)
}

fn print_json(value: &Value) -> Result<()> {
    print(&format!("{value:#}\n"))
}

/// Reads and links the files. Paths are named in errors, whose numbers are theirs.
fn loaded(files: &Files) -> Result<Loaded> {
    let read = |path: &PathBuf| {
        std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let bytes = files.files.iter().map(read).collect::<Result<Vec<_>>>()?;
    let bytes: Vec<_> = bytes.iter().map(Vec::as_slice).collect();
    let target = files.btf.as_ref().map(read).transpose()?;
    let options = elf::Options {
        target: target.as_deref(),
        kind: files.kind.map(Into::into),
    };
    load_with(&bytes, &options).with_context(|| {
        let names: Vec<_> = files
            .files
            .iter()
            .map(|p| p.display().to_string())
            .collect();
        format!("cannot load {}", names.join(", "))
    })
}

/// The programs of a section, or all.
fn selected<'o>(object: &'o Object, args: &Selected) -> Result<Vec<&'o Program>> {
    let wanted = |program: &&Program| {
        let section = args.section.as_deref();
        let name = args.program.as_deref();
        section.is_none_or(|s| s == program.section_name())
            && name.is_none_or(|n| n == program.name)
    };
    let found: Vec<_> = object.programs.iter().filter(wanted).collect();
    if found.is_empty() {
        let known = object.programs.iter();
        let known: Vec<_> = known
            .map(|p| format!("{} ({})", p.name, p.section_name()))
            .collect();
        bail!("no such program; there are: {}", known.join(", "));
    }
    Ok(found)
}

/// One program's verdict.
struct Verdict<'o> {
    program: &'o Program,
    refused: Option<Reason>,
    /// States our own verifier went through, if asked for.
    log: Vec<String>,
}

fn verify(args: &Verify) -> Result<ExitCode> {
    match verdicts(args) {
        Ok(code) => Ok(code),
        // A reader that went away is not about the files.
        Err(error) if error.to_string() == OUTPUT => Err(error),
        Err(error) => {
            if args.selected.files.json {
                print_json(&json!({ "error": format!("{error:#}") }))?;
            }
            eprintln!("dashctl: {error:#}");
            Ok(ExitCode::from(NOT_LOADED))
        }
    }
}

fn verdicts(args: &Verify) -> Result<ExitCode> {
    let json = args.selected.files.json;
    let loaded = loaded(&args.selected.files)?;
    let object = &loaded.object;
    let policy = Policy {
        judge: args.verifier,
        ..Policy::default()
    };
    let cache_dir = None;
    let mut verifier = Verifier::new(Options { cache_dir, policy });
    let mut all = Vec::new();
    for program in selected(object, &args.selected)? {
        // On its own: what another one lacks is not its fault.
        let alone = Object {
            maps: object.maps.clone(),
            programs: vec![program.clone()],
            tail_calls: Vec::new(),
        };
        let refused = match verifier.verify(&alone) {
            Ok(_) => None,
            Err(VerifyError::Program { reason, .. }) => Some(reason),
            Err(error @ VerifyError::Object(_)) => return Err(anyhow!(error)),
        };
        let mut log = Vec::new();
        if args.log {
            // The verdict is the verifier's; this shows how the walk went.
            let mut walk = Vec::new();
            let _ = examine(program, &object.maps, &Limits::default(), Some(&mut walk));
            let ops = decode(&program.insns).unwrap_or_default();
            for seen in walk {
                let (pc, long) = (seen.pc, false);
                log.push(format!("; {}", seen.known.trim()));
                if let Some(op) = ops.get(pc) {
                    log.push(format!("{pc:5}: {}", Text { op, pc, long }));
                }
            }
        }
        all.push(Verdict {
            program,
            refused,
            log,
        });
    }
    if json {
        print_json(&Value::Array(all.iter().map(Verdict::json).collect()))?;
    } else {
        let text: Vec<_> = all.iter().map(Verdict::text).collect();
        print(&text.concat())?;
    }
    Ok(match all.iter().all(|v| v.refused.is_none()) {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(REJECTED),
    })
}

impl Verdict<'_> {
    fn json(&self) -> Value {
        let program = self.program;
        let mut out = json!({
            "name": program.name,
            "section": program.section_name(),
            "instructions": program.insns.len(),
            "accepted": self.refused.is_none(),
        });
        if !self.log.is_empty() {
            out["log"] = json!(self.log);
        }
        if let Some(reason) = &self.refused {
            out["reason"] = reason.to_string().into();
            if let Some(pc) = reason.pc() {
                out["instruction"] = pc.into();
                out["text"] = instruction(program, pc).into();
                if let Some(line) = program.debug.line(pc) {
                    out["source"] = json!({
                        "file": &*line.file,
                        "line": line.line,
                        "column": line.column,
                        "text": line.text.trim(),
                    });
                }
            }
        }
        out
    }

    fn text(&self) -> String {
        let program = self.program;
        let (name, section) = (&program.name, program.section_name());
        let log: String = self.log.iter().map(|line| format!("{line}\n")).collect();
        let Some(reason) = &self.refused else {
            let len = program.insns.len();
            return format!("{log}{name} ({section}): accepted, {len} instructions\n");
        };
        let mut out = format!("{log}{name} ({section}): rejected: {reason}\n");
        if let Some(pc) = reason.pc() {
            out.push_str(&format!("{pc:5}: {}\n", instruction(program, pc)));
            if let Some(line) = program.debug.line(pc) {
                out.push_str(&format!("       {line}: {}\n", line.text.trim()));
            }
        }
        out
    }
}

/// One instruction as text; empty where there is none.
fn instruction(program: &Program, pc: usize) -> String {
    let ops = decode(&program.insns).unwrap_or_default();
    let op = ops.get(pc);
    op.map_or_else(String::new, |op| {
        let long = false;
        Text { op, pc, long }.to_string()
    })
}

fn show(files: &Files) -> Result<()> {
    let Loaded {
        object,
        license,
        skipped,
    } = loaded(files)?;
    if files.json {
        let programs = object.programs.iter().map(|p| {
            let functions = p.debug.functions().iter().map(|f| &*f.name);
            json!({
                "name": p.name,
                "section": p.section_name(),
                "instructions": p.insns.len(),
                "functions": functions.collect::<Vec<_>>(),
            })
        });
        let skipped = skipped
            .iter()
            .map(|s| json!({ "name": s.name, "section": s.section }));
        return print_json(&json!({
            "programs": programs.collect::<Vec<_>>(),
            "maps": object.maps.iter().map(map_json).collect::<Vec<_>>(),
            "skipped": skipped.collect::<Vec<_>>(),
            "license": license,
        }));
    }
    let mut out = String::new();
    for program in &object.programs {
        let (name, section) = (&program.name, program.section_name());
        let len = program.insns.len();
        out.push_str(&format!("program {name} ({section}): {len} instructions"));
        let functions = program.debug.functions().iter().skip(1);
        let functions: Vec<_> = functions.map(|f| &*f.name).collect();
        if !functions.is_empty() {
            out.push_str(&format!(", with {}", functions.join(", ")));
        }
        out.push('\n');
    }
    for (index, map) in object.maps.iter().enumerate() {
        out.push_str(&format!(
            "map {index} {}: {:?}, key {} B, value {} B, {} entries, flags {:#x}{}{}\n",
            map.name,
            map.kind,
            map.key_size,
            map.value_size,
            map.max_entries,
            map.flags,
            if map.read_only() { ", read-only" } else { "" },
            if map.pinning == Pinning::ByName {
                ", pinned by name"
            } else {
                ""
            },
        ));
    }
    for program in skipped {
        out.push_str(&format!(
            "skipped {} ({}): not for a hook of ours\n",
            program.name, program.section
        ));
    }
    if let Some(license) = license {
        out.push_str(&format!("license {license}\n"));
    }
    print(&out)
}

fn map_json(map: &MapDef) -> Value {
    let mut out = json!({
        "name": map.name,
        "type": format!("{:?}", map.kind),
        "key_size": map.key_size,
        "value_size": map.value_size,
        "max_entries": map.max_entries,
        "flags": map.flags,
        "read_only": map.read_only(),
        "pinned": map.pinning == Pinning::ByName,
    });
    if let Some(inner) = &map.inner {
        out["inner"] = map_json(&inner.template);
    }
    out
}

fn dump(args: &Selected) -> Result<()> {
    let loaded = loaded(&args.files)?;
    let object = &loaded.object;
    let mut listings = Vec::new();
    for program in selected(object, args)? {
        let listing = with_source(program, &object.maps)?;
        listings.push((program, listing));
    }
    if args.files.json {
        let all = listings.iter().map(|(program, listing)| {
            json!({
                "name": program.name,
                "section": program.section_name(),
                "listing": listing.lines().collect::<Vec<_>>(),
            })
        });
        return print_json(&Value::Array(all.collect()));
    }
    let text = listings.iter().map(|(program, listing)| {
        format!(
            "; program {} ({})\n{listing}\n",
            program.name,
            program.section_name()
        )
    });
    print(&text.collect::<String>())
}
