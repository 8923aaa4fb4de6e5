//! What links decodes and has a listing, lines of the source included; types of a target change that
//! only where they can. The input is two files, the length of the first in front.

use dash_bpf::decode;
use dash_bpf::disasm::with_source;
use dash_bpf::elf::{Options, load, load_with};

pub(crate) fn run(data: &[u8]) {
    let Some((len, rest)) = data.split_first_chunk::<4>() else {
        return;
    };
    let at = (u32::from_le_bytes(*len) as usize).min(rest.len());
    let (one, two) = rest.split_at(at);
    let options = Options {
        target: Some(two),
        ..Options::default()
    };
    if let Ok(loaded) = load_with(&[one], &options) {
        for program in &loaded.object.programs {
            decode(&program.insns).expect("programs that were relocated decode");
        }
    }
    for files in [&[one][..], &[one, one], &[one, two], &[two, one]] {
        let Ok(loaded) = load(files) else { continue };
        for program in &loaded.object.programs {
            decode(&program.insns).expect("programs that were read decode");
            let listing = with_source(program, &loaded.object.maps);
            assert!(!listing.expect("they have a listing").is_empty());
            for slot in 0..program.insns.len() {
                let _ = program.debug.line(slot);
            }
        }
    }
}
