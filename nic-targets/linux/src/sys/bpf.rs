//! eBPF maps and programs (bpf(2)): created, filled, loaded and test-run; closed on drop.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use dash_bpf::map::{F_NO_PREALLOC, MapDef, MapKind};
use dash_bpf::{Insn, ProgramKind};
use thiserror::Error;

// enum bpf_cmd
const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const MAP_DELETE_ELEM: libc::c_int = 3;
const MAP_GET_NEXT_KEY: libc::c_int = 4;
const PROG_LOAD: libc::c_int = 5;
const PROG_TEST_RUN: libc::c_int = 10;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const MAP_LOOKUP_AND_DELETE_ELEM: libc::c_int = 21;
const LINK_CREATE: libc::c_int = 28;

/// `BPF_PROG_TYPE_XDP`.
const PROG_TYPE_XDP: u32 = 6;

/// `BPF_XDP` of `enum bpf_attach_type`.
const ATTACH_XDP: u32 = 37;

/// `BPF_F_XDP_HAS_FRAGS`: the program takes packets of several buffers.
const HAS_FRAGS: u32 = 1 << 5;

/// Longest name the kernel keeps: `BPF_OBJ_NAME_LEN` - 1.
const NAME_LEN: usize = 15;

/// Room for the verifier's reasons.
const LOG_BYTES: usize = 4 << 20;

/// Lines of the verifier's log that an error shows: the last ones say why.
const LOG_LINES: usize = 40;

// Prefixes of `union bpf_attr`; the kernel takes what is not given as zero.

#[repr(C)]
struct CreateAttr {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; NAME_LEN + 1],
}

#[repr(C)]
struct ElemAttr {
    map_fd: u32,
    pad: u32,
    key: u64,
    /// Value, or where the next key goes.
    value: u64,
    flags: u64,
}

#[repr(C)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; NAME_LEN + 1],
}

#[repr(C)]
struct TestRunAttr {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

#[repr(C)]
struct LinkAttr {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
struct IdAttr {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

#[repr(C)]
struct InfoAttr {
    fd: u32,
    len: u32,
    info: u64,
}

/// Start of `struct bpf_prog_info`, up to the name.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    before: [u64; 8],
    name: [u8; NAME_LEN + 1],
}

/// Calls bpf(2).
///
/// # Safety
/// `attr` must be the attribute of `cmd` with every pointer in it valid for what the command reads
/// or writes there.
unsafe fn bpf<T>(cmd: libc::c_int, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads and writes at most `size_of::<T>()` bytes of `attr`, which is
    // exclusive; what its pointers reach is the caller's promise.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, cmd, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn address<T>(slice: &[T]) -> u64 {
    slice.as_ptr() as u64
}

fn name(text: &str) -> [u8; NAME_LEN + 1] {
    let mut name = [0; NAME_LEN + 1];
    for (to, from) in name.iter_mut().take(NAME_LEN).zip(text.bytes()) {
        // The kernel refuses other characters.
        *to = if from.is_ascii_alphanumeric() || from == b'_' || from == b'.' {
            from
        } else {
            b'_'
        };
    }
    name
}

/// CPUs that can ever be online: how many values an element of a per-CPU map has.
pub fn possible_cpus() -> io::Result<usize> {
    static CPUS: OnceLock<usize> = OnceLock::new();
    if let Some(&cpus) = CPUS.get() {
        return Ok(cpus);
    }
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let cpus = cpu_count(&text)
        .ok_or_else(|| io::Error::other(format!("/sys/devices/system/cpu/possible is {text:?}")))?;
    Ok(*CPUS.get_or_init(|| cpus))
}

/// Size of a list such as `0-3,8`.
fn cpu_count(list: &str) -> Option<usize> {
    let mut count = 0usize;
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        count = count.checked_add(last.checked_sub(first)?.checked_add(1)?)?;
    }
    Some(count)
}

/// A map in the kernel.
#[derive(Debug)]
pub struct Map {
    fd: OwnedFd,
    def: MapDef,
    /// Bytes of an element as system calls carry it: all CPUs' values of a per-CPU map.
    value_len: usize,
}

impl AsRawFd for Map {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Map {
    /// Creates a map. Hash maps are not preallocated, so that their capacity costs memory only as
    /// it is used; kinds the kernel does not have give `Unsupported`.
    pub fn create(def: &MapDef) -> io::Result<Self> {
        let Some(map_type) = def.kind.linux() else {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("{:?} is not a kernel map", def.kind),
            ));
        };
        let value_len = match def.kind {
            MapKind::PercpuArray | MapKind::PercpuHash | MapKind::LruPercpuHash => (def.value_size
                as usize)
                .next_multiple_of(8)
                .saturating_mul(possible_cpus()?),
            _ => def.value_size as usize,
        };
        // It is made after this one, which it does not keep.
        let template = def.inner.as_ref();
        let template = template
            .map(|inner| Self::create(&inner.template))
            .transpose()?;
        let lazily = if def.kind == MapKind::Hash {
            F_NO_PREALLOC
        } else {
            0
        };
        let mut attr = CreateAttr {
            map_type,
            key_size: def.key_size,
            value_size: def.value_size,
            max_entries: def.max_entries,
            map_flags: def.flags | lazily,
            inner_map_fd: template.as_ref().map_or(0, |map| map.fd() as u32),
            numa_node: 0,
            map_name: name(&def.name),
        };
        // SAFETY: the attribute of MAP_CREATE; it holds no pointers.
        let fd = unsafe { bpf(MAP_CREATE, &mut attr) }?;
        // SAFETY: the kernel just made `fd` for us; nobody else holds it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
        Ok(Self {
            fd,
            def: def.clone(),
            value_len,
        })
    }

