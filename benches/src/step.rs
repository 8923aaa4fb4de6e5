//! Counts the instructions of a call by the processor's trap flag: one SIGTRAP an instruction,
//! exact whatever the machine's load.
//!
//! x86-64 Linux only: elsewhere [`trace`] runs the call and counts nothing.

#![expect(unsafe_code, reason = "flags, signal handler")]

use std::ops::Range;

/// Instructions of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// Addresses of those in the ranges asked for, in the order they ran.
    pub inside: Vec<usize>,
    /// All, and some ten of setting the trap flag.
    pub total: u64,
}

/// Anonymous executable mappings of this process: where compiled code is.
///
/// # Errors
/// `/proc/self/maps` cannot be read.
pub fn compiled_code() -> std::io::Result<Vec<Range<usize>>> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let parse = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (range, rights) = (fields.next()?, fields.next()?);
        // Offset, device and inode; a sixth field is a name.
        if !rights.contains('x') || fields.nth(3).is_some() {
            return None;
        }
        let (start, end) = range.split_once('-')?;
        let hex = |text| usize::from_str_radix(text, 16).ok();
        Some(hex(start)?..hex(end)?)
    };
    Ok(maps.lines().filter_map(parse).collect())
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod imp {
    use std::arch::asm;
    use std::mem::MaybeUninit;
    use std::ops::Range;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

    use super::Trace;

    /// Ranges and instructions in them that one trace takes.
    const RANGES: usize = 16;
    const INSIDE: usize = 1 << 16;

    // The handler may only touch memory that is there: statics.
    static STARTS: [AtomicUsize; RANGES] = [const { AtomicUsize::new(0) }; RANGES];
    static ENDS: [AtomicUsize; RANGES] = [const { AtomicUsize::new(0) }; RANGES];
    static TRACE: [AtomicUsize; INSIDE] = [const { AtomicUsize::new(0) }; INSIDE];
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    static TOTAL: AtomicU64 = AtomicU64::new(0);
    /// One trace at a time.
    static ONE: Mutex<()> = Mutex::new(());

    /// Runs before each instruction of a traced call, which `uc_mcontext` is about.
    extern "C" fn on_trap(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
        // SAFETY: the kernel calls a SA_SIGINFO handler with its `ucontext_t`.
        let context = unsafe { &*context.cast::<libc::ucontext_t>() };
        let at = context.uc_mcontext.gregs[libc::REG_RIP as usize] as usize;
        TOTAL.fetch_add(1, Relaxed);
        for (start, end) in STARTS.iter().zip(&ENDS) {
            if (start.load(Relaxed)..end.load(Relaxed)).contains(&at) {
                if let Some(slot) = TRACE.get(COUNT.fetch_add(1, Relaxed)) {
                    slot.store(at, Relaxed);
                }
                return;
            }
        }
    }

    pub(super) fn trace<R>(
        ranges: &[Range<usize>],
        call: impl FnOnce() -> R,
    ) -> std::io::Result<(R, Trace)> {
        let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if ranges.len() > RANGES {
            return Err(std::io::Error::other("too many ranges of code"));
        }
        for (at, (start, end)) in STARTS.iter().zip(&ENDS).enumerate() {
            let range = ranges.get(at).cloned().unwrap_or_default();
            start.store(range.start, Relaxed);
            end.store(range.end, Relaxed);
        }
        COUNT.store(0, Relaxed);
        TOTAL.store(0, Relaxed);

        // SAFETY: all bits zero is a `sigaction` (default action, empty mask, no flags).
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        action.sa_sigaction = on_trap as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        // SAFETY: as above.
        let mut before: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: both structures live through the call; the handler is async-signal-safe, it only
        // touches lock-free atomics.
        if unsafe { libc::sigaction(libc::SIGTRAP, &raw const action, &raw mut before) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: changes only the trap flag; the stack is back where it was, and the default
        // options say that it is used and flags are changed. Traps go to the handler above.
        unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
        let result = call();
        // SAFETY: as above.
        unsafe { asm!("pushfq", "and qword ptr [rsp], ~0x100", "popfq") };
        // SAFETY: puts back what was there.
        unsafe { libc::sigaction(libc::SIGTRAP, &raw const before, std::ptr::null_mut()) };

        let count = COUNT.load(Relaxed);
        let Some(inside) = TRACE.get(..count) else {
            return Err(std::io::Error::other(format!(
                "{count} instructions are more than a trace holds"
            )));
        };
        let trace = Trace {
            inside: inside.iter().map(|at| at.load(Relaxed)).collect(),
            total: TOTAL.load(Relaxed),
        };
        Ok((result, trace))
    }
}

/// Runs `call`, instruction by instruction. A call that unwinds leaves the thread trapping: it must
/// not.
///
/// # Errors
/// The handler cannot be set, or more runs in `ranges` than a trace holds.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub fn trace<R>(ranges: &[Range<usize>], call: impl FnOnce() -> R) -> std::io::Result<(R, Trace)> {
    imp::trace(ranges, call)
}

/// Runs `call` and counts nothing.
///
/// # Errors
/// Always: this machine is not x86-64 Linux.
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
pub fn trace<R>(_: &[Range<usize>], _: impl FnOnce() -> R) -> std::io::Result<(R, Trace)> {
    Err(std::io::Error::other(
        "instructions are counted on x86-64 Linux only",
    ))
}

#[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
mod tests {
    use super::*;

    #[unsafe(naked)]
    extern "C" fn seven_instructions() -> u32 {
        std::arch::naked_asm!("mov ecx, 2", "2: dec ecx", "jnz 2b", "mov eax, 7", "ret")
    }

    #[test]
    fn every_instruction_in_the_range_counts_once_each_time_it_runs() {
        let start = seven_instructions as *const () as usize;
        // 5 + 2 + 2 + 5 + 1 bytes.
        let (result, trace) = trace(std::slice::from_ref(&(start..start + 15)), || {
            seven_instructions()
        })
        .unwrap();
        assert_eq!(result, 7);
        assert_eq!(trace.inside.len(), 7, "{:x?}", trace.inside);
        assert_eq!(trace.inside[0], start);
        assert!(trace.total > 7);
    }
}
