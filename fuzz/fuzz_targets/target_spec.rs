//! Target strings print and parse to the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nic_targets::TargetSpec;

fuzz_target!(|text: &str| {
    if let Ok(spec) = text.parse::<TargetSpec>() {
        assert_eq!(spec.to_string().parse::<TargetSpec>().as_ref(), Ok(&spec));
    }
});
