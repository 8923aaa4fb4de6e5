//! Our own verifier, one property a test: what has it is accepted, what lacks it is refused at
//! the right instruction for the right reason.

use dash_verify::Fault;

use crate::support::own;

macro_rules! refuses {
    ($text:expr, $pc:expr, $fault:pat) => {
        refused(&$text, $pc, |fault| matches!(fault, $fault))
    };
}

mod helpers;
mod memory;
mod programs;

#[track_caller]
fn accepted(text: &str) {
    if let Err(e) = own("accepted", text) {
        panic!("refused at {}: {e}\n{text}", e.pc);
    }
}

#[track_caller]
fn refused(text: &str, pc: usize, is: impl Fn(&Fault) -> bool) {
    match own("refused", text) {
        Ok(()) => panic!("accepted\n{text}"),
        Err(e) => assert!(e.pc == pc && is(&e.fault), "at {}: {e}\n{text}", e.pc),
    }
}

/// A number nothing is known of in r6, the context in r7; 2 slots.
const ANY: &str = "r6 = *(u32 *)(r1 + 16)\nr7 = r1\n";
const OUT: &str = "\nout:\nr0 = 2\nexit";

/// A value of a map in r0, looked up with a zero key; 7 slots.
fn lookup(map: u32) -> String {
    format!(
        "*(u64 *)(r10 - 8) = 0\nr2 = r10\nr2 += -8\nr1 = map[{map}] ll\ncall 1\n
         if r0 == 0 goto out\n"
    )
}

/// Packet in r2, its end in r3, after `check`.
fn packet(check: &str, body: &str) -> String {
    format!("r2 = *(u32 *)(r1 + 0)\nr3 = *(u32 *)(r1 + 4)\n{check}\n{body}{OUT}")
}
