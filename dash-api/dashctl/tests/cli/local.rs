//! Commands without a daemon.

use std::path::Path;

use nic_sim::{CaptureWriter, Packet, read_capture};
use serde_json::Value;

use crate::{dashctl, scenario, stderr, stdout, text};

/// A packet of the VM to `last` octet of 10.1.1.0/24, as its host sends it.
fn from_vm(last: u8) -> Vec<u8> {
    Packet::eth([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([25, 1, 1, 1], [10, 0, 0, 1])
        .udp(5137, 4789)
        .vxlan(4321)
        .eth([0, 0, 0x5e, 0, 1, 1], [0xf4, 0x93, 0x9f, 0xef, 0xc4, 0x7e])
        .ipv4([10, 1, 1, 10], [10, 1, 1, last])
        .udp(1000, 2000)
        .payload(b"DASHTEST")
        .build()
}

fn capture(path: &Path, packets: &[(u64, Vec<u8>)]) {
    let mut writer = CaptureWriter::create(path).expect("a file");
    for (time, data) in packets {
        writer.write(*time, data).expect("written");
    }
    writer.finish().expect("written");
}

#[test]
fn whoever_judges_the_code_is_the_same() {
    let config = scenario("e01-vnet-to-vnet").join("config.json");
    let compile = |judge: &str| {
        let args = ["compile", "--emit", "ebpf", "--verifier", judge];
        dashctl(&[&args[..], &["--config", text(&config)]].concat())
    };
    let own = stdout(&compile("own"));
    assert!(own.contains("exit"), "{own}");
    assert_eq!(own, stdout(&compile("prevail")));
    let nobody = compile("nobody");
    assert_eq!(nobody.status.code(), Some(2));
    let said = stderr(&nobody);
    assert!(said.contains("there are own, prevail and both"), "{said}");

    let dir = scenario("e01-vnet-to-vnet");
    let args = ["scenario", text(&dir), "--engine", "interp"];
    let said = stdout(&dashctl(&[&args[..], &["--verifier", "both"]].concat()));
    assert!(said.contains("1 passed"), "{said}");
}

#[test]
fn replay_writes_what_leaves_with_the_times_of_the_capture_and_state_as_of_its_end() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name);
    let input = path("in.pcap");
    // 10.1.1.2 is not mapped; after 31 s the first flow is gone.
    capture(
        &input,
        &[
            (1_000, from_vm(1)),
            (2_000, from_vm(2)),
            (31_000_002_000, from_vm(2)),
            (31_000_003_000, from_vm(1)),
        ],
    );
    let config = scenario("e01-vnet-to-vnet").join("config.json");
    let run = |engine: &str| {
        let (out, counters, flows) = (path("out.pcap"), path("counters.json"), path("flows.jsonl"));
        let output = dashctl(&[
            "replay",
            "--config",
            text(&config),
            "--in",
            text(&input),
            "--out",
            text(&out),
            "--engine",
            engine,
            "--counters",
            text(&counters),
            "--flows",
            text(&flows),
        ]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(output.stdout, b"", "standard output is for data");
        let sent: Vec<_> = read_capture(&out)
            .expect("a capture")
            .map(|p| p.expect("a packet"))
            .collect();
        let read = |path| std::fs::read_to_string(path).expect("a file");
        (sent, read(counters), read(flows), stderr(&output))
    };
    let (sent, counters, flows, summary) = run("native");
    assert_eq!(
        sent.iter().map(|p| p.timestamp_ns).collect::<Vec<_>>(),
        [1_000, 31_000_003_000]
    );
    assert!(
        sent.iter().all(|p| p.data[30..34] == [101, 1, 2, 3]),
        "both go to the PA"
    );
    assert!(
        summary.contains("4 packets in over 31.000 s: 2 forwarded, 2 dropped"),
        "{summary}"
    );

    let json: Value = serde_json::from_str(&counters).expect("JSON");
    let eni = |name: &str| {
        json["eni"]["eni-1"][format!("SAI_ENI_STAT_{name}")]
            .as_u64()
            .expect(name)
    };
    assert_eq!(
        [
            eni("FLOW_CREATED"),
            eni("FLOW_AGED"),
            eni("OUTBOUND_CA_PA_ENTRY_MISS_DROP_PACKETS"),
            eni("RX_PACKETS"),
            eni("TX_PACKETS")
        ],
        [2, 1, 2, 4, 2]
    );
    assert_eq!(json["meter"], Value::Array(vec![]));
    assert_eq!(flows.lines().count(), 2, "{flows}");

    let others = run("model");
    assert_eq!(
        (&others.0, &others.1, &others.2),
        (&sent, &counters, &flows),
        "the model agrees"
    );
}

#[test]
fn a_wrong_configuration_exits_with_1_names_its_line_and_writes_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name);
    capture(&path("in.pcap"), &[(0, from_vm(1))]);
    let replay = |config: &str| {
        std::fs::write(path("config.json"), config).expect("written");
        let args = [
            "replay",
            "--engine",
            "model",
            "--config",
            text(&path("config.json")).to_owned().leak(),
            "--in",
            text(&path("in.pcap")).to_owned().leak(),
            "--out",
            text(&path("out.pcap")).to_owned().leak(),
        ];
        let output = dashctl(&args);
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(!path("out.pcap").exists());
        stderr(&output).replace(&format!("{}/", dir.path().display()), "")
    };
    assert_eq!(
        replay("[\n{\"DASH_VNET_TABLE:Vnet1\": {\"vni\": 1}, \"OP\": \"SET\"}\n]"),
        "dashctl: config.json: line 2: DASH_VNET_TABLE:Vnet1: there is no row in DASH_APPLIANCE_TABLE\n"
    );
    let bad_field = replay("[\n\n{\"DASH_VNET_TABLE:Vnet1\": {\"vnii\": 1}, \"OP\": \"SET\"}\n]");
    assert!(
        bad_field.starts_with("dashctl: config.json: line 3: DASH_VNET_TABLE:Vnet1: vnii: "),
        "{bad_field}"
    );
    let syntax = replay("[\n{\"a\"\n]");
    assert!(
        syntax.starts_with("dashctl: config.json: line 3, column "),
        "{syntax}"
    );
}

