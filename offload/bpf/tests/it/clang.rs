//! Objects that clang compiles while the test runs, and an environment to run them in.

use std::fs;
use std::process::{Command, Stdio};

use dash_bpf::interp::{CTX_BASE, CallFault, Env, HelperResult, Interp, MemFault, StackView};
use dash_bpf::op::Size;
use dash_bpf::{MapDef, Object, decode};

/// What libbpf's headers would give, as far as tests need it.
const HEADER: &str = r#"
typedef unsigned char __u8; typedef unsigned short __u16;
typedef unsigned int __u32; typedef unsigned long long __u64;
#define SEC(name) __attribute__((section(name), used))
#define __noinline __attribute__((noinline))
#define __weak __attribute__((weak))
#define __hidden __attribute__((visibility("hidden")))
#define __uint(name, val) int (*name)[val]
#define __type(name, val) typeof(val) *name
#define __array(name, val) typeof(val) *name[]
struct xdp_md { __u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex; };
static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_tail_call)(void *ctx, void *map, __u32 index) = (void *)12;
static long (*bpf_loop)(__u32 n, void *fn, void *ctx, __u64 flags) = (void *)181;
"#;

/// Compiles C for a cpu (`v1`...); `None`, said on stderr, where there is no clang for it.
pub(crate) fn compile_for(cpu: &str, extra: &[&str], source: &str) -> Option<Vec<u8>> {
    let dir = tempfile::tempdir().expect("folder");
    let (from, to) = (dir.path().join("test.c"), dir.path().join("test.o"));
    fs::write(dir.path().join("bpf.h"), HEADER).expect("written");
    fs::write(&from, source).expect("written");
    let run = Command::new("clang")
        .args([
            "-target",
            "bpf",
            "-O2",
            "-ffreestanding",
            "-Wall",
            "-Wno-unused-function",
            "-Wno-unused-variable",
            "-Wno-unused-const-variable",
            "-c",
        ])
        .arg(format!("-mcpu={cpu}"))
        .args(extra)
        .args(["-include", "bpf.h", "test.c"])
        .current_dir(dir.path())
        .arg("-o")
        .arg(&to)
        .stdin(Stdio::null())
        .output();
    let out = match run {
        Ok(out) => out,
        Err(why) => {
            eprintln!("SKIP: no clang: {why}");
            return None;
        }
    };
    let errors = String::from_utf8_lossy(&out.stderr);
    if errors.contains("unknown target CPU") || errors.contains("unable to create target") {
        eprintln!("SKIP: this clang knows no bpf {cpu}");
        return None;
    }
    assert!(out.status.success(), "{errors}");
    Some(fs::read(&to).expect("object"))
}

/// Compiles C for cpu v3 with type and line information.
pub(crate) fn compile(source: &str) -> Option<Vec<u8>> {
    compile_for("v3", &["-g"], source)
}

/// Maps with a value each, which programs address; a context of words.
pub(crate) struct World {
    maps: Vec<MapDef>,
    values: Vec<Vec<u8>>,
}

const VALUES: u64 = 0x1000_0000_0000;

impl World {
    pub(crate) fn new(object: &Object) -> Self {
        let value = |map: &MapDef| {
            let mut value = map.contents.clone();
            value.resize(map.value_size as usize, 0);
            value
        };
        Self {
            maps: object.maps.clone(),
            values: object.maps.iter().map(value).collect(),
        }
    }

    /// What a value holds now, as words.
    pub(crate) fn words(&self, map: &str) -> Vec<u32> {
        let at = self.maps.iter().position(|m| m.name == map);
        let value = &self.values[at.expect("map")];
        let (words, _) = value.as_chunks::<4>();
        words.iter().map(|w| u32::from_le_bytes(*w)).collect()
    }

    /// Runs a program; word `n` of its context is `n + 1`, so `data` is 1.
    pub(crate) fn run(&mut self, object: &Object, program: &str) -> u64 {
        let all: Vec<_> = object
            .programs
            .iter()
            .map(|p| decode(&p.insns).expect("decodes"))
            .collect();
        let all: Vec<_> = all.iter().map(Vec::as_slice).collect();
        let at = object.programs.iter().position(|p| p.name == program);
        Interp::new(100_000)
            .run(&all, at.expect("program"), &[CTX_BASE], self)
            .expect("runs")
    }

    fn at(&mut self, addr: u64, len: usize, write: bool) -> Result<&mut [u8], MemFault> {
        let map = addr.checked_sub(VALUES).ok_or(MemFault::Unmapped)?;
        let (map, from) = ((map >> 32) as usize, map as u32 as usize);
        let def = self.maps.get(map).ok_or(MemFault::Unmapped)?;
        if write && def.read_only() {
            return Err(MemFault::ReadOnly);
        }
        let value = &mut self.values[map];
        value.get_mut(from..from + len).ok_or(MemFault::Unmapped)
    }
}

impl Env for World {
    fn load(&mut self, addr: u64, size: Size) -> Result<u64, MemFault> {
        let mut value = [0; 8];
        value[..size.bytes()].copy_from_slice(self.at(addr, size.bytes(), false)?);
        Ok(u64::from_le_bytes(value))
    }

    fn store(&mut self, addr: u64, size: Size, value: u64) -> Result<(), MemFault> {
        let bytes = value.to_le_bytes();
        let to = self.at(addr, size.bytes(), true)?;
        to.copy_from_slice(&bytes[..size.bytes()]);
        Ok(())
    }

    fn load_ctx(&mut self, off: i64, _: Size) -> Result<u64, MemFault> {
        Ok(off as u64 / 4 + 1)
    }

    fn map_address(&mut self, map: u32) -> Result<u64, MemFault> {
        Ok(u64::from(map))
    }

    fn map_value_address(&mut self, map: u32, offset: u32) -> Result<u64, MemFault> {
        Ok(VALUES + (u64::from(map) << 32) + u64::from(offset))
    }

    fn call(
        &mut self,
        _: u32,
        _: [u64; 5],
        _: &mut StackView<'_>,
    ) -> Result<HelperResult, CallFault> {
        Err(CallFault::UnknownHelper)
    }
}
