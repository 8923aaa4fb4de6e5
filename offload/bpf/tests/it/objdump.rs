//! Text of instructions against LLVM's disassembler, over what clang makes of C.

use std::fs;
use std::process::Command;

use dash_bpf::disasm::{Text, with_source};
use dash_bpf::op::Op;
use dash_bpf::{Insn, assemble, decode, disassemble, elf};

use crate::clang::compile_for;

/// Arithmetic of both widths, memory of every size, atomics, jumps both ways, byte order, calls.
const SOURCE: &str = r#"
struct cell { __u64 a; __u32 b; __u16 c; __u8 d; long long e; int f; short g; signed char h; };
struct cell cells[4];
__u64 total; __u32 small;
unsigned long long load_byte(void *skb, unsigned long long off) asm("llvm.bpf.load.byte");
unsigned long long load_half(void *skb, unsigned long long off) asm("llvm.bpf.load.half");
unsigned long long load_word(void *skb, unsigned long long off) asm("llvm.bpf.load.word");
__noinline long mixed(struct cell *c, __u64 x, __u32 y)
{
    c->a = x * 3 + y; c->b = y / 7 + (__u32)x % 5; c->c = x >> 3; c->d = y << 2;
    c->e = (long long)x >> 5; c->f = -(int)y; c->g = ~x; c->h = c->g | 1;
    c->a ^= __builtin_bswap64(c->a); c->b ^= __builtin_bswap32(y); c->c = __builtin_bswap16(c->c);
    c->a /= x | 1; c->a %= y | 1; c->e *= c->h; c->f = (int)c->g + c->h;
    return c->a + c->b + c->c + c->d + c->e + c->f + c->g;
}
__noinline int compares(long a, long b, int c, int d)
{
    int n = 0;
    if (a > b) total += 1; if (a >= 10) total += 2; if (a < -3) total += 3; if (a <= b) total ^= 4;
    if (c > d) small += 1; if (c >= 10) small ^= 2; if (c < d) small += 3; if (c <= -7) small -= 4;
    if ((__u64)a > (__u64)b) n += 5; if ((__u64)a < 77) n *= 6; if ((__u32)c >= (__u32)d) n -= 7;
    if (a == b) n += total; if (c != d) n ^= small; if (a & 0x40) n += total; if (b & a) n++;
    for (int i = 0; i < c; i++) { n += cells[i & 3].d; asm volatile("" ::: "memory"); }
    return n;
}
SEC("xdp") int prog(struct xdp_md *ctx)
{
    struct cell *c = &cells[ctx->rx_queue_index & 3];
    long n = mixed(c, ctx->ingress_ifindex * 0x123456789abcdefULL, ctx->egress_ifindex);
    __sync_fetch_and_add(&total, n);
    return compares(n, total, small, n) & 3;
}
SEC("tc") long old(void *skb) { return load_byte(skb, 4) + load_half(skb, 12) * load_word(skb, total); }
"#;

const ATOMICS: &str = r#"
__u64 wide; __u32 narrow;
SEC("xdp") int prog(struct xdp_md *ctx)
{
    __u64 n = ctx->ingress_ifindex; __u32 m = n + 1;
    n = __sync_fetch_and_add(&wide, n); n += __sync_fetch_and_or(&wide, n);
    n += __sync_fetch_and_and(&wide, n); n += __sync_fetch_and_xor(&wide, n);
    n += __sync_lock_test_and_set(&wide, n); n += __sync_val_compare_and_swap(&wide, n, 5);
    m = __sync_fetch_and_add(&narrow, m); m += __sync_fetch_and_or(&narrow, m);
    m += __sync_lock_test_and_set(&narrow, m); m += __sync_val_compare_and_swap(&narrow, m, 6);
    return n + m;
}
"#;

/// One instruction as LLVM shows it: its slots and its text.
type Shown = (Vec<Insn>, String);

/// Instructions of each section.
fn listing(cpu: &str, object: &[u8]) -> Option<Vec<Vec<Shown>>> {
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join("test.o");
    fs::write(&path, object).expect("written");
    let out = Command::new("llvm-objdump")
        .args(["-d", &format!("--mcpu={cpu}")])
        .args(if cpu < "v3" {
            None
        } else {
            Some("--mattr=+alu32")
        })
        .arg(&path)
        .output();
    let out = match out {
        Ok(out) => out,
        Err(why) => {
            eprintln!("SKIP: no llvm-objdump: {why}");
            return None;
        }
    };
    let text = String::from_utf8(out.stdout).expect("text");
    let mut sections = Vec::new();
    for line in text.lines() {
        if line.starts_with("Disassembly of section") {
            sections.push(Vec::new());
            continue;
        }
        let Some((number, rest)) = line.split_once(":\t") else {
            continue;
        };
        let (Ok(_), Some((bytes, text))) = (number.trim().parse::<u32>(), rest.split_once('\t'))
        else {
            continue;
        };
        let bytes: Vec<u8> = bytes
            .split_whitespace()
            .map(|byte| u8::from_str_radix(byte, 16).expect("hex"))
            .collect();
        let (slots, rest) = bytes.as_chunks::<8>();
        assert!(rest.is_empty(), "{line}");
        let slots = slots.iter().map(|slot| Insn::from_bytes(*slot)).collect();
        // Behind jumps, the label.
        let label = text.rfind(" <").filter(|_| text.ends_with('>'));
        let text = &text[..label.unwrap_or(text.len())];
        let section: &mut Vec<_> = sections.last_mut().expect("section");
        section.push((slots, text.trim().to_owned()));
    }
    Some(sections)
}

