//! Fragments whose first piece another worker received.

use dash_bench::world;
use dash_wire::stats::EniStat;

use crate::rig::{Rig, native_code};

#[test]
fn fragments_follow_the_first_one_whichever_worker_received_it() {
    if !native_code() {
        return;
    }
    const DATAGRAMS: u32 = 200;
    let first: Vec<_> = (0..DATAGRAMS).map(|n| world::fragment(n, 0)).collect();
    let second: Vec<_> = (0..DATAGRAMS).map(|n| world::fragment(n, 1)).collect();
    let third: Vec<_> = (0..DATAGRAMS).map(|n| world::fragment(n, 2)).collect();
    let run = |workers: usize| {
        let mut rig = Rig::start(workers);
        // Without the first one nobody knows whose they are.
        rig.feed(&second, |at| at);
        assert_eq!(rig.output.lock().unwrap().output.len(), 0);
        // Each piece comes in by another queue; the owner of the flow is any of the workers.
        for (n, pieces) in [&first, &second, &third].into_iter().enumerate() {
            rig.feed(pieces, |at| at + n);
        }
        let handed: Vec<_> = rig.engine.target().worker_stats();
        assert!(
            workers == 1 || handed.iter().all(|w| w.handed > 50),
            "{handed:?}"
        );
        rig.outcome()
    };
    let one = run(1);
    assert_eq!(one.output.len(), 3 * DATAGRAMS as usize);
    assert_eq!(one.flows.len(), DATAGRAMS as usize);
    assert!(one.flows.iter().all(|flow| flow.packets == [3, 0]));
    let dropped = |counters: &nic_target::CounterSnapshot| -> u64 {
        let eni = counters.eni.values();
        eni.map(|eni| eni[EniStat::TotalDropPackets as usize]).sum()
    };
    assert_eq!(dropped(&one.counters), u64::from(DATAGRAMS));
    for workers in [2, 3] {
        assert_eq!(run(workers), one, "{workers} workers");
    }
}
