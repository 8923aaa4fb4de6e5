//! `dashctl push` and `dashctl get`.

use std::collections::HashMap;

use anyhow::{Context, Result, anyhow, bail};
use dash_model::objects::Object;
use dash_model::{Action, ObjectKey, Op};
use dash_proto::gnmi;
use dash_proto::gnmi::g_nmi_client::GNmiClient;
use dash_proto::path::{Db, DbPath, ORIGIN, parse_path, path_text};
use dash_proto::row_to_json;
use dash_proto::schema::has_fields;
use dashctl::config::ConfigFile;
use dashctl::progress::Progress;
use prost::Message;
use tonic::transport::Channel;

use super::remote::{MAX_MESSAGE, connect, runtime};
use crate::cli::{Encoding, Get, Push};

fn client(channel: Channel) -> GNmiClient<Channel> {
    GNmiClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
}

pub(crate) fn push(args: &Push) -> Result<()> {
    let requests = requests(args)?;
    if let Some(large) = requests
        .iter()
        .map(Message::encoded_len)
        .find(|len| *len > MAX_MESSAGE)
    {
        bail!(
            "{} makes a request of {} MiB and a daemon takes {}: send it in several with --chunk",
            args.file.display(),
            large >> 20,
            MAX_MESSAGE >> 20
        );
    }
    let updates = requests.iter().map(items).sum::<usize>();
    runtime()?.block_on(async {
        let mut client = client(connect(&args.to, &args.connection).await?);
        let mut progress = Progress::new("updates", updates as u64);
        let mut done = 0;
        for (at, request) in requests.iter().enumerate() {
            if let Err(status) = client.set(request.clone()).await {
                let sent = if requests.len() > 1 {
                    format!(
                        " (request {} of {}; the {done} updates before it are applied)",
                        at + 1,
                        requests.len()
                    )
                } else {
                    String::new()
                };
                bail!("{}: {}{sent}", args.to, refusal(&status, request));
            }
            done += items(request);
            progress.add(items(request) as u64);
        }
        drop(progress);
        eprintln!("{}: {done} updates in {} requests", args.to, requests.len());
        for path in stored_only(&requests) {
            eprintln!("{path}: stored, not acted on");
        }
        Ok(())
    })
}

fn items(request: &gnmi::SetRequest) -> usize {
    request.delete.len() + request.replace.len() + request.update.len()
}

/// The file as requests: a binary SetRequest as it is, rows in chunks.
fn requests(args: &Push) -> Result<Vec<gnmi::SetRequest>> {
    let bytes = std::fs::read(&args.file)
        .with_context(|| format!("cannot read {}", args.file.display()))?;
    if is_json(&bytes) {
        let text = String::from_utf8(bytes).with_context(|| args.file.display().to_string())?;
        let file = ConfigFile::parse(&args.file, &text)?;
        return Ok(set_requests(&file.txn().ops, &args.instance, args.chunk));
    }
    let request = gnmi::SetRequest::decode(bytes.as_slice()).with_context(|| {
        format!(
            "{} is neither JSON rows nor a gNMI SetRequest",
            args.file.display()
        )
    })?;
    if items(&request) == 0 {
        bail!("{} holds no updates", args.file.display());
    }
    Ok(vec![request])
}

fn is_json(bytes: &[u8]) -> bool {
    matches!(
        bytes.iter().find(|b| !b.is_ascii_whitespace()),
        Some(b'[' | b'{')
    )
}

/// Rows as requests of at most `chunk` items each, one request when it is 0.
///
/// Of several ops on a row the last counts, as in the file. One request keeps the file's order;
/// several are applied one after the other, so parents go first and are deleted last.
fn set_requests(ops: &[Op], instance: &str, chunk: usize) -> Vec<gnmi::SetRequest> {
    let last: HashMap<&ObjectKey, usize> = ops
        .iter()
        .enumerate()
        .map(|(at, op)| (&op.key, at))
        .collect();
    let mut ops: Vec<&Op> = ops
        .iter()
        .enumerate()
        .filter(|(at, op)| last.get(&op.key) == Some(at))
        .map(|(_, op)| op)
        .collect();
    if chunk > 0 {
        let deletes = |op: &Op| matches!(op.action, Action::Del);
        // Keys sort in the order of dependency, but for what needs nothing and is named by rows of tables
        // before its own. Rules of a meter policy can come only before an ENI names it.
        let first = |key: &ObjectKey| {
            matches!(
                key,
                ObjectKey::PrefixTag(_)
                    | ObjectKey::Tunnel(_)
                    | ObjectKey::PortMap(_)
                    | ObjectKey::PortMapRange(..)
                    | ObjectKey::MeterPolicy(_)
                    | ObjectKey::MeterRule(..)
                    | ObjectKey::Qos(_)
            )
        };
        ops.sort_by_key(|op| (!first(&op.key), &op.key));
        let (mut gone, written): (Vec<&Op>, Vec<&Op>) = ops.into_iter().partition(|op| deletes(op));
        gone.reverse();
        ops = written.into_iter().chain(gone).collect();
    }
    let most = if chunk == 0 { ops.len().max(1) } else { chunk };
    let requests = ops.chunks(most).map(|ops| {
        let mut request = request();
        for op in ops {
            let path = gnmi_path(instance, &op.key);
            match &op.action {
                Action::Del => request.delete.push(path),
                Action::Set { raw, .. } => {
                    let update = gnmi::Update {
                        path: Some(path),
                        val: Some(value(op, raw)),
                        ..gnmi::Update::default()
                    };
                    // A file says a row whole.
                    match has_fields(op.key.table_name()) {
                        true => request.replace.push(update),
                        false => request.update.push(update),
                    }
                }
            }
        }
        request
    });
    requests.collect()
}

