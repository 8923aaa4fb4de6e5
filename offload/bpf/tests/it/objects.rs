//! What clang makes of C: maps, variables, functions, lines; and several files linked.

use dash_bpf::elf::{Options, ReadError, Skipped, link, load, load_with, read, write};
use dash_bpf::map::{F_RDONLY_PROG, InnerMaps, Pinning};
use dash_bpf::op::{Imm64, Op};
use dash_bpf::program::TailCalls;
use dash_bpf::{MapDef, MapKind, Object, Program, ProgramKind, decode};

use crate::clang::{World, compile, compile_for};

/// Compiles and reads; leaves the test where there is no clang.
macro_rules! object {
    ($source:expr) => {
        match compile($source) {
            Some(bytes) => read(&bytes).expect("read"),
            None => return,
        }
    };
}

fn map<'o>(object: &'o Object, name: &str) -> &'o MapDef {
    let found = object.maps.iter().find(|m| m.name == name);
    found.unwrap_or_else(|| panic!("no map {name} in {:?}", object.maps))
}

fn program<'o>(object: &'o Object, name: &str) -> &'o Program {
    let found = object.programs.iter().find(|p| p.name == name);
    found.unwrap_or_else(|| panic!("no program {name}"))
}

fn functions(program: &Program) -> Vec<&str> {
    let all = program.debug.functions();
    all.iter().map(|f| &*f.name).collect()
}

/// What is read is what is written, but for names in files that have none.
fn comes_back(object: &Object) {
    let bytes = write(object).expect("written");
    assert_eq!(&read(&bytes).expect("our own file"), object);
}

const GLOBALS: &str = r#"
int counter = 7;
static int hidden = 3;
const volatile int limit = 9;
__u64 zeroed[4];
static const volatile char names[3][4] = {"a", "bb", "ccc"};
int custom SEC(".data.custom") = 5;
static int later SEC(".bss.more");
SEC("xdp") int prog(struct xdp_md *ctx)
{
    counter += limit;
    hidden++;
    zeroed[ctx->rx_queue_index & 3] = 1;
    custom *= 2;
    later = 4;
    return names[ctx->ingress_ifindex & 1][0] + names[2][1];
}
"#;

#[test]
fn globals_are_arrays_of_one_value_with_contents() {
    let object = object!(GLOBALS);
    let data = map(&object, ".data");
    assert_eq!(data.contents, [7, 0, 0, 0, 3, 0, 0, 0]);
    assert_eq!((data.flags, data.value_size), (0, 8));
    for (name, size, contents) in [
        (".bss", 32, vec![]),
        (".bss.more", 4, vec![]),
        (".data.custom", 4, vec![5, 0, 0, 0]),
    ] {
        let def = map(&object, name);
        assert_eq!((def.value_size, &def.contents), (size, &contents), "{name}");
        assert!(!def.read_only(), "{name}");
    }
    for def in &object.maps {
        assert_eq!(
            (def.kind, def.key_size),
            (MapKind::Array, 4),
            "{}",
            def.name
        );
        assert_eq!(def.max_entries, 1, "{}", def.name);
        let rodata = def.name.starts_with(".rodata");
        assert_eq!(def.flags == F_RDONLY_PROG, rodata, "{}", def.name);
    }
    let mut world = World::new(&object);
    // ingress_ifindex is 4: "a"[0] + "ccc"[1]
    assert_eq!(
        world.run(&object, "prog"),
        u64::from(b'a') + u64::from(b'c')
    );
    assert_eq!(world.words(".data"), [16, 4]);
    assert_eq!(world.words(".data.custom"), [10]);
    assert_eq!(world.words(".bss.more"), [4]);
    // rx_queue_index is 5
    assert_eq!(world.words(".bss"), [0, 0, 1, 0, 0, 0, 0, 0]);
    comes_back(&object);
}

const FUNCTIONS: &str = r#"
static int seen;
static __noinline int local(int a, int b) { seen += b; return a * 3 + seen; }
__noinline int global(int a) { seen += 1; return local(a, 2) + 1; }
__noinline int unused(int a) { seen -= a; return seen; }
static long each(__u32 index, void *ctx) { seen += index; return 0; }
SEC("xdp/a") int first(struct xdp_md *ctx) { return global(ctx->data) + local(1, 1); }
static SEC("xdp/b") __noinline int beside(int x) { seen++; return x + 5; }
SEC("xdp/b") int second(struct xdp_md *ctx) { return beside(ctx->data_end) + global(3); }
SEC("xdp/b") int third(struct xdp_md *ctx) { bpf_loop(4, each, 0, 0); return second(ctx); }
"#;

