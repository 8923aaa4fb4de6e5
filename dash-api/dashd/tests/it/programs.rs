//! Programs of users, by the service: load, attach, replace, detach, maps, events, metrics.

pub(crate) mod client;

use dash_proto::dashwire::v1 as wire;
use dash_proto::dashwire::v1::update_map_request::To;
use serde_json::Value;
use tonic::{Code, Status};
use wire::HookPoint;

use client::{Client, clang};

use crate::packets::{of_flow, to_vm};
use crate::support::{Daemon, demo, eventually};

const ENI: &str = "F4939FEFC47E";

/// Counts packets by place, tells a ring buffer what it was told, and says what `verdicts` says for the place;
/// and programs that let pass, leaving the order they ran in.
const PROGRAM: &str = r#"
#include "dash_bpf.h"
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 8); __type(key, __u32); __type(value, __u64); } seen SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 8); __type(key, __u32); __type(value, __u32); } verdicts SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } events SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_QUEUE); __uint(max_entries, 16); __uint(value_size, 4); } order SEC(".maps");
DASH_META;
static long (*const bpf_map_push_elem)(void *map, const void *value, __u64 flags) = (void *)87;
static __always_inline int run(struct xdp_md *ctx) {
    const struct dash_meta *meta = dash_packet_meta();
    if (!meta) return XDP_ABORTED;
    __u32 place = meta->place & 7;
    __u64 *count = bpf_map_lookup_elem(&seen, &place);
    if (count) (*count)++;
    struct dash_meta *told = bpf_ringbuf_reserve(&events, sizeof *told, 0);
    if (told) { *told = *meta; bpf_ringbuf_submit(told, 0); }
    __u32 *verdict = bpf_map_lookup_elem(&verdicts, &place);
    return verdict && *verdict ? *verdict : XDP_PASS;
}
static __always_inline int mark(__u32 number) { bpf_map_push_elem(&order, &number, 0); return XDP_PASS; }
SEC("xdp") int tells(struct xdp_md *ctx) { return run(ctx); }
SEC("xdp") int one(struct xdp_md *ctx) { return mark(1); }
SEC("xdp") int two(struct xdp_md *ctx) { return mark(2); }
SEC("xdp") int drops(struct xdp_md *ctx) { mark(9); return XDP_DROP; }
char _license[] SEC("license") = "GPL";
"#;

const UNSAFE: &str = r#"
#include "dash_bpf.h"
SEC("xdp") int fine(struct xdp_md *ctx) { return XDP_PASS; }
SEC("xdp") int reads_too_far(struct xdp_md *ctx) { return *(char *)(long)ctx->data; }
char _license[] SEC("license") = "GPL";
"#;

/// Calls what only the pipeline may.
const ASKS_HOOKS: &str = r#"
#include "dash_bpf.h"
static int (*const dash_hook)(struct xdp_md *, long) = (void *)250;
SEC("xdp") int asks(struct xdp_md *ctx) { return dash_hook(ctx, 0); }
char _license[] SEC("license") = "GPL";
"#;

async fn metrics(daemon: &Daemon) -> String {
    let address = daemon.server.metrics().unwrap();
    tokio::task::spawn_blocking(move || crate::services::http_get(address, "/metrics"))
        .await
        .unwrap()
}

async fn discards(daemon: &Daemon, name: &str) -> u64 {
    daemon.counters().await["port"][name].as_u64().unwrap()
}

