//! Why a pipeline was refused.

use nic_target::Table;
use thiserror::Error;

/// The first thing wrong with a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("stage {stage:?}: {fault}")]
pub struct CheckError {
    /// Stage, empty when there is none.
    pub stage: String,
    /// What is wrong in it.
    pub fault: Fault,
}

/// What is wrong. `stmt` and `expr` fields are IR text.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each is what its message says")]
#[non_exhaustive]
pub enum Fault {
    #[error("there is no stage at all")]
    NoStages,
    #[error("is more than the {most} stages a target holds")]
    TooManyStages { most: usize },
    #[error("the stage's name is not a C identifier of at most 15 characters")]
    BadStageName,
    #[error("another stage has this name")]
    DuplicateStage,
    #[error("no stage goes to it")]
    Unreachable,
    #[error("nested deeper than {most} levels")]
    TooDeep { most: usize },
    #[error("`goto {to}`: there is no such stage")]
    NoSuchStage { to: String },
    #[error("`goto {to}` does not go down the list of stages")]
    BackwardGoto { to: String },
    #[error("a path ends without goto, drop, pass, send or forward")]
    NoEnd,
    #[error("`{stmt}` can never be reached")]
    AfterEnd { stmt: String },
    #[error("`{name}` cannot be a name here: {why}")]
    BadName { name: String, why: &'static str },
    #[error("`{name}` is neither a metadata field nor a local declared before")]
    NoSuchField { name: String },
    #[error("`{field}` is a fact about the packet and cannot be assigned")]
    ReadOnly { field: String },
    #[error("no row is called `{row}` here")]
    NoSuchRow { row: String },
    #[error("rows of table `{}` have no field `{field}`", .table.name())]
    NoSuchRowField { table: Table, field: String },
    #[error("table `{}` cannot be matched", .table.name())]
    NotMatchable { table: Table },
    #[error("keys of table `{}` have {want} components, not {got}", .table.name())]
    KeyArity {
        table: Table,
        want: usize,
        got: usize,
    },
    #[error("`{expr}` is {got}; {place} needs {want}")]
    Type {
        expr: String,
        got: String,
        place: String,
        want: String,
    },
    #[error("`forward {row}` needs a row of `underlay`, not of `{}`", .table.name())]
    NotUnderlay { row: String, table: Table },
    #[error("`{stmt}` before {needs} on some path")]
    Early { stmt: String, needs: &'static str },
    #[error("`{stmt}` after {done} on some path")]
    Late { stmt: String, done: &'static str },
    #[error("`{field}` is read but not written on every path to `{stmt}`")]
    Unwritten { field: &'static str, stmt: String },
}
