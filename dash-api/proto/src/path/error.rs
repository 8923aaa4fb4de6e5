//! Why a path is refused, with SONiC's texts and codes: clients look for both.

use thiserror::Error;
use tonic::Code;

use super::{Db, full_text};
use crate::gnmi;

/// Why a path is refused. The texts begin as SONiC's server words them.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PathError {
    /// The paths of a request, or a path and its prefix, have different origins.
    #[error("Origin conflict in path")]
    OriginConflict,
    /// An origin other than `sonic-db`.
    #[error("Unsupported origin: {origin}")]
    UnsupportedOrigin {
        /// What was given.
        origin: String,
    },
    /// Fewer than two elements.
    #[error("Invalid elem length")]
    ElemLength,
    /// The paths of a request are of different databases.
    #[error("Target conflict in path")]
    TargetConflict,
    /// The paths of a request are of different instances.
    #[error("Namespace/container conflict in path")]
    InstanceConflict,
    /// The first element names no database.
    #[error("Invalid target: {name}")]
    InvalidTarget {
        /// What was given.
        name: String,
    },
    /// A Set of a database that takes none.
    #[error("Set RPC does not support {db}")]
    SetDb {
        /// The database.
        db: Db,
    },
    /// A Set of a single field.
    #[error("Unsupported path {path}, can't update field")]
    SetField {
        /// The path.
        path: String,
    },
    /// Elements that name nothing, or wildcards in a Set.
    #[error("Unsupported path {path}")]
    Unsupported {
        /// The path.
        path: String,
    },
    /// The key of a table's element is not named `key`.
    #[error("Unsupported path {path}: the one key of a table is named `key`")]
    KeyName {
        /// The path.
        path: String,
    },
    /// The text form cannot be read.
    #[error("`{text}` is not a path: {reason} at character {at}")]
    Text {
        /// What was given.
        text: String,
        /// Where, counted in characters from 0.
        at: usize,
        /// What is wrong there.
        reason: &'static str,
    },
}

impl PathError {
    pub(super) fn unsupported(prefix: Option<&gnmi::Path>, path: &gnmi::Path) -> Self {
        Self::Unsupported {
            path: full_text(prefix, path),
        }
    }

    /// The gRPC code SONiC's server answers with.
    pub fn code(&self) -> Code {
        match self {
            Self::OriginConflict | Self::UnsupportedOrigin { .. } => Code::Unimplemented,
            Self::ElemLength
            | Self::TargetConflict
            | Self::InstanceConflict
            | Self::InvalidTarget { .. } => Code::NotFound,
            Self::SetDb { .. }
            | Self::SetField { .. }
            | Self::Unsupported { .. }
            | Self::KeyName { .. } => Code::Unknown,
            Self::Text { .. } => Code::InvalidArgument,
        }
    }
}

impl From<PathError> for tonic::Status {
    fn from(error: PathError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
