//! Flow ageing is exact: against a list that is searched whole each time.

use std::collections::BTreeMap;

use dash_runtime::ager::Ager;
use dash_runtime::tables::MapOps;
use dash_runtime::tables::core_set::CoreTables;
use dash_wire::stats::EniStat;
use dash_wire::tables::{FlowEntry, FlowHalf, FlowKey, flow_state};
use nic_target::{Capacity, FlowQuery, Table};
use proptest::prelude::*;
use zerocopy::IntoBytes;

const FLOWS: u32 = 12;
const MS: u64 = 1_000_000;

fn capacity() -> Capacity {
    Capacity {
        enis: 4,
        flows: FLOWS,
        ..Capacity::default()
    }
}

fn key(id: u16, side: u8) -> FlowKey {
    FlowKey {
        sport: id.to_be_bytes(),
        proto: 17,
        flags: side << 1,
        ..FlowKey::default()
    }
}

/// What a program does to make a flow.
fn create(tables: &mut CoreTables, id: u16, now: u64, timeout_ms: u32) -> Option<u32> {
    let slot = tables.flow_free.pop_u32()?;
    let entry = FlowEntry {
        sides: [0, 1].map(|side| FlowHalf {
            key: key(id, side),
            ..FlowHalf::default()
        }),
        created_ns: now,
        last_seen_ns: now,
        timeout_ms,
        eni: id % 4,
        state: flow_state::ESTABLISHED,
        ..FlowEntry::default()
    };
    tables.set_flow(slot, &entry);
    for side in 0..2 {
        let value = (slot << 1 | side).to_ne_bytes();
        // SAFETY: a flow key and a `u32`: the sizes of the map.
        let result = unsafe {
            tables
                .flow_index
                .update(key(id, side as u8).as_bytes().as_ptr(), value.as_ptr(), 1)
        };
        assert_eq!(result, 0);
    }
    assert!(tables.flow_events.push_u32(slot));
    Some(slot)
}

/// What a program does on RST.
fn reset(tables: &mut CoreTables, slot: u32) {
    let mut flow = tables.flow(slot).unwrap();
    for key in flow.sides.iter().map(|side| &side.key) {
        assert!(tables.flow_index.remove(key));
    }
    flow.state = flow_state::FREE;
    tables.set_flow(slot, &flow);
    assert!(tables.flow_free.push_u32(slot));
}

#[derive(Clone, Debug)]
enum Step {
    Create { timeout_ms: u32 },
    Packet { nth: usize },
    Close { nth: usize },
    Reset { nth: usize },
    Wait { ns: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u32..6).prop_map(|timeout_ms| Step::Create { timeout_ms }),
        2 => (0usize..16).prop_map(|nth| Step::Packet { nth }),
        1 => (0usize..16).prop_map(|nth| Step::Close { nth }),
        1 => (0usize..16).prop_map(|nth| Step::Reset { nth }),
        // Whole milliseconds and one nanosecond beside them: deadlines are hit exactly.
        4 => (0u64..4, 0u64..3).prop_map(|(ms, off)| Step::Wait { ns: (ms * MS + off).saturating_sub(1) }),
    ]
}

