//! Runs a fuzz target's body without libFuzzer: inputs are changed at random, always the same way, so a
//! test that fails fails again. `DASHWIRE_FUZZ_ROUNDS` says how many inputs; `DASHWIRE_FUZZ_SEED`
//! gives others.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Longer inputs find nothing that shorter ones do not.
const LONGEST: usize = 16 << 10;

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

fn number(name: &str, default: u64) -> u64 {
    let value = std::env::var(name).ok().and_then(|n| n.parse().ok());
    value.unwrap_or(default)
}

fn change(random: &mut Random, input: &mut Vec<u8>, other: &[u8]) {
    let at = random.below(input.len() + 1);
    match random.below(8) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => input[at] = random.next() as u8,
        // A number that means something, in two or four bytes.
        2 => {
            let n = [0, 1, 7, 8, 255, 256, 0x7fff, 0xffff, 0x7fff_ffff, u32::MAX][random.below(10)];
            let bytes = &n.to_le_bytes()[..2 + 2 * random.below(2)];
            for (to, from) in input.iter_mut().skip(at & !1).zip(bytes) {
                *to = *from;
            }
        }
        3 => input.insert(at, random.next() as u8),
        4 => {
            let end = (at + 1 + random.below(16)).min(input.len());
            input.drain(at..end.max(at));
        }
        // Eight bytes, as instructions have, from elsewhere in it.
        5 if input.len() >= 16 => {
            let (from, to) = (random.below(input.len() / 8), random.below(input.len() / 8));
            input.copy_within(from * 8..from * 8 + 8, to * 8);
        }
        6 if !other.is_empty() => {
            let from = random.below(other.len());
            let len = random.below(64).min(other.len() - from);
            let tail = input.split_off(at);
            input.extend_from_slice(&other[from..from + len]);
            input.extend_from_slice(&tail);
        }
        _ => input.truncate(at.max(1)),
    }
    input.truncate(LONGEST);
}

/// Calls `body` with every input as it is, then with so many changed ones.
pub(crate) fn drive(inputs: &[Vec<u8>], rounds: u64, body: impl Fn(&[u8])) {
    let run = |input: &[u8]| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(input))) {
            let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
            eprintln!("input: {hex}");
            resume_unwind(panic);
        }
    };
    for input in inputs {
        run(input);
    }
    let mut random = Random(number("DASHWIRE_FUZZ_SEED", 1) * 2 + 1);
    for _ in 0..number("DASHWIRE_FUZZ_ROUNDS", rounds) {
        let mut input = inputs[random.below(inputs.len())].clone();
        let other = &inputs[random.below(inputs.len())];
        for _ in 0..1 + random.below(6) {
            change(&mut random, &mut input, other);
        }
        run(&input);
    }
}
