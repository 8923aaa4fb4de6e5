//! Users' eBPF programs at run time: from an object of clang to a verdict on a frame. Knows nothing
//! of DASH, but for [`hook`].
//!
//! ```text
//! ELF --dash_bpf::elf--> Object --dash_verify--> Verified --dash_native--> machine code
//!                           |                        '--> the checking interpreter
//!                           '--> MapSet: one Map a definition, or the one that is pinned
//! Loaded --programs--> Program --runner(cpu)--> Runner --run(frame)--> Outcome
//! ```
//!
//! - [`load`]: [`Loaded`], an object with its maps, ready to run.
//! - [`map`]: [`Map`], what programs and control share, from any thread.
//! - [`set`]: the maps of an object by name, and [`Pins`], by which they outlive it.
//! - [`run`]: [`Runner`], one worker's way to run one program, packet by packet.
//! - [`hook`]: programs where a data plane runs them among its own.
//! - [`helpers`]: what programs may call, what Linux has besides, and why that is refused.
//!
//! A `Loaded`, its programs and maps are shared by all threads; a `Runner` belongs to one worker.
//! Every engine gives the same packets, verdicts and maps.
//!
//! # Spectre
//! Programs come from outside, so indexes into array maps are kept inside by a conditional move, whatever a
//! branch is guessed to do ([`LoadOptions::mask_indexes`], on by default). Other bounds are not held against
//! guesses: packets hold what the attacker sends anyway, hash and trie look-ups compare whole keys in our own
//! code, and programs see neither clocks finer than the packet's nor caches of others but through the packets' timing.
//! Whoever runs programs of mutually distrusting users should give them processes of their own.

mod errno;
mod exec;
pub mod helpers;
pub mod hook;
pub mod load;
pub mod map;
mod memory;
pub mod run;
pub mod set;

pub use errno::Errno;
pub use load::{Engine, LoadError, LoadOptions, Loaded, Program};
pub use map::{Element, Map, MapError};
pub use run::{Ingress, Outcome, Packet, Runner, Target};
pub use set::{MapSet, Pins};