    /// Its definition.
    pub fn def(&self) -> &MapDef {
        &self.def
    }

    /// For instructions that name it, while it lives.
    pub fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Puts a socket into a slot of a map of AF_XDP sockets.
    pub fn set_socket(&self, slot: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.update(&slot.to_ne_bytes(), &socket.as_raw_fd().to_ne_bytes())
    }

    /// Bytes of an element: for per-CPU maps, of every possible CPU's value, each a multiple of 8.
    pub fn value_len(&self) -> usize {
        self.value_len
    }

    /// Reads an element into `value` (resized to [`value_len`](Self::value_len)); false when absent.
    pub fn lookup(&self, key: &[u8], value: &mut Vec<u8>) -> io::Result<bool> {
        value.resize(self.value_len, 0);
        self.check("key", key.len(), self.def.key_size as usize)?;
        self.element(MAP_LOOKUP_ELEM, key, value.as_mut_ptr() as u64, 0)
    }

    /// Writes an element, made if absent.
    pub fn update(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.check("key", key.len(), self.def.key_size as usize)?;
        self.check("value", value.len(), self.value_len)?;
        self.element(MAP_UPDATE_ELEM, key, address(value), 0)
            .map(drop)
    }

    /// Puts a program into a slot of a program array.
    pub fn set_program(&self, slot: u32, program: &Program) -> io::Result<()> {
        self.update(&slot.to_ne_bytes(), &program.fd.as_raw_fd().to_ne_bytes())
    }

    /// Removes an element; false when absent. Arrays have nothing to remove (`InvalidInput`).
    pub fn delete(&self, key: &[u8]) -> io::Result<bool> {
        self.check("key", key.len(), self.def.key_size as usize)?;
        self.element(MAP_DELETE_ELEM, key, 0, 0)
    }

    /// Writes the key after `key` (the first for `None`) to `next`; false at the end.
    pub fn next_key(&self, key: Option<&[u8]>, next: &mut Vec<u8>) -> io::Result<bool> {
        next.resize(self.def.key_size as usize, 0);
        if let Some(key) = key {
            self.check("key", key.len(), self.def.key_size as usize)?;
        }
        self.element(
            MAP_GET_NEXT_KEY,
            key.unwrap_or_default(),
            next.as_mut_ptr() as u64,
            0,
        )
    }

    /// Adds to a queue or stack.
    pub fn push(&self, value: &[u8]) -> io::Result<()> {
        self.check("key", 0, self.def.key_size as usize)?;
        self.check("value", value.len(), self.value_len)?;
        self.element(MAP_UPDATE_ELEM, &[], address(value), 0)
            .map(drop)
    }

    /// Takes from a queue or stack into `value`; false when it is empty.
    pub fn pop(&self, value: &mut Vec<u8>) -> io::Result<bool> {
        self.check("key", 0, self.def.key_size as usize)?;
        value.resize(self.value_len, 0);
        self.element(
            MAP_LOOKUP_AND_DELETE_ELEM,
            &[],
            value.as_mut_ptr() as u64,
            0,
        )
    }

