//! ELF files that read write to files that read the same.

use dash_bpf::elf::{read, write};

pub(crate) fn run(data: &[u8]) {
    if let Ok(object) = read(data)
        && let Ok(written) = write(&object)
    {
        assert_eq!(read(&written).expect("our own file"), object);
    }
}
