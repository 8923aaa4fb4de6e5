//! Why a transaction did not become a generation.

use dash_model::CommitError;
use dash_native::NativeError;
use dash_pipeline::lower::LowerError;
use dash_pipeline::plan::PlanError;
use dash_pipeline::text::TextError;
use dash_verify::VerifyError;
use nic_target::TargetError;
use thiserror::Error;

use crate::sessions::SessionError;

/// Why nothing changed: configuration, planner and target are as they were.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The transaction is wrong: which items, and why.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The objects are right but there is no room for them.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A flow dump session, or a filter of one, is wrong.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The pipeline that the configuration asks for could not be compiled: a bug here.
    #[error("no code for this configuration: {0}")]
    Compile(CompileError),
    /// The target refused the rows or the code, or could not be read.
    #[error("the data plane refused: {0}")]
    Target(TargetError),
}

/// The step of compilation that failed.
#[derive(Debug, Error)]
pub enum CompileError {
    /// The template for the shape is not IR.
    #[error("IR text: {0}")]
    Text(TextError),
    /// The IR has no eBPF form.
    #[error("lowering: {0}")]
    Lower(LowerError),
    /// The eBPF was not proven safe.
    #[error("verification: {0}")]
    Verify(VerifyError),
    /// The eBPF could not be made machine code.
    #[error("machine code: {0}")]
    Native(NativeError),
}

/// The messages above hold those of their causes, so that one line says all; were the causes
/// sources too, a report of the chain would say them twice.
macro_rules! from {
    ($($error:ident::$variant:ident($cause:ty)),* $(,)?) => {$(
        impl From<$cause> for $error {
            fn from(cause: $cause) -> Self {
                Self::$variant(cause)
            }
        }
    )*};
}

from! {
    EngineError::Compile(CompileError),
    EngineError::Target(TargetError),
    CompileError::Text(TextError),
    CompileError::Lower(LowerError),
    CompileError::Verify(VerifyError),
    CompileError::Native(NativeError),
}
