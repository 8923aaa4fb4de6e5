//! What this machine is, how busy it is, and clocks of threads.

use std::path::Path;
use std::time::SystemTime;

use dash_runtime::runtime::affinity::{self, Cores};
use rustix::time::{ClockId, clock_gettime};

use crate::result::Machine;

/// CPU time the calling thread has used, ns. The kernel's time for it counts; other threads' does not.
pub fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // CPU time is never negative.
    (time.tv_sec as u64) * 1_000_000_000 + time.tv_nsec as u64
}

/// Cores for so many workers, the first ones this process may use; `None` when there are fewer.
pub fn worker_cores(workers: usize) -> Option<Cores> {
    let allowed = affinity::allowed().ok()?;
    Cores::new(allowed.as_slice().get(..workers)?.to_vec()).ok()
}

/// The core after those of the workers, for a generator; `None` when there is none, and it must share.
pub fn generator_core(workers: usize) -> Option<usize> {
    let allowed = affinity::allowed().ok()?;
    allowed.as_slice().get(workers).copied()
}

/// Logical processors this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// Time for which the calling thread could have run and was not let, ns: others ran on its processor. 0
/// where the system does not count it.
pub fn run_delay_ns() -> u64 {
    let text = read("/proc/thread-self/schedstat");
    let delay = text.split_whitespace().nth(1);
    delay.and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

/// Time that the host kept all processors of this machine from running, ns, in steps of 10 ms. 0 on
/// hardware, and where the host does not tell.
pub fn stolen_ns() -> u64 {
    stolen(&read("/proc/stat"))
}

/// A tick of /proc/stat, ns: USER_HZ is 100 on every architecture that Linux still has but Alpha.
const TICK_NS: u64 = 10_000_000;

fn stolen(stat: &str) -> u64 {
    let all = stat.lines().find_map(|line| line.strip_prefix("cpu "));
    let steal = all.and_then(|all| all.split_whitespace().nth(7));
    let ticks: u64 = steal.and_then(|n| n.parse().ok()).unwrap_or(0);
    ticks * TICK_NS
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// A field of a `name: value` file of /proc.
fn field(text: &str, name: &str) -> Option<String> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'))
        .map(|value| value.trim().to_owned())
}

/// A size of /proc in kB, as bytes.
fn bytes(text: &str, name: &str) -> Option<u64> {
    let value = field(text, name)?;
    let number: u64 = value.strip_suffix("kB")?.trim().parse().ok()?;
    Some(number * 1024)
}

/// One-minute load average.
pub fn load() -> f64 {
    let text = read("/proc/loadavg");
    text.split(' ')
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(f64::NAN)
}

/// Memory that could be had now without swapping, bytes.
pub fn available_memory() -> u64 {
    bytes(&read("/proc/meminfo"), "MemAvailable").unwrap_or(0)
}

/// Memory of this process that is in RAM, bytes.
pub fn resident_memory() -> u64 {
    let status = read("/proc/self/status");
    bytes(&status, "VmRSS").unwrap_or(0) + bytes(&status, "HugetlbPages").unwrap_or(0)
}

/// Describes the machine; the load at the end is the caller's to add.
pub fn describe() -> Machine {
    let (cpu, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let profile = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    let huge = read("/sys/kernel/mm/transparent_hugepage/enabled");
    let mut notes = vec![(
        "huge pages".to_owned(),
        format!(
            "{} reserved; transparent: {}",
            field(&memory, "HugePages_Total").unwrap_or_else(|| "?".to_owned()),
            huge.trim(),
        ),
    )];
    let caches = caches();
    if !caches.is_empty() {
        notes.push(("caches".to_owned(), caches));
    }
    Machine {
        cpu: field(&cpu, "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        cores: cores(),
        memory: bytes(&memory, "MemTotal").unwrap_or(0),
        system: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
        build: format!("dashwire {} {profile}", env!("CARGO_PKG_VERSION")),
        date: rfc3339(SystemTime::now()),
        load: [load(), f64::NAN],
        notes,
    }
}

fn caches() -> String {
    let base = Path::new("/sys/devices/system/cpu/cpu0/cache");
    let part = |n: usize, name: &str| {
        let text = std::fs::read_to_string(base.join(format!("index{n}/{name}"))).ok()?;
        Some(text.trim().to_owned())
    };
    let all = (0..8).map_while(|n| {
        let (level, kind, size) = (part(n, "level")?, part(n, "type")?, part(n, "size")?);
        Some(format!("L{level} {kind} {size}"))
    });
    all.collect::<Vec<_>>().join(", ")
}

/// UTC, to the second (days to dates after Hinnant, "chrono-compatible low-level date algorithms").
fn rfc3339(time: SystemTime) -> String {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let (days, second) = ((since.as_secs() / 86_400) as i64, since.as_secs() % 86_400);
    let z = days + 719_468;
    let (era, doe) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        second / 3_600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |s| rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(s));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_795_305_599), "2026-11-21T23:59:59Z");
    }

    #[test]
    fn what_the_host_took_is_the_eighth_column() {
        let stat = "cpu  10 20 30 40 50 60 70 8 90 100\ncpu0 1 2 3 4 5 6 7 4 9 10\n";
        assert_eq!(stolen(stat), 80_000_000);
        assert_eq!(stolen("cpu  1 2 3\n"), 0);
        // Never runs backwards; a thread alone on a processor has none.
        let before = run_delay_ns();
        std::thread::yield_now();
        assert!(run_delay_ns() >= before);
    }

    #[test]
    fn this_machine_has_a_processor_memory_and_a_clock() {
        let machine = describe();
        assert!(machine.cores > 0 && machine.memory > 1 << 20 && !machine.cpu.is_empty());
        assert!(resident_memory() > 1 << 16 && available_memory() > 0);
        let before = thread_cpu_ns();
        let sum: u64 = (0..100_000).map(std::hint::black_box).sum();
        assert!(sum > 0 && thread_cpu_ns() > before);
    }
}
