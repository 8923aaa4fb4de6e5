//! C programs, built by clang here, on every engine.

mod callbacks;
mod helpers;

use std::path::Path;
use std::process::Command;

use dash_bpf::helper::XdpAction;
use dash_prog::helpers::Services;
use dash_prog::{Engine, LoadOptions, Loaded, Target};

use crate::support::run;

/// What every program begins with: no headers are needed.
const HEAD: &str = r#"
typedef unsigned char u8; typedef unsigned short u16; typedef unsigned int u32; typedef unsigned long long u64;
#define SEC(n) __attribute__((section(n), used))
#define __uint(name, val) int (*name)[val]
#define __type(name, val) typeof(val) *name
#define __array(name, val) typeof(val) *name[]
struct xdp_md { u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex; };
enum { XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT };
static void *(*lookup)(void *, const void *) = (void *)1;
static long (*update)(void *, const void *, const void *, u64) = (void *)2;
static long (*tail_call)(void *, void *, u32) = (void *)12;
static long (*redirect_map)(void *, u64, u64) = (void *)51;
static long (*adjust_head)(struct xdp_md *, int) = (void *)44;
char _license[] SEC("license") = "Dual BSD/GPL";
"#;

/// Builds a program; `None` (and a word of it) where there is no clang.
fn build(dir: &Path, text: &str) -> Option<Vec<u8>> {
    let (from, to) = (dir.join("p.c"), dir.join("p.o"));
    std::fs::write(&from, format!("{HEAD}{text}")).expect("written");
    let clang = Command::new("clang")
        .args([
            "-O2",
            "-g",
            "-target",
            "bpf",
            "-Wall",
            "-Wno-unused-variable",
            "-c",
        ])
        .arg(&from)
        .arg("-o")
        .arg(&to)
        .output();
    let Ok(clang) = clang else {
        eprintln!("SKIP: no clang");
        return None;
    };
    let said = String::from_utf8_lossy(&clang.stderr);
    assert!(clang.status.success(), "{said}");
    Some(std::fs::read(&to).expect("an object"))
}

/// The program on all engines; what they say must be one.
fn everywhere(text: &str, each: impl FnMut(&Loaded, Engine)) {
    everywhere_with(text, &Services::default(), each);
}

/// The same with somebody to print to and ask.
fn everywhere_with(text: &str, services: &Services, mut each: impl FnMut(&Loaded, Engine)) {
    let dir = tempfile::tempdir().expect("folder");
    let Some(bytes) = build(dir.path(), text) else {
        return;
    };
    for engine in Engine::ALL {
        let options = LoadOptions {
            engine,
            cpus: 2,
            services: services.clone(),
            ..LoadOptions::default()
        };
        let loaded = Loaded::from_elf(&[&bytes], &options);
        each(&loaded.unwrap_or_else(|e| panic!("{engine}: {e}")), engine);
    }
}

/// Ethernet and IPv4 with this protocol.
fn ipv4(protocol: u8) -> Vec<u8> {
    let mut frame = vec![0; 64];
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14] = 0x45;
    frame[23] = protocol;
    frame
}