fn request() -> gnmi::SetRequest {
    let prefix = gnmi::Path {
        origin: ORIGIN.to_owned(),
        ..gnmi::Path::default()
    };
    gnmi::SetRequest {
        prefix: Some(prefix),
        ..gnmi::SetRequest::default()
    }
}

fn gnmi_path(instance: &str, key: &ObjectKey) -> gnmi::Path {
    let path = DbPath::row(
        Db::DpuApplDb,
        instance,
        key.table_name(),
        &key.key_text().to_string(),
    );
    // The origin is the prefix's, as py_gnmicli sends it.
    gnmi::Path {
        origin: String::new(),
        ..path.to_gnmi()
    }
}

/// Protobuf, or JSON for rows that have no message and are kept as JSON text.
fn value(op: &Op, raw: &[u8]) -> gnmi::TypedValue {
    use gnmi::typed_value::Value;
    let opaque = matches!(
        op.action,
        Action::Set {
            object: Object::Opaque,
            ..
        }
    );
    let json = opaque && matches!(raw.first(), Some(b'{' | b'['));
    let bytes = raw.to_vec().into();
    gnmi::TypedValue {
        value: Some(if json {
            Value::JsonIetfVal(bytes)
        } else {
            Value::ProtoBytes(bytes)
        }),
    }
}

/// Paths of rows whose tables the daemon of this release does not act on.
fn stored_only(requests: &[gnmi::SetRequest]) -> Vec<String> {
    let updates = requests.iter().flat_map(|r| {
        r.replace
            .iter()
            .chain(&r.update)
            .filter_map(move |u| DbPath::from_gnmi(r.prefix.as_ref(), u.path.as_ref()?).ok())
    });
    updates
        .filter_map(
            |path| match ObjectKey::parse(path.table.as_deref()?, path.key.as_deref()?) {
                Ok(ObjectKey::Opaque(table, key)) => Some(format!("{table}:{key}")),
                _ => None,
            },
        )
        .collect()
}

/// The status in words, with the places its details name.
fn refusal(status: &tonic::Status, request: &gnmi::SetRequest) -> String {
    use tonic_types::StatusExt;
    let mut out = format!("{:?}: {}", status.code(), status.message());
    if let Some(bad) = status.get_details_bad_request() {
        for violation in bad.field_violations {
            out.push_str(&format!(
                "\n  {}{}: {}",
                violation.field,
                path_of(request, &violation.field),
                violation.description
            ));
        }
    }
    out
}

/// The path behind a place like `update[3]`.
fn path_of(request: &gnmi::SetRequest, place: &str) -> String {
    let found = || {
        let (list, index) = place.strip_suffix(']')?.split_once('[')?;
        let index: usize = index.parse().ok()?;
        match list {
            "delete" => request.delete.get(index),
            "replace" => request.replace.get(index)?.path.as_ref(),
            "update" => request.update.get(index)?.path.as_ref(),
            _ => None,
        }
    };
    found()
        .map(|path| format!(" {}", path_text(path)))
        .unwrap_or_default()
}

pub(crate) fn get(args: &Get) -> Result<()> {
    let mut path = parse_path(&args.path).map_err(|e| anyhow!("{}: {e}", args.path))?;
    if path.origin.is_empty() {
        path.origin = ORIGIN.to_owned();
    }
    let encoding = match args.encoding {
        Encoding::Json => gnmi::Encoding::JsonIetf,
        Encoding::Proto => gnmi::Encoding::Proto,
    };
    let request = gnmi::GetRequest {
        path: vec![path],
        encoding: encoding.into(),
        ..gnmi::GetRequest::default()
    };
    let response = runtime()?.block_on(async {
        let mut client = client(connect(&args.from, &args.connection).await?);
        let response = client.get(request).await;
        response
            .map_err(|status| anyhow!("{}: {:?}: {}", args.from, status.code(), status.message()))
    })?;
    for notification in response.into_inner().notification {
        for update in notification.update {
            show(notification.prefix.as_ref(), &update)?;
        }
    }
    Ok(())
}

/// JSON as it came; bytes of a row in hex, with what they say.
fn show(prefix: Option<&gnmi::Path>, update: &gnmi::Update) -> Result<()> {
    use gnmi::typed_value::Value;
    let path = update.path.clone().unwrap_or_default();
    match update.val.as_ref().and_then(|v| v.value.as_ref()) {
        Some(Value::JsonIetfVal(bytes) | Value::JsonVal(bytes)) => {
            let value: serde_json::Value =
                serde_json::from_slice(bytes).context("the daemon's JSON")?;
            println!("{}", serde_json::to_string_pretty(&value)?);
        }
        Some(Value::ProtoBytes(bytes)) => {
            println!(
                "{}",
                bytes.iter().map(|b| format!("{b:02x}")).collect::<String>()
            );
            if let Ok(DbPath {
                table: Some(table), ..
            }) = DbPath::from_gnmi(prefix, &path)
            {
                println!(
                    "{}",
                    serde_json::to_string_pretty(&row_to_json(&table, bytes))?
                );
            }
        }
        Some(other) => println!("{other:?}"),
        None => println!("{}: no value", path_text(&path)),
    }
    Ok(())
}