    fn check(&self, part: &str, got: usize, want: usize) -> io::Result<()> {
        if got == want {
            return Ok(());
        }
        let name = &self.def.name;
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("map {name}: {part} of {got} bytes, not {want}"),
        ))
    }

    /// One element command: false for "no such element". Callers have checked that `key` has the
    /// map's key size (or is empty, for none) and that `value` is 0 or an address at which the
    /// command may read or write `value_len` bytes (`key_size` for the next key).
    fn element(&self, cmd: libc::c_int, key: &[u8], value: u64, flags: u64) -> io::Result<bool> {
        let key = if key.is_empty() { 0 } else { address(key) };
        let mut attr = ElemAttr {
            map_fd: self.fd() as u32,
            pad: 0,
            key,
            value,
            flags,
        };
        // SAFETY: the attribute of an element command on our own map. The kernel reads `key_size`
        // bytes at `key`, and reads or writes at `value` the key size or the value size it was
        // created with, times possible CPUs in steps of 8 for per-CPU kinds (map_value_size in
        // kernel/bpf/syscall.c): the sizes that `create` computed and the callers checked, in
        // memory they borrow through the call, exclusively where it is written.
        match unsafe { bpf(cmd, &mut attr) } {
            Ok(_) => Ok(true),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(e) => Err(e),
        }
    }
}

/// Why the kernel did not take a program.
#[derive(Debug, Error)]
#[error("the kernel refused program {program} of {slots} instructions: {source}{log}")]
pub struct LoadError {
    /// Its name.
    pub program: String,
    /// Its length, slots.
    pub slots: usize,
    /// The system call's error.
    pub source: io::Error,
    /// End of the verifier's log, each line after a newline; empty when there is none.
    pub log: String,
}

/// A program in the kernel.
#[derive(Debug)]
pub struct Program {
    fd: OwnedFd,
}

/// Outcome of a test run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TestRun {
    /// What the program returned.
    pub retval: u32,
    /// Bytes of the packet afterwards.
    pub len: usize,
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Program {
    /// Loads a program; map references must be file descriptors already.
    pub fn load(program: &str, kind: ProgramKind, insns: &[Insn]) -> Result<Self, LoadError> {
        Self::load_with(program, kind, insns, 0)
    }

    /// Like [`load`](Self::load), for packets that may continue in further buffers (jumbo frames):
    /// the program sees the first one.
    pub fn load_frags(program: &str, kind: ProgramKind, insns: &[Insn]) -> Result<Self, LoadError> {
        Self::load_with(program, kind, insns, HAS_FRAGS)
    }

    fn load_with(
        program: &str,
        kind: ProgramKind,
        insns: &[Insn],
        flags: u32,
    ) -> Result<Self, LoadError> {
        let fail = |source, log| LoadError {
            program: program.to_owned(),
            slots: insns.len(),
            source,
            log,
        };
        if kind != ProgramKind::Xdp {
            let source = io::Error::new(
                io::ErrorKind::Unsupported,
                format!("{kind:?} programs have no hook here"),
            );
            return Err(fail(source, String::new()));
        }
        let code = insns.iter().map(|i| i.to_bytes()).collect::<Vec<_>>();
        match Self::try_load(program, &code, flags, &mut []) {
            Ok(fd) => Ok(Self { fd }),
            Err(source) => {
                // Again, only to hear why: logging slows verification several times over.
                let mut log = vec![0; LOG_BYTES];
                match Self::try_load(program, &code, flags, &mut log) {
                    Ok(fd) => Ok(Self { fd }),
                    Err(_) => Err(fail(source, tail(&log))),
                }
            }
        }
    }

    fn try_load(
        program: &str,
        code: &[[u8; 8]],
        flags: u32,
        log: &mut [u8],
    ) -> io::Result<OwnedFd> {
        let mut attempts = 0;
        loop {
            let mut attr = LoadAttr {
                prog_type: PROG_TYPE_XDP,
                insn_cnt: code.len() as u32,
                insns: address(code),
                license: c"Apache-2.0".as_ptr() as u64,
                log_level: u32::from(!log.is_empty()),
                log_size: log.len() as u32,
                log_buf: if log.is_empty() {
                    0
                } else {
                    log.as_mut_ptr() as u64
                },
                kern_version: 0,
                prog_flags: flags,
                prog_name: name(program),
            };
            // SAFETY: the attribute of PROG_LOAD: `insn_cnt` slots of 8 bytes at `insns`, a C string at
            // `license`, `log_size` writable bytes at `log_buf`, all borrowed through the call. What
            // the code may do is the kernel's verifier's to judge.
            match unsafe { bpf(PROG_LOAD, &mut attr) } {
                // SAFETY: the kernel just made the descriptor for us; nobody else holds it.
                Ok(fd) => return Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }),
                // A signal interrupted the verifier.
                Err(e) if e.raw_os_error() == Some(libc::EAGAIN) && attempts < 5 => attempts += 1,
                Err(e) => return Err(e),
            }
        }
    }

    /// Runs the program once on a packet; the result is in the first [`TestRun::len`] bytes of `out`.
    pub fn test_run(&self, packet: &[u8], out: &mut [u8]) -> io::Result<TestRun> {
        let mut attr = TestRunAttr {
            prog_fd: self.fd.as_raw_fd() as u32,
            retval: 0,
            data_size_in: packet.len() as u32,
            data_size_out: out.len() as u32,
            data_in: address(packet),
            data_out: out.as_mut_ptr() as u64,
            repeat: 1,
            duration: 0,
        };
        // SAFETY: the attribute of PROG_TEST_RUN: the kernel reads `data_size_in` bytes at `data_in`
        // and writes at most `data_size_out` at `data_out`; both slices are borrowed through the call.
        unsafe { bpf(PROG_TEST_RUN, &mut attr) }?;
        Ok(TestRun {
            retval: attr.retval,
            len: (attr.data_size_out as usize).min(out.len()),
        })
    }
}

