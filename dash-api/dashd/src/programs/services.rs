//! What helpers of users' programs ask of the daemon: routes, and somewhere to print.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dash_pipeline::plan::UnderlayTable;
use dash_prog::helpers::Print;
use dash_prog::helpers::fib::{Answer, Fib, Query};
use tokio::sync::mpsc;

/// Lines that wait to be logged; further ones are lost.
const LINES: usize = 256;

/// A table, and a number that no other table of the process has.
#[derive(Debug)]
struct Snapshot {
    version: u64,
    table: UnderlayTable,
}

impl Snapshot {
    fn new(table: UnderlayTable) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // Relaxed: numbers differ, and that is all.
        let version = NEXT.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { version, table })
    }
}

/// Routes and neighbours as `bpf_fib_lookup` sees them. Workers look at a snapshot of their own, and take the lock
/// only to get another after a change.
#[derive(Debug)]
pub struct Underlay {
    mtus: Vec<u16>,
    version: AtomicU64,
    now: Mutex<Arc<Snapshot>>,
}

thread_local! {
    static SEEN: RefCell<Option<Arc<Snapshot>>> = const { RefCell::new(None) };
}

impl Underlay {
    /// A table, of ports that take IP packets of so many bytes each.
    pub fn new(table: UnderlayTable, mtus: Vec<u16>) -> Self {
        let now = Snapshot::new(table);
        Self {
            mtus,
            version: AtomicU64::new(now.version),
            now: Mutex::new(now),
        }
    }

    /// Replaces the table.
    pub fn set(&self, table: UnderlayTable) {
        let next = Snapshot::new(table);
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        // Release: who sees the number finds the table, or a later one, behind the lock.
        self.version.store(next.version, Ordering::Release);
        *now = next;
    }
}

impl Fib for Underlay {
    fn lookup(&self, query: &Query) -> Answer {
        let version = self.version.load(Ordering::Acquire);
        SEEN.with_borrow_mut(|seen| {
            let table = match seen {
                Some(seen) if seen.version == version => &seen.table,
                _ => {
                    let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
                    &seen.insert(Arc::clone(&now)).table
                }
            };
            let mtu = |port| self.mtus.get(port as usize).copied().unwrap_or(u16::MAX);
            dashctl::underlay::lookup(table, query, mtu)
        })
    }
}

/// Logs what programs print (`bpf_trace_printk`). A worker never waits for the log: lines without room are lost.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn printer() -> Print {
    let (lines, mut waiting) = mpsc::channel::<String>(LINES);
    tokio::spawn(async move {
        while let Some(line) = waiting.recv().await {
            tracing::info!(target: "trace_printk", "{line}");
        }
    });
    Arc::new(move |line: &str| {
        let _ = lines.try_send(line.trim_end().to_owned());
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use dash_pipeline::plan::UnderlayRoute;

    fn to(port: u32) -> UnderlayTable {
        let prefix = "10.0.0.0/8".parse().unwrap_or_else(|e| panic!("{e}"));
        UnderlayTable {
            routes: vec![UnderlayRoute {
                prefix,
                port,
                next_hop: None,
            }],
            ..UnderlayTable::default()
        }
    }

    fn port(underlay: &Underlay) -> Option<u32> {
        let query = Query {
            ifindex: 0,
            source: [10, 0, 0, 1].into(),
            destination: [10, 0, 0, 2].into(),
            length: 0,
        };
        match underlay.lookup(&query) {
            Answer::Forward { ifindex, mtu, .. } => (mtu == 1400).then_some(ifindex),
            _ => None,
        }
    }

    #[test]
    fn a_change_is_seen_by_threads_that_asked_before_and_two_tables_are_not_mixed_up() {
        let (one, other) = (
            Underlay::new(to(1), vec![9000, 1400, 9000, 1400]),
            Underlay::new(to(2), vec![1500, 9000, 1400]),
        );
        for _ in 0..2 {
            assert_eq!((port(&one), port(&other)), (Some(1), Some(2)));
        }
        one.set(to(3));
        assert_eq!((port(&one), port(&other)), (Some(3), Some(2)));
        one.set(UnderlayTable::default());
        assert_eq!(port(&one), None);
    }
}
