//! Capture files of either kind: every packet or an error, and an end.

#![no_main]

use std::io::Write;

use libfuzzer_sys::fuzz_target;
use nic_sim::read_capture;

fuzz_target!(|data: &[u8]| {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(data).expect("room for it");
    let Ok(reader) = read_capture(file.path()) else {
        return;
    };
    let mut bytes = 0;
    for packet in reader.flatten() {
        bytes += packet.data.len();
        let _ = nic_sim::describe(&packet.data);
    }
    assert!(
        bytes <= data.len(),
        "packets are not longer than their file"
    );
});
