//! `dashctl eni` and `dashctl route-group`: a daemon's settings beside SONiC's tables.

use anyhow::Result;
use dash_proto::dash::types::IpAddress;
use dash_proto::dash::types::ip_address::Ip;
use dash_proto::dashwire::v1 as wire;
use dash_proto::dashwire::v1::settings_client::SettingsClient;
use dash_proto::row_to_json;
use prost::Message;
use serde_json::{Value, json};
use tonic::transport::Channel;

use super::flow::refused;
use super::remote::{connect, runtime};
use crate::cli::{Daemon, DscpModeName, EniCommand, RouteGroupCommand, SetEni};

pub(crate) fn eni(command: &EniCommand) -> Result<()> {
    match command {
        EniCommand::Show(args) => {
            let request = wire::GetEnisRequest {
                eni: args.key.clone().unwrap_or_default(),
            };
            let answer = call(&args.daemon, async |client| client.get_enis(request).await)?;
            answer.enis.iter().for_each(print_eni);
        }
        EniCommand::Set(args) => {
            let request = set_eni(args);
            let report = call(&args.daemon, async |client| client.set_eni(request).await)?;
            print_eni(&report);
        }
    }
    Ok(())
}

pub(crate) fn route_group(command: &RouteGroupCommand) -> Result<()> {
    match command {
        RouteGroupCommand::Show(args) => {
            let request = wire::GetRouteGroupsRequest {
                group_id: args.key.clone().unwrap_or_default(),
            };
            let groups = async |client: &mut Client| client.get_route_groups(request).await;
            let answer = call(&args.daemon, groups)?;
            answer.route_groups.iter().for_each(print_group);
        }
        RouteGroupCommand::Set(args) => {
            let request = wire::SetRouteGroupRequest {
                group_id: args.key.clone(),
                settings: Some(wire::RouteGroupSettings {
                    disabled: args.disabled,
                }),
            };
            let set = async |client: &mut Client| client.set_route_group(request).await;
            print_group(&call(&args.daemon, set)?);
        }
    }
    Ok(())
}

type Client = SettingsClient<Channel>;

/// One call to a daemon.
fn call<R>(
    daemon: &Daemon,
    ask: impl AsyncFnOnce(&mut Client) -> Result<tonic::Response<R>, tonic::Status>,
) -> Result<R> {
    runtime()?.block_on(async {
        let channel = connect(&daemon.from, &daemon.connection).await?;
        let answer = ask(&mut Client::new(channel)).await;
        Ok(answer.map_err(refused(daemon))?.into_inner())
    })
}

fn set_eni(args: &SetEni) -> wire::SetEniRequest {
    let mode = match args.dscp_mode {
        None => wire::DscpMode::Unspecified,
        Some(DscpModeName::Preserve) => wire::DscpMode::Preserve,
        Some(DscpModeName::Pipe) => wire::DscpMode::Pipe,
    };
    wire::SetEniRequest {
        eni: args.key.clone(),
        settings: Some(wire::EniSettings {
            dscp_mode: mode.into(),
            dscp: args.dscp,
            disable_fast_path_icmp_flow_redirection: args.disable_fast_path,
            max_resimulated_flow_per_second: args.max_resimulated,
            mtu: args.mtu,
            enable_reverse_tunnel_learning: args.reverse_tunnel_learning,
            reverse_tunnel_sip: args.reverse_tunnel_sip.map(|ip| IpAddress {
                // The message's fixed32 is the dotted quad as a little-endian word.
                ip: Some(Ip::Ipv4(u32::from_le_bytes(ip.octets()))),
            }),
            pps: args.pps,
        }),
        unset: args.unset.clone(),
        full_flow_resimulation_requested: args.resimulate,
    }
}

/// The fields of a row as files have them.
fn fields(table: &str, row: Option<&impl Message>) -> Value {
    row_to_json(table, &row.map(Message::encode_to_vec).unwrap_or_default())
}

fn print_eni(report: &wire::EniReport) {
    let table = "DASHWIRE_ENI_TABLE";
    let line = json!({
        "eni": report.eni,
        "settings": fields(table, report.settings.as_ref()),
        "in_force": fields(table, report.in_force.as_ref()),
    });
    println!("{line}");
}

fn print_group(report: &wire::RouteGroupReport) {
    let settings = fields("DASHWIRE_ROUTE_GROUP_TABLE", report.settings.as_ref());
    println!(
        "{}",
        json!({"route_group": report.group_id, "settings": settings})
    );
}
