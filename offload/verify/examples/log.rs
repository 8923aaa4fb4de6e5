//! Verdicts on the programs of an object: `log [--log] [--verifier own|prevail|both] FILE.o`. With
//! `--log`, every instruction our own verifier walked and what it knew before it.

#![forbid(unsafe_code)]

use std::error::Error;
use std::process::ExitCode;

use dash_bpf::{Object, decode, disasm, elf};
use dash_verify::{Judge, Limits, Options, Policy, Verifier, examine};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut judge = Judge::Own;
    let (mut log, mut file) = (false, None);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--log" => log = true,
            "--verifier" => judge = args.next().unwrap_or_default().parse()?,
            _ => file = Some(arg),
        }
    }
    let file = file.ok_or("usage: log [--log] [--verifier own|prevail|both] FILE.o")?;
    let object = elf::read(&std::fs::read(file)?)?;
    let mut refused = false;
    for (index, program) in object.programs.iter().enumerate() {
        println!(
            "program {index} ({}), {} slots",
            program.name,
            program.insns.len()
        );
        if log {
            show(&object, index)?;
        }
        let alone = Object {
            maps: object.maps.clone(),
            programs: vec![program.clone()],
            tail_calls: Vec::new(),
        };
        let policy = Policy {
            judge,
            ..Policy::default()
        };
        let options = Options {
            policy,
            ..Options::default()
        };
        match Verifier::new(options).verify(&alone) {
            Ok(_) => println!("accepted"),
            Err(e) => {
                refused = true;
                println!("refused: {e}");
            }
        }
    }
    Ok(ExitCode::from(u8::from(refused)))
}

/// The walk of our own verifier, instruction by instruction.
fn show(object: &Object, index: usize) -> Result<(), Box<dyn Error>> {
    let program = &object.programs[index];
    let ops = decode(&program.insns)?;
    let mut seen = Vec::new();
    let verdict = examine(program, &object.maps, &Limits::default(), Some(&mut seen));
    for step in &seen {
        if let Some(line) = program.debug.line(step.pc) {
            println!("; {line} {}", line.text.trim());
        }
        println!("   {}", step.known.trim_start());
        let (op, pc, long) = (&ops[step.pc], step.pc, false);
        println!("{pc:5}: {}", disasm::Text { op, pc, long });
    }
    if let Ok(walked) = verdict {
        println!(
            "walked {} instructions, kept {} states, {} KiB at a time",
            walked.instructions,
            walked.states,
            walked.memory.div_ceil(1024)
        );
    }
    Ok(())
}
