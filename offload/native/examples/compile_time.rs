//! How long objects of clang take to be compiled: `compile_time [--asm] [--mask] OBJECT.o ...`. The median of 15, each
//! program alone, and what that is for 200 slots. `--asm` prints the code instead; with `--mask` indexes of arrays
//! are kept inside, as for programs of others.

use std::time::{Duration, Instant};

use dash_bpf::elf;
use dash_native::{Options, Part, compile, compile_with_listing};
use dash_verify::{Judge, Policy, Verifier};

const SAMPLES: usize = 15;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut files: Vec<String> = std::env::args().skip(1).collect();
    let mut option = |name: &str| {
        let before = files.len();
        files.retain(|argument| argument != name);
        files.len() < before
    };
    let (asm, mask_indexes) = (option("--asm"), option("--mask"));
    if files.is_empty() {
        return Err("usage: compile_time [--asm] [--mask] OBJECT.o ...".into());
    }
    for file in files {
        let bytes = std::fs::read(&file)?;
        let policy = Policy {
            judge: Judge::Own,
            ..Policy::default()
        };
        let mut verifier = Verifier::new(dash_verify::Options {
            policy,
            ..dash_verify::Options::default()
        });
        let object = verifier.verify(&elf::link(&[&bytes])?)?;
        for (index, program) in object.get().programs.iter().enumerate() {
            let options = Options {
                part: Part::Alone(index as u32),
                hash_maps: true,
                mask_indexes,
                ..Options::default()
            };
            let (code, listing) = compile_with_listing(&object, &options)?;
            if asm {
                println!("{}", listing.asm);
                continue;
            }
            let mut times: Vec<Duration> = (0..SAMPLES)
                .map(|_| {
                    let start = Instant::now();
                    let compiled = compile(&object, &options);
                    let time = start.elapsed();
                    compiled.map(|_| time)
                })
                .collect::<Result<_, _>>()?;
            times.sort_unstable();
            let (slots, median) = (program.insns.len(), times[SAMPLES / 2]);
            let micros = median.as_secs_f64() * 1e6;
            println!(
                "{file} {}: {slots} slots, {} bytes, {micros:.0} us, {:.0} us for 200 slots",
                program.name,
                code.code.len(),
                micros * 200.0 / slots as f64
            );
        }
    }
    Ok(())
}
