//! Why something of programs is not done.

use dash_engine::EngineError;
use dash_prog::hook::HookError;
use dash_prog::{LoadError, MapError};
use nic_target::TargetError;
use thiserror::Error;

use super::{LONGEST_NAME, MOST};

/// Why something was not done. Nothing changed then.
#[derive(Debug, Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "fields are what the message says")]
pub enum ProgramsError {
    #[error("{0:?} is not a name: 1 to {LONGEST_NAME} letters, digits, `.`, `_` and `-`")]
    BadName(String),
    #[error("there is an object {0} already: unload it, or load this one under another name")]
    Exists(String),
    #[error("{0} is pinned already: unpin it, or take another name")]
    Pinned(String),
    #[error("there are {MOST} {0} already")]
    Full(&'static str),
    #[error("{name} is refused: {source}")]
    Load {
        name: String,
        #[source]
        source: Box<LoadError>,
    },
    #[error("there is no object {0}")]
    NoObject(String),
    #[error("object {object} has no program {program}; it has {has}")]
    NoProgram {
        object: String,
        program: String,
        has: String,
    },
    #[error("object {object} has {count} programs, so say which: {has}")]
    WhichProgram {
        object: String,
        count: usize,
        has: String,
    },
    #[error("object {object} has no map {map}; it has {has}")]
    NoMap {
        object: String,
        map: String,
        has: String,
    },
    #[error("no map is pinned as {0}, and maps of objects are named OBJECT/MAP")]
    NoPin(String),
    #[error("map {map} is a {kind}: /metrics shows arrays, hashes and tries")]
    NoNumbers { map: String, kind: &'static str },
    #[error("the map would take {bytes} bytes; {most} are allowed")]
    TooLarge { bytes: u64, most: u64 },
    #[error("there is no link {0}")]
    NoLink(u32),
    #[error("there is no port {port}; ports are 0 to {last}")]
    NoPort { port: u32, last: usize },
    #[error("object {object} is attached by links {links}: detach them first")]
    InUse { object: String, links: String },
    #[error("program {program}: {source}")]
    Hook {
        program: String,
        #[source]
        source: HookError,
    },
    #[error("the code that asks ENIs' programs: {0}")]
    Code(#[from] EngineError),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Map(#[from] MapError),
}