#[test]
fn functions_are_appended_once_to_each_program_that_reaches_them() {
    let object = object!(FUNCTIONS);
    let names: Vec<_> = object.programs.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["first", "second", "third"]);
    assert_eq!(object.programs[0].section.as_deref(), Some("xdp/a"));
    let expect = |name: &str, all: &[&str]| {
        let mut found = functions(program(&object, name));
        assert_eq!(found.remove(0), name);
        let mut all = all.to_vec();
        found.sort_unstable();
        all.sort_unstable();
        assert_eq!(found, all, "{name}");
    };
    expect("first", &["global", "local"]);
    expect("second", &["beside", "global", "local"]);
    for function in functions(program(&object, "third")) {
        assert_ne!(function, "unused");
    }
    // 1: global(1) = local(1, 2) + 1 with seen = 3, then local(1, 1) with seen = 4
    assert_eq!(World::new(&object).run(&object, "first"), 7 + 7);
    // 2: beside(2) = 7 with seen = 1, then global(3) = local(3, 2) + 1 with seen = 4
    assert_eq!(World::new(&object).run(&object, "second"), 7 + 14);
    comes_back(&object);
}

#[test]
fn the_address_of_a_function_is_that_of_its_copy() {
    let object = object!(FUNCTIONS);
    let third = program(&object, "third");
    let ops = decode(&third.insns).expect("decodes");
    let targets: Vec<_> = ops
        .iter()
        .enumerate()
        .filter_map(|(pc, op)| match op {
            Op::LoadImm64 { imm, .. } => imm.function(pc),
            _ => None,
        })
        .collect();
    let [target] = targets[..] else {
        panic!("one callback, not {targets:?}");
    };
    let function = third.debug.function(target).expect("function");
    assert_eq!((&*function.name, function.slot as usize), ("each", target));
}

const MAPS: &str = r#"
struct flow { __u32 a, b; };
struct { __uint(type, 1); __type(key, struct flow); __type(value, __u64);
         __uint(max_entries, 16); __uint(map_flags, 1); __uint(pinning, 1); } flows SEC(".maps");
static struct { __uint(type, 9); __uint(key_size, 4); __uint(value_size, 12);
         __uint(max_entries, 8); } own SEC(".maps");
struct inner { __uint(type, 2); __type(key, __u32); __type(value, __u64); __uint(max_entries, 4); };
struct inner in1 SEC(".maps"), in2 SEC(".maps");
struct { __uint(type, 12); __type(key, __u32); __uint(max_entries, 5);
         __array(values, struct inner); } outer SEC(".maps") = { .values = { [1] = &in2, [3] = &in1 } };
SEC("xdp") int leaf(struct xdp_md *ctx) { return 1; }
struct { __uint(type, 3); __type(key, __u32); __type(value, __u32); __uint(max_entries, 4);
         __array(values, int (void *)); } calls SEC(".maps") = { .values = { [2] = (void *)&leaf } };
struct { __uint(type, 27); __uint(max_entries, 4096); } events SEC(".maps");
SEC("xdp") int prog(struct xdp_md *ctx)
{
    struct flow f = {1, 2}; __u32 k = 1; __u64 *v;
    v = bpf_map_lookup_elem(&flows, &f); if (v) *v += 1;
    v = bpf_map_lookup_elem(&own, &k); if (v) *v += 1;
    void *inner = bpf_map_lookup_elem(&outer, &k); if (inner) bpf_map_lookup_elem(inner, &k);
    bpf_tail_call(ctx, &calls, 2);
    return 2;
}
"#;

