//! The kernel's own maps and ours, asked the same things by control.

use std::ffi::c_long;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use dash_bpf::{MapDef, MapKind};
use dash_prog::{Errno, Map};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use crate::support::def;
use crate::twins::{Answer, Op, ask, index, ops, prefix, short_key};

const CREATE: c_long = 0;
const LOOKUP: c_long = 1;
const UPDATE: c_long = 2;
const DELETE: c_long = 3;
const NEXT_KEY: c_long = 4;
const LOOKUP_AND_DELETE: c_long = 21;

/// Runs of random operations on each kind.
const RUNS: usize = 150;

/// A map of the kernel's.
struct Kernel {
    fd: OwnedFd,
    def: MapDef,
    value: usize,
}

/// `union bpf_attr` of operations on elements.
#[repr(C)]
struct ElementAttr {
    fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// # Safety
/// The attributes are those of the command, and what they point to has the sizes it takes.
unsafe fn bpf<T>(command: c_long, attr: &mut T) -> io::Result<c_long> {
    // SAFETY: by contract.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<T>(),
        )
    };
    match result {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}

/// CPUs that maps per CPU have values for (`/sys/devices/system/cpu/possible`: `0-3`).
fn possible_cpus() -> u32 {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default();
    let last = text
        .trim()
        .rsplit(['-', ','])
        .next()
        .and_then(|n| n.parse().ok());
    last.map_or(1, |last: u32| last + 1)
}

impl Kernel {
    fn new(def: &MapDef) -> io::Result<Self> {
        let mut attr = [0u32; 16];
        attr[..5].copy_from_slice(&[
            def.kind as u32,
            def.key_size,
            def.value_size,
            def.max_entries,
            def.flags,
        ]);
        // SAFETY: the attributes of `BPF_MAP_CREATE`, zero where not set; the descriptor is new.
        let fd = unsafe { OwnedFd::from_raw_fd(bpf(CREATE, &mut attr)? as i32) };
        let per_cpu = matches!(def.kind, MapKind::PercpuArray | MapKind::PercpuHash);
        let value = match per_cpu {
            true => def.stride() as usize * possible_cpus() as usize,
            false => def.value_size as usize,
        };
        Ok(Self {
            fd,
            def: def.clone(),
            value,
        })
    }

    fn element(&self, command: c_long, key: &[u8], value: *mut u8, flags: u64) -> Result<(), i32> {
        let mut attr = ElementAttr {
            fd: self.fd.as_raw_fd() as u32,
            pad: 0,
            key: match key {
                [] => 0,
                key => key.as_ptr().expose_provenance() as u64,
            },
            value: value.expose_provenance() as u64,
            flags,
        };
        // SAFETY: key and value have the map's sizes.
        let done = unsafe { bpf(command, &mut attr) };
        done.map(drop)
            .map_err(|error| error.raw_os_error().unwrap_or(0))
    }

    fn ask(&self, op: &Op) -> Result<Option<Vec<u8>>, i32> {
        let mut value = vec![0; self.value];
        let read = |value: Vec<u8>, done| match done {
            Ok(()) => Ok(Some(value)),
            Err(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        };
        match op {
            Op::Lookup(key) => {
                let done = self.element(LOOKUP, key, value.as_mut_ptr(), 0);
                read(value, done)
            }
            Op::Pop => {
                let done = self.element(LOOKUP_AND_DELETE, &[], value.as_mut_ptr(), 0);
                read(value, done)
            }
            Op::Update(key, new, flags) => {
                value.copy_from_slice(new);
                self.element(UPDATE, key, value.as_mut_ptr(), *flags)
                    .map(|()| None)
            }
            Op::Delete(key) => self
                .element(DELETE, key, std::ptr::null_mut(), 0)
                .map(|()| None),
        }
    }

    /// All elements, in the order of keys.
    fn all(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut all = Vec::new();
        let mut key: Vec<u8> = Vec::new();
        loop {
            let mut next = vec![0; self.def.key_size as usize];
            if self.element(NEXT_KEY, &key, next.as_mut_ptr(), 0).is_err() {
                break;
            }
            let value = self.ask(&Op::Lookup(next.clone())).expect("a look-up");
            all.push((next.clone(), value.expect("nobody deletes")));
            key = next;
        }
        all.sort();
        all
    }
}

/// What a map of ours answers, with the kernel's numbers.
fn said(answer: Answer) -> Result<Option<Vec<u8>>, i32> {
    answer.map_err(|errno: Errno| errno as i32)
}

/// A prefix without the bits behind its length.
fn masked(mut key: Vec<u8>) -> Vec<u8> {
    let length = u32::from_ne_bytes(key[..4].try_into().expect("a length")) as usize;
    for (at, byte) in key[4..].iter_mut().enumerate() {
        let kept = length.saturating_sub(at * 8).min(8);
        *byte &= !(0xffu16 >> kept) as u8;
    }
    key
}

/// Kernels before 6.13 take no flags for tries, and count entries otherwise.
fn kernel_is_recent() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut parts = release
        .split(['.', '-'])
        .map_while(|n| n.parse::<u32>().ok());
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (6, 13)
}