#[test]
fn packets_are_counted_by_protocol() {
    let text = r#"
struct count { u64 packets, bytes; };
struct { __uint(type, 6); __uint(max_entries, 256); __type(key, u32); __type(value, struct count); } counts SEC(".maps");
struct { __uint(type, 1); __uint(max_entries, 4); __type(key, u8[6]); __type(value, u64); } sources SEC(".maps");
volatile const u32 refused = 17;
u64 seen;

SEC("xdp") int count(struct xdp_md *ctx) {
    u8 *data = (u8 *)(long)ctx->data, *end = (u8 *)(long)ctx->data_end;
    if (data + 34 > end || data[12] != 8 || data[13] != 0) return XDP_PASS;
    __sync_fetch_and_add(&seen, 1);
    u32 protocol = data[23];
    struct count *c = lookup(&counts, &protocol);
    if (c) { c->packets++; c->bytes += end - data; }
    u8 mac[6]; __builtin_memcpy(mac, data + 6, 6);
    u64 one = 1, *n = lookup(&sources, mac);
    if (n) __sync_fetch_and_add(n, 1); else update(&sources, mac, &one, 1);
    return protocol == refused ? XDP_DROP : XDP_PASS;
}
"#;
    everywhere(text, |loaded, engine| {
        for _ in 0..3 {
            assert_eq!(run(loaded, &ipv4(6)).0.action, XdpAction::Pass, "{engine}");
        }
        assert_eq!(run(loaded, &ipv4(17)).0.action, XdpAction::Drop, "{engine}");
        assert_eq!(run(loaded, &[0; 20]).0.action, XdpAction::Pass, "{engine}");
        let maps = loaded.maps();
        let count = maps.get("counts").expect("map");
        let tcp = count
            .lookup(&6u32.to_ne_bytes())
            .expect("a key")
            .expect("there");
        assert_eq!(
            tcp[..16],
            [3u64.to_ne_bytes(), 192u64.to_ne_bytes()].concat(),
            "{engine}"
        );
        assert_eq!(tcp[16..], [0; 16], "{engine}: no other worker ran");
        let sources = maps.get("sources").expect("map").dump();
        assert_eq!(sources.len(), 1, "{engine}");
        assert_eq!(sources[0].value, 4u64.to_ne_bytes(), "{engine}");
        let data = maps
            .iter()
            .find(|map| map.def().name.ends_with("bss"))
            .expect(".bss");
        let seen = data.lookup(&[0; 4]).expect("a key").expect("there");
        assert_eq!(seen[..8], 4u64.to_ne_bytes(), "{engine}");
        let constants = maps.iter().find(|map| map.def().name.ends_with("rodata"));
        let value = constants.expect(".rodata").lookup(&[0; 4]).expect("a key");
        let refused = constants
            .expect(".rodata")
            .update(&[0; 4], &value.expect("there"), 0);
        assert!(refused.is_err(), "{engine}: constants are frozen");
    });
}

#[test]
fn programs_call_each_other_and_redirect_by_map() {
    let text = r#"
struct { __uint(type, 14); __uint(max_entries, 8); __type(key, u32); __type(value, u32); } ports SEC(".maps");
SEC("xdp") int forward(struct xdp_md *ctx) { return redirect_map(&ports, ctx->ingress_ifindex, XDP_DROP); }
SEC("xdp") int shorten(struct xdp_md *ctx) {
    if (adjust_head(ctx, 14)) return XDP_ABORTED;
    return forward(ctx);
}
struct { __uint(type, 3); __uint(max_entries, 4); __type(key, u32); __type(value, u32); } next SEC(".maps");
SEC("xdp") int start(struct xdp_md *ctx) { tail_call(ctx, &next, ctx->rx_queue_index); return XDP_PASS; }
"#;
    everywhere(text, |loaded, engine| {
        let start = loaded.program("start").expect("a program");
        let maps = loaded.maps();
        let ask = |loaded: &Loaded| {
            let mut runner = loaded
                .program("start")
                .and_then(|p| p.runner(1))
                .expect("a runner");
            let mut memory = [0; 256];
            let mut packet = dash_prog::Packet::new(&mut memory, 64..128).expect("inside");
            let ingress = dash_prog::Ingress {
                ifindex: 3,
                queue: 2,
                ..Default::default()
            };
            let outcome = runner.run(&mut packet, &ingress);
            (outcome.action, outcome.target, packet.bounds())
        };
        assert_eq!(start.engine(), engine);
        assert_eq!(
            ask(loaded),
            (XdpAction::Pass, None, 64..128),
            "{engine}: nothing is next"
        );
        let shorten = loaded.program("shorten").expect("a program").number();
        let next = maps.get("next").expect("map");
        next.update(&2u32.to_ne_bytes(), &shorten.to_ne_bytes(), 0)
            .expect("a slot");
        assert_eq!(
            ask(loaded),
            (XdpAction::Drop, None, 78..128),
            "{engine}: no port"
        );
        let ports = maps.get("ports").expect("map");
        ports
            .update(&3u32.to_ne_bytes(), &9u32.to_ne_bytes(), 0)
            .expect("a slot");
        let port = Some(Target::Port(9));
        assert_eq!(
            ask(loaded),
            (XdpAction::Redirect, port, 78..128),
            "{engine}"
        );
    });
}