#[test]
fn wrong_usage_exits_with_2() {
    for args in [
        &["replay"][..],
        &["nonsense"],
        &[
            "replay", "--config", "a", "--in", "b", "--out", "c", "--engine", "quantum",
        ],
    ] {
        let output = dashctl(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(
            stderr(&output).contains("Usage") || stderr(&output).contains("possible values"),
            "{}",
            stderr(&output)
        );
    }
}

#[test]
fn a_capture_is_never_overwritten_by_its_own_replay() {
    let dir = tempfile::tempdir().expect("a folder");
    let input = dir.path().join("in.pcap");
    capture(&input, &[(0, from_vm(1))]);
    let before = std::fs::read(&input).expect("a file");
    let config = scenario("e01-vnet-to-vnet").join("config.json");
    let output = dashctl(&[
        "replay",
        "--config",
        text(&config),
        "--in",
        text(&input),
        "--out",
        text(&input),
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("cannot be both input and output"),
        "{}",
        stderr(&output)
    );
    assert_eq!(std::fs::read(&input).expect("a file"), before);
}

#[test]
fn every_emitted_form_is_what_it_says() {
    let config = scenario("e09-inbound").join("config.json");
    let emit = |form: &str| {
        let output = dashctl(&["compile", "--config", text(&config), "--emit", form]);
        assert!(output.status.success(), "{}", stderr(&output));
        output.stdout
    };
    let ir = String::from_utf8(emit("ir")).expect("text");
    let pipeline = dash_pipeline::text::parse(&ir).expect("IR that reads back");
    dash_pipeline::check::check(&pipeline).expect("a pipeline");

    let object = dash_bpf::elf::read(&emit("elf")).expect("an ELF object");
    let stages: Vec<&str> = pipeline
        .stages
        .iter()
        .map(|stage| stage.name.as_str())
        .collect();
    let programs = object
        .programs
        .iter()
        .map(|p| p.name.trim_end_matches("_stage"));
    assert_eq!(programs.collect::<Vec<_>>(), stages);

    let ebpf = String::from_utf8(emit("ebpf")).expect("text");
    for stage in &stages {
        assert!(
            ebpf.contains(&format!(": {stage} (")),
            "{stage} is not in the disassembly"
        );
    }
    let clif = String::from_utf8(emit("clif")).expect("text");
    assert!(
        clif.starts_with("function "),
        "{}",
        clif.lines().next().unwrap_or_default()
    );
    assert!(!emit("asm").is_empty());
}

#[test]
fn the_rows_of_an_eni_are_shown_beside_ir_that_still_reads_back() {
    let config = scenario("e09-inbound").join("config.json");
    let output = dashctl(&[
        "compile",
        "--config",
        text(&config),
        "--emit",
        "ir",
        "--eni",
        "eni-1",
    ]);
    let ir = stdout(&output);
    assert!(
        ir.starts_with("# ENI eni-1: mac f4:93:9f:ef:c4:7e, enabled"),
        "{}",
        ir.lines().next().unwrap_or_default()
    );
    assert!(ir.contains("10.1.0.0/16"));
    dash_pipeline::text::parse(&ir).expect("IR that reads back");
    let output = dashctl(&[
        "compile",
        "--config",
        text(&config),
        "--emit",
        "ir",
        "--eni",
        "eni-9",
    ]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(
        text.ends_with("dashctl: there is no ENI `eni-9`; there are: eni-1\n"),
        "{text}"
    );
}

#[test]
fn trace_says_what_each_packet_was_met_by_and_came_to() {
    let dir = tempfile::tempdir().expect("a folder");
    let input = dir.path().join("in.pcap");
    capture(
        &input,
        &[(1_000_000_000, from_vm(1)), (1_500_000_000, from_vm(2))],
    );
    let config = scenario("e01-vnet-to-vnet").join("config.json");
    let trace = stdout(&dashctl(&[
        "trace",
        "--config",
        text(&config),
        "--in",
        text(&input),
    ]));
    let (first, second) = trace
        .split_once("packet 2 at 0.500000 s, 100 bytes")
        .expect("two packets");
    assert!(first.starts_with("packet 1 at 0.000000 s, 100 bytes\n  in     02:00:00:00:00:02 > 02:00:00:00:00:01 IPv4 25.1.1.1 > 10.0.0.1"), "{first}");
    assert!(
        first.contains("out    port 0: ") && first.contains("IPv4 10.0.0.1 > 101.1.2.3"),
        "{first}"
    );
    assert!(
        first
            .lines()
            .any(|line| line.trim_start().starts_with("route ")),
        "{first}"
    );
    assert!(
        second.contains("mapping-miss") && second.contains("out    nothing: dropped"),
        "{second}"
    );
}

/// Every kind of object that can decide about a packet, named as the configuration names it.
#[test]
fn trace_names_the_objects_that_decide() {
    let dir = tempfile::tempdir().expect("a folder");
    let fates = |name: &str, steps: &[usize]| -> Vec<serde_json::Value> {
        let folder = scenario(name);
        let file = dashctl::scenario::ScenarioFile::read(&folder).expect("a scenario");
        let packets: Vec<(u64, Vec<u8>)> = steps
            .iter()
            .map(|n| {
                let input = file.scenario.steps[n - 1].input.as_ref();
                let packet = input.expect("a step with a packet").bytes();
                (*n as u64 * 1_000, packet.expect("a packet").data)
            })
            .collect();
        let input = dir.path().join("in.pcap");
        capture(&input, &packets);
        let lines = stdout(&dashctl(&[
            "trace",
            "--json",
            "--config",
            text(&folder.join("config.json")),
            "--in",
            text(&input),
        ]));
        let told = lines.lines().map(serde_json::from_str);
        told.collect::<Result<_, _>>()
            .expect("a JSON object a line")
    };
    let objects = |told: &serde_json::Value| -> Vec<String> {
        let list = told["objects"].as_array().expect("a list");
        list.iter()
            .map(|o| o.as_str().expect("text").to_owned())
            .collect()
    };
    let has = |told: &serde_json::Value, object: &str| {
        assert!(
            objects(told).iter().any(|o| o == object),
            "{object}: {told}"
        );
    };

    let [vnet, hit, ..] = &fates("transforms-side-by-side", &[1, 2])[..] else {
        panic!("two packets")
    };
    has(vnet, "DASH_APPLIANCE_TABLE:100");
    has(vnet, "DASH_ENI_TABLE:eni-1");
    has(vnet, "DASH_ACL_RULE_TABLE:all4:1");
    has(vnet, "DASH_ROUTE_TABLE:rg1:10.1.0.0/16");
    has(vnet, "DASH_VNET_MAPPING_TABLE:Vnet1:10.1.1.1");
    assert_eq!(vnet["flow"], "created");
    assert_eq!(
        vnet["fate"],
        "sent by port 0 by DASH_VNET_MAPPING_TABLE:Vnet1:10.1.1.1; a flow was made"
    );
    assert_eq!(
        (&hit["flow"], &hit["fate"]),
        (&"hit".into(), &"sent by port 0 by its flow".into())
    );

    // Steps 8, 9 and 11: a tunnel's endpoint, a private link, a port of the service behind one.
    let told = fates("transforms-side-by-side", &[8, 9, 11]);
    has(
        &told[0],
        "DASH_TUNNEL_TABLE:t1 endpoint 40.40.40.40, 1 of 1",
    );
    has(&told[1], "DASH_ROUTING_TYPE_TABLE:privatelink");
    has(
        &told[2],
        "DASH_OUTBOUND_PORT_MAP_RANGE_TABLE:map-1:8001-9000",
    );

    let told = fates("drops-policy", &[1, 2, 3]);
    assert_eq!(told[0]["drop"]["reason"], "route-group-miss");
    has(&told[1], "DASH_ROUTE_RULE_TABLE:eni-1:45654:101.1.2.0/24:1");
    assert_eq!(
        told[1]["fate"],
        "dropped in stage inbound: inbound-drop (DASH_ROUTE_RULE_TABLE:eni-1:45654:101.1.2.0/24:1)"
    );
    has(&told[2], "DASH_ROUTE_RULE_TABLE:eni-1:45654:0.0.0.0/0:2");

    // The fourth of each stage: a soft deny overridden, then no rule at all.
    let told = fates("acl-five-stages", &[1, 4]);
    has(&told[0], "DASH_ACL_RULE_TABLE:four1:1");
    assert_eq!(
        told[0]["drop"]["counters"],
        serde_json::json!([
            "SAI_ENI_STAT_POLICY_DROP_PACKETS",
            "SAI_ENI_STAT_TOTAL_DROP_PACKETS"
        ])
    );
    assert_eq!(
        told[1]["fate"],
        "dropped in stage acl_out: acl-deny (none of the 4 rules of DASH_ACL_GROUP_TABLE:four1 matches)"
    );

    for (name, fate) in [
        (
            "e05-route-miss",
            "dropped in stage route: route-miss (no route of DASH_ROUTE_GROUP_TABLE:rg1 covers it)",
        ),
        (
            "e11-no-inbound-rule",
            "inbound-miss (no DASH_ROUTE_RULE_TABLE:eni-1:777 covers 101.1.2.3)",
        ),
        (
            "e10-pa-spoof",
            "pa-validation (no mapping of DASH_VNET_TABLE:Vnet1 has the PA 200.0.0.200)",
        ),
        (
            "e06-mapping-miss",
            "mapping-miss (there is no DASH_VNET_MAPPING_TABLE:Vnet1:",
        ),
    ] {
        let told = fates(name, &[1]);
        let found = told[0]["fate"].as_str().expect("text");
        assert!(found.contains(fate), "{name}: {found}");
    }
}

#[test]
fn trace_for_people_has_each_object_below_its_line_and_the_fate_last() {
    let dir = tempfile::tempdir().expect("a folder");
    let input = dir.path().join("in.pcap");
    capture(&input, &[(1_000, from_vm(1))]);
    let config = scenario("e01-vnet-to-vnet").join("config.json");
    let trace = stdout(&dashctl(&[
        "trace",
        "--config",
        text(&config),
        "--in",
        text(&input),
    ]));
    let mut lines = trace.lines();
    assert!(lines.any(|line| line.contains("match mapping[")), "{trace}");
    assert_eq!(
        lines.next().map(str::trim),
        Some("= DASH_VNET_MAPPING_TABLE:Vnet1:10.1.1.1")
    );
    assert!(
        trace.trim_end().ends_with(
            "fate   sent by port 0 by DASH_VNET_MAPPING_TABLE:Vnet1:10.1.1.1; a flow was made"
        ),
        "{trace}"
    );
}
