//! Code and policy tables that become visible together, and how they are handed to workers.
//!
//! Control makes generation n+1 from n ([`Generation::next`]: everything that can fail fails here,
//! and n is untouched), then publishes it by one pointer swap. A worker pins the collector once a
//! burst, so all packets of a burst see one generation, whole. A replaced generation is freed when
//! no worker can see it any more, and on the control thread: crossbeam may run deferred work on
//! whichever thread pins next, so what is deferred only moves the generation to a list
//! (`Retired`) that control empties. Freeing 100,000 routes takes milliseconds; a poll thread that
//! did it would lose packets.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crossbeam_epoch::{Atomic, Collector, Guard, LocalHandle, Owned};
use dash_wire::hook::{DashMeta, Place};
use dash_wire::tables::{EniRow, Meta};
use nic_target::image::ShapeHash;
use nic_target::{Capacity, Table, TargetError, Update};
use zerocopy::IntoBytes as _;

use crate::exec::{Code, Engine};
use crate::hooks::Hooks;
use crate::tables::policy::{PolicyMap, PolicyTables};

/// Code and rows of one moment.
#[derive(Debug)]
pub struct Generation {
    number: u64,
    shape: Option<ShapeHash>,
    code: Option<Arc<Code>>,
    tables: PolicyTables,
    hooks: Arc<Hooks>,
    /// Tells generations apart however control numbers them.
    serial: u64,
    /// Link of the list of retired generations.
    next: AtomicPtr<Generation>,
}

impl Generation {
    /// No code, empty tables.
    pub fn empty(capacity: &Capacity) -> Self {
        Self::with(0, None, None, PolicyTables::new(capacity), Arc::default())
    }

