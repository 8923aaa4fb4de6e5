//! Objects of others before both judges: `corpus [--type xdp] [--own] FILE.o|FOLDER...` prints a line a
//! program, with verdicts, times and what our own verifier used, and a summary. `--type xdp` takes
//! the programs of all sections for XDP's; `--own` leaves PREVAIL out.

#![forbid(unsafe_code)]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dash_bpf::elf::{Options as Load, load_with};
use dash_bpf::{Object, ProgramKind};
use dash_verify::{Judge, Limits, Options, Policy, Verifier, VerifyError, examine};

/// Runs of each judge on each program; the fastest counts.
const ROUNDS: usize = 3;

/// PREVAIL is not asked twice for what takes longer.
const LONG: Duration = Duration::from_millis(500);

fn objects(path: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if path.is_dir() {
        let mut entries: Vec<_> = std::fs::read_dir(path)?
            .map(|entry| entry.map(|e| e.path()))
            .collect::<Result<_, _>>()?;
        entries.sort();
        return entries.iter().try_for_each(|entry| objects(entry, found));
    }
    if path.extension().is_some_and(|e| e == "o") {
        found.push(path.to_owned());
    }
    Ok(())
}

fn timed(judge: Judge, object: &Object) -> (Result<(), VerifyError>, Duration) {
    let policy = Policy {
        judge,
        ..Policy::default()
    };
    let mut best = Duration::MAX;
    let mut verdict = Ok(());
    for _ in 0..ROUNDS {
        let options = Options {
            policy,
            ..Options::default()
        };
        let mut verifier = Verifier::new(options);
        let start = Instant::now();
        verdict = verifier.verify(object).map(|_| ());
        best = best.min(start.elapsed());
        if best > LONG {
            break;
        }
    }
    (verdict, best)
}

/// Without what was known there.
fn brief(error: &VerifyError) -> String {
    let text = error.to_string();
    text.split("; known there:")
        .next()
        .unwrap_or_default()
        .to_owned()
}

#[derive(Default)]
struct Summary {
    counts: [[usize; 2]; 2],
    ratios: Vec<f64>,
    /// By a bound of slots: slowest, most memory.
    worst: [(Duration, usize); 3],
}

fn main() -> Result<(), Box<dyn Error>> {
    let (mut kind, mut own_only, mut paths) = (None, false, Vec::new());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--type" => {
                kind = match args.next().as_deref() {
                    Some("xdp") => Some(ProgramKind::Xdp),
                    other => return Err(format!("no type {other:?}").into()),
                }
            }
            "--own" => own_only = true,
            _ => objects(Path::new(&arg), &mut paths)?,
        }
    }
    let mut summary = Summary::default();
    for path in &paths {
        let bytes = std::fs::read(path)?;
        let load = Load {
            kind,
            ..Load::default()
        };
        let loaded = match load_with(&[&bytes], &load) {
            Ok(loaded) => loaded,
            Err(error) => {
                println!("{}: not loaded: {error}", path.display());
                continue;
            }
        };
        for program in &loaded.object.programs {
            let alone = Object {
                maps: loaded.object.maps.clone(),
                programs: vec![program.clone()],
                tail_calls: Vec::new(),
            };
            row(path, &alone, own_only, &mut summary);
        }
    }
    let [[neither, theirs], [ours, both]] = summary.counts;
    println!("both accept {both}, ours alone {ours}, PREVAIL alone {theirs}, neither {neither}");
    summary.ratios.sort_by(f64::total_cmp);
    if let Some(median) = summary.ratios.get(summary.ratios.len() / 2) {
        println!("median: ours is {median:.1} times as fast as PREVAIL");
    }
    let names = ["under 1,000 slots", "under 8,000", "longer"];
    for (name, (time, memory)) in names.iter().zip(summary.worst) {
        println!(
            "{name}: at most {:.2} ms, {} KiB of states",
            time.as_secs_f64() * 1e3,
            memory / 1024
        );
    }
    Ok(())
}

fn row(path: &Path, object: &Object, own_only: bool, summary: &mut Summary) {
    let program = &object.programs[0];
    let slots = program.insns.len();
    let (own, own_time) = timed(Judge::Own, object);
    let cost = examine(program, &object.maps, &Limits::default(), None);
    let memory = cost.as_ref().map_or(0, |walked| walked.memory);
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let word = |accepted| if accepted { "accepted" } else { "refused" };
    let mut line = format!(
        "{} {} ({}), {slots} slots: ours {} in {:.2} ms",
        path.display(),
        program.name,
        program.section_name(),
        word(own.is_ok()),
        ms(own_time),
    );
    if let Ok(walked) = &cost {
        line.push_str(&format!(
            " ({} walked, {} KiB, {} paths)",
            walked.instructions,
            walked.memory / 1024,
            walked.paths
        ));
    }
    let class = match slots {
        ..1_000 => 0,
        1_000..8_000 => 1,
        _ => 2,
    };
    let worst = &mut summary.worst[class];
    *worst = (worst.0.max(own_time), worst.1.max(memory));
    let mut why = own.as_ref().err().map(brief);
    if !own_only {
        let (prevail, time) = timed(Judge::Prevail, object);
        line.push_str(&format!(
            ", PREVAIL {} in {:.2} ms",
            word(prevail.is_ok()),
            ms(time)
        ));
        summary.counts[usize::from(own.is_ok())][usize::from(prevail.is_ok())] += 1;
        summary
            .ratios
            .push(time.as_secs_f64() / own_time.as_secs_f64());
        if let (Err(error), None) = (&prevail, &why) {
            why = Some(format!("PREVAIL: {}", brief(error)));
        }
    }
    println!("{line}");
    if let Some(why) = why {
        println!("    {why}");
    }
}