/// A daemon that forwards, with the test's programs loaded.
async fn with_programs(engine: &str) -> Option<(Daemon, Client)> {
    let elf = clang(PROGRAM)?;
    let daemon = Daemon::start(&["--engine", engine, "--metrics", "127.0.0.1:0"]).await;
    daemon.configure(&demo()).await;
    let mut client = Client::of(&daemon);
    let object = client.load("test", &elf).await.unwrap();
    assert_eq!(object.engine, engine);
    let names: Vec<_> = object.programs.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["tells", "one", "two", "drops"]);
    Some((daemon, client))
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_run_at_their_points_and_are_told_of_packets() {
    for engine in ["native", "interp"] {
        let Some((daemon, mut client)) = with_programs(engine).await else {
            return;
        };
        let before = daemon.inject(vec![(0, of_flow(1000))]).await;
        assert_eq!(before.len(), 1, "it is forwarded");
        let program = "test/tells";
        for (point, eni) in [
            (HookPoint::Ingress, ""),
            (HookPoint::EniOutbound, ENI),
            (HookPoint::EniInbound, ENI),
            (HookPoint::Egress, ""),
        ] {
            client.attach(program, point, eni, 0).await.unwrap();
        }
        assert!(client.links().await.iter().all(|link| link.attached));
        let out = daemon.inject(vec![(0, of_flow(1000))]).await;
        assert_eq!(out.len(), 1, "they let pass");
        for (place, expected) in [(1, 1), (2, 1), (3, 0), (4, 1)] {
            assert_eq!(client.seen(place).await, expected, "{engine}, {place}");
        }
        daemon.inject(vec![(0, to_vm())]).await;
        for (place, expected) in [(1, 2), (2, 1), (3, 1)] {
            assert_eq!(client.seen(place).await, expected, "{engine}, {place}");
        }

        // What they were told, by the ring buffer.
        let request = wire::EventsRequest {
            map: "test/events".to_owned(),
        };
        let mut events = client.0.events(request).await.unwrap().into_inner();
        let mut records = Vec::new();
        while records.len() < 5 {
            records.extend(events.message().await.unwrap().unwrap().records);
        }
        let places: Vec<u8> = records.iter().map(|record| record[16]).collect();
        assert_eq!(places[..5], [1, 2, 4, 1, 3], "{engine}");
        assert_eq!(records[0][..4], [0xff; 4], "no ENI yet");
        assert_eq!(records[1][..16], records[2][..16], "the same ENI");
        assert_eq!(records[1][4..8], 4321u32.to_ne_bytes(), "the VNI");
        assert_eq!(records[1][8..14], [0xf4, 0x93, 0x9f, 0xef, 0xc4, 0x7e]);
        assert_eq!(records[2][18], 1, "a flow that was there");

        // Maps decide while it runs: each place drops, and what is dropped is counted where it says.
        for (place, counter) in [
            (1, "SAI_PORT_STAT_IF_IN_DISCARDS"),
            (4, "SAI_PORT_STAT_IF_OUT_DISCARDS"),
        ] {
            let discarded = discards(&daemon, counter).await;
            client.verdict(place, 1).await;
            assert!(daemon.inject(vec![(0, of_flow(1000))]).await.is_empty());
            assert_eq!(discards(&daemon, counter).await, discarded + 1);
            client.verdict(place, 0).await;
        }
        let eni_drops = async |name: &str| {
            let counters = daemon.counters().await;
            counters["eni"][ENI][name].as_u64().unwrap()
        };
        let name = "SAI_ENI_STAT_OTHER_DROP_PACKETS";
        let dropped = eni_drops(name).await;
        client.verdict(2, 1).await;
        assert!(daemon.inject(vec![(0, of_flow(1000))]).await.is_empty());
        assert_eq!(eni_drops(name).await, dropped + 1);
        let links = client.links().await;
        let drops: Vec<u64> = links.iter().map(|link| link.dropped).collect();
        assert_eq!(drops, [1, 1, 0, 1], "links count apart");
        // Sent back as the VM's frame, without its encap.
        client.verdict(2, 3).await;
        let back = daemon.inject(vec![(0, of_flow(1000))]).await;
        assert_eq!(back.len(), 1);
        assert!(of_flow(1000).ends_with(&back[0].1) && back[0].1.len() + 50 == of_flow(1000).len());
        client.verdict(2, 0).await;
        assert_eq!(daemon.inject(vec![(0, of_flow(1000))]).await.len(), 1);

        let text = metrics(&daemon).await;
        for line in [
            "dashwire_link_packets_total{link=\"2\",program=\"test/tells\",verdict=\"drop\"} 1\n",
            "dashwire_link_packets_total{link=\"2\",program=\"test/tells\",verdict=\"tx\"} 1\n",
            "dashwire_program_map{map=\"test/seen\",key=\"03000000\",word=\"0\"} 1\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }

        // Gone, and the reader is told.
        for link in client.links().await {
            client.detach(link.id).await.unwrap();
        }
        assert_eq!(daemon.inject(vec![(0, of_flow(1000))]).await.len(), 1);
        let unload = wire::UnloadProgramRequest {
            name: "test".to_owned(),
        };
        client.0.unload(unload).await.unwrap();
        while events.message().await.unwrap().is_some() {}
        assert!(!metrics(&daemon).await.contains("dashwire_link_packets"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chains_go_by_sequence_number_and_are_replaced_in_place() {
    let Some((daemon, mut client)) = with_programs("native").await else {
        return;
    };
    let (ingress, eni) = (HookPoint::Ingress, HookPoint::EniOutbound);
    let second = client.attach("test/two", ingress, "", 20).await.unwrap();
    client.attach("test/one", ingress, "", 10).await.unwrap();
    client.attach("test/one", ingress, "", 20).await.unwrap();
    client.attach("test/two", eni, ENI, 5).await.unwrap();
    client.attach("test/one", eni, ENI, 4).await.unwrap();
    let go = async || daemon.inject(vec![(0, of_flow(1000))]).await.len();
    assert_eq!(go().await, 1);
    assert_eq!(client.order().await, [1, 2, 1, 1, 2], "equal ones as made");

    // In its place; its counts begin anew, and the chain ends there.
    assert_eq!(client.replace(second, "test/drops").await.unwrap(), second);
    assert_eq!(go().await, 0);
    assert_eq!(client.order().await, [1, 9]);
    let link = client.link(second).await;
    assert_eq!((link.program.as_str(), link.sequence), ("test/drops", 20));
    assert_eq!((link.passed, link.dropped), (0, 1));

    client.detach(second).await.unwrap();
    assert_eq!(go().await, 1);
    assert_eq!(client.order().await, [1, 1, 1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_packet_is_lost_while_programs_are_attached_replaced_and_detached() {
    let Some((daemon, mut client)) = with_programs("native").await else {
        return;
    };
    let frames: Vec<_> = (0..4000).map(|sport| (0, of_flow(sport))).collect();
    let changes = async {
        for n in 0..10 {
            let link = client.attach("test/one", HookPoint::Ingress, "", n).await;
            let (link, point) = (link.unwrap(), HookPoint::EniOutbound);
            let eni = client.attach("test/two", point, ENI, n).await.unwrap();
            client.replace(link, "test/two").await.unwrap();
            client.detach(eni).await.unwrap();
            client.detach(link).await.unwrap();
        }
    };
    let (out, ()) = tokio::join!(daemon.inject(frames), changes);
    assert_eq!(out.len(), 4000);
    assert!(client.links().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn links_wait_for_their_eni_and_leave_with_it() {
    let Some((daemon, mut client)) = with_programs("native").await else {
        return;
    };
    let point = HookPoint::EniOutbound;
    let waiting = client.attach("test/one", point, "no-such", 0).await;
    let waiting = waiting.unwrap();
    let link = client.attach("test/tells", point, ENI, 0).await.unwrap();
    assert!(!client.link(waiting).await.attached);
    assert!(client.link(link).await.attached);

    // The ENI's own rows, and those that name it.
    let rows: Vec<Value> = demo().as_array().unwrap().to_vec();
    let of_eni = |row: &Value| row.as_object().unwrap().keys().any(|key| key.contains(ENI));
    let rows: Vec<Value> = rows.into_iter().filter(of_eni).collect();
    assert_eq!(rows.len(), 4);
    let mut request = crate::support::request_of(&Value::Array(rows.clone()));
    let updates = std::mem::take(&mut request.update);
    // Children first.
    request.delete = updates.into_iter().rev().map(|u| u.path.unwrap()).collect();
    daemon.set(request.clone()).await.unwrap();
    assert!(!client.link(link).await.attached);
    assert!(daemon.inject(vec![(0, of_flow(1000))]).await.is_empty());
    assert_eq!(client.seen(2).await, 0);

    // It is back, and so is the program.
    daemon.configure(&Value::Array(rows)).await;
    assert!(client.link(link).await.attached);
    assert_eq!(daemon.inject(vec![(0, of_flow(1000))]).await.len(), 1);
    assert_eq!(client.seen(2).await, 1);

    // A refused transaction changes nothing.
    let mut broken = request;
    broken.update = vec![crate::support::json(
        "/DPU_APPL_DB/dpu0/DASH_VNET_TABLE[key=Vnet9]",
        &Value::from("no row"),
    )];
    daemon.set(broken).await.unwrap_err();
    assert!(client.link(link).await.attached);
    assert_eq!(daemon.inject(vec![(0, of_flow(1000))]).await.len(), 1);
    assert_eq!(client.seen(2).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_and_changes_nothing() {
    let Some((daemon, mut client)) = with_programs("native").await else {
        return;
    };
    let good = clang(PROGRAM).unwrap();
    let kept = client.attach("test/tells", HookPoint::Ingress, "", 0).await;
    let kept = kept.unwrap();
    let says = |done: Result<u32, Status>, code: Code, words: &str| {
        let refused = done.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
        assert!(refused.message().contains(words), "{words:?}: {refused}");
    };
    let nothing = |done: Result<wire::ProgramObject, Status>| done.map(|_| 0);

    // Programs, in the verifier's words, with the program's name, the instruction and the line.
    let unsafe_elf = clang(UNSAFE).unwrap();
    let refused = client.load("bad", &unsafe_elf).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    for words in ["bad is refused", "(reads_too_far), instruction", "p.c:4"] {
        assert!(refused.message().contains(words), "{words:?}: {refused}");
    }
    let asks = client.load("asks", &clang(ASKS_HOOKS).unwrap()).await;
    says(
        nothing(asks),
        Code::InvalidArgument,
        "helper 250 (dash_hook)",
    );
    let invalid = Code::InvalidArgument;
    says(nothing(client.load("x", b"no ELF").await), invalid, "ELF");
    says(
        nothing(client.load("x", b"").await),
        invalid,
        "x is refused",
    );
    says(
        nothing(client.load("a b", &good).await),
        invalid,
        "not a name",
    );
    says(nothing(client.load("", &good).await), invalid, "not a name");
    says(
        nothing(client.load("test", &good).await),
        Code::AlreadyExists,
        "test",
    );
    for (field, words) in [("engine", "no engine"), ("verifier", "verifier")] {
        let mut request = wire::LoadProgramRequest {
            name: "x".to_owned(),
            elf: vec![good.clone()],
            ..wire::LoadProgramRequest::default()
        };
        match field {
            "engine" => request.engine = "quick".to_owned(),
            _ => request.verifier = "nobody".to_owned(),
        }
        let done = client.0.load(request).await;
        says(done.map(|_| 0), invalid, words);
    }
    for (map, code, words) in [
        ("nothing", Code::NotFound, "has no map nothing"),
        ("events", invalid, "events is a ringbuf"),
    ] {
        let request = wire::LoadProgramRequest {
            name: "x".to_owned(),
            elf: vec![good.clone()],
            metrics: vec![map.to_owned()],
            ..wire::LoadProgramRequest::default()
        };
        says(client.0.load(request).await.map(|_| 0), code, words);
    }

    // Attaching.
    let (ingress, outbound) = (HookPoint::Ingress, HookPoint::EniOutbound);
    for (program, point, eni, code, words) in [
        ("bad/fine", ingress, "", Code::NotFound, "no object bad"),
        (
            "test/third",
            ingress,
            "",
            Code::NotFound,
            "it has tells, one, two, drops",
        ),
        ("test", ingress, "", invalid, "has 4 programs"),
        ("test/one", HookPoint::Unspecified, "", invalid, "point"),
        ("test/one", outbound, "", invalid, "eni"),
        ("test/one", ingress, ENI, invalid, "eni"),
    ] {
        says(client.attach(program, point, eni, 0).await, code, words);
    }
    says(
        client.replace(99, "test/one").await,
        Code::NotFound,
        "no link 99",
    );
    let both = wire::AttachRequest {
        program: "test/one".to_owned(),
        point: ingress.into(),
        replace: kept,
        ..wire::AttachRequest::default()
    };
    let port = wire::AttachRequest {
        port: 1,
        replace: 0,
        ..both.clone()
    };
    let point = wire::AttachRequest {
        point: 77,
        replace: 0,
        ..both.clone()
    };
    let done = client.0.attach(both).await.map(|_| 0);
    says(done, invalid, "point and sequence stay");
    says(
        client.0.attach(port).await.map(|_| 0),
        invalid,
        "ports are 0 to 0",
    );
    says(
        client.0.attach(point).await.map(|_| 0),
        invalid,
        "no point 77",
    );
    says(
        client.detach(99).await.map(|()| 0),
        Code::NotFound,
        "no link 99",
    );
    let unload = |name: &str| wire::UnloadProgramRequest {
        name: name.to_owned(),
    };
    let done = client.0.unload(unload("test")).await.map(|_| 0);
    says(done, Code::FailedPrecondition, "by links 1");
    let done = client.0.unload(unload("bad")).await.map(|_| 0);
    says(done, Code::NotFound, "no object bad");
    for milliseconds in [0, 60_001] {
        let request = wire::ProfileRequest {
            link: kept,
            milliseconds,
        };
        says(
            client.0.profile(request).await.map(|_| 0),
            invalid,
            "milliseconds",
        );
    }

    // Maps.
    let value = |bytes: &[u8]| To::Value(bytes.to_vec());
    for (map, key, to, code, words) in [
        ("test/seen", &[0; 3][..], value(&[0; 8]), invalid, "EINVAL"),
        ("test/seen", &[0; 4], value(&[0; 7]), invalid, "EINVAL"),
        ("test/seen", &[9, 0, 0, 0], value(&[0; 8]), invalid, "E2BIG"),
        ("test/events", &[], value(&[0; 8]), invalid, "test/events"),
        (
            "test/none",
            &[0; 4],
            value(&[0; 8]),
            Code::NotFound,
            "no map none",
        ),
        (
            "none/none",
            &[0; 4],
            value(&[0; 8]),
            Code::NotFound,
            "no object none",
        ),
        (
            "none",
            &[0; 4],
            value(&[0; 8]),
            Code::NotFound,
            "pinned as none",
        ),
        (
            "test/seen",
            &[0; 4],
            To::Program("one".to_owned()),
            invalid,
            "program array",
        ),
        (
            "test/seen",
            &[0; 4],
            To::Inner("test/seen".to_owned()),
            invalid,
            "EINVAL",
        ),
    ] {
        let done = client.write(map, key, to).await.map(|()| 0);
        says(
            done,
            code,
            if map == "test/events" {
                "events"
            } else {
                words
            },
        );
    }
    let done = client.read("test/seen", &[0; 5], false).await.map(|_| 0);
    says(done, invalid, "EINVAL");
    let done = client.read("test/seen", &[], true).await.map(|_| 0);
    says(done, invalid, "seen");
    let done = client.dump("test/events").await.map(|_| 0);
    says(done, invalid, "ring buffer");
    let events = wire::EventsRequest {
        map: "test/seen".to_owned(),
    };
    let done = client.0.events(events).await.map(|_| 0);
    says(done, invalid, "not a ring buffer");

    // And packets went on through what was there.
    assert_eq!(client.links().await.len(), 1);
    assert_eq!(daemon.inject(vec![(0, of_flow(1000))]).await.len(), 1);
    assert_eq!(client.seen(1).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn maps_are_made_pinned_written_dumped_and_outlive_objects() {
    let Some((daemon, mut client)) = with_programs("native").await else {
        return;
    };
    let pin = |map: &str, name: &str| wire::PinMapRequest {
        map: map.to_owned(),
        name: name.to_owned(),
    };
    client.0.pin_map(pin("test/seen", "kept")).await.unwrap();
    let taken = client.0.pin_map(pin("test/verdicts", "kept")).await;
    assert_eq!(taken.unwrap_err().code(), Code::AlreadyExists);
    let link = client.attach("test/tells", HookPoint::Ingress, "", 0).await;
    let link = link.unwrap();
    daemon.inject(vec![(0, of_flow(1))]).await;
    client.detach(link).await.unwrap();
    let unload = wire::UnloadProgramRequest {
        name: "test".to_owned(),
    };
    client.0.unload(unload).await.unwrap();
    let key = 1u32.to_ne_bytes();
    let kept = client.read("kept", &key, false).await.unwrap().unwrap();
    assert_eq!(kept[..8], 1u64.to_ne_bytes());
    assert_eq!(client.dump("kept").await.unwrap().len(), 8);
    // One value for all workers, as control sets it.
    let to = To::Value(5u64.to_ne_bytes().to_vec());
    client.write("kept", &key, to).await.unwrap();
    let kept = client.read("kept", &key, false).await.unwrap().unwrap();
    assert_eq!(kept[..8], 5u64.to_ne_bytes());

    let create = |name: &str, kind: &str| wire::CreateMapRequest {
        name: name.to_owned(),
        kind: kind.to_owned(),
        key_size: 4,
        value_size: 8,
        max_entries: 2_000,
        flags: 0,
    };
    client.0.create_map(create("mine", "hash")).await.unwrap();
    for (name, kind, code) in [
        ("mine", "hash", Code::AlreadyExists),
        ("a/b", "hash", Code::InvalidArgument),
        ("other", "cabinet", Code::InvalidArgument),
        ("other", "stack", Code::InvalidArgument),
    ] {
        let refused = client.0.create_map(create(name, kind)).await.unwrap_err();
        assert_eq!(refused.code(), code, "{name}: {refused}");
    }
    // More than one message of a dump.
    for n in 0..1_000u32 {
        let to = To::Value(u64::from(n).to_ne_bytes().to_vec());
        client.write("mine", &n.to_ne_bytes(), to).await.unwrap();
    }
    let mut all = client.dump("mine").await.unwrap();
    all.sort_by_key(|e| u32::from_ne_bytes(e.key[..].try_into().unwrap()));
    assert_eq!(all.len(), 1_000);
    for (n, element) in (0u64..).zip(&all) {
        assert_eq!(element.value, n.to_ne_bytes());
    }
    let delete = |n: u32| wire::DeleteMapRequest {
        map: "mine".to_owned(),
        key: n.to_ne_bytes().to_vec(),
    };
    client.0.delete_map(delete(3)).await.unwrap();
    let gone = client.0.delete_map(delete(3)).await.unwrap_err();
    assert!(gone.message().contains("ENOENT"), "{gone}");
    let key = 3u32.to_ne_bytes();
    assert_eq!(client.read("mine", &key, false).await.unwrap(), None);
    let list = client.0.list_programs(wire::ListProgramsRequest {}).await;
    let pinned = list.unwrap().into_inner().pinned;
    let names: Vec<_> = pinned.iter().map(|map| map.name.as_str()).collect();
    assert_eq!(names, ["kept", "mine"]);
    assert_eq!((pinned[1].kind.as_str(), pinned[1].entries), ("hash", 999));
    let unpin = |name: &str| wire::UnpinMapRequest {
        name: name.to_owned(),
    };
    client.0.unpin_map(unpin("mine")).await.unwrap();
    let gone = client.0.unpin_map(unpin("mine")).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
}

/// A map that outlives its object, as the object asks.
const PINS: &str = r#"
#include "dash_bpf.h"
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64); __uint(pinning, 1); } shared SEC(".maps");
SEC("xdp") int counts(struct xdp_md *ctx) {
    __u32 zero = 0;
    __u64 *count = bpf_map_lookup_elem(&shared, &zero);
    if (count) __sync_fetch_and_add(count, 1);
    return XDP_PASS;
}
char _license[] SEC("license") = "GPL";
"#;

#[tokio::test(flavor = "multi_thread")]
async fn objects_share_what_they_pin_by_name_and_pin_nothing_when_they_are_refused() {
    let Some(elf) = clang(PINS) else { return };
    let daemon = Daemon::start(&["--engine", "interp"]).await;
    daemon.configure(&demo()).await;
    let mut client = Client::of(&daemon);
    let request = |name: &str, metrics: &str| wire::LoadProgramRequest {
        name: name.to_owned(),
        elf: vec![elf.clone()],
        metrics: vec![metrics.to_owned()],
        ..wire::LoadProgramRequest::default()
    };
    let refused = client.0.load(request("a", "nothing")).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let gone = client.read("shared", &[0; 4], false).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound, "{gone}");

    for name in ["a", "b"] {
        client.0.load(request(name, "shared")).await.unwrap();
        client
            .attach(name, HookPoint::Ingress, "", 0)
            .await
            .unwrap();
    }
    daemon.inject(vec![(0, of_flow(1))]).await;
    for map in ["shared", "a/shared", "b/shared"] {
        let value = client.read(map, &[0; 4], false).await.unwrap();
        assert_eq!(value, Some(2u64.to_ne_bytes().to_vec()), "{map}");
    }
    // Another map of that name is none of its.
    let other = PINS.replace("max_entries, 1)", "max_entries, 2)");
    let refused = client.load("c", &clang(&other).unwrap()).await.unwrap_err();
    assert!(refused.message().contains("pinned as shared"), "{refused}");
    let large = wire::CreateMapRequest {
        name: "large".to_owned(),
        kind: "hash".to_owned(),
        key_size: 8,
        value_size: 1 << 16,
        max_entries: 1 << 24,
        flags: 0,
    };
    let refused = client.0.create_map(large).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_timed_while_a_profile_is_taken() {
    let Some((daemon, mut client)) = with_programs("native").await else {
        return;
    };
    let link = client.attach("test/tells", HookPoint::Ingress, "", 0).await;
    let link = link.unwrap();
    let request = wire::ProfileRequest {
        link,
        milliseconds: 600,
    };
    let mut asks = client.0.clone();
    let profile = tokio::spawn(async move { asks.profile(request).await });
    // Packets until it ends: some of them come while it is taken.
    eventually("the profile ends", async || {
        daemon.inject(vec![(0, of_flow(1))]).await;
        profile.is_finished()
    })
    .await;
    let profile = profile.await.unwrap().unwrap().into_inner();
    assert!(profile.runs > 0);
    assert!(profile.nanoseconds >= profile.runs, "{profile:?}");
    assert!(profile.instructions > 10);
    let link = client.link(link).await;
    assert!(link.passed >= profile.runs);
}