    fn with(
        number: u64,
        shape: Option<ShapeHash>,
        code: Option<Arc<Code>>,
        tables: PolicyTables,
        hooks: Arc<Hooks>,
    ) -> Self {
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        Self {
            number,
            shape,
            code,
            tables,
            hooks,
            serial,
            next: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// The generation after this one.
    ///
    /// # Errors
    /// A row is not right, or the engine cannot run the image. `self` stays as it is.
    pub fn next(&self, engine: Engine, update: &Update) -> Result<Self, TargetError> {
        let tables = self.tables.after(&update.delta)?;
        let (shape, code) = match &update.image {
            Some(image) => (
                Some(image.shape),
                Some(Arc::new(Code::prepare(engine, image, tables.defs())?)),
            ),
            None => (self.shape, self.code.clone()),
        };
        let hooks = Arc::clone(&self.hooks);
        Ok(Self::with(update.generation, shape, code, tables, hooks))
    }

    /// This generation with other programs of users: same number, code and rows.
    pub fn with_hooks(&self, hooks: Arc<Hooks>) -> Self {
        let (code, tables) = (self.code.clone(), self.tables.clone());
        Self::with(self.number, self.shape, code, tables, hooks)
    }

    /// Number control gave it.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Shape of the installed code.
    pub fn shape(&self) -> Option<ShapeHash> {
        self.shape
    }

    /// Installed code.
    pub fn code(&self) -> Option<&Arc<Code>> {
        self.code.as_ref()
    }

    /// Rows.
    pub fn tables(&self) -> &PolicyTables {
        &self.tables
    }

    /// Programs of users.
    #[inline]
    pub fn hooks(&self) -> &Hooks {
        &self.hooks
    }

    /// What the pipeline knows of a packet, for programs of users.
    pub(crate) fn about(&self, meta: &Meta, place: Place) -> DashMeta {
        let row = self.tables.map(Table::Eni).and_then(PolicyMap::array);
        let mut eni = EniRow::default();
        if let Some(rows) = row {
            // An index without a row: all is zero.
            rows.read(meta.eni, eni.as_mut_bytes());
        }
        DashMeta {
            eni: meta.eni,
            vni: meta.vni,
            eni_mac: eni.mac,
            vnet: eni.vnet,
            direction: meta.direction,
            ..DashMeta::unknown(place)
        }
    }

    /// Unique in the process, never 0.
    pub fn serial(&self) -> u64 {
        self.serial
    }
}

/// Generations nobody can see any more: a stack that any thread may add to and control empties.
#[derive(Debug, Default)]
struct Retired(AtomicPtr<Generation>);

impl Retired {
    /// Takes ownership of a generation.
    ///
    /// # Safety
    /// `generation` came from a `Box` or `Owned` and nobody else uses or frees it.
    unsafe fn push(&self, generation: *mut Generation) {
        let mut top = self.0.load(Ordering::Relaxed);
        loop {
            // SAFETY: alive and ours by contract.
            unsafe { (*generation).next.store(top, Ordering::Relaxed) };
            // Release: pairs with the Acquire in `take`, so `next` is seen by who takes it.
            match self.0.compare_exchange_weak(
                top,
                generation,
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }

    /// Frees what is in it, on this thread; returns how many.
    fn drain(&self) -> usize {
        // Acquire: pairs with the Release in `push`. Taking the whole list at once leaves no ABA.
        let mut at = self.0.swap(ptr::null_mut(), Ordering::Acquire);
        let mut freed = 0;
        while !at.is_null() {
            // SAFETY: `push` took ownership of it, and the swap gave it to us alone.
            let generation = unsafe { Box::from_raw(at) };
            at = generation.next.load(Ordering::Relaxed);
            freed += 1;
        }
        freed
    }
}

impl Drop for Retired {
    fn drop(&mut self) {
        self.drain();
    }
}

/// The current generation, as publisher and readers share it.
#[derive(Debug)]
struct Shared {
    current: Atomic<Generation>,
    collector: Collector,
    retired: Arc<Retired>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: publisher and readers hold `Shared`, so there are none, and nobody can load the
        // pointer; it is never null.
        drop(unsafe { std::mem::replace(&mut self.current, Atomic::null()).into_owned() });
    }
}

/// Control's end: makes generations visible.
#[derive(Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
}

impl Publisher {
    /// Publishes a first generation.
    pub fn new(first: Generation) -> Self {
        let retired = Arc::default();
        let shared = Shared {
            current: Atomic::new(first),
            collector: Collector::new(),
            retired,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// A way for another thread to see the current generation.
    pub fn subscribe(&self) -> Subscription {
        Subscription {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Uses the current generation.
    pub fn with_current<R>(&self, f: impl FnOnce(&Generation) -> R) -> R {
        let handle = self.shared.collector.register();
        let guard = handle.pin();
        f(current(&self.shared, &guard))
    }

    /// Replaces the current generation; frees, on this thread, what workers have left.
    pub fn publish(&mut self, next: Generation) {
        let handle = self.shared.collector.register();
        let guard = handle.pin();
        // AcqRel: Release publishes the generation's contents to the Acquire in `current`.
        let old = self
            .shared
            .current
            .swap(Owned::new(next), Ordering::AcqRel, &guard);
        let old = old.as_raw().cast_mut();
        let retired = Arc::clone(&self.shared.retired);
        // SAFETY: the generation was made by `Owned::new` or `Atomic::new`, is no longer reachable
        // through `current`, and only this `publish` retires it; the collector runs this once no
        // pinned thread can hold it. An `Arc` and a pointer may move to any thread.
        unsafe { guard.defer_unchecked(move || retired.push(old)) };
        guard.flush();
        drop(guard);
        self.collect();
    }

    /// Frees retired generations that no worker sees any more; returns how many.
    pub fn collect(&mut self) -> usize {
        let handle = self.shared.collector.register();
        // Garbage is safe two epochs after it was made; each flush may advance one.
        for _ in 0..3 {
            handle.pin().flush();
        }
        self.shared.retired.drain()
    }
}

/// A reader that has not chosen its thread yet.
#[derive(Clone, Debug)]
pub struct Subscription {
    shared: Arc<Shared>,
}

impl Subscription {
    /// A reader for the calling thread.
    pub fn reader(self) -> Reader {
        Reader {
            local: self.shared.collector.register(),
            shared: self.shared,
        }
    }
}

/// A worker's end: sees the current generation.
#[derive(Debug)]
pub struct Reader {
    local: LocalHandle,
    shared: Arc<Shared>,
}

impl Reader {
    /// Holds whatever is current until the pin is dropped: once a burst.
    pub fn pin(&self) -> Pin<'_> {
        Pin {
            guard: self.local.pin(),
            shared: &self.shared,
        }
    }
}

/// While it lives, generations loaded through it do.
#[derive(Debug)]
pub struct Pin<'a> {
    guard: Guard,
    shared: &'a Shared,
}

impl Pin<'_> {
    /// The current generation.
    pub fn generation(&self) -> &Generation {
        current(self.shared, &self.guard)
    }
}

fn current<'g>(shared: &'g Shared, guard: &'g Guard) -> &'g Generation {
    // Acquire: pairs with the swap in `publish`.
    let shared = shared.current.load(Ordering::Acquire, guard);
    // SAFETY: `current` is never null while `Shared` lives, points to a whole generation, and what
    // it points to is freed only after this guard is dropped.
    unsafe { shared.deref() }
}

#[cfg(test)]
mod tests {
    use super::{Generation, Publisher};
    use crate::exec::Engine;
    use dash_wire::tables::{EniRow, FlowEntry, RouteRow};
    use nic_target::{Capacity, Table, TableDelta, TableOp, Update};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn capacity() -> Capacity {
        Capacity {
            enis: 4,
            routes: 1024,
            mappings: 4096,
            inbound_rules: 64,
            trusted_vnis: 64,
            acl_groups: 16,
            underlay_routes: 64,
            flows: 16,
        }
    }

    fn put(key: u64, value: u32) -> TableOp {
        TableOp::Put {
            table: Table::PaValidation,
            key: key.to_ne_bytes().into(),
            value: value.to_ne_bytes().into(),
        }
    }

    fn update(generation: u64, ops: Vec<TableOp>) -> Update {
        Update {
            generation,
            image: None,
            delta: Arc::new(TableDelta { ops }),
        }
    }

    fn row(generation: &Generation, key: u64) -> Option<Vec<u8>> {
        match generation.tables().map(Table::PaValidation) {
            Some(crate::tables::policy::PolicyMap::Hash(map)) => map.get(&key.to_ne_bytes()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_reader_never_sees_half_a_delta() {
        let capacity = capacity();
        let mut publisher = Publisher::new(Generation::empty(&capacity));
        let subscription = publisher.subscribe();
        let stop = Arc::new(AtomicBool::new(false));
        let seen = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let reader = subscription.reader();
                let (mut last, mut looks) = (0, 0u64);
                while !stop.load(Ordering::Relaxed) {
                    let pin = reader.pin();
                    let generation = pin.generation();
                    let want = (generation.number() > 0)
                        .then(|| (generation.number() as u32).to_ne_bytes().to_vec());
                    for key in 0..300 {
                        assert_eq!(
                            row(generation, key),
                            want,
                            "row {key} of generation {}",
                            generation.number()
                        );
                    }
                    assert!(generation.number() >= last);
                    last = generation.number();
                    looks += 1;
                }
                looks
            }
        });
        for n in 1..=300u64 {
            let next = publisher.with_current(|now| {
                now.next(
                    Engine::Interp,
                    &update(n, (0..300).map(|key| put(key, n as u32)).collect()),
                )
                .unwrap()
            });
            publisher.publish(next);
        }
        stop.store(true, Ordering::Relaxed);
        assert!(seen.join().unwrap() > 0);
    }

    #[test]
    fn a_replaced_generation_is_freed_by_the_publisher_when_its_readers_leave() {
        let mut publisher = Publisher::new(Generation::empty(&capacity()));
        let reader = publisher.subscribe().reader();
        let pin = reader.pin();
        assert_eq!(pin.generation().number(), 0);
        let next = |p: &Publisher, n| {
            p.with_current(|now| now.next(Engine::Interp, &update(n, vec![])).unwrap())
        };
        let first = next(&publisher, 1);
        publisher.publish(first);
        assert_eq!(publisher.collect(), 0, "a reader still holds generation 0");
        drop(pin);
        let freed: usize = (0..4).map(|_| publisher.collect()).sum();
        assert_eq!(freed, 1);
        assert_eq!(reader.pin().generation().number(), 1);
    }

    #[test]
    fn a_refused_delta_changes_nothing() {
        use nic_target::TargetError;
        let capacity = capacity();
        let first = Generation::empty(&capacity)
            .next(Engine::Interp, &update(1, vec![put(1, 10)]))
            .unwrap();
        let refused = |bad: TableOp| {
            let error = first
                .next(
                    Engine::Interp,
                    &update(2, vec![put(1, 11), put(2, 20), bad]),
                )
                .unwrap_err();
            assert_eq!(row(&first, 1), Some(10u32.to_ne_bytes().to_vec()));
            assert_eq!(row(&first, 2), None);
            error
        };
        let bad = |table, key: &[u8], value: &[u8]| TableOp::Put {
            table,
            key: key.into(),
            value: value.into(),
        };
        assert!(matches!(
            refused(bad(Table::PaValidation, &[0; 7], &[0; 4])),
            TargetError::RowSize {
                table: Table::PaValidation,
                part: "key",
                got: 7,
                want: 8
            }
        ));
        assert!(matches!(
            refused(bad(Table::PaValidation, &[0; 8], &[0; 5])),
            TargetError::RowSize {
                part: "value",
                got: 5,
                want: 4,
                ..
            }
        ));
        assert!(matches!(
            refused(bad(
                Table::Eni,
                &4u32.to_ne_bytes(),
                &[0; size_of::<EniRow>()]
            )),
            TargetError::BadIndex {
                table: Table::Eni,
                index: 4
            }
        ));
        assert!(matches!(
            refused(bad(
                Table::FlowSlab,
                &0u32.to_ne_bytes(),
                &[0; size_of::<FlowEntry>()]
            )),
            TargetError::NotPolicy {
                table: Table::FlowSlab
            }
        ));
        assert!(matches!(
            refused(bad(Table::Stages, &[0; 4], &[0; 4])),
            TargetError::NotPolicy { .. }
        ));
        assert!(matches!(
            refused(bad(Table::Acl, &[0; 44], &[0; 4])),
            TargetError::NotPolicy { table: Table::Acl }
        ));
        let mut long = [0u8; 12];
        long[..4].copy_from_slice(&65u32.to_ne_bytes());
        assert!(matches!(
            refused(bad(Table::Route4, &long, &[0; size_of::<RouteRow>()])),
            TargetError::RowSize { part: "prefix", .. }
        ));

        let many = (0..4097).map(|key| put(key, 1)).collect();
        let full = first.next(Engine::Interp, &update(2, many)).unwrap_err();
        assert!(matches!(
            full,
            TargetError::TableFull {
                table: Table::PaValidation,
                capacity: 4096
            }
        ));
    }
}
