//! What an established packet executes: each machine instruction of compiled code that runs for it,
//! in order, under the bytecode it was made from.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use dash_bench::{step, world};
use dash_native::{Isa, Options, Part, compile_with_listing};
use dash_pipeline::template::{APPLY_STAGE, FLOW_STAGE};
use dash_verify::Verifier;
use dashctl::engines::EngineName;
use nic_target::Table;

fn main() -> Result<()> {
    let packet = match std::env::args().nth(1).as_deref() {
        None | Some("outbound") => world::outbound(7, world::SMALL),
        Some("inbound") => world::inbound(8, world::SMALL),
        Some("outbound-v6") => world::outbound_v6(9, world::SMALL),
        Some(other) => anyhow::bail!("{other}: outbound, inbound or outbound-v6"),
    };
    let cache = world::cache()?;
    let mut runner =
        world::Runner::start(EngineName::Native, world::Rows::All, Some(cache.clone()))?;
    let ranges = step::compiled_code()?;
    let image = runner.engine().image().clone();
    let mut verifier = Verifier::new(dash_verify::Options {
        cache_dir: Some(cache),
        ..Default::default()
    });
    let object = verifier.verify(&image.object)?;
    let programs = &object.get().programs;
    let place = |name| programs.iter().position(|p| p.name == name);
    let flow = place(FLOW_STAGE).context("no flow stage")? as u32;
    let apply = place(APPLY_STAGE).context("no apply stage")? as u32;
    let native = image.native.as_ref().context("no native code")?;
    let [hit, miss] = native.rest().context("code in one part")?;
    let mut lines = BTreeMap::new();
    for (base, part) in [
        (0, Part::Before(flow)),
        (hit, Part::Path(flow, apply)),
        (miss, Part::Resume(flow, apply)),
    ] {
        let options = Options {
            part,
            found: Some(Table::FlowIndex.index()),
            memo: Some(Table::EniMac.index()),
            ..Options::for_isa(Isa::Host)
        };
        let (_, listing) = compile_with_listing(&object, &options)?;
        let mut source = String::new();
        for line in listing.asm.lines() {
            match line.strip_prefix("; ") {
                Some(from) => source = from.to_owned(),
                None => {
                    let (offset, text) = line.trim_start().split_once(' ').context("a line")?;
                    let offset = base + usize::from_str_radix(offset, 16)?;
                    lines.insert(offset, (source.clone(), text.trim().to_owned()));
                }
            }
        }
    }
    runner.forward(&packet)?;
    let (verdict, trace) = step::trace(&ranges, || runner.run(&packet))?;
    verdict?;
    let start = ranges
        .iter()
        .find(|range| trace.inside.first().is_some_and(|at| range.contains(at)))
        .context("no instruction traced")?
        .start;
    let mut by_stage: BTreeMap<String, usize> = BTreeMap::new();
    for at in &trace.inside {
        let (source, text) = lines.get(&(at - start)).context("an unknown instruction")?;
        let stage = source.split(':').next().unwrap_or_default();
        *by_stage.entry(stage.to_owned()).or_default() += 1;
        println!("{source:16} {text}");
    }
    ensure!(!trace.inside.is_empty(), "nothing ran");
    eprintln!("{} instructions: {by_stage:?}", trace.inside.len());
    Ok(())
}
