//! The gNMI service of the `sonic-db` origin: what SONiC's server takes, with one transaction a
//! Set.

mod counters;
mod get;
mod set;

pub(crate) use set::refusal;

use std::pin::Pin;

use dash_proto::gnmi;
use dash_proto::gnmi::g_nmi_server::GNmi;
use dash_proto::path::path_text;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::control::Control;

/// Version of the gNMI specification that is spoken.
const GNMI_VERSION: &str = "0.10.0";

/// The service.
#[derive(Clone, Debug)]
pub struct Gnmi {
    control: Control,
}

impl Gnmi {
    /// A service over a data plane.
    pub fn new(control: Control) -> Self {
        Self { control }
    }
}

#[tonic::async_trait]
impl GNmi for Gnmi {
    async fn capabilities(
        &self,
        _: Request<gnmi::CapabilityRequest>,
    ) -> Result<Response<gnmi::CapabilityResponse>, Status> {
        let encodings = [
            gnmi::Encoding::Json,
            gnmi::Encoding::JsonIetf,
            gnmi::Encoding::Proto,
        ];
        Ok(Response::new(gnmi::CapabilityResponse {
            supported_models: vec![gnmi::ModelData {
                name: "sonic-db".to_owned(),
                organization: "SONiC".to_owned(),
                version: "0.1.0".to_owned(),
            }],
            supported_encodings: encodings.map(i32::from).to_vec(),
            g_nmi_version: GNMI_VERSION.to_owned(),
            ..gnmi::CapabilityResponse::default()
        }))
    }

    async fn get(
        &self,
        request: Request<gnmi::GetRequest>,
    ) -> Result<Response<gnmi::GetResponse>, Status> {
        get::get(&self.control, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn set(
        &self,
        request: Request<gnmi::SetRequest>,
    ) -> Result<Response<gnmi::SetResponse>, Status> {
        let peer = request.remote_addr();
        let answer = set::set(&self.control, request.into_inner()).await;
        if let Err(status) = &answer {
            tracing::warn!(?peer, code = ?status.code(), "Set refused: {}", status.message());
        }
        answer.map(Response::new)
    }

    type SubscribeStream =
        Pin<Box<dyn Stream<Item = Result<gnmi::SubscribeResponse, Status>> + Send>>;

    async fn subscribe(
        &self,
        _: Request<Streaming<gnmi::SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        Err(Status::unimplemented(
            "Subscribe is not supported by this release: use Get",
        ))
    }
}

/// Prefix and path as one text.
fn whole_text(prefix: Option<&gnmi::Path>, path: &gnmi::Path) -> String {
    let mut whole = prefix.cloned().unwrap_or_default();
    whole.elem.extend(path.elem.iter().cloned());
    if whole.origin.is_empty() {
        whole.origin.clone_from(&path.origin);
    }
    path_text(&whole)
}

/// Nanoseconds since the epoch.
fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since
        .ok()
        .and_then(|since| i64::try_from(since.as_nanos()).ok())
        .unwrap_or(0)
}
