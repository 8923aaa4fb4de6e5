//! The service `dashwire.v1.Observe`: a running data plane, read.

use std::pin::Pin;

use dash_engine::EngineError;
use dash_model::ObjectKey;
use dash_proto::dashwire::v1 as wire;
use dash_proto::dashwire::v1::observe_server::Observe as Service;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use crate::args::{Args, EngineName};
use crate::control::Control;
use crate::flow_control::selection;
use crate::plane::Plane;
use crate::usage;

/// Bytes of flow lines in one message, but for a line that is longer.
const CHUNK: usize = 64 << 10;

/// The service.
#[derive(Clone, Debug)]
pub struct Observe {
    control: Control,
    target: String,
    engine: EngineName,
}

impl Observe {
    /// A service over a data plane that was started with `args`.
    pub fn new(control: Control, args: &Args) -> Self {
        Self {
            control,
            target: args.target.to_string(),
            engine: args.engine,
        }
    }
}

fn unreadable(error: &EngineError) -> Status {
    Status::unavailable(error.to_string())
}

#[tonic::async_trait]
impl Service for Observe {
    type FlowsStream = Pin<Box<dyn Stream<Item = Result<wire::FlowsResponse, Status>> + Send>>;

    async fn flows(
        &self,
        request: Request<wire::FlowsRequest>,
    ) -> Result<Response<Self::FlowsStream>, Status> {
        let which = selection(request.get_ref())?;
        let flows = self
            .control
            .call(move |plane| plane.engine.find_flows(&which))
            .await?;
        let flows = flows.map_err(|error| unreadable(&error))?;
        // There may be millions: text is made on a thread that nobody waits for.
        let flows = tokio::task::spawn_blocking(move || flows.jsonl())
            .await
            .map_err(|_| Status::internal("flows could not be printed"))?;
        let parts = chunks(&flows).map(|part| {
            Ok(wire::FlowsResponse {
                json_lines: part.to_owned(),
            })
        });
        let parts: Vec<_> = parts.collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(parts))))
    }

    async fn counters(
        &self,
        _: Request<wire::CountersRequest>,
    ) -> Result<Response<wire::CountersResponse>, Status> {
        let counters = self.control.call(|plane| plane.engine.counters()).await?;
        let counters = counters.map_err(|error| unreadable(&error))?;
        Ok(Response::new(wire::CountersResponse {
            json: counters.to_string(),
        }))
    }

    async fn info(
        &self,
        _: Request<wire::InfoRequest>,
    ) -> Result<Response<wire::InfoResponse>, Status> {
        let mut info = self.control.call(info).await?;
        info.target.clone_from(&self.target);
        info.engine = self.engine.as_str().to_owned();
        Ok(Response::new(info))
    }

    async fn usage(
        &self,
        _: Request<wire::UsageRequest>,
    ) -> Result<Response<wire::UsageResponse>, Status> {
        let usage = self.control.call(usage::report).await?;
        let usage = usage.map_err(|error| unreadable(&error))?;
        Ok(Response::new(wire::UsageResponse {
            json: usage.to_string(),
        }))
    }
}

fn info(plane: &mut Plane) -> wire::InfoResponse {
    let (engine, compile) = (&plane.engine, plane.engine.compile_stats());
    let stored_only = engine
        .store()
        .tables()
        .filter(|(table, _)| matches!(ObjectKey::parse(table, "-"), Ok(ObjectKey::Opaque(..))))
        .map(|(_, count)| count as u64)
        .sum();
    wire::InfoResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        generation: engine.generation(),
        rows: engine.store().len() as u64,
        rows_stored_only: stored_only,
        stages_verified: compile.stages_verified,
        stages_from_cache: compile.stages_from_cache,
        native_compiled: compile.native_compiled,
        port_macs: engine
            .target()
            .macs()
            .iter()
            .map(|mac| mac.to_vec())
            .collect(),
        neighbors: u32::try_from(plane.neighbors()).unwrap_or(u32::MAX),
        ..wire::InfoResponse::default()
    }
}

/// Whole lines, as many as fit.
fn chunks(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let mut end = 0;
        for line in rest.split_inclusive('\n') {
            if end > 0 && end + line.len() > CHUNK {
                break;
            }
            end += line.len();
        }
        let (part, after) = rest.split_at(end);
        rest = after;
        (!part.is_empty()).then_some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_whole_lines_and_lose_nothing() {
        let text = format!(
            "{}\n{}\nlast\n",
            "a".repeat(CHUNK - 2),
            "b".repeat(2 * CHUNK)
        );
        let parts: Vec<&str> = chunks(&text).collect();
        assert_eq!(parts.concat(), text);
        assert!(parts.iter().all(|part| part.ends_with('\n')));
        assert_eq!(parts.len(), 3);
        assert_eq!(chunks("").count(), 0);
    }
}