#[derive(Clone, Copy, Debug)]
struct Twin {
    slot: u32,
    last_seen: u64,
    timeout_ms: u32,
    closing: bool,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn exactly_the_flows_that_are_due_go(steps in prop::collection::vec(step(), 1..300)) {
        let mut tables = CoreTables::new(&capacity()).unwrap();
        let mut ager = Ager::new(FLOWS).unwrap();
        let mut twin: BTreeMap<u16, Twin> = BTreeMap::new();
        let (mut now, mut next_id) = (0u64, 0u16);
        let mut counted = [[0u64; 2]; 4];
        for step in steps {
            let pick = |nth: usize| twin.keys().nth(nth % twin.len().max(1)).copied();
            match step {
                Step::Create { timeout_ms } => {
                    let id = next_id;
                    next_id += 1;
                    let slot = create(&mut tables, id, now, timeout_ms);
                    prop_assert_eq!(slot.is_none(), twin.len() == FLOWS as usize);
                    if let Some(slot) = slot {
                        twin.insert(id, Twin { slot, last_seen: now, timeout_ms, closing: false });
                    }
                }
                Step::Packet { nth } => if let Some(t) = pick(nth).and_then(|id| twin.get_mut(&id)) {
                    t.last_seen = now;
                    let flow = FlowEntry { last_seen_ns: now, ..tables.flow(t.slot).unwrap() };
                    tables.set_flow(t.slot, &flow);
                },
                Step::Close { nth } => if let Some(t) = pick(nth).and_then(|id| twin.get_mut(&id)) {
                    (t.closing, t.timeout_ms) = (true, 2);
                    let flow = FlowEntry { state: flow_state::CLOSING, timeout_ms: 2, ..tables.flow(t.slot).unwrap() };
                    tables.set_flow(t.slot, &flow);
                    prop_assert!(tables.flow_events.push_u32(t.slot));
                },
                Step::Reset { nth } => if let Some(t) = pick(nth).and_then(|id| twin.remove(&id)) {
                    reset(&mut tables, t.slot);
                },
                Step::Wait { ns } => now += ns,
            }
            ager.run(&mut tables, now, usize::MAX);
            twin.retain(|id, t| {
                let due = now >= t.last_seen + u64::from(t.timeout_ms) * MS;
                if due {
                    counted[usize::from(id % 4)][usize::from(t.closing)] += 1;
                }
                !due
            });

            let mut flows = Vec::with_capacity(FLOWS as usize);
            tables.flows(0..FLOWS, &FlowQuery::ALL, &mut flows);
            let mut live: Vec<u16> = flows.iter().map(|f| u16::from_be_bytes(f.sides[0].key.sport)).collect();
            live.sort_unstable();
            prop_assert_eq!(live, twin.keys().copied().collect::<Vec<_>>());
            prop_assert_eq!(tables.flow_index.len(), twin.len() * 2);
            prop_assert_eq!(tables.flow_free.len(), FLOWS as usize - twin.len());
            prop_assert_eq!(tables.flow_count(), twin.len());
            for (id, t) in &twin {
                for side in 0..2u8 {
                    let value = tables.flow_index.get(&key(*id, side));
                    prop_assert_eq!(value, Some(t.slot << 1 | u32::from(side)));
                }
            }
        }
        let counters = tables.counters();
        for (eni, [aged, deleted]) in counted.into_iter().enumerate() {
            let block = counters.eni.get(&(eni as u32));
            let stat = |stat: EniStat| block.map_or(0, |b| b[stat as usize]);
            prop_assert_eq!((stat(EniStat::FlowAged), stat(EniStat::FlowDeleted)), (aged, deleted));
        }
    }
}

#[test]
fn a_budget_bounds_the_work_and_nothing_is_lost() {
    let mut tables = CoreTables::new(&capacity()).unwrap();
    let mut ager = Ager::new(FLOWS).unwrap();
    for id in 0..10 {
        create(&mut tables, id, 0, 1).unwrap();
    }
    // A budget also bounds what is sorted before the first can go.
    let runs: Vec<usize> = (0..6).map(|_| ager.run(&mut tables, MS, 4)).collect();
    assert!(runs.iter().all(|&expired| expired <= 4), "{runs:?}");
    assert_eq!(runs.iter().sum::<usize>(), 10, "{runs:?}");
    assert_eq!(tables.flow_free.len(), FLOWS as usize);
}

#[test]
fn an_ager_that_cannot_keep_up_says_how_late_it_is() {
    let mut tables = CoreTables::new(&capacity()).unwrap();
    let mut ager = Ager::new(FLOWS).unwrap();
    // More end at once than a run looks at, and one that stays.
    let due = FLOWS as u16 - 1;
    for id in 0..due {
        create(&mut tables, id, 0, 1).unwrap();
    }
    create(&mut tables, due, 0, 60_000).unwrap();
    assert_eq!((ager.run(&mut tables, MS - 1, 100), ager.late_ns()), (0, 0));
    let (mut now, mut gone, mut late) = (MS, 0, Vec::new());
    while gone < due.into() {
        let expired = ager.run(&mut tables, now, 2);
        assert!(expired <= 2);
        gone += expired;
        if gone < due.into() {
            // Never more than what has passed since they were due.
            assert!(ager.late_ns() <= now - MS + (1 << 20), "{}", ager.late_ns());
            late.push(ager.late_ns());
        }
        now += MS;
    }
    assert!(
        late.is_sorted() && late.last() > Some(&(3 * MS)),
        "{late:?}"
    );
    assert_eq!((ager.run(&mut tables, now, 100), ager.late_ns()), (0, 0));
    assert_eq!(tables.flow_free.len(), FLOWS as usize - 1);
}

