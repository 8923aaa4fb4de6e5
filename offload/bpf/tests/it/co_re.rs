//! CO-RE: programs compiled for one layout of types, run with another.

use dash_bpf::elf::{Loaded, Options, ReadError, load, load_with};
use dash_bpf::op::Op;
use dash_bpf::{Object, decode};
use object::{Object as _, ObjectSection as _};

use crate::clang::{World, compile};

pub(crate) const PROGRAM: &str = r#"
#define core __attribute__((preserve_access_index))
enum mode { MODE_A = 3, MODE_B = 4, MODE_LOST = 5 };
struct inner { int x; int y; } core;
struct conf { int a; int b; struct inner list[4]; union { int in_union; int other; }; int lost; } core;
struct gone { int a; } core;
struct conf___variant { int added; } core;
SEC("xdp") int field(struct conf *c) { return c->b; }
SEC("xdp") int deep(struct conf *c) { return c->list[2].y; }
SEC("xdp") int anonymous(struct conf *c) { return c->in_union; }
SEC("xdp") int variant(struct conf___variant *c) { return c->added; }
SEC("xdp") int exists(struct conf *c)
{
    return __builtin_preserve_field_info(c->b, 2) + 2 * __builtin_preserve_field_info(c->lost, 2)
        + 4 * __builtin_preserve_type_info(*(struct conf *)0, 0)
        + 8 * __builtin_preserve_type_info(*(struct gone *)0, 0);
}
SEC("xdp") int size(struct conf *c) { return __builtin_preserve_type_info(*(struct inner *)0, 1); }
SEC("xdp") int bytes(struct conf *c) { return __builtin_preserve_field_info(c->b, 1); }
SEC("xdp") long value(struct conf *c)
{
    return __builtin_preserve_enum_value(*(enum mode *)MODE_B, 1)
        + 100 * __builtin_preserve_enum_value(*(enum mode *)MODE_A, 0)
        + 1000 * __builtin_preserve_enum_value(*(enum mode *)MODE_LOST, 0);
}
SEC("xdp") int guarded(struct conf *c)
{
    if (__builtin_preserve_field_info(c->lost, 2)) return c->lost;
    return 77;
}
"#;

/// Everything is somewhere else, and some of it nowhere.
pub(crate) const TARGET: &str = r#"
enum mode { MODE_NEW, MODE_A = 30, MODE_B = 40 } mode;
struct inner { long pad; int y; int x; };
struct conf { long pad; long more; struct { union { int a; int in_union; }; int b; }; int added;
    struct inner list[4]; } conf;
SEC("xdp") int target(struct conf *c) { return conf.b + mode; }
"#;

fn btf(file: &[u8]) -> Vec<u8> {
    let file = object::File::parse(file).expect("ELF");
    let section = file.section_by_name(".BTF").expect(".BTF");
    section.data().expect("data").to_vec()
}

fn run(object: &Object, program: &str) -> u64 {
    World::new(object).run(object, program)
}

#[test]
fn fields_types_and_enumerators_are_where_the_target_has_them() {
    let (Some(file), Some(target)) = (compile(PROGRAM), compile(TARGET)) else {
        return;
    };
    let target = btf(&target);
    let options = Options {
        target: Some(&target),
        ..Options::default()
    };
    let Loaded { object, .. } = load_with(&[&file], &options).expect("read");
    // The context is words of value n + 1: a field's value says its offset.
    let at = |offset: u64| offset / 4 + 1;
    assert_eq!(run(&object, "field"), at(20));
    assert_eq!(run(&object, "deep"), at(32 + 2 * 16 + 8));
    assert_eq!(run(&object, "anonymous"), at(16));
    assert_eq!(run(&object, "variant"), at(24));
    assert_eq!(run(&object, "exists"), 1 + 4);
    assert_eq!(run(&object, "size"), 16);
    assert_eq!(run(&object, "bytes"), 4);
    assert_eq!(run(&object, "value"), 40 + 100);
    assert_eq!(run(&object, "guarded"), 77);
    // What is not there is a call that no verifier knows.
    let guarded = object.programs.iter().find(|p| p.name == "guarded");
    let ops = decode(&guarded.expect("program").insns).expect("decodes");
    assert!(
        ops.contains(&Op::Call {
            helper: 0x0bad_2310
        }),
        "{ops:?}"
    );
}

#[test]
fn without_a_target_layouts_are_those_of_the_file() {
    let Some(file) = compile(PROGRAM) else { return };
    let own = btf(&file);
    let options = Options {
        target: Some(&own),
        ..Options::default()
    };
    let with_own = load_with(&[&file], &options).expect("read");
    assert_eq!(load(&[&file]), Ok(with_own.clone()));
    assert_eq!(run(&with_own.object, "field"), 2);
    assert_eq!(run(&with_own.object, "exists"), 15);
    assert_eq!(run(&with_own.object, "value"), 4 + 100 + 1000);
}

#[test]
fn sizes_follow_unsigned_fields_and_no_others() {
    let source = |kind: &str| {
        format!(
            "struct conf {{ {kind} a; {kind} b; }} __attribute__((preserve_access_index));
             SEC(\"xdp\") long prog(struct conf *c) {{ return c->b; }}"
        )
    };
    let target = "struct conf { __u64 a; __u64 b; } conf;
                  SEC(\"xdp\") int target(void *c) { return conf.b; }";
    let all = [
        compile(&source("__u32")),
        compile(&source("int")),
        compile(target),
    ];
    let [Some(unsigned), Some(signed), Some(target)] = all else {
        return;
    };
    let target = btf(&target);
    let options = Options {
        target: Some(&target),
        ..Options::default()
    };
    let loaded = load_with(&[&unsigned], &options).expect("read");
    let ops = decode(&loaded.object.programs[0].insns).expect("decodes");
    let load = ops.iter().find_map(|op| match op {
        Op::Load { size, off, .. } => Some((size.bytes(), *off)),
        _ => None,
    });
    assert_eq!(load, Some((8, 8)));
    let error = load_with(&[&signed], &options).expect_err("a cut sign");
    let why = "a signed field of another size";
    assert!(
        matches!(&error, ReadError::Place { section, why: said, .. } if section == "xdp" && *said == why),
        "{error}"
    );
}

#[test]
fn damaged_types_of_either_side_never_panic() {
    use proptest::prelude::*;
    let (Some(file), Some(target)) = (compile(PROGRAM), compile(TARGET)) else {
        return;
    };
    let target = btf(&target);
    let at = file.windows(btf(&file).len()).position(|w| w == btf(&file));
    let (start, len) = (at.expect(".BTF"), btf(&file).len() + 2000);
    let change = || prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(3000)
    });
    runner
        .run(&(change(), change()), |(ours, theirs)| {
            let (mut file, mut target) = (file.clone(), target.clone());
            for (at, to) in ours {
                let last = file.len() - 1;
                file[(start + at.index(len)).min(last)] = to;
            }
            for (at, to) in theirs {
                let at = at.index(target.len());
                target[at] = to;
            }
            let options = Options {
                target: Some(&target),
                ..Options::default()
            };
            if let Ok(loaded) = load_with(&[&file], &options) {
                for program in &loaded.object.programs {
                    prop_assert!(decode(&program.insns).is_ok());
                }
            }
            Ok(())
        })
        .expect("no panic");
}
