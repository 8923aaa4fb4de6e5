//! Why a Set is refused: which update, which path, what for.

use std::fmt;

use thiserror::Error;
use tonic::Code;

use crate::gnmi::update_result::Operation;
use crate::path::PathError;
use crate::row::{Kind, RowError};

/// What is wrong with one update. The texts begin as SONiC's server words them, where it has the
/// error.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Cause {
    /// The path.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The row.
    #[error(transparent)]
    Row(#[from] RowError),
    /// The value is JSON by its type and not by its bytes.
    #[error("JSON unmarshalling error: {reason}")]
    Json {
        /// What the parser says.
        reason: String,
    },
    /// The JSON is not an object, or not one of rows at a table's path.
    #[error("Unsupported value: expected an object of fields, or of rows at a table's path")]
    JsonType,
    /// Neither `proto_bytes` nor JSON.
    #[error("Unsupported TypedValue: {found}")]
    ValueType {
        /// Name of the value's type.
        found: &'static str,
    },
    /// `union_replace` is not what its sender means by it here.
    #[error("union_replace is not supported")]
    UnionReplace,
}

impl Cause {
    /// The gRPC code: SONiC's where it has the error, that of the row's class otherwise.
    pub fn code(&self) -> Code {
        match self {
            Self::Path(error) => error.code(),
            Self::Row(error) => match error.kind {
                Kind::Malformed | Kind::InvalidArgument => Code::InvalidArgument,
                Kind::Unimplemented => Code::Unimplemented,
            },
            Self::Json { .. } | Self::JsonType | Self::ValueType { .. } => Code::Unknown,
            Self::UnionReplace => Code::Unimplemented,
        }
    }
}

/// One refused update.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{} {path}: {cause}", self.place())]
pub struct UpdateError {
    /// Place in the request, counted over deletes, replaces and updates in this order.
    pub index: usize,
    /// The list it is in.
    pub op: Operation,
    /// Place in that list.
    pub op_index: usize,
    /// The path's text, prefix included.
    pub path: String,
    /// What is wrong.
    pub cause: Cause,
}

impl UpdateError {
    /// The request's field, `update[3]`.
    pub fn place(&self) -> String {
        super::place(self.op, self.op_index)
    }
}

/// A refused request; nothing of it was applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetError {
    /// In the order of the request, at most [`SetError::CAP`] of them.
    pub errors: Vec<UpdateError>,
    /// How many more there were.
    pub omitted: usize,
}

impl SetError {
    /// Errors kept at most: enough to fix a request.
    pub const CAP: usize = 100;

    pub(super) fn push(&mut self, error: impl FnOnce() -> UpdateError) {
        if self.errors.len() < Self::CAP {
            self.errors.push(error());
        } else {
            self.omitted += 1;
        }
    }

    pub(super) fn finish<T>(self, value: T) -> Result<T, Self> {
        if self.errors.is_empty() {
            Ok(value)
        } else {
            Err(self)
        }
    }

    /// The code of the first error.
    pub fn code(&self) -> Code {
        self.errors
            .first()
            .map_or(Code::InvalidArgument, |e| e.cause.code())
    }
}

/// One error a line.
impl fmt::Display for SetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.errors.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            fmt::Display::fmt(error, f)?;
        }
        if self.omitted > 0 {
            write!(f, "\nand {} more", self.omitted)?;
        }
        Ok(())
    }
}

impl std::error::Error for SetError {}
