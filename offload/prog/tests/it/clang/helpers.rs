//! Helpers as C programs use them: ring buffers, printing, routes, strings, maps in maps, device maps.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};

use dash_bpf::helper::XdpAction;
use dash_prog::helpers::Services;
use dash_prog::helpers::fib::{Answer, Fib, Query};
use dash_prog::{Engine, LoadError, LoadOptions, Loaded, Map, Target};

use super::{build, everywhere, everywhere_with, ipv4, run};

#[test]
fn records_of_ring_buffers_come_out_in_order() {
    let text = r#"
static void *(*reserve)(void *, u64, u64) = (void *)131;
static void (*submit)(void *, u64) = (void *)132;
static void (*discard)(void *, u64) = (void *)133;
static long (*output)(void *, void *, u64, u64) = (void *)130;
static u64 (*query)(void *, u64) = (void *)134;
struct { __uint(type, 27); __uint(max_entries, 4096); } events SEC(".maps");
struct event { u32 port, len; u8 protocol, pad[7]; };

SEC("xdp") int report(struct xdp_md *ctx) {
    u8 *data = (u8 *)(long)ctx->data, *end = (u8 *)(long)ctx->data_end;
    if (data + 34 > end) return XDP_PASS;
    struct event *e = reserve(&events, sizeof *e, 0);
    if (!e) return XDP_DROP;
    e->port = ctx->ingress_ifindex; e->len = end - data; e->protocol = data[23];
    for (int i = 0; i < 7; i++) e->pad[i] = 0;
    if (data[23] == 1) { discard(e, 0); return XDP_PASS; }
    submit(e, 0);
    u32 note = 0x11223344;
    output(&events, &note, sizeof note, 0);
    return query(&events, 1) == 4096 ? XDP_PASS : XDP_ABORTED;
}
"#;
    everywhere(text, |loaded, engine| {
        for protocol in [6, 1, 17] {
            let (outcome, _) = run(loaded, &ipv4(protocol));
            assert_eq!(outcome.action, XdpAction::Pass, "{engine}");
        }
        let events = loaded.maps().get("events").expect("map");
        let mut records = Vec::new();
        while let Some(record) = events.pop().expect("a ring buffer") {
            records.push(record);
        }
        let event = |protocol: u8| {
            let words = [3u32.to_ne_bytes(), 64u32.to_ne_bytes()].concat();
            [words, vec![protocol, 0, 0, 0, 0, 0, 0, 0]].concat()
        };
        let note = 0x1122_3344u32.to_ne_bytes().to_vec();
        let expected = [event(6), note.clone(), event(17), note];
        assert_eq!(records, expected, "{engine}");
    });
}

#[test]
fn what_programs_print_is_heard() {
    let text = r#"
static long (*printk)(const char *, u32, ...) = (void *)6;
SEC("xdp") int say(struct xdp_md *ctx) {
    static const char hello[] = "port %d of %u: %llx\n";
    long said = printk(hello, sizeof hello, ctx->ingress_ifindex, 5, 0x123456789abcULL);
    static const char bad[] = "%s";
    return said > 0 && printk(bad, sizeof bad, 1) == -22 ? XDP_PASS : XDP_DROP;
}
"#;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let to = Arc::clone(&heard);
    let services = Services {
        print: Some(Arc::new(move |line: &str| {
            to.lock().expect("one thread").push(line.to_owned());
        })),
        fib: None,
    };
    everywhere_with(text, &services, |loaded, engine| {
        assert_eq!(run(loaded, &ipv4(6)).0.action, XdpAction::Pass, "{engine}");
        let heard = std::mem::take(&mut *heard.lock().expect("one thread"));
        assert_eq!(heard, ["port 3 of 5: 123456789abc\n"], "{engine}");
    });
}

/// One route.
struct Routes;

impl Fib for Routes {
    fn lookup(&self, query: &Query) -> Answer {
        if query.destination != IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)) {
            return Answer::NotForwarded;
        }
        Answer::Forward {
            ifindex: query.ifindex + 4,
            next_hop: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
            source: [2, 0, 0, 0, 0, 1],
            destination: Some([2, 0, 0, 0, 0, 2]),
            mtu: 1500,
        }
    }
}

#[test]
fn programs_ask_where_packets_go() {
    let text = r#"
struct fib { u8 family, l4; u16 sport, dport, len; u32 ifindex, tos; u32 src[4], dst[4]; u16 vlan, tci; u8 smac[6], dmac[6]; };
static long (*fib)(struct xdp_md *, struct fib *, int, u32) = (void *)69;
static long (*redirect)(u32, u64) = (void *)23;
SEC("xdp") int route(struct xdp_md *ctx) {
    u8 *data = (u8 *)(long)ctx->data, *end = (u8 *)(long)ctx->data_end;
    if (data + 34 > end) return XDP_DROP;
    struct fib f = { .family = 2, .ifindex = ctx->ingress_ifindex, .len = 50 };
    __builtin_memcpy(f.src, data + 26, 4);
    __builtin_memcpy(f.dst, data + 30, 4);
    if (fib(ctx, &f, sizeof f, 0)) return XDP_PASS;
    __builtin_memcpy(data, f.dmac, 6);
    __builtin_memcpy(data + 6, f.smac, 6);
    return redirect(f.ifindex, 0);
}
"#;
    let services = Services {
        print: None,
        fib: Some(Arc::new(Routes)),
    };
    everywhere_with(text, &services, |loaded, engine| {
        assert_eq!(run(loaded, &ipv4(6)).0.action, XdpAction::Pass, "{engine}");
        let mut frame = ipv4(6);
        frame[30..34].copy_from_slice(&[10, 0, 0, 9]);
        let (outcome, frame) = run(loaded, &frame);
        assert_eq!(outcome.target, Some(Target::Port(7)), "{engine}");
        assert_eq!(
            frame[..12],
            [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1],
            "{engine}"
        );
    });
}

