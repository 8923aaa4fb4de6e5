//! The service `dashwire.v1.Settings`: what SAI has of ENIs and route groups and SONiC's tables have not,
//! field by field. What it leaves are rows of our own tables, as a gNMI Set of them would.

use dash_engine::EngineError;
use dash_model::key::{EniKey, RouteGroupId};
use dash_model::{CommitError, ObjectKey, Op, Txn};
use dash_pipeline::plan::{EniInForce, Resimulation};
use dash_proto::dash::types::IpAddress;
use dash_proto::dash::types::ip_address::Ip;
use dash_proto::dashwire::v1 as wire;
use dash_proto::dashwire::v1::settings_server::Settings as Service;
use dash_proto::set::code_of;
use dash_proto::{Kind, RowError, RowValue, change_row, decode_row};
use prost::Message;
use tonic::{Request, Response, Status};

use crate::control::Control;
use crate::gnmi::refusal;
use crate::plane::Plane;

/// The service.
#[derive(Clone, Debug)]
pub struct Settings {
    control: Control,
}

impl Settings {
    /// A service over a data plane.
    pub fn new(control: Control) -> Self {
        Self { control }
    }
}

/// The row of a key as its message; the default without one.
fn row<M: Message + Default>(plane: &Plane, key: &ObjectKey) -> Result<M, Status> {
    match plane.engine.get(key) {
        None => Ok(M::default()),
        Some(raw) => M::decode(&**raw)
            .map_err(|error| Status::internal(format!("{key} cannot be read: {error}"))),
    }
}

fn bad_row(error: &RowError) -> Status {
    match error.kind {
        Kind::Unimplemented => Status::unimplemented(error.to_string()),
        Kind::Malformed | Kind::InvalidArgument => Status::invalid_argument(error.to_string()),
    }
}

fn refused(error: &EngineError) -> Status {
    match error {
        EngineError::Commit(error) => commit_refused(error),
        other => refusal(other, None, &[]),
    }
}

/// The one row of a call: its place in the request says nothing.
fn commit_refused(error: &CommitError) -> Status {
    let reasons = error
        .errors
        .iter()
        .map(|item| format!("{}: {}", item.key, item.reason));
    let text = reasons.collect::<Vec<_>>().join("; ");
    Status::new(code_of(error.kind()), text)
}

/// Makes a row of bytes a generation; no bytes, no row.
fn commit(plane: &mut Plane, key: &ObjectKey, raw: &[u8]) -> Result<(), Status> {
    let op = if raw.is_empty() {
        Op::del(0, key.clone())
    } else {
        let (table, text) = (key.table_name(), key.key_text().to_string());
        let row = decode_row(table, &text, RowValue::Pb(raw)).map_err(|e| bad_row(&e))?;
        Op::set(0, row.key, row.object, row.raw)
    };
    plane
        .commit(Txn { ops: vec![op] })
        .map_err(|error| refused(&error))?;
    Ok(())
}

/// As the row's message, with every field that there is something to say of.
fn in_force(settings: &EniInForce) -> wire::EniSettings {
    let EniInForce {
        dscp,
        disable_fast_path,
        max_resimulated,
        mtu,
        learn,
        reverse_sip,
        packets_per_second,
    } = *settings;
    wire::EniSettings {
        dscp_mode: match dscp {
            Some(_) => wire::DscpMode::Pipe.into(),
            None => wire::DscpMode::Preserve.into(),
        },
        dscp: dscp.map(Into::into),
        disable_fast_path_icmp_flow_redirection: Some(disable_fast_path),
        max_resimulated_flow_per_second: Some(max_resimulated.into()),
        mtu: mtu.map(Into::into),
        enable_reverse_tunnel_learning: Some(learn),
        reverse_tunnel_sip: reverse_sip.map(|ip| IpAddress {
            // The message's fixed32 is the dotted quad as a little-endian word.
            ip: Some(Ip::Ipv4(u32::from_le_bytes(ip.octets()))),
        }),
        pps: Some(packets_per_second),
    }
}

fn eni_report(plane: &Plane, eni: &EniKey) -> Result<wire::EniReport, Status> {
    let missing = || Status::not_found(format!("no ENI {eni}"));
    let settings = plane.engine.eni_in_force(eni).ok_or_else(missing)?;
    Ok(wire::EniReport {
        eni: eni.as_str().to_owned(),
        settings: Some(row(plane, &ObjectKey::EniSettings(eni.clone()))?),
        in_force: Some(in_force(&settings)),
    })
}