#[test]
fn btf_defined_maps_keep_what_they_say() {
    let object = object!(MAPS);
    let flows = map(&object, "flows");
    assert_eq!((flows.key_size, flows.value_size), (8, 8));
    assert_eq!((flows.flags, flows.pinning), (1, Pinning::ByName));
    let own = map(&object, "own");
    assert_eq!((own.kind, own.key_size), (MapKind::LruHash, 4));
    assert_eq!((own.value_size, own.max_entries), (12, 8));
    let events = map(&object, "events");
    assert_eq!((events.kind, events.max_entries), (MapKind::RingBuf, 4096));

    let index = |name: &str| {
        let at = object.maps.iter().position(|m| m.name == name);
        at.map(|i| i as u32)
    };
    let outer = map(&object, "outer");
    assert_eq!((outer.key_size, outer.value_size), (4, 4));
    let template = MapDef {
        kind: MapKind::Array,
        key_size: 4,
        value_size: 8,
        max_entries: 4,
        ..MapDef::default()
    };
    let slots = vec![None, index("in2"), None, index("in1")];
    assert_eq!(outer.inner.as_deref(), Some(&InnerMaps { template, slots }));

    let leaf = object.programs.iter().position(|p| p.name == "leaf");
    let programs = vec![None, None, leaf.map(|i| i as u32)];
    let map = index("calls").expect("calls");
    assert_eq!(object.tail_calls, [TailCalls { map, programs }]);

    let refers = |program: &Program| {
        let ops = decode(&program.insns).expect("decodes");
        let maps = ops.iter().filter_map(|op| match op {
            Op::LoadImm64 {
                imm: Imm64::Map(map),
                ..
            } => Some(object.maps[*map as usize].name.clone()),
            _ => None,
        });
        maps.collect::<Vec<_>>()
    };
    assert_eq!(
        refers(program(&object, "prog")),
        ["flows", "own", "outer", "calls"]
    );
    comes_back(&object);
}

const LEGACY: &str = r#"
struct bpf_map_def { __u32 type, key_size, value_size, max_entries, map_flags EXTRA; };
struct bpf_map_def counts SEC("maps") = { 5, 4, 8, 256, 1 };
struct bpf_map_def links SEC("maps") = { .type = 14, .key_size = 4, .value_size = 4, .max_entries = 64 };
SEC("xdp_old_name") int prog(struct xdp_md *ctx)
{
    __u32 k = 0; void *a = bpf_map_lookup_elem(&counts, &k);
    return a && bpf_map_lookup_elem(&links, &k) ? 1 : 2;
}
"#;

#[test]
fn legacy_maps_are_read_with_zeros_behind_them() {
    for extra in ["", ", more, still"] {
        let source = LEGACY.replace("EXTRA", extra);
        let Some(bytes) = compile_for("v2", &[], &source) else {
            return;
        };
        let object = read(&bytes).expect("read");
        let counts = map(&object, "counts");
        assert_eq!((counts.kind, counts.key_size), (MapKind::PercpuHash, 4));
        assert_eq!((counts.value_size, counts.max_entries), (8, 256));
        assert_eq!(counts.flags, 1);
        assert_eq!(map(&object, "links").kind, MapKind::DevMap);
        assert_eq!(object.programs[0].kind, ProgramKind::Xdp);
    }
}

#[test]
fn legacy_maps_with_more_to_say_are_refused() {
    let source = LEGACY
        .replace("EXTRA", ", pinning")
        .replace("256, 1 }", "256, 1, 2 }");
    let Some(bytes) = compile_for("v2", &[], &source) else {
        return;
    };
    let name = "counts".to_owned();
    let why = "more than the five, seven or nine words of a definition";
    assert_eq!(read(&bytes), Err(ReadError::Map { name, why }));
}