#[test]
fn strings_are_compared_with_constants() {
    let text = r#"
static long (*compare)(const char *, u32, const char *) = (void *)182;
static const char get[] = "GET ";
SEC("xdp") int http(struct xdp_md *ctx) {
    u8 *data = (u8 *)(long)ctx->data, *end = (u8 *)(long)ctx->data_end;
    if (data + 58 > end) return XDP_PASS;
    return compare((char *)data + 54, 4, get) ? XDP_PASS : XDP_DROP;
}
"#;
    everywhere(text, |loaded, engine| {
        let mut frame = ipv4(6);
        assert_eq!(run(loaded, &frame).0.action, XdpAction::Pass, "{engine}");
        frame[54..58].copy_from_slice(b"GET ");
        assert_eq!(run(loaded, &frame).0.action, XdpAction::Drop, "{engine}");
        frame[57] = b'!';
        assert_eq!(run(loaded, &frame).0.action, XdpAction::Pass, "{engine}");
    });
}

#[test]
fn maps_in_maps_are_replaced_while_programs_run() {
    let text = r#"
struct inner { __uint(type, 2); __uint(max_entries, 4); __type(key, u32); __type(value, u64); };
struct inner first SEC(".maps");
struct {
    __uint(type, 13); __uint(max_entries, 8); __type(key, u32); __type(value, u32);
    __array(values, struct inner);
} tenants SEC(".maps");
SEC("xdp") int count(struct xdp_md *ctx) {
    u32 tenant = ctx->ingress_ifindex, key = 2;
    void *inner = lookup(&tenants, &tenant);
    if (!inner) return XDP_DROP;
    u64 *n = lookup(inner, &key);
    if (!n) return XDP_ABORTED;
    __sync_fetch_and_add(n, 1);
    return XDP_PASS;
}
"#;
    everywhere(text, |loaded, engine| {
        assert_eq!(run(loaded, &ipv4(6)).0.action, XdpAction::Drop, "{engine}");
        let tenants = loaded.maps().get("tenants").expect("map");
        let first = loaded.maps().get("first").expect("map");
        let other = Map::new(first.def(), 1).expect("a map");
        let key = 3u32.to_ne_bytes();
        for (map, packets) in [(first, 2), (&other, 1), (first, 1)] {
            tenants.set_map(&key, map, 0).expect("of the template");
            for _ in 0..packets {
                assert_eq!(run(loaded, &ipv4(6)).0.action, XdpAction::Pass, "{engine}");
            }
        }
        let count = |map: &Map| {
            map.lookup(&2u32.to_ne_bytes())
                .expect("key")
                .expect("there")
        };
        assert_eq!(count(first), 3u64.to_ne_bytes(), "{engine}");
        assert_eq!(count(&other), 1u64.to_ne_bytes(), "{engine}");
    });
}

#[test]
fn device_maps_by_key_name_ports_and_nothing_is_sent_to_all() {
    let text = r#"
struct { __uint(type, 25); __uint(max_entries, 8); __type(key, u32); __type(value, u32); } ports SEC(".maps");
SEC("xdp") int forward(struct xdp_md *ctx) { return redirect_map(&ports, 100000 + ctx->rx_queue_index, XDP_PASS); }
SEC("xdp/all") int broadcast(struct xdp_md *ctx) { return redirect_map(&ports, 0, 8); }
"#;
    everywhere(text, |loaded, engine| {
        assert_eq!(run(loaded, &ipv4(6)).0.action, XdpAction::Pass, "{engine}");
        let ports = loaded.maps().get("ports").expect("map");
        let key = 100_001u32.to_ne_bytes();
        assert!(ports.update(&key, &[0; 4], 0).is_err(), "no interface 0");
        ports.update(&key, &12u32.to_ne_bytes(), 0).expect("room");
        let target = run(loaded, &ipv4(6)).0.target;
        assert_eq!(target, Some(Target::Port(12)), "{engine}");
        ports.delete(&key).expect("there");
        assert_eq!(run(loaded, &ipv4(6)).0.target, None, "{engine}");
        let all = loaded.program("broadcast").expect("a program");
        let mut memory = [0; 64];
        let mut packet = dash_prog::Packet::new(&mut memory, 0..64).expect("inside");
        let mut runner = all.runner(0).expect("cpu 0");
        let outcome = runner.run(&mut packet, &dash_prog::Ingress::default());
        assert_eq!(outcome.action, XdpAction::Aborted, "{engine}");
    });
}

#[test]
fn maps_that_are_not_here_are_refused_with_a_reason() {
    let text = r#"
struct { __uint(type, 16); __uint(max_entries, 8); __type(key, u32); __type(value, u32); } cpus SEC(".maps");
SEC("xdp") int spread(struct xdp_md *ctx) { return redirect_map(&cpus, 1, 0); }
"#;
    let dir = tempfile::tempdir().expect("folder");
    let Some(bytes) = build(dir.path(), text) else {
        return;
    };
    for engine in Engine::ALL {
        let options = LoadOptions {
            engine,
            ..LoadOptions::default()
        };
        let refused = Loaded::from_elf(&[&bytes], &options);
        let Err(refused @ LoadError::MapKind { .. }) = refused else {
            panic!("{engine}: {refused:?}");
        };
        let why = refused.to_string();
        assert!(why.contains("cpumap") && why.contains("worker"), "{why}");
    }
}
