//! Programs given to the kernel, and the machine code that it makes of them.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use anyhow::{Result, ensure};
use dash_bpf::Insn;

const PROG_LOAD: libc::c_int = 5;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const PROG_TYPE_XDP: u32 = 6;

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
}

#[repr(C)]
struct InfoAttr {
    fd: u32,
    len: u32,
    info: u64,
}

/// Head of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct ProgInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_len: u32,
    xlated_len: u32,
    jited: u64,
    xlated: u64,
    load_time: u64,
    uid: u32,
    map_count: u32,
    map_ids: u64,
    name: [u8; 16],
    ifindex: u32,
    gpl: u32,
    netns_dev: u64,
    netns_ino: u64,
    ksym_count: u32,
    func_len_count: u32,
    ksyms: u64,
    func_lens: u64,
}

/// Calls bpf(2).
///
/// # Safety
/// `attr` is the attribute of `cmd`, and its pointers are valid for what the command does.
unsafe fn bpf<T>(cmd: libc::c_int, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the kernel touches at most `size_of::<T>()` bytes of `attr`; the rest is the caller's.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, cmd, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// Gives a program to the kernel, whose verdict is the error.
pub(super) fn load(insns: &[Insn]) -> io::Result<OwnedFd> {
    let code: Vec<[u8; 8]> = insns.iter().map(|insn| insn.to_bytes()).collect();
    let mut attr = LoadAttr {
        prog_type: PROG_TYPE_XDP,
        insn_cnt: code.len() as u32,
        insns: code.as_ptr().expose_provenance() as u64,
        license: c"Apache-2.0".as_ptr().expose_provenance() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
    };
    // SAFETY: `insn_cnt` slots at `insns` and a C string, alive through the call.
    let fd = unsafe { bpf(PROG_LOAD, &mut attr) }?;
    // SAFETY: the kernel just made the descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// One program's machine code.
#[derive(Debug)]
pub(super) struct Jited {
    /// Where the kernel has it.
    pub(super) address: u64,
    pub(super) code: Vec<u8>,
}

/// What the kernel made of a program.
pub(super) fn jited(program: &OwnedFd) -> Result<Jited> {
    let ask = |info: &mut ProgInfo| {
        let mut attr = InfoAttr {
            fd: program.as_raw_fd() as u32,
            len: size_of::<ProgInfo>() as u32,
            info: std::ptr::from_mut(info).expose_provenance() as u64,
        };
        // SAFETY: `len` bytes at `info`, and in it counts and addresses of buffers that large, or 0.
        unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }
    };
    let mut sizes = ProgInfo::default();
    ask(&mut sizes)?;
    ensure!(
        sizes.jited_len > 0,
        "the kernel does not compile (bpf_jit_enable)"
    );
    ensure!(
        sizes.ksym_count == 1,
        "a program of {} functions",
        sizes.ksym_count
    );
    let mut code = vec![0u8; sizes.jited_len as usize];
    let mut address = 0u64;
    let mut info = ProgInfo {
        jited_len: sizes.jited_len,
        jited: code.as_mut_ptr().expose_provenance() as u64,
        ksym_count: 1,
        ksyms: (&raw mut address).expose_provenance() as u64,
        ..ProgInfo::default()
    };
    ask(&mut info)?;
    ensure!(
        address != 0 && info.jited != 0,
        "the kernel hides its code (not root, or kptr_restrict)"
    );
    Ok(Jited { address, code })
}

/// Names of the kernel's symbols by address, of those in `wanted`.
pub(super) fn symbols(wanted: &HashSet<u64>) -> Result<HashMap<u64, Vec<String>>> {
    let mut names: HashMap<u64, Vec<String>> = HashMap::new();
    for line in std::fs::read_to_string("/proc/kallsyms")?.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (Some(address), Some(name)) = (fields.next(), fields.nth(1)) else {
            continue;
        };
        let address = u64::from_str_radix(address, 16)?;
        if wanted.contains(&address) {
            names.entry(address).or_default().push(name.to_owned());
        }
    }
    Ok(names)
}
