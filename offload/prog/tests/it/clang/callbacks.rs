//! Helpers that call functions of the program: `bpf_loop` and `bpf_for_each_map_elem`.

use dash_bpf::helper::XdpAction;
use dash_prog::{Loaded, Map};

use super::{everywhere, ipv4, run};

fn map(loaded: &Loaded, name: &str) -> Map {
    loaded.maps().get(name).expect("a map of this name").clone()
}

/// Words of the only value of an array.
fn words(loaded: &Loaded, name: &str) -> Vec<u64> {
    let value = map(loaded, name).lookup(&[0; 4]).expect("a key");
    let value = value.expect("there");
    value
        .chunks(8)
        .map(|word| u64::from_ne_bytes(word.try_into().expect("whole words")))
        .collect()
}

const LOOPS: &str = r#"
static long (*loop)(u32, void *, void *, u64) = (void *)181;
struct { __uint(type, 2); __uint(max_entries, 1); __type(key, u32); __type(value, u64[8]); } out SEC(".maps");

struct sum { u64 sum, stop, last; };
static long add(u64 round, struct sum *s) {
    if (round == s->stop) return 1;
    s->sum += round * round;
    s->last = round;
    return 0;
}
static long nothing(u64 round, void *none) { return 0; }
struct outer { u64 rounds; u32 inner; };
static long one(u64 round, u64 *n) { *n += round; return 0; }
static long nested(u64 round, struct outer *o) {
    u64 n = 0;
    long did = loop(o->inner, one, &n, 0);
    o->rounds += did + n * 1000;
    return 0;
}

SEC("xdp") int loops(struct xdp_md *ctx) {
    u32 zero = 0;
    u64 *o = lookup(&out, &zero);
    if (!o) return XDP_ABORTED;
    struct sum s = { .stop = 1000 };
    o[0] = loop(10, add, &s, 0);
    o[1] = s.sum;
    s.stop = 3; s.sum = 0;
    o[2] = loop(ctx->ingress_ifindex + 100, add, &s, 0);
    o[3] = s.sum;
    o[4] = loop(1 << 24, nothing, 0, 0);
    o[5] = loop(5, nothing, 0, 1);
    struct outer two = { .inner = ctx->rx_queue_index + 3 };
    o[6] = loop(7, nested, &two, 0);
    o[7] = two.rounds;
    return loop(0, nothing, 0, 0) == 0 ? XDP_PASS : XDP_DROP;
}
"#;

#[test]
fn loops_call_a_function_so_many_times() {
    everywhere(LOOPS, |loaded, engine| {
        let (outcome, _) = run(loaded, &ipv4(6));
        assert_eq!(outcome.trap, None, "{engine}");
        assert_eq!(outcome.action, XdpAction::Pass, "{engine}");
        let (invalid, too_big) = (-22i64 as u64, -7i64 as u64);
        // Stopped in the fourth round, which counts; squares of 0 to 2.
        let expected = [10, 285, 4, 5, too_big, invalid, 7, 7 * (4 + 6000)];
        assert_eq!(words(loaded, "out"), expected, "{engine}");
    });
}

const ELEMENTS: &str = r#"
static long (*each)(void *, void *, void *, u64) = (void *)164;
static long (*delete)(void *, const void *) = (void *)3;
struct { __uint(type, 1); __uint(max_entries, 64); __type(key, u64); __type(value, u64); } hash SEC(".maps");
struct { __uint(type, 2); __uint(max_entries, 5); __type(key, u32); __type(value, u32); } array SEC(".maps");
struct { __uint(type, 6); __uint(max_entries, 3); __type(key, u32); __type(value, u64); } own SEC(".maps");
struct { __uint(type, 9); __uint(max_entries, 16); __type(key, u32); __type(value, u64[2]); } lru SEC(".maps");
struct { __uint(type, 2); __uint(max_entries, 1); __type(key, u32); __type(value, u64[8]); } out SEC(".maps");

struct seen { u64 keys, values, stop; };
static long wide(void *map, u64 *key, u64 *value, struct seen *s) {
    s->keys += *key;
    s->values += *value;
    *value = *key * 3;
    if (*key == 40) delete(map, key);
    return 0;
}
static long narrow(void *map, u32 *key, u32 *value, struct seen *s) {
    s->keys += *key;
    *value += 10;
    return *key == s->stop;
}
static long mine(void *map, u32 *key, u64 *value, struct seen *s) { *value += *key + 1; s->values += 1; return 0; }
static long pair(void *map, u32 *key, u64 *value, struct seen *s) { s->values += value[1]; return 0; }

