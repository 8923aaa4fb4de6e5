//! Any frame through the reference model and the checking interpreter with the demo configuration:
//! never aborted, and the same verdict and bytes.

#![no_main]

use std::cell::RefCell;

use dash_bench::world::{self, Rows, Runner};
use dashctl::engines::EngineName;
use libfuzzer_sys::fuzz_target;
use nic_target::Verdict;

thread_local! {
    static RUNNERS: RefCell<[Runner; 2]> = RefCell::new(
        [EngineName::Model, EngineName::Interp].map(|name| {
            let cache = world::cache().expect("a cache folder");
            Runner::start(name, Rows::All, Some(cache)).expect("an engine")
        }),
    );
}

fuzz_target!(|input: (u8, &[u8])| {
    let (ms, data) = input;
    if data.len() > 9_600 {
        return;
    }
    RUNNERS.with_borrow_mut(|[model, interp]| {
        for runner in [&mut *model, &mut *interp] {
            // Flows of earlier inputs expire, so that their table does not stay full.
            runner.advance(u64::from(ms) * 10_000_000);
        }
        let wanted = model.run(data).expect("a verdict");
        let got = interp.run(data).expect("a verdict");
        assert_eq!(got, wanted);
        assert_ne!(got, Verdict::Aborted);
        if matches!(got, Verdict::Send(_)) {
            assert_eq!(interp.output(), model.output());
        }
    });
});