/// Name of a loaded program; `None` when there is none of this id, or none that we may ask.
pub fn program_name(id: u32) -> Option<String> {
    let mut attr = IdAttr {
        id,
        next_id: 0,
        open_flags: 0,
    };
    // SAFETY: the attribute of PROG_GET_FD_BY_ID; it holds no pointers.
    let fd = unsafe { bpf(PROG_GET_FD_BY_ID, &mut attr) }.ok()?;
    // SAFETY: the kernel just made the descriptor for us; nobody else holds it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
    let mut info = ProgramInfo::default();
    let mut attr = InfoAttr {
        fd: fd.as_raw_fd() as u32,
        len: size_of::<ProgramInfo>() as u32,
        info: (&raw mut info) as u64,
    };
    // SAFETY: the attribute of OBJ_GET_INFO_BY_FD: the kernel writes at most `len` bytes to `info`,
    // a local of that size; the pointers and lengths it reads there are zero, which asks for nothing.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }.ok()?;
    let name = info.name.split(|&b| b == 0).next().unwrap_or_default();
    Some(String::from_utf8_lossy(name).into_owned())
}

/// A program that runs on an interface's packets while this lives (a `bpf_link`).
#[derive(Debug)]
pub struct Link {
    _fd: OwnedFd,
}

impl Link {
    /// Attaches an XDP program. `flags` are `XDP_FLAGS_*` of linux/if_link.h.
    pub fn xdp(program: &Program, ifindex: u32, flags: u32) -> io::Result<Self> {
        let mut attr = LinkAttr {
            prog_fd: program.fd.as_raw_fd() as u32,
            target_ifindex: ifindex,
            attach_type: ATTACH_XDP,
            flags,
        };
        // SAFETY: the attribute of LINK_CREATE; it holds no pointers.
        let fd = unsafe { bpf(LINK_CREATE, &mut attr) }?;
        // SAFETY: the kernel just made the descriptor for us; nobody else holds it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
        Ok(Self { _fd: fd })
    }
}

/// Last lines of a verifier log, each after a newline.
fn tail(log: &[u8]) -> String {
    let text =
        String::from_utf8_lossy(log.split(|&b| b == 0).next().unwrap_or_default()).into_owned();
    let lines = text.lines().collect::<Vec<_>>();
    lines
        .iter()
        .skip(lines.len().saturating_sub(LOG_LINES))
        .map(|line| format!("\n  {line}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_are_counted() {
        for (list, count) in [
            ("0\n", Some(1)),
            ("0-3", Some(4)),
            ("0-3,8,10-11", Some(7)),
            ("", None),
            ("3-1", None),
            ("x", None),
        ] {
            assert_eq!(cpu_count(list), count, "{list:?}");
        }
    }

    #[test]
    fn the_end_of_a_log_is_kept() {
        let log = (0..100).map(|n| format!("line {n}\n")).collect::<String>() + "\0\0\0";
        let end = tail(log.as_bytes());
        assert_eq!(end.lines().filter(|l| !l.is_empty()).count(), LOG_LINES);
        assert!(
            end.starts_with("\n  line 60") && end.ends_with("line 99"),
            "{end}"
        );
    }
}