/// Longer definitions of maps, and sections that are named as their loader likes.
#[test]
fn objects_for_other_loaders_are_read() {
    let source = r#"
struct bpf_elf_map { __u32 type, key_size, value_size, max_entries, flags, id, pinning, inner_id, inner_idx; };
struct bpf_elf_map inner SEC("maps") = { 2, 4, 8, 1, 0, 7, 0, 0, 0 };
struct bpf_elf_map outer SEC("maps") = { 13, 4, 4, 16, 0, 8, 2, 7, 0 };
SEC("2/1") int prog(struct xdp_md *ctx)
{
    __u32 k = 0; void *a = bpf_map_lookup_elem(&outer, &k);
    return a && bpf_map_lookup_elem(&inner, &k) ? 1 : 2;
}
"#;
    let Some(bytes) = compile_for("v2", &[], source) else {
        return;
    };
    let skipped = vec!["2/1".to_owned()];
    assert_eq!(read(&bytes), Err(ReadError::NoProgram { skipped }));
    let options = Options {
        kind: Some(ProgramKind::Xdp),
        ..Options::default()
    };
    let object = load_with(&[&bytes], &options).expect("read").object;
    assert_eq!(object.programs[0].kind, ProgramKind::Xdp);
    assert_eq!(object.programs[0].section_name(), "2/1");
    let outer = map(&object, "outer");
    assert_eq!(
        (outer.kind, outer.pinning),
        (MapKind::HashOfMaps, Pinning::ByName)
    );
    let template = &outer.inner.as_ref().expect("maps in it").template;
    assert_eq!((template.kind, template.value_size), (MapKind::Array, 8));

    // Linux's samples number the maps.
    let samples = source
        .replace(", pinning, inner_id, inner_idx", ", numa_node")
        .replace("0, 7, 0, 0, 0 }", "0, 0, 0 }")
        .replace("0, 8, 2, 7, 0 }", "0, 0, 0 }");
    let Some(bytes) = compile_for("v2", &[], &samples) else {
        return;
    };
    let object = load_with(&[&bytes], &options).expect("read").object;
    let template = &map(&object, "outer")
        .inner
        .as_ref()
        .expect("maps in it")
        .template;
    assert_eq!((template.kind, template.value_size), (MapKind::Array, 8));
    let missing = samples.replace("13, 4, 4, 16, 0, 0, 0", "13, 4, 4, 16, 0, 5, 0");
    let Some(bytes) = compile_for("v2", &[], &missing) else {
        return;
    };
    let name = "outer".to_owned();
    let why = "no map has the id of those it shall hold";
    let refused = load_with(&[&bytes], &options);
    assert_eq!(refused.map(|_| ()), Err(ReadError::Map { name, why }));
}

#[test]
fn sections_say_what_programs_are_for() {
    let source = r#"
        SEC("xdp") int a(struct xdp_md *c) { return 1; }
        SEC("xdp.frags") int b(struct xdp_md *c) { return 1; }
        SEC("xdp/devmap") int d(struct xdp_md *c) { return 1; }
        SEC("xdp.frags/cpumap") int e(struct xdp_md *c) { return 1; }
        SEC("tc") int t(void *c) { return 1; }
        SEC("kprobe/x") __hidden int part(void *c) { return 1; }
        char _license[] SEC("license") = "Dual MIT/GPL"; int _version SEC("version") = 1;
    "#;
    let Some(bytes) = compile(source) else { return };
    let loaded = load(&[&bytes]).expect("read");
    let programs = &loaded.object.programs;
    let sections: Vec<_> = programs.iter().map(Program::section_name).collect();
    assert_eq!(
        sections,
        ["xdp", "xdp.frags", "xdp/devmap", "xdp.frags/cpumap"]
    );
    assert!(programs.iter().all(|p| p.kind == ProgramKind::Xdp));
    assert_eq!(loaded.license.as_deref(), Some("Dual MIT/GPL"));
    let (section, name) = ("tc".to_owned(), "t".to_owned());
    assert_eq!(loaded.skipped, [Skipped { section, name }]);
    assert!(loaded.object.maps.is_empty());
    comes_back(&loaded.object);
}

#[test]
fn an_object_for_other_hooks_names_them() {
    let source = r#"
        __noinline int helper(int a) { return a + 1; }
        SEC("tc") int t(void *c) { return 1; }
    "#;
    let Some(bytes) = compile(source) else { return };
    let error = read(&bytes).expect_err("nothing for us");
    assert_eq!(
        error.to_string(),
        "no program; sections for other hooks: tc"
    );
}

#[test]
fn code_in_text_alone_is_bare_programs() {
    let object = object!(
        "static __noinline int twice(int a) { asm volatile(\"\"); return a * 2; }
         long main(char *memory, long len) { return twice(len) + 1; }"
    );
    let [main] = &object.programs[..] else {
        panic!("{:?}", object.programs);
    };
    assert_eq!(
        (main.kind, main.section_name()),
        (ProgramKind::Raw, ".text")
    );
    assert_eq!(functions(main), ["main", "twice"]);
    let ops = decode(&main.insns).expect("decodes");
    assert_eq!(crate::memory::run(&ops, &[0; 20]), Ok(41));
    comes_back(&object);
}

