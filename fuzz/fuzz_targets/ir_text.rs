//! Pipelines print and parse to the same; checking and lowering any of them does not panic.

#![no_main]

use dash_pipeline::{lower, text};
use libfuzzer_sys::fuzz_target;
use nic_target::Capacity;

fuzz_target!(|source: &str| {
    if let Ok(pipeline) = text::parse(source) {
        let printed = text::print(&pipeline);
        assert_eq!(text::parse(&printed).as_ref(), Ok(&pipeline), "{printed}");
        let _ = lower::lower(&pipeline, &Capacity::default());
    }
});
