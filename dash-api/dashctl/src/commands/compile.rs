//! `dashctl compile`.

use std::collections::HashSet;
use std::io::Write;

use anyhow::{Context, Result, bail};
use dash_bpf::Object;
use dash_engine::Engine;
use dash_model::key::EniKey;
use dash_pipeline::model::Model;
use dashctl::engines::EngineName;
use dashctl::progress::Spinner;

use crate::cli::{Compile, Emit};

pub(crate) fn run(args: &Compile) -> Result<()> {
    // Nothing runs here: the model takes any image, and takes no machine code to do so.
    let options = args.setup.options(EngineName::Model);
    let spinner = Spinner::new("compiling and verifying");
    let mut engine = Engine::new(options.clone(), Box::new(Model::new(&options.capacity)))?;
    args.setup.configure(&mut engine)?;
    let mut text = match args.emit {
        Emit::Ir => engine.image().ir.to_string().into_bytes(),
        Emit::Ebpf => engine.artifacts().disassembly.into_bytes(),
        Emit::Elf => dash_bpf::elf::write(&with_symbols(&engine.image().object))?,
        Emit::Clif => engine.listing()?.1.clif.into_bytes(),
        Emit::Asm => engine.listing()?.1.asm.into_bytes(),
    };
    drop(spinner);
    if let Some(key) = &args.eni {
        if args.emit != Emit::Ir {
            bail!("--eni shows rows beside the IR: the other forms are the same for every ENI");
        }
        let mut whole = eni_rows(&engine, key)?.into_bytes();
        whole.append(&mut text);
        text = whole;
    }
    match &args.output {
        Some(path) => {
            std::fs::write(path, &text).with_context(|| format!("cannot write {}", path.display()))
        }
        None => std::io::stdout()
            .lock()
            .write_all(&text)
            .context("standard output"),
    }
}

/// The object with a name of its own for each symbol: a stage may be called as the table it looks
/// into, but in an ELF file both are symbols.
fn with_symbols(object: &Object) -> Object {
    let mut object = object.clone();
    let maps: HashSet<&str> = object.maps.iter().map(|map| map.name.as_str()).collect();
    for program in &mut object.programs {
        if maps.contains(program.name.as_str()) {
            program.name.push_str("_stage");
        }
    }
    object
}

/// What an ENI's packets are matched with, as comments of the IR: the code is shared, the rows are
/// its own.
fn eni_rows(engine: &Engine<Model>, key: &str) -> Result<String> {
    use std::fmt::Write as _;

    let store = engine.store();
    let name = EniKey::from(key);
    let Some(eni) = store.eni(&name) else {
        let known: Vec<&str> = store.enis().map(|(key, _)| key.as_str()).collect();
        bail!("there is no ENI `{key}`; there are: {}", known.join(", "));
    };
    let mut out = String::new();
    let _ = writeln!(
        out,
        "# ENI {key}: mac {}, {}, VM at {}, VNET {}",
        eni.mac,
        if eni.enabled { "enabled" } else { "disabled" },
        eni.underlay_ip,
        eni.vnet.as_ref().map_or("none", |vnet| vnet.as_str()),
    );
    if let Some(bind) = store.eni_route(&name) {
        let routes: Vec<_> = store.routes(&bind.group).collect();
        let _ = writeln!(out, "# route group {}: {} routes", bind.group, routes.len());
        for (prefix, route) in routes {
            let _ = writeln!(out, "#   {prefix} {:?}", route.action);
        }
    }
    for (rule, action) in store.route_rules(&name) {
        let _ = writeln!(
            out,
            "# inbound {} {} priority {}: {action:?}",
            rule.vni, rule.source, rule.priority
        );
    }
    for stage in 1..=5 {
        for (direction, bind) in [
            ("out", store.acl_out(&name, stage)),
            ("in", store.acl_in(&name, stage)),
        ] {
            for group in bind
                .into_iter()
                .flat_map(|bind| [&bind.v4, &bind.v6])
                .flatten()
            {
                let _ = writeln!(
                    out,
                    "# acl {direction} {stage}: group {group}, {} rules",
                    store.acl_rule_count(group)
                );
            }
        }
    }
    out.push('\n');
    Ok(out)
}