#[test]
fn lines_name_the_source_of_instructions() {
    let object = object!(
        "static __u64 seen;\n\
         static __noinline int part(int a)\n\
         {\n\
         \tseen += a;\n\
         \treturn seen;\n\
         }\n\
         SEC(\"xdp\") int prog(struct xdp_md *ctx)\n\
         {\n\
         \tint result = part(ctx->ingress_ifindex);\n\
         \treturn result + 1;\n\
         }\n"
    );
    let prog = &object.programs[0];
    let ops = decode(&prog.insns).expect("decodes");
    let call = ops.iter().position(|op| matches!(op, Op::CallLocal { .. }));
    let line = prog.debug.line(call.expect("a call")).expect("its line");
    assert_eq!(
        (line.line, line.text.trim()),
        (9, "int result = part(ctx->ingress_ifindex);")
    );
    assert!(line.column > 1);
    assert!(line.to_string().contains("test.c:9:"), "{line}");
    let part = prog.debug.functions().iter().find(|f| &*f.name == "part");
    let start = part.expect("function").slot as usize;
    assert_eq!(
        prog.debug.function(start + 1).map(|f| &*f.name),
        Some("part")
    );
    let texts: Vec<_> = (start..ops.len())
        .filter_map(|pc| prog.debug.line(pc))
        .map(|line| line.text.trim())
        .collect();
    assert!(texts.contains(&"seen += a;"), "{texts:?}");
    assert!(!texts.iter().any(|t| t.contains("result")), "{texts:?}");
    comes_back(&object);
}

/// Two files compiled, or the test is left.
macro_rules! files {
    ($($source:expr),+) => {{
        let files = [$(compile($source)),+];
        let Some(files) = files.into_iter().collect::<Option<Vec<_>>>() else { return };
        files
    }};
}

fn linked(files: &[Vec<u8>]) -> Result<Object, ReadError> {
    let files: Vec<_> = files.iter().map(Vec::as_slice).collect();
    link(&files)
}

#[test]
fn files_share_functions_variables_and_maps_by_name() {
    const MAP: &str = "struct { __uint(type, 1); __type(key, __u32); __type(value, __u64);
        __uint(max_entries, 8); } shared SEC(\".maps\");";
    let files = files!(
        &format!(
            "{MAP} int counter = 40; static int own = 1; const volatile char pad = 3;
             extern int add(int a); extern int doubled(int a);
             __weak __noinline int chosen(int a) {{ counter += 100; return 1; }}
             static __noinline int same(int a) {{ own += a; return own; }}
             char _license[] SEC(\"license\") = \"GPL\";
             SEC(\"xdp\") int prog(struct xdp_md *ctx) {{
                 __u32 k = 0; if (!ctx) return bpf_map_lookup_elem(&shared, &k) ? 1 : 0;
                 return add(2) + doubled(chosen(1)) + same(1); }}"
        ),
        &format!(
            "extern {MAP} extern int counter; static int own = 10;
             static __noinline int same(int a) {{ own += a * 2; return own; }}
             char _license[] SEC(\"license\") = \"GPL\";
             __noinline int chosen(int a) {{ counter += 1; return a + 1; }}
             __noinline int add(int a) {{ counter += a; return counter + same(1); }}
             __noinline int doubled(int a) {{ return a * 2 + counter - counter; }}
             SEC(\"xdp\") int other(struct xdp_md *ctx) {{
                 __u32 k = 0; return bpf_map_lookup_elem(&shared, &k) ? 1 : 2; }}"
        )
    );
    let object = linked(&files).expect("linked");
    let names: Vec<_> = object.programs.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["prog", "other"]);
    assert_eq!(object.maps.iter().filter(|m| m.name == "shared").count(), 1);
    assert_eq!(
        map(&object, ".data").contents,
        [40, 0, 0, 0, 1, 0, 0, 0, 10, 0, 0, 0]
    );
    let mut world = World::new(&object);
    // add(2) = 42 + 12; chosen(1) = 2, doubled; same(1) = 2
    assert_eq!(world.run(&object, "prog"), 54 + 4 + 2);
    assert_eq!(world.words(".data"), [43, 2, 12]);
    comes_back(&object);

    // Either order gives the same programs to run.
    let swapped = [files[1].clone(), files[0].clone()];
    let object = linked(&swapped).expect("linked");
    assert_eq!(World::new(&object).run(&object, "prog"), 60);
}

