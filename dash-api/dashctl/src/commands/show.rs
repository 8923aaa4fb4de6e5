//! `dashctl show`: what a running data plane's objects take.

use std::io::Write;

use anyhow::{Context, Result, anyhow};
use dash_proto::dashwire::v1::UsageRequest;
use dash_proto::dashwire::v1::observe_client::ObserveClient;
use serde_json::Value;

use super::remote::{MAX_MESSAGE, connect, runtime};
use crate::cli::{Show, Shown};

pub(crate) fn run(args: &Show) -> Result<()> {
    let json = runtime()?.block_on(async {
        let channel = connect(&args.from, &args.connection).await?;
        let mut client = ObserveClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        let response = client.usage(UsageRequest {}).await;
        let response = response.map_err(|status| {
            anyhow!("{}: {:?}: {}", args.from, status.code(), status.message())
        })?;
        anyhow::Ok(response.into_inner().json)
    })?;
    let mut usage: Value = serde_json::from_str(&json).context("the daemon's JSON")?;
    let crm = usage["crm"].take();
    let mut out = std::io::stdout().lock();
    match (args.what, args.json) {
        (Shown::Crm, true) => writeln!(out, "{}", serde_json::to_string_pretty(&crm)?)?,
        (Shown::Crm, false) => {
            for (name, n) in crm.as_object().into_iter().flatten() {
                writeln!(out, "{name:<56} {n:>12}")?;
            }
        }
        (Shown::Memory, true) => {
            if let Some(usage) = usage.as_object_mut() {
                usage.remove("crm");
            }
            writeln!(out, "{}", serde_json::to_string_pretty(&usage)?)?;
        }
        (Shown::Memory, false) => memory(&mut out, &usage)?,
    }
    out.flush().context("standard output")
}

fn memory(out: &mut impl Write, usage: &Value) -> Result<()> {
    let list = |name: &str| usage[name].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    writeln!(
        out,
        "{:<14} {:>12} {:>14} {:>10}",
        "object", "count", "bytes", "each"
    )?;
    for row in list("objects") {
        writeln!(
            out,
            "{:<14} {:>12} {:>14} {:>10}",
            text(&row["object"]),
            text(&row["count"]),
            text(&row["bytes"]),
            text(&row["bytes_each"])
        )?;
    }
    let flows = &usage["flows"];
    writeln!(
        out,
        "{:<14} {:>12} {:>14} {:>10}  of {}, without its index",
        "flow",
        text(&flows["live"]),
        "",
        text(&flows["entry_bytes"]),
        text(&flows["capacity"])
    )?;
    writeln!(out, "\n{:<14} {:>14}", "table", "bytes")?;
    for row in list("tables") {
        writeln!(
            out,
            "{:<14} {:>14}",
            text(&row["table"]),
            text(&row["bytes"])
        )?;
    }
    Ok(())
}