#[test]
fn the_kernels_maps_answer_alike() {
    let cpus = possible_cpus();
    let keyless = || proptest::strategy::Just(Vec::new()).boxed();
    let padded = 16 * cpus as usize;
    let cases = [
        (def("h", MapKind::Hash, 4, 12, 5), short_key(4), 12),
        (def("h", MapKind::Hash, 13, 8, 5), short_key(13), 8),
        (
            def("h", MapKind::PercpuHash, 4, 16, 5),
            short_key(4),
            padded,
        ),
        (def("a", MapKind::Array, 4, 10, 5), index(), 10),
        (def("a", MapKind::PercpuArray, 4, 16, 5), index(), padded),
        (def("t", MapKind::LpmTrie, 6, 4, 9), prefix(), 4),
        (def("q", MapKind::Queue, 0, 5, 4), keyless(), 5),
        (def("s", MapKind::Stack, 0, 8, 4), keyless(), 8),
    ];
    for (def, key, value) in cases {
        if def.kind == MapKind::LpmTrie && !kernel_is_recent() {
            eprintln!("SKIP: tries of this kernel are older than 6.13's");
            continue;
        }
        let strategy = ops(key, value);
        let mut runner = TestRunner::deterministic();
        for run in 0..RUNS {
            let theirs = match Kernel::new(&def) {
                Ok(map) => map,
                Err(error) => {
                    eprintln!("SKIP: no maps of the kernel's: {error}");
                    return;
                }
            };
            let ours = Map::new(&def, cpus).expect("a map");
            let all = strategy.new_tree(&mut runner).expect("a case").current();
            for (at, op) in all.iter().enumerate() {
                // Linux removes by a look-up elsewhere too; here only queues are asked.
                if matches!(op, Op::Pop) && def.key_size != 0 {
                    continue;
                }
                assert_eq!(
                    said(ask(&ours, op)),
                    theirs.ask(op),
                    "{:?}, run {run}, operation {at}: {op:?} of {all:?}",
                    def.kind
                );
            }
            if def.key_size == 0 {
                continue;
            }
            let mut kernel = theirs.all();
            if def.kind == MapKind::LpmTrie {
                kernel = kernel
                    .into_iter()
                    .map(|(key, value)| (masked(key), value))
                    .collect();
                kernel.sort();
            }
            let mut here: Vec<_> = ours.dump().into_iter().map(|e| (e.key, e.value)).collect();
            here.sort();
            assert_eq!(here, kernel, "{:?}, run {run}", def.kind);
        }
    }
}

#[test]
fn the_kernel_refuses_the_same_definitions() {
    let mut cases = Vec::new();
    for kind in [
        MapKind::Hash,
        MapKind::Array,
        MapKind::PercpuArray,
        MapKind::LpmTrie,
        MapKind::Queue,
        MapKind::Stack,
        MapKind::RingBuf,
        MapKind::ProgArray,
        MapKind::DevMap,
        MapKind::XskMap,
    ] {
        for key in [0, 3, 4, 8] {
            for value in [0, 4, 8] {
                for entries in [0, 1, 4096, 5000] {
                    cases.push(def("m", kind, key, value, entries));
                }
            }
        }
    }
    if Kernel::new(&def("probe", MapKind::Array, 4, 4, 1)).is_err() {
        eprintln!("SKIP: no maps of the kernel's");
        return;
    }
    for def in cases {
        let (theirs, ours) = (Kernel::new(&def), Map::new(&def, 1));
        assert_eq!(
            theirs.is_ok(),
            ours.is_ok(),
            "{def:?}: {:?} and {:?}",
            theirs.err(),
            ours.err()
        );
    }
}