#[test]
fn what_does_not_link_is_named() {
    let files = files!(
        "__noinline int twice(int a) { return a * 2; }
         SEC(\"xdp\") int prog(struct xdp_md *ctx) { return twice(1); }",
        "__noinline int twice(int a) { return a + a; }
         SEC(\"xdp\") int other(struct xdp_md *ctx) { return twice(2); }",
        "extern int missing(int a);
         SEC(\"xdp\") int lost(struct xdp_md *ctx) { return missing(2); }",
        "int twice = 2;
         SEC(\"xdp\") int differs(struct xdp_md *ctx) { return twice; }"
    );
    let (name, first, second) = ("twice".to_owned(), 0, 1);
    assert_eq!(
        linked(&files[..2]),
        Err(ReadError::Duplicate {
            name,
            first,
            second
        })
    );
    let error = linked(&files[2..3]).expect_err("undefined");
    assert!(
        matches!(&error, ReadError::Undefined { section, name, .. } if section == "xdp" && name == "missing"),
        "{error}"
    );
    let error = linked(&[files[0].clone(), files[2].clone()]).expect_err("undefined");
    assert!(matches!(&error, ReadError::File { file: 1, .. }), "{error}");
    let error = linked(&[files[0].clone(), files[3].clone()]).expect_err("different");
    assert!(matches!(&error, ReadError::Conflict { .. }), "{error}");
}

#[test]
fn maps_that_files_share_are_defined_alike() {
    let files = files!(
        "struct { __uint(type, 1); __type(key, __u32); __type(value, __u64);
             __uint(max_entries, 8); } shared SEC(\".maps\");
         SEC(\"xdp\") int prog(struct xdp_md *ctx) { __u32 k = 0;
             return bpf_map_lookup_elem(&shared, &k) ? 1 : 2; }",
        "extern struct { __uint(type, 1); __type(key, __u32); __type(value, __u64);
             __uint(max_entries, 9); } shared SEC(\".maps\");
         SEC(\"xdp\") int other(struct xdp_md *ctx) { __u32 k = 0;
             return bpf_map_lookup_elem(&shared, &k) ? 1 : 2; }"
    );
    let error = linked(&files).expect_err("unequal");
    assert_eq!(
        error.to_string(),
        "\"shared\" of file 0 and of file 1 differ: map definitions are not equal"
    );
    let error = linked(&files[1..]).expect_err("undefined");
    assert!(
        matches!(&error, ReadError::Undefined { name, .. } if name == "shared"),
        "{error}"
    );
}

#[test]
fn addresses_in_data_are_refused_by_place() {
    let Some(bytes) = compile(
        "static int a; int *pointer = &a;
         SEC(\"xdp\") int prog(struct xdp_md *ctx) { return *pointer; }",
    ) else {
        return;
    };
    let error = read(&bytes).expect_err("refused").to_string();
    assert!(
        error.starts_with("section .data, offset 0x0: reference to "),
        "{error}"
    );
}

#[test]
fn damaged_objects_of_clang_never_panic() {
    use proptest::prelude::*;
    let sources = [GLOBALS, FUNCTIONS, MAPS];
    let files: Option<Vec<_>> = sources.iter().map(|s| compile(s)).collect();
    let Some(files) = files else { return };
    let change = (any::<prop::sample::Index>(), any::<u8>());
    let word = (any::<prop::sample::Index>(), any::<u32>());
    let changes = prop::collection::vec(change, 0..6);
    let words = prop::collection::vec(word, 0..3);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(6000)
    });
    runner
        .run(
            &(0..files.len(), changes, words),
            |(file, changes, words)| {
                let mut bytes = files[file].clone();
                for (at, to) in changes {
                    let at = at.index(bytes.len());
                    bytes[at] = to;
                }
                for (at, to) in words {
                    let at = at.index(bytes.len() / 4) * 4;
                    bytes[at..at + 4].copy_from_slice(&to.to_le_bytes());
                }
                if let Ok(object) = read(&bytes) {
                    for program in &object.programs {
                        prop_assert!(decode(&program.insns).is_ok());
                    }
                    // What has a form comes back as it was.
                    if let Ok(written) = write(&object) {
                        prop_assert_eq!(read(&written), Ok(object));
                    }
                }
                let _ = link(&[&bytes, &files[0]]);
                Ok(())
            },
        )
        .expect("no panic");
}
