//! A run as JSON, with the version of its form.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::sound;
use crate::result::Run;

/// Version of the form: it changes when a reader of the one before would misread it.
pub const SCHEMA: u32 = 1;

#[derive(Serialize, Deserialize)]
struct File {
    schema: u32,
    run: Run,
}

/// Why a file is no run.
#[derive(Debug, Error)]
pub enum ReadError {
    /// Not JSON, or not of this form.
    #[error("not the JSON of a run: {0}")]
    Form(#[from] serde_json::Error),
    /// Written by another version.
    #[error("schema {found}: this program reads schema {SCHEMA}")]
    Schema {
        /// Of the file.
        found: u32,
    },
}

/// The run as JSON, indented.
pub fn json(run: &Run) -> String {
    let file = File {
        schema: SCHEMA,
        run: sound(run),
    };
    let mut text = serde_json::to_string_pretty(&file)
        .expect("strings, finite numbers and lists of them have a form in JSON");
    text.push('\n');
    text
}

/// Reads what [`json`] wrote.
///
/// # Errors
/// It is something else, or of another schema.
pub fn read_json(text: &str) -> Result<Run, ReadError> {
    #[derive(Deserialize)]
    struct Schema {
        schema: u32,
    }
    // First the version alone: another one may have other fields.
    let Schema { schema: found } = serde_json::from_str(text)?;
    if found != SCHEMA {
        return Err(ReadError::Schema { found });
    }
    Ok(serde_json::from_str::<File>(text)?.run)
}