fn group_report(plane: &Plane, group: &RouteGroupId) -> Result<wire::RouteGroupReport, Status> {
    if plane.engine.store().route_group(group).is_none() {
        return Err(Status::not_found(format!("no route group {group}")));
    }
    Ok(wire::RouteGroupReport {
        group_id: group.as_str().to_owned(),
        settings: Some(row(plane, &ObjectKey::RouteGroupSettings(group.clone()))?),
    })
}

fn set_eni(plane: &mut Plane, request: &wire::SetEniRequest) -> Result<wire::EniReport, Status> {
    let eni = EniKey::from(request.eni.as_str());
    // Before anything else, so that it is the answer whatever the settings are.
    eni_report(plane, &eni)?;
    let key = ObjectKey::EniSettings(eni.clone());
    let before = plane.engine.get(&key).cloned().unwrap_or_default();
    let change = request.settings.clone().unwrap_or_default().encode_to_vec();
    let raw = change_row(
        key.table_name(),
        eni.as_str(),
        &before,
        &request.unset,
        &change,
    );
    commit(plane, &key, &raw.map_err(|error| bad_row(&error))?)?;
    if request.full_flow_resimulation_requested {
        let done = plane.engine.resimulate(&eni, &[], Resimulation::default());
        done.map_err(|error| Status::unavailable(error.to_string()))?;
    }
    eni_report(plane, &eni)
}

fn set_route_group(
    plane: &mut Plane,
    request: &wire::SetRouteGroupRequest,
) -> Result<wire::RouteGroupReport, Status> {
    let group = RouteGroupId::from(request.group_id.as_str());
    group_report(plane, &group)?;
    let raw = request.settings.unwrap_or_default().encode_to_vec();
    commit(plane, &ObjectKey::RouteGroupSettings(group.clone()), &raw)?;
    group_report(plane, &group)
}

#[tonic::async_trait]
impl Service for Settings {
    async fn set_eni(
        &self,
        request: Request<wire::SetEniRequest>,
    ) -> Result<Response<wire::EniReport>, Status> {
        let request = request.into_inner();
        let report = move |plane: &mut Plane| set_eni(plane, &request);
        self.control.call(report).await?.map(Response::new)
    }

    async fn get_enis(
        &self,
        request: Request<wire::GetEnisRequest>,
    ) -> Result<Response<wire::GetEnisResponse>, Status> {
        let eni = request.into_inner().eni;
        let reports = move |plane: &mut Plane| {
            let one = EniKey::from(eni.as_str());
            let enis: Vec<EniKey> = match eni.as_str() {
                "" => plane
                    .engine
                    .store()
                    .enis()
                    .map(|(k, _)| k.clone())
                    .collect(),
                _ => vec![one],
            };
            enis.iter().map(|eni| eni_report(plane, eni)).collect()
        };
        let enis: Result<_, Status> = self.control.call(reports).await?;
        Ok(Response::new(wire::GetEnisResponse { enis: enis? }))
    }

    async fn set_route_group(
        &self,
        request: Request<wire::SetRouteGroupRequest>,
    ) -> Result<Response<wire::RouteGroupReport>, Status> {
        let request = request.into_inner();
        let report = move |plane: &mut Plane| set_route_group(plane, &request);
        self.control.call(report).await?.map(Response::new)
    }

    async fn get_route_groups(
        &self,
        request: Request<wire::GetRouteGroupsRequest>,
    ) -> Result<Response<wire::GetRouteGroupsResponse>, Status> {
        let group = request.into_inner().group_id;
        let reports = move |plane: &mut Plane| {
            let one = RouteGroupId::from(group.as_str());
            let groups: Vec<RouteGroupId> = match group.as_str() {
                "" => {
                    let all = plane.engine.store().route_groups();
                    all.map(|(id, _)| id.clone()).collect()
                }
                _ => vec![one],
            };
            groups.iter().map(|id| group_report(plane, id)).collect()
        };
        let route_groups: Result<_, Status> = self.control.call(reports).await?;
        Ok(Response::new(wire::GetRouteGroupsResponse {
            route_groups: route_groups?,
        }))
    }
}
