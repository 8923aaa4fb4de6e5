//! Set: a request is one transaction, and one generation.

use dash_engine::EngineError;
use dash_model::{CommitError, Warning};
use dash_proto::gnmi;
use dash_proto::gnmi::update_result::Operation;
use dash_proto::set::{code_of, decode_set, place, status};
use nic_target::TargetError;
use tonic::{Code, Status};

use super::whole_text;
use crate::control::Control;

pub(super) async fn set(
    control: &Control,
    request: gnmi::SetRequest,
) -> Result<gnmi::SetResponse, Status> {
    // A request may hold a hundred thousand rows: not on a thread that serves others.
    let decode = move || {
        let decoded = decode_set(&request)?;
        Ok((request.prefix, decoded))
    };
    let decoded: Result<_, Status> = tokio::task::spawn_blocking(decode)
        .await
        .map_err(|_| Status::internal("a request could not be decoded"))?;
    let (prefix, mut decoded) = decoded?;
    let results = std::mem::take(&mut decoded.results);
    let warnings = std::mem::take(&mut decoded.warnings);

    let outcome = control
        .call(move |plane| {
            let txn = decoded.resolve(plane.engine.store());
            plane.commit(txn)
        })
        .await?;
    let commit = outcome.map_err(|error| refusal(&error, prefix.as_ref(), &results))?;
    for Warning { index, key, text } in warnings.iter().chain(&commit.warnings) {
        tracing::warn!(at = %place_of(&results, *index), %key, "{text}");
    }
    let response = results.into_iter().map(|(path, op)| gnmi::UpdateResult {
        path: Some(path),
        op: op.into(),
        ..gnmi::UpdateResult::default()
    });
    Ok(gnmi::SetResponse {
        prefix,
        response: response.collect(),
        timestamp: super::now(),
        ..gnmi::SetResponse::default()
    })
}

type Results = [(gnmi::Path, Operation)];

/// The request's field of a result, `update[3]`.
fn place_of(results: &Results, index: usize) -> String {
    let Some((_, op)) = results.get(index) else {
        return format!("item {index}");
    };
    let in_list = results
        .iter()
        .take(index)
        .filter(|(_, other)| other == op)
        .count();
    place(*op, in_list)
}

/// Why nothing was applied, as the client reads it.
pub(crate) fn refusal(
    error: &EngineError,
    prefix: Option<&gnmi::Path>,
    results: &Results,
) -> Status {
    match error {
        EngineError::Commit(error) => commit_status(error, prefix, results),
        EngineError::Session(error) => Status::invalid_argument(error.to_string()),
        EngineError::Plan(error) => Status::resource_exhausted(error.to_string()),
        EngineError::Target(error @ TargetError::TableFull { .. }) => {
            Status::resource_exhausted(error.to_string())
        }
        EngineError::Target(error @ TargetError::Gone) => Status::unavailable(error.to_string()),
        EngineError::Compile(_) | EngineError::Target(_) => {
            tracing::error!(%error, "a legal configuration was not taken");
            Status::new(Code::Internal, error.to_string())
        }
    }
}

fn commit_status(error: &CommitError, prefix: Option<&gnmi::Path>, results: &Results) -> Status {
    let places = error.errors.iter().map(|item| {
        let path = results
            .get(item.index)
            .map(|(path, _)| whole_text(prefix, path));
        let at = format!(
            "{} {}",
            place_of(results, item.index),
            path.unwrap_or_default()
        );
        (at, format!("{}: {}", item.key, item.reason))
    });
    status(code_of(error.kind()), places, error.omitted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_counts_over_all_lists_and_a_place_in_its_own() {
        let ops = [
            Operation::Delete,
            Operation::Replace,
            Operation::Update,
            Operation::Update,
        ];
        let results: Vec<_> = ops.map(|op| (gnmi::Path::default(), op)).into();
        let places: Vec<_> = (0..5).map(|n| place_of(&results, n)).collect();
        assert_eq!(
            places,
            [
                "delete[0]",
                "replace[0]",
                "update[0]",
                "update[1]",
                "item 4"
            ]
        );
    }
}
