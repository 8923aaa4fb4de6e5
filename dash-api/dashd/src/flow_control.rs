//! The service `dashwire.v1.FlowControl`: flows found, deleted, decided again; and what its filters say.

use dash_engine::{Filter, FlowSelection};
use dash_model::key::EniKey;
use dash_pipeline::plan::Resimulation;
use dash_proto::dashwire::v1 as wire;
use dash_proto::dashwire::v1::flow_control_server::FlowControl as Service;
use dashctl::life::flow_actions;
use tonic::{Request, Response, Status};

use crate::control::Control;

/// The service.
#[derive(Clone, Debug)]
pub struct FlowControl {
    control: Control,
}

impl FlowControl {
    /// A service over a data plane.
    pub fn new(control: Control) -> Self {
        Self { control }
    }
}

fn filters(texts: &[wire::FlowFilter]) -> Result<Vec<Filter>, Status> {
    let parse = |(nth, text): (usize, &wire::FlowFilter)| {
        Filter::parse(&text.field, &text.op, &text.value)
            .map_err(|error| Status::invalid_argument(format!("filters[{nth}]: {error}")))
    };
    texts.iter().enumerate().map(parse).collect()
}

/// What a request asks for.
///
/// # Errors
/// `INVALID_ARGUMENT` that names the filter and says what is wrong.
pub(crate) fn selection(request: &wire::FlowsRequest) -> Result<FlowSelection, Status> {
    Ok(FlowSelection {
        eni: (!request.eni.is_empty()).then(|| EniKey::from(request.eni.as_str())),
        filters: filters(&request.filters)?,
        most: match request.most {
            0 => usize::MAX,
            most => usize::try_from(most).unwrap_or(usize::MAX),
        },
    })
}

#[tonic::async_trait]
impl Service for FlowControl {
    async fn delete(
        &self,
        request: Request<wire::FlowsRequest>,
    ) -> Result<Response<wire::DeleteFlowsResponse>, Status> {
        let which = selection(request.get_ref())?;
        let deleted = self
            .control
            .call(move |plane| plane.engine.delete_flows(&which))
            .await?;
        let deleted = deleted.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(wire::DeleteFlowsResponse { deleted }))
    }

    async fn resimulate(
        &self,
        request: Request<wire::ResimulateRequest>,
    ) -> Result<Response<wire::ResimulateResponse>, Status> {
        let request = request.into_inner();
        let filters = filters(&request.filters)?;
        let keep = flow_actions(&request.keep)
            .map_err(|error| Status::invalid_argument(format!("keep: {error}")))?;
        let how = Resimulation {
            per_second: request.per_second,
            keep,
        };
        let eni = EniKey::from(request.eni.as_str());
        let done = self
            .control
            .call(move |plane| {
                let there = plane.engine.resimulate(&eni, &filters, how)?;
                Ok(there.then(|| plane.engine.epoch(&eni)))
            })
            .await?;
        let done =
            done.map_err(|error: dash_engine::EngineError| Status::unavailable(error.to_string()))?;
        let version = done.ok_or_else(|| Status::not_found(format!("no ENI {}", request.eni)))?;
        Ok(Response::new(wire::ResimulateResponse {
            version: version.into(),
        }))
    }
}
