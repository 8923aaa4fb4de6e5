//! `dashctl inject`, `counters` and `flows`: a running data plane.

use std::io::Write;

use anyhow::{Context, Result, anyhow};
use dash_proto::dashwire::v1::observe_client::ObserveClient;
use dash_proto::dashwire::v1::simulator_client::SimulatorClient;
use dash_proto::dashwire::v1::{CountersRequest, FlowsRequest, InjectRequest};
use dashctl::progress::Progress;
use nic_sim::{CaptureReader, CaptureWriter};
use serde_json::Value;
use tokio::sync::mpsc;
use tonic::Status;

use super::remote::{MAX_MESSAGE, connect, runtime};
use crate::cli::{Counters, Flows, Inject};

/// Frames on their way to the daemon: enough to keep it busy, few enough to hold in memory.
const IN_FLIGHT: usize = 256;

pub(crate) fn inject(args: &Inject) -> Result<()> {
    super::replay::refuse_same_file(&args.input, &args.output)?;
    let input = CaptureReader::open(&args.input)?;
    runtime()?.block_on(async {
        let channel = connect(&args.to, &args.connection).await?;
        let mut client = SimulatorClient::new(channel);
        let (frames, requests) = mpsc::channel(IN_FLIGHT);
        let port = args.port;
        // Reading files blocks, so it has a thread of its own.
        let reader = tokio::task::spawn_blocking(move || {
            for packet in input {
                let packet = packet?;
                let request = InjectRequest {
                    port,
                    timestamp_ns: packet.timestamp_ns,
                    frame: packet.data,
                };
                if frames.blocking_send(request).is_err() {
                    // The call ended; its error is the one to tell.
                    break;
                }
            }
            anyhow::Ok(())
        });
        let refused =
            |status: Status| anyhow!("{}: {:?}: {}", args.to, status.code(), status.message());
        let stream = tokio_stream::wrappers::ReceiverStream::new(requests);
        let mut responses = client.inject(stream).await.map_err(refused)?.into_inner();
        let mut output = CaptureWriter::create(&args.output)?;
        let mut progress = Progress::new("packets out", 0);
        while let Some(frame) = responses.message().await.map_err(refused)? {
            output.write(frame.timestamp_ns, &frame.frame)?;
            progress.add(1);
        }
        drop(progress);
        let sent = output.count();
        output.finish()?;
        reader.await.context("reading")??;
        eprintln!("{}: {sent} packets out", args.to);
        Ok(())
    })
}

pub(crate) fn counters(args: &Counters) -> Result<()> {
    let json = runtime()?.block_on(async {
        let channel = connect(&args.from, &args.connection).await?;
        let mut client = ObserveClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        let response = client.counters(CountersRequest {}).await;
        let response = response.map_err(|status| {
            anyhow!("{}: {:?}: {}", args.from, status.code(), status.message())
        })?;
        anyhow::Ok(response.into_inner().json)
    })?;
    let counters: Value = serde_json::from_str(&json).context("the daemon's JSON")?;
    let mut out = std::io::stdout().lock();
    if !args.moved {
        writeln!(out, "{}", serde_json::to_string_pretty(&counters)?)?;
        return Ok(());
    }
    for (eni, block) in counters["eni"].as_object().into_iter().flatten() {
        moved(&mut out, eni, block)?;
    }
    moved(&mut out, "port", &counters["port"])
}

/// Counters of a block that are not 0.
fn moved(out: &mut impl Write, owner: &str, block: &Value) -> Result<()> {
    for (name, value) in block.as_object().into_iter().flatten() {
        if value.as_u64() != Some(0) {
            writeln!(out, "{owner:<16} {name:<60} {value:>12}")?;
        }
    }
    Ok(())
}

pub(crate) fn flows(args: &Flows) -> Result<()> {
    runtime()?.block_on(async {
        let refused =
            |status: Status| anyhow!("{}: {:?}: {}", args.from, status.code(), status.message());
        let channel = connect(&args.from, &args.connection).await?;
        let mut client = ObserveClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        let mut responses = client
            .flows(FlowsRequest::default())
            .await
            .map_err(refused)?
            .into_inner();
        let mut out = std::io::stdout().lock();
        while let Some(part) = responses.message().await.map_err(refused)? {
            out.write_all(part.json_lines.as_bytes())?;
        }
        Ok(())
    })
}
