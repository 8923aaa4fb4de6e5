//! `dashctl flow`: a daemon's flows, some of them.

use std::fs::File;
use std::io::{BufWriter, Write};

use anyhow::{Context, Result, anyhow, ensure};
use dash_proto::dashwire::v1 as wire;
use dash_proto::dashwire::v1::flow_control_client::FlowControlClient;
use dash_proto::dashwire::v1::observe_client::ObserveClient;
use flate2::Compression;
use flate2::write::GzEncoder;
use tonic::Status;

use super::remote::{MAX_MESSAGE, connect, runtime};
use crate::cli::{Daemon, DeleteFlows, DumpFlows, Flow, OneFlow, Resimulate, SomeFlows, Which};

pub(crate) fn run(command: &Flow) -> Result<()> {
    match command {
        Flow::List(args) => list(args, std::io::stdout().lock()),
        Flow::Get(args) => get(args),
        Flow::Delete(args) => delete(args),
        Flow::Dump(args) => dump(args),
        Flow::Resimulate(args) => resimulate(args),
    }
}

/// Fields in threes, as the command line has them.
fn filters(words: &[String]) -> Vec<wire::FlowFilter> {
    let filter = |three: &[String]| wire::FlowFilter {
        field: three[0].clone(),
        op: three[1].clone(),
        value: three[2].clone(),
    };
    words.chunks_exact(3).map(filter).collect()
}

fn request(which: &Which, most: Option<u64>) -> wire::FlowsRequest {
    wire::FlowsRequest {
        eni: which.eni.clone().unwrap_or_default(),
        filters: filters(&which.filter),
        most: most.unwrap_or(0),
    }
}

pub(super) fn refused(daemon: &Daemon) -> impl Fn(Status) -> anyhow::Error {
    let from = daemon.from.clone();
    move |status| anyhow!("{from}: {:?}: {}", status.code(), status.message())
}

/// Writes the lines of flows; gives how many bytes.
fn write(daemon: &Daemon, request: wire::FlowsRequest, mut out: impl Write) -> Result<usize> {
    runtime()?.block_on(async {
        let channel = connect(&daemon.from, &daemon.connection).await?;
        let mut client = ObserveClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        let flows = client.flows(request).await.map_err(refused(daemon))?;
        let (mut parts, mut bytes) = (flows.into_inner(), 0);
        while let Some(part) = parts.message().await.map_err(refused(daemon))? {
            out.write_all(part.json_lines.as_bytes())?;
            bytes += part.json_lines.len();
        }
        out.flush()?;
        Ok(bytes)
    })
}

fn list(args: &SomeFlows, out: impl Write) -> Result<()> {
    write(&args.daemon, request(&args.which, args.most), out).map(|_| ())
}

/// Both directions: the one that was named, and its reverse by the key in it.
fn get(args: &OneFlow) -> Result<()> {
    let mut line = Vec::new();
    let equal = |field: &str, value: String| wire::FlowFilter {
        field: field.to_owned(),
        op: "equal_to".to_owned(),
        value,
    };
    let key = |proto: u64, src: &str, dst: &str, sport: u64, dport: u64| wire::FlowsRequest {
        eni: args.eni.clone(),
        filters: vec![
            equal("ip_protocol", proto.to_string()),
            equal("src_ip_addr", src.to_owned()),
            equal("dst_ip_addr", dst.to_owned()),
            equal("src_l4_port", sport.to_string()),
            equal("dst_l4_port", dport.to_string()),
        ],
        most: 1,
    };
    let there = key(
        args.proto.into(),
        &args.src.to_string(),
        &args.dst.to_string(),
        args.sport.into(),
        args.dport.into(),
    );
    let found = write(&args.daemon, there, &mut line)?;
    ensure!(found > 0, "{}: no such flow", args.daemon.from);
    let mut out = std::io::stdout().lock();
    out.write_all(&line)?;
    let flow: serde_json::Value =
        serde_json::from_slice(line.split(|byte| *byte == b'\n').next().unwrap_or_default())
            .context("the daemon's JSON")?;
    let text = |name: &str| flow[name].as_str().unwrap_or_default().to_owned();
    let number = |name: &str| flow[name].as_u64().unwrap_or(0);
    let back = key(
        number("reverse_flow_ip_proto"),
        &text("reverse_flow_src_ip"),
        &text("reverse_flow_dst_ip"),
        number("reverse_flow_src_port"),
        number("reverse_flow_dst_port"),
    );
    write(&args.daemon, back, out).map(|_| ())
}

fn delete(args: &DeleteFlows) -> Result<()> {
    let some = args.which.eni.is_some() || !args.which.filter.is_empty();
    ensure!(
        some || args.all,
        "which flows? --eni and --filter say it, --all means every one"
    );
    let daemon = &args.daemon;
    let deleted = runtime()?.block_on(async {
        let channel = connect(&daemon.from, &daemon.connection).await?;
        let mut client = FlowControlClient::new(channel);
        let answer = client.delete(request(&args.which, None)).await;
        anyhow::Ok(answer.map_err(refused(daemon))?.into_inner().deleted)
    })?;
    println!("{deleted} flows deleted");
    Ok(())
}

fn dump(args: &DumpFlows) -> Result<()> {
    let path = &args.output;
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut out = GzEncoder::new(BufWriter::new(file), Compression::fast());
    list(&args.flows, &mut out)?;
    let written = out.finish().and_then(|mut file| file.flush());
    written.with_context(|| format!("cannot write {}", path.display()))
}

fn resimulate(args: &Resimulate) -> Result<()> {
    let daemon = &args.daemon;
    let version = runtime()?.block_on(async {
        let channel = connect(&daemon.from, &daemon.connection).await?;
        let mut client = FlowControlClient::new(channel);
        let request = wire::ResimulateRequest {
            eni: args.eni.clone(),
            filters: filters(&args.filter),
            per_second: args.per_second,
            keep: args.keep.clone(),
        };
        let answer = client.resimulate(request).await;
        anyhow::Ok(answer.map_err(refused(daemon))?.into_inner().version)
    })?;
    println!(
        "{}: flows decided from now on have version {version}",
        args.eni
    );
    Ok(())
}
