//! `dashctl prog load|unload|attach|list|profile`: programs in a running data plane.

use anyhow::{Context as _, Result};
use dash_proto::dashwire::v1 as wire;
use serde_json::{Value, json};

use super::print;
use crate::cli::{
    AtArg, LinkNumber, ProgAttach, ProgList, ProgLoad, ProgProfile, ProgUnload, Runs,
};
use crate::commands::programs::call;

pub(super) fn load(args: &ProgLoad) -> Result<()> {
    let read = |path: &std::path::PathBuf| {
        std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let elf = args.files.iter().map(read).collect::<Result<Vec<_>>>()?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None => {
            let stem = args.files.first().and_then(|path| path.file_stem());
            let stem = stem.and_then(|stem| stem.to_str());
            stem.context("the file has no name: give one with --name")?
                .to_owned()
        }
    };
    let request = wire::LoadProgramRequest {
        name,
        elf,
        verifier: args.verifier.to_string(),
        engine: args.engine.map(|e| e.name().to_owned()).unwrap_or_default(),
        metrics: args.metrics.clone(),
    };
    let Runs { daemon, connection } = &args.daemon;
    let response = call(daemon, connection, async |mut client| {
        client.load(request).await
    })?;
    let object = response.into_inner().object.unwrap_or_default();
    match args.print.wanted() {
        true => args.print.json(&object_json(&object)),
        false => print(&object_text(&object)),
    }
}

pub(super) fn unload(args: &ProgUnload) -> Result<()> {
    let request = wire::UnloadProgramRequest {
        name: args.name.clone(),
    };
    let Runs { daemon, connection } = &args.daemon;
    call(daemon, connection, async |mut client| {
        client.unload(request).await
    })?;
    args.print.done()
}

pub(super) fn attach(args: &ProgAttach) -> Result<()> {
    let (point, port, eni) = match &args.at {
        None => (wire::HookPoint::Unspecified, 0, ""),
        Some(AtArg::Ingress(port)) => (wire::HookPoint::Ingress, *port, ""),
        Some(AtArg::Egress(port)) => (wire::HookPoint::Egress, *port, ""),
        Some(AtArg::EniOutbound(eni)) => (wire::HookPoint::EniOutbound, 0, eni.as_str()),
        Some(AtArg::EniInbound(eni)) => (wire::HookPoint::EniInbound, 0, eni.as_str()),
    };
    let request = wire::AttachRequest {
        program: args.program.clone(),
        point: point.into(),
        port,
        eni: eni.to_owned(),
        sequence: args.sequence,
        replace: args.replace.unwrap_or(0),
    };
    let Runs { daemon, connection } = &args.daemon;
    let response = call(daemon, connection, async |mut client| {
        client.attach(request).await
    })?;
    let wire::AttachResponse { link, attached } = response.into_inner();
    if args.print.wanted() {
        let done = json!({ "link": link, "attached": attached });
        return args.print.json(&done);
    }
    print(&match attached {
        true => format!("link {link}\n"),
        false => format!("link {link} waits for its ENI, which is not there\n"),
    })
}

pub(super) fn list(args: &ProgList) -> Result<()> {
    let request = wire::ListProgramsRequest {};
    let Runs { daemon, connection } = &args.daemon;
    let list = call(daemon, connection, async |mut client| {
        client.list_programs(request).await
    })?;
    let objects = list.into_inner().objects;
    match args.print.wanted() {
        true => args.print.json(&objects.iter().map(object_json).collect()),
        false => print(&objects.iter().map(object_text).collect::<String>()),
    }
}

pub(super) fn profile(args: &ProgProfile) -> Result<()> {
    let LinkNumber { link, daemon } = &args.link;
    let request = wire::ProfileRequest {
        link: *link,
        milliseconds: args.milliseconds,
    };
    let Runs { daemon, connection } = daemon;
    let response = call(daemon, connection, async |mut client| {
        client.profile(request).await
    })?;
    let wire::ProfileResponse {
        runs,
        nanoseconds,
        instructions,
    } = response.into_inner();
    if args.print.wanted() {
        return args.print.json(&json!({
            "runs": runs,
            "nanoseconds": nanoseconds,
            "instructions": instructions,
        }));
    }
    let each = match runs {
        0 => "-".to_owned(),
        runs => format!("{:.1}", nanoseconds as f64 / runs as f64),
    };
    print(&format!(
        "{runs} runs in {} ms, {each} ns each (reading the clock included), {instructions} eBPF instructions long\n",
        args.milliseconds
    ))
}

fn object_text(object: &wire::ProgramObject) -> String {
    let mut out = format!("object {} ({})\n", object.name, object.engine);
    for (number, program) in object.programs.iter().enumerate() {
        let wire::Program {
            name,
            section,
            instructions,
        } = program;
        out.push_str(&format!(
            "  program {number} {name} ({section}): {instructions} instructions\n"
        ));
    }
    for map in &object.maps {
        out.push_str(&format!(
            "  map {}: {}, key {} B, value {} B, {} of {} entries{}\n",
            map.name,
            map.kind,
            map.key_size,
            map.value_size,
            map.entries,
            map.max_entries,
            if map.metrics { ", on /metrics" } else { "" }
        ));
    }
    out
}

fn object_json(object: &wire::ProgramObject) -> Value {
    let programs = object.programs.iter().enumerate().map(|(number, program)| {
        json!({
            "number": number,
            "name": program.name,
            "section": program.section,
            "instructions": program.instructions,
        })
    });
    let maps = object.maps.iter().map(crate::commands::map::about);
    json!({
        "name": object.name,
        "engine": object.engine,
        "programs": programs.collect::<Value>(),
        "maps": maps.collect::<Value>(),
    })
}
