//! What SAI has of ENIs and route groups and SONiC's tables have not: by our service, and read back as rows.

use dash_proto::dashwire::v1::settings_client::SettingsClient;
use dash_proto::dashwire::v1::{
    DscpMode, EniSettings, GetEnisRequest, GetRouteGroupsRequest, RouteGroupSettings,
    SetEniRequest, SetRouteGroupRequest,
};
use serde_json::json;
use tonic::Code;

use crate::support::{Daemon, demo, path, request_of};

const ENI: &str = "F4939FEFC47E";

/// A packet of the VM from a port of its own, with DSCP 46 outside.
fn packet(port: u16) -> (u32, Vec<u8>) {
    let mut frame = nic_sim::Packet::eth([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([25, 1, 1, 1], [10, 0, 0, 1])
        .udp(5137, 4789)
        .vxlan(4321)
        .eth([2, 0, 0, 0, 0, 9], [0xf4, 0x93, 0x9f, 0xef, 0xc4, 0x7e])
        .ipv4([10, 1, 1, 10], [10, 1, 1, 1])
        .udp(port, 2000)
        .payload(b"x")
        .build();
    // The header's checksum stays right: one word gets what another loses.
    let (tos, id) = (15, 18);
    assert_eq!(frame[tos..=tos], [0]);
    frame[tos] = 46 << 2;
    let word = u16::from_be_bytes([frame[id], frame[id + 1]]);
    let checksum = 24;
    let sum = !u16::from_be_bytes([frame[checksum], frame[checksum + 1]]);
    assert_eq!(word, 0);
    let mut sum = u32::from(sum) + (46 << 2);
    sum = (sum & 0xffff) + (sum >> 16);
    let bytes = (!(sum as u16)).to_be_bytes();
    frame[checksum..checksum + 2].copy_from_slice(&bytes);
    (0, frame)
}

fn set(settings: EniSettings) -> SetEniRequest {
    SetEniRequest {
        eni: ENI.to_owned(),
        settings: Some(settings),
        ..SetEniRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_an_eni_act_are_read_back_and_go_with_it() {
    let daemon = Daemon::start(&["--engine", "interp", "--dscp-pipe", "8", "--mtu", "1500"]).await;
    daemon.configure(&demo()).await;
    let mut client = SettingsClient::new(daemon.channel.clone());

    // The card's are in force, and none is the ENI's.
    let all = client.get_enis(GetEnisRequest::default()).await.unwrap();
    let report = all.into_inner().enis.remove(0);
    assert_eq!(report.eni, ENI);
    assert_eq!(report.settings, Some(EniSettings::default()));
    let card = EniSettings {
        dscp_mode: DscpMode::Pipe.into(),
        dscp: Some(8),
        disable_fast_path_icmp_flow_redirection: Some(false),
        max_resimulated_flow_per_second: Some(0),
        mtu: Some(1500),
        enable_reverse_tunnel_learning: Some(false),
        reverse_tunnel_sip: None,
        pps: Some(0),
    };
    assert_eq!(report.in_force, Some(card.clone()));
    let outer_tos = async |port| daemon.inject(vec![packet(port)]).await[0].1[15];
    assert_eq!(outer_tos(1).await, 8 << 2);

    // One field after the other; what is not named stays.
    let own = EniSettings {
        dscp_mode: DscpMode::Preserve.into(),
        ..EniSettings::default()
    };
    let report = client.set_eni(set(own.clone())).await.unwrap().into_inner();
    assert_eq!(report.settings, Some(own.clone()));
    assert_eq!(outer_tos(1).await, 46 << 2, "flows that are there follow");
    let mtu = EniSettings {
        mtu: Some(68),
        ..EniSettings::default()
    };
    client.set_eni(set(mtu)).await.unwrap();
    assert!(daemon.inject(vec![packet(1)]).await.is_empty(), "too long");
    let row = "/DPU_APPL_DB/dpu0/DASHWIRE_ENI_TABLE[key=F4939FEFC47E]";
    assert_eq!(
        daemon.get_json(row).await.unwrap(),
        json!({"dscp_mode": "preserve", "mtu": 68})
    );

    // A row says the same as the service.
    let rows = json!([{"DASHWIRE_ENI_TABLE:F4939FEFC47E": {"dscp_mode": "pipe", "dscp": 63}, "OP": "SET"}]);
    daemon.configure(&rows).await;
    assert_eq!(outer_tos(1).await, 63 << 2);
    let mut request = set(EniSettings::default());
    request.unset = vec!["dscp_mode".to_owned(), "dscp".to_owned()];
    let report = client.set_eni(request).await.unwrap().into_inner();
    assert_eq!(report.in_force, Some(card));
    let gone = daemon.get_json(row).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound, "nothing set, no row");

    // Wrong ones change nothing.
    let generation = daemon.generation().await;
    let dscp = EniSettings {
        dscp: Some(64),
        dscp_mode: DscpMode::Pipe.into(),
        ..EniSettings::default()
    };
    let status = client.set_eni(set(dscp)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(
        status.message(),
        "DASHWIRE_ENI_TABLE:F4939FEFC47E: dscp: 64 is not a DSCP (0..=63)"
    );
    let mut misspelt = set(EniSettings::default());
    misspelt.unset = vec!["dcsp".to_owned()];
    let status = client.set_eni(misspelt).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let nobody = SetEniRequest {
        eni: "nobody".to_owned(),
        ..set(own.clone())
    };
    let status = client.set_eni(nobody).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(daemon.generation().await, generation);

    // A new ENI of the same key begins without them.
    client.set_eni(set(own)).await.unwrap();
    let mut request = request_of(&json!([]));
    for row in demo().as_array().unwrap() {
        for name in row.as_object().unwrap().keys() {
            if let Some((table, key)) = name.split_once(':')
                && key.starts_with(ENI)
            {
                let gone = format!("/DPU_APPL_DB/dpu0/{table}[key={key}]");
                request.delete.push(path(&gone));
            }
        }
    }
    daemon.set(request).await.unwrap();
    assert!(daemon.get_json(row).await.is_err(), "gone with its ENI");
    daemon.configure(&demo()).await;
    let one = GetEnisRequest {
        eni: ENI.to_owned(),
    };
    let report = client.get_enis(one).await.unwrap().into_inner().enis;
    assert_eq!(report[0].settings, Some(EniSettings::default()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_resimulation_is_an_order_that_nothing_keeps() {
    let daemon = Daemon::start(&["--engine", "interp"]).await;
    daemon.configure(&demo()).await;
    daemon.inject(vec![packet(1), packet(2)]).await;
    let mut client = SettingsClient::new(daemon.channel.clone());
    let request = SetEniRequest {
        full_flow_resimulation_requested: true,
        ..set(EniSettings {
            max_resimulated_flow_per_second: Some(1),
            ..EniSettings::default()
        })
    };
    let report = client.set_eni(request).await.unwrap().into_inner();
    let in_force = report.in_force.unwrap();
    assert_eq!(in_force.max_resimulated_flow_per_second, Some(1));
    daemon.inject(vec![packet(1), packet(2)]).await;
    let counters = daemon.counters().await;
    let updated = &counters["eni"][ENI]["SAI_ENI_STAT_FLOW_UPDATED_BY_RESIMULATION"];
    assert_eq!(*updated, 1, "one a second, and both came within it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_route_group_takes_no_new_flows() {
    let daemon = Daemon::start(&["--engine", "interp"]).await;
    daemon.configure(&demo()).await;
    let mut client = SettingsClient::new(daemon.channel.clone());
    let all = GetRouteGroupsRequest::default();
    let groups = client.get_route_groups(all).await.unwrap().into_inner();
    let group = groups.route_groups[0].group_id.clone();
    let disable = |disabled| SetRouteGroupRequest {
        group_id: group.clone(),
        settings: Some(RouteGroupSettings { disabled }),
    };
    assert_eq!(daemon.inject(vec![packet(1)]).await.len(), 1);
    client.set_route_group(disable(true)).await.unwrap();
    let left = daemon.inject(vec![packet(1), packet(2)]).await.len();
    assert_eq!(left, 1, "the flow that is there goes on");
    let counters = daemon.counters().await;
    let stat = "SAI_ENI_STAT_OUTBOUND_ROUTING_GROUP_DISABLED_DROP_PACKETS";
    assert_eq!(counters["eni"][ENI][stat], 1);
    let report = client.set_route_group(disable(false)).await.unwrap();
    let settings = report.into_inner().settings.unwrap();
    assert!(!settings.disabled);
    assert_eq!(daemon.inject(vec![packet(2)]).await.len(), 1);
    let nobody = SetRouteGroupRequest {
        group_id: "nobody".to_owned(),
        ..disable(true)
    };
    let status = client.set_route_group(nobody).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_of_the_switch_are_written_one_by_one() {
    let daemon = Daemon::start(&["--engine", "interp"]).await;
    for fields in [
        json!({"vxlan_port": "4790", "vxlan_mask": "3"}),
        json!({"vxlan_mask": "4"}),
    ] {
        let rows = json!([{"SWITCH_TABLE:switch": fields, "OP": "SET"}]);
        daemon.set(request_of(&rows)).await.unwrap();
    }
    let row = "/DPU_APPL_DB/dpu0/SWITCH_TABLE[key=switch]";
    let both = json!({"vxlan_port": 4790, "vxlan_mask": 4});
    assert_eq!(daemon.get_json(row).await.unwrap(), both);
    let mut request = request_of(&json!([]));
    request.delete.push(path(row));
    daemon.set(request).await.unwrap();
    assert!(daemon.get_json(row).await.is_err());
}
