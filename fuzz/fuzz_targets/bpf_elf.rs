//! ELF files that read write to files that read the same.

#![no_main]

use dash_bpf::elf::{read, write};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(object) = read(data)
        && let Ok(written) = write(&object)
    {
        assert_eq!(read(&written).expect("our own file"), object);
    }
});