SEC("xdp") int elements(struct xdp_md *ctx) {
    u32 zero = 0;
    u64 *o = lookup(&out, &zero);
    if (!o) return XDP_ABORTED;
    for (u64 key = 0; key < 8; key++) {
        u64 k = key * 10, v = 1;
        update(&hash, &k, &v, 0);
    }
    struct seen s = {};
    o[0] = each(&hash, wide, &s, 0);
    o[1] = s.keys; o[2] = s.values;
    s.keys = 0; s.stop = 3;
    o[3] = each(&array, narrow, &s, 0);
    o[4] = s.keys;
    s.values = 0;
    o[5] = each(&own, mine, &s, 0);
    u32 k = 4; u64 v[2] = { 1, 77 };
    update(&lru, &k, v, 0);
    o[6] = each(&lru, pair, &s, 0) * 1000 + s.values;
    o[7] = each(&hash, wide, &s, 5);
    return XDP_PASS;
}
"#;

#[test]
fn a_function_sees_each_element_of_a_map() {
    everywhere(ELEMENTS, |loaded, engine| {
        let (outcome, _) = run(loaded, &ipv4(6));
        assert_eq!(outcome.trap, None, "{engine}");
        let expected = [8, 280, 8, 4, 6, 3, 1000 + 3 + 77, -22i64 as u64];
        assert_eq!(words(loaded, "out"), expected, "{engine}");
        let mut left: Vec<(u64, u64)> = map(loaded, "hash")
            .dump()
            .into_iter()
            .map(|element| {
                let word = |bytes: Vec<u8>| u64::from_ne_bytes(bytes.try_into().expect("8 bytes"));
                (word(element.key), word(element.value))
            })
            .collect();
        left.sort_unstable();
        let kept = [0, 10, 20, 30, 50, 60, 70].map(|key| (key, key * 3));
        assert_eq!(left, kept, "{engine}: the one that was deleted is gone");
        let array: Vec<u32> = map(loaded, "array")
            .dump()
            .into_iter()
            .map(|element| u32::from_ne_bytes(element.value.try_into().expect("4 bytes")))
            .collect();
        assert_eq!(
            array,
            [10, 10, 10, 10, 0],
            "{engine}: stopped at the fourth"
        );
        let own = map(loaded, "own").lookup(&2u32.to_ne_bytes());
        let own = own.expect("a key").expect("there");
        let values = [3u64.to_ne_bytes(), 0u64.to_ne_bytes()].concat();
        assert_eq!(own, values, "{engine}: of this worker only");
    });
}

const INSIDE: &str = r#"
static long (*loop)(u32, void *, void *, u64) = (void *)181;
static long (*each)(void *, void *, void *, u64) = (void *)164;
struct inner { __uint(type, 1); __uint(max_entries, 8); __type(key, u32); __type(value, u64); };
struct inner first SEC(".maps");
struct {
    __uint(type, 12); __uint(max_entries, 2); __type(key, u32);
    __array(values, struct inner);
} outer SEC(".maps") = { .values = { [1] = &first } };

struct seen { u32 sum; u64 *last; };
static long add(void *map, u32 *key, u64 *value, struct seen *s) { s->sum += *value; return 0; }
struct at { struct seen s; u32 put; };
static long put(u64 round, struct at *at) {
    u32 slot = round & 1;
    void *inner = lookup(&outer, &slot);
    if (!inner) return 0;
    u32 key = round; u64 value = round + 1;
    update(inner, &key, &value, 0);
    at->put++;
    each(inner, add, &at->s, 0);
    return 0;
}

SEC("xdp") int inside(struct xdp_md *ctx) {
    struct at at = {};
    loop(6, put, &at, 0);
    return at.put * 100 + at.s.sum;
}
"#;

#[test]
fn functions_look_up_maps_in_maps_and_visit_them() {
    everywhere(INSIDE, |loaded, engine| {
        let (outcome, _) = run(loaded, &ipv4(6));
        assert_eq!(outcome.trap, None, "{engine}");
        // Rounds 1, 3 and 5 find a map, and see 2; 2 and 4; 2, 4 and 6.
        assert_eq!(outcome.code, 300 + 2 + 6 + 12, "{engine}");
    });
}