#[test]
fn a_key_taken_over_by_another_flow_stays() {
    let mut tables = CoreTables::new(&capacity()).unwrap();
    let mut ager = Ager::new(FLOWS).unwrap();
    let old = create(&mut tables, 1, 0, 1).unwrap();
    // The index now leads to another slot, as after a RST and a new connection that a stale entry outlived.
    let other = ((old + 1) << 1).to_ne_bytes();
    let stolen = key(1, 0);
    let mut thief = FlowEntry::default();
    thief.sides[0].key = stolen;
    tables.set_flow(old + 1, &thief);
    // SAFETY: a flow key and a `u32`: the sizes of the map.
    let result = unsafe {
        tables
            .flow_index
            .update(stolen.as_bytes().as_ptr(), other.as_ptr(), 2)
    };
    assert_eq!(result, 0);
    ager.run(&mut tables, 5 * MS, usize::MAX);
    assert_eq!(tables.flow_index.get(&key(1, 0)), Some((old + 1) << 1));
    assert_eq!(tables.flow_index.get(&key(1, 1)), None);
}

#[test]
fn slot_zero_is_the_first_taken() {
    let tables = CoreTables::new(&capacity()).unwrap();
    assert_eq!(tables.flow_free.pop_u32(), Some(0));
    assert_eq!(tables.flow_free.pop_u32(), Some(1));
    assert_eq!(Table::FlowFree.def(&capacity()).max_entries, FLOWS);
}

/// What the mirror heard is what is in the index, whichever way flows come and go.
mod mirror {
    use std::ptr::NonNull;
    use std::sync::{Arc, Mutex};

    use dash_runtime::tables::bytes::Bytes;
    use dash_runtime::tables::mirror::{FlowMirror, SharedFlows, SlabMemory};

    use super::*;

    #[derive(Debug)]
    struct Memory(Bytes);

    // SAFETY: the bytes live as long as the value, and only the tables of the test use them.
    unsafe impl SlabMemory for Memory {
        fn base(&self) -> NonNull<u8> {
            NonNull::new(self.0.at(0)).unwrap()
        }
        fn len(&self) -> usize {
            self.0.len()
        }
    }

    fn limits() -> Arc<Memory> {
        let def = nic_target::Table::QosState.def(&capacity());
        let bytes = def.stride() as usize * def.max_entries as usize;
        Arc::new(Memory(Bytes::zeroed(bytes)))
    }

    #[derive(Clone, Debug, Default)]
    struct Heard(Arc<Mutex<BTreeMap<u32, FlowEntry>>>);

    impl FlowMirror for Heard {
        fn added(&mut self, slot: u32, flow: &FlowEntry) {
            assert!(self.0.lock().unwrap().insert(slot, *flow).is_none());
        }
        fn removed(&mut self, slot: u32, flow: &FlowEntry) {
            let was = self.0.lock().unwrap().remove(&slot);
            assert_eq!(was.map(|was| was.created_ns), Some(flow.created_ns));
        }
    }

    #[test]
    fn memory_that_is_too_small_is_refused() {
        let slab = Arc::new(Memory(Bytes::zeroed(64)));
        let mirror = Box::new(Heard::default());
        let flows = SharedFlows {
            slab,
            limits: limits(),
            mirror,
        };
        let error = CoreTables::shared(&capacity(), flows).unwrap_err();
        assert!(
            error.to_string().contains("in shared memory of 64"),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn a_mirror_hears_of_every_connection(orders in prop::collection::vec((0u8..4, 0u16..12, 1u32..200), 0..200)) {
            let heard = Heard::default();
            let slab = Arc::new(Memory(Bytes::zeroed(size_of::<FlowEntry>() * FLOWS as usize)));
            let flows = SharedFlows { slab, limits: limits(), mirror: Box::new(heard.clone()) };
            let mut tables = CoreTables::shared(&capacity(), flows).unwrap();
            let mut ager = Ager::new(FLOWS).unwrap();
            let (mut now, mut live) = (0, BTreeMap::new());
            for (order, id, ms) in orders {
                match order {
                    0 | 1 if !live.contains_key(&id) => {
                        if let Some(slot) = create(&mut tables, id, now, ms) {
                            live.insert(id, slot);
                        }
                    }
                    2 => {
                        if let Some(slot) = live.remove(&id) {
                            reset(&mut tables, slot);
                        }
                    }
                    _ => {
                        now += u64::from(ms) * 1_000_000;
                        ager.run(&mut tables, now, usize::MAX);
                        live.retain(|_, slot| tables.flow(*slot).is_some_and(|flow| flow.state != flow_state::FREE));
                    }
                }
                let mut flows = Vec::with_capacity(FLOWS as usize);
                tables.flows(0..FLOWS, &FlowQuery::ALL, &mut flows);
                let heard: Vec<FlowEntry> = heard.0.lock().unwrap().values().copied().collect();
                prop_assert_eq!(heard, flows);
            }
        }
    }
}