/// Numbers decimal, and of registers in memory accesses only the number: LLVM has changed its mind
/// on both.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("0x") {
        let (before, hex) = (&rest[..at], &rest[at + 2..]);
        let end = hex.find(|c: char| !c.is_ascii_hexdigit());
        let end = end.unwrap_or(hex.len());
        let number = u64::from_str_radix(&hex[..end], 16).expect("hex");
        out.push_str(&format!("{before}{number}"));
        rest = &hex[end..];
    }
    out.push_str(rest);
    let memory = out.contains("*(") && !out.contains("atomic");
    let out = if memory { out.replace('w', "r") } else { out };
    out.replace(" + 0]", "]")
}

fn check(cpu: &str, source: &str, least: usize) {
    let Some(bytes) = compile_for(cpu, &["-g"], source) else {
        return;
    };
    let Some(sections) = listing(cpu, &bytes) else {
        return;
    };
    let mut seen = 0;
    for section in &sections {
        let slots: Vec<Insn> = section
            .iter()
            .flat_map(|(slots, _)| slots.clone())
            .collect();
        let ops = decode(&slots).expect("a section");
        assert_eq!(
            assemble(&disassemble(&slots).expect("text")).as_ref(),
            Ok(&slots)
        );
        let mut pc = 0;
        for (these, theirs) in section {
            let (op, first) = (&ops[pc], these[0]);
            let long = first.code == 0x06;
            let ours = Text { op, pc, long }.to_string();
            let local = matches!(op, Op::CallLocal { .. });
            // They print the immediate of calls, whatever it is relative to.
            let ours = if local {
                format!("call {}", first.imm)
            } else {
                ours
            };
            let theirs = theirs.replace("call -0x1", "call -1");
            pc += these.len();
            seen += 1;
            assert_eq!(plain(&ours), plain(&theirs), "{cpu}, before slot {pc}");
            if !local {
                assert_eq!(assemble(&theirs).as_ref(), Ok(these), "{theirs}");
            }
        }
    }
    assert!(seen >= least, "only {seen} instructions");
    let object = elf::read(&bytes).expect("read");
    for program in &object.programs {
        let listing = with_source(program, &object.maps).expect("decodes");
        // Less the numbers, it is the program; no label is a number.
        let text: Vec<&str> = listing
            .lines()
            .map(|line| match line.split_once(": ") {
                Some((number, rest)) if number.trim().parse::<u32>().is_ok() => rest,
                _ => line,
            })
            .collect();
        assert_eq!(assemble(&text.join("\n")), Ok(program.insns.clone()));
        assert!(listing.contains("/test.c:"), "{listing}");
    }
}

#[test]
fn every_instruction_of_clang_reads_as_llvm_writes_it() {
    for cpu in ["v1", "v2", "v3", "v4"] {
        check(cpu, SOURCE, 150);
    }
}

#[test]
fn atomics_of_clang_read_as_llvm_writes_them() {
    for cpu in ["v3", "v4"] {
        check(cpu, ATOMICS, 20);
    }
}

#[test]
fn listings_show_lines_functions_and_maps() {
    let source = "int counter;
struct { __uint(type, 2); __type(key, __u32); __type(value, __u64); __uint(max_entries, 4); } table SEC(\".maps\");
static __noinline int part(int a)
{
\tcounter += a;
\treturn counter;
}
SEC(\"xdp\") int prog(struct xdp_md *ctx)
{
\t__u32 key = 0;
\tif (!bpf_map_lookup_elem(&table, &key))
\t\treturn 2;
\treturn part(ctx->ingress_ifindex);
}
";
    let Some(bytes) = compile_for("v3", &["-g"], source) else {
        return;
    };
    let object = elf::read(&bytes).expect("read");
    let listing = with_source(&object.programs[0], &object.maps).expect("decodes");
    let at = |wanted: &str| {
        let found = listing.find(wanted);
        found.unwrap_or_else(|| panic!("no {wanted:?} in\n{listing}"))
    };
    let order = [
        "prog:\n",
        "/test.c:11: if (!bpf_map_lookup_elem(&table, &key))\n",
        "= map[0] ll ; table\n",
        "call 1 ; map_lookup_elem\n",
        "/test.c:13: return part(ctx->ingress_ifindex);\n",
        " ; part\n",
        "\npart:\n",
        "/test.c:5: counter += a;\n",
        " ll ; .bss\n",
    ];
    let places: Vec<_> = order.iter().map(|wanted| at(wanted)).collect();
    assert!(places.is_sorted(), "{places:?}\n{listing}");
}

#[test]
fn helpers_are_called_what_linux_calls_them() {
    use dash_bpf::helper::{self, name};
    assert_eq!(name(helper::MAP_LOOKUP_ELEM), Some("map_lookup_elem"));
    assert_eq!(name(helper::CSUM_DIFF), Some("csum_diff"));
    assert_eq!(name(helper::XDP_ADJUST_TAIL), Some("xdp_adjust_tail"));
    assert_eq!(name(helper::MAP_PEEK_ELEM), Some("map_peek_elem"));
    assert_eq!(name(0), None);
    assert_eq!(name(u32::MAX), None);
    let Ok(header) = fs::read_to_string("/usr/include/linux/bpf.h") else {
        eprintln!("SKIP: no header of Linux's");
        return;
    };
    // One line each, from number 0 on, as `FN(name)` or, later, `FN(name, number, ...)`.
    let names = header
        .lines()
        .filter_map(|line| line.trim().strip_prefix("FN("))
        .filter_map(|rest| rest.split([')', ',']).next());
    let mut seen = 0;
    for (theirs, number) in names.zip(0u32..) {
        if let Some(ours) = name(number) {
            assert_eq!(ours, theirs, "{number}");
            seen += 1;
        }
    }
    assert!(seen > 20, "only {seen}");
}
