//! `dashctl link`: programs where a daemon runs them.

use anyhow::Result;
use dash_proto::dashwire::v1 as wire;
use serde_json::{Value, json};

use super::prog::print;
use super::programs::call;
use crate::cli::{LinkCommand, LinkNumber, Output, Runs};

pub(crate) fn run(command: &LinkCommand, output: Output) -> Result<()> {
    match command {
        LinkCommand::Show(daemon) => show(daemon, output),
        LinkCommand::Detach(link) => detach(link, output),
    }
}

pub(super) fn detach(args: &LinkNumber, output: Output) -> Result<()> {
    let request = wire::DetachRequest { link: args.link };
    let Runs { daemon, connection } = &args.daemon;
    call(daemon, connection, async |mut client| {
        client.detach(request).await
    })?;
    output.done()
}

fn show(Runs { daemon, connection }: &Runs, output: Output) -> Result<()> {
    let request = wire::ListProgramsRequest {};
    let list = call(daemon, connection, async |mut client| {
        client.list_programs(request).await
    })?;
    let links = list.into_inner().links;
    match output.wanted() {
        true => output.json(&links.iter().map(link_json).collect()),
        false => print(&links.iter().map(link_text).collect::<String>()),
    }
}

/// `ingress:0`, as `--at` takes it.
fn place(link: &wire::ProgramLink) -> String {
    match link.point() {
        wire::HookPoint::Unspecified => "nowhere".to_owned(),
        wire::HookPoint::Ingress => format!("ingress:{}", link.port),
        wire::HookPoint::Egress => format!("egress:{}", link.port),
        wire::HookPoint::EniOutbound => format!("eni-outbound:{}", link.eni),
        wire::HookPoint::EniInbound => format!("eni-inbound:{}", link.eni),
    }
}

fn link_text(link: &wire::ProgramLink) -> String {
    format!(
        "{}: {} at {}, sequence {}{}: {} passed, {} dropped, {} sent back, {} redirected, {} aborted\n",
        link.id,
        link.program,
        place(link),
        link.sequence,
        if link.attached {
            ""
        } else {
            ", waits for its ENI"
        },
        link.passed,
        link.dropped,
        link.sent_back,
        link.redirected,
        link.aborted
    )
}

fn link_json(link: &wire::ProgramLink) -> Value {
    json!({
        "id": link.id,
        "program": link.program,
        "at": place(link),
        "sequence": link.sequence,
        "attached": link.attached,
        "passed": link.passed,
        "dropped": link.dropped,
        "sent_back": link.sent_back,
        "redirected": link.redirected,
        "aborted": link.aborted,
    })
}
