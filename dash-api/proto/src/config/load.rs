//! A file's text to its rows, with their lines.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use thiserror::Error;

use super::{ConfigOp, ConfigRow};

/// Why a file's text holds no rows.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FileError {
    /// Not JSON.
    #[error("line {line}, column {column}: {reason}")]
    Syntax {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What the parser says.
        reason: String,
    },
    /// JSON, but not one of the forms of rows.
    #[error("line {line}: {reason}")]
    Shape {
        /// From 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
}

/// Reads a file's rows in any of the forms of [`crate::config`].
///
/// # Errors
/// When the text is not JSON or not rows. Rows are not checked here.
pub fn load_config(text: &str) -> Result<Vec<ConfigRow>, FileError> {
    let mut loader = Loader {
        lines: Lines::new(text),
        rows: Vec::new(),
    };
    match text.trim_start().as_bytes().first() {
        Some(b'[') => {
            let entries: Vec<&RawValue> = parse(text, text, &loader.lines)?;
            for entry in entries {
                loader.entry(text, entry)?;
            }
        }
        Some(b'{') => {
            let whole: &RawValue = parse(text, text, &loader.lines)?;
            loader.entry(text, whole)?;
        }
        _ => {
            // Lets the parser say what is wrong, if it is not JSON at all.
            let _: &RawValue = parse(text, text, &loader.lines)?;
            return Err(shape(1, "a file is a list or an object of rows"));
        }
    }
    Ok(loader.rows)
}

fn shape(line: usize, reason: impl Into<String>) -> FileError {
    FileError::Shape {
        line,
        reason: reason.into(),
    }
}

/// Parses a part of the text; the place of an error is that in the whole.
fn parse<'a, T: Deserialize<'a>>(text: &str, part: &'a str, lines: &Lines) -> Result<T, FileError> {
    serde_json::from_str(part).map_err(|e| {
        let above = lines.of(offset(text, part)).saturating_sub(1);
        FileError::Syntax {
            line: above + e.line().max(1),
            column: e.column(),
            reason: without_place(&e),
        }
    })
}

/// The parser's words without its place, which counts from the part it was given.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(at) => text.get(..at).unwrap_or(&text).to_owned(),
        None => text,
    }
}

/// Where in `text` its slice `part` begins.
fn offset(text: &str, part: &str) -> usize {
    (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize)
}

/// Byte offsets of the line ends.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, b)| *b == b'\n');
        Self(ends.map(|(at, _)| at).collect())
    }

    /// The line of a byte, from 1.
    fn of(&self, at: usize) -> usize {
        self.0.partition_point(|end| *end < at) + 1
    }
}

struct Loader {
    lines: Lines,
    rows: Vec<ConfigRow>,
}

impl Loader {
    /// An object of rows or tables, with or without an `OP`.
    fn entry(&mut self, text: &str, entry: &RawValue) -> Result<(), FileError> {
        let line = self.lines.of(offset(text, entry.get()));
        if !entry.get().starts_with('{') {
            return Err(shape(
                line,
                "an entry is an object like {\"TABLE:key\": {..}, \"OP\": \"SET\"}",
            ));
        }
        let Members(members) = parse(text, entry.get(), &self.lines)?;
        let mut delete = None;
        for (name, value) in &members {
            if name.eq_ignore_ascii_case("op") {
                let op: Value = parse(text, value.get(), &self.lines)?;
                let line = self.lines.of(offset(text, value.get()));
                let is = |word| op.as_str().is_some_and(|op| op.eq_ignore_ascii_case(word));
                let op = match () {
                    () if is("SET") => false,
                    () if is("DEL") => true,
                    () => return Err(shape(line, format!("OP is SET or DEL, not {op}"))),
                };
                if delete.replace(op).is_some() {
                    return Err(shape(line, "OP is given twice"));
                }
            }
        }
        let had_op = delete.is_some();
        let delete = delete.unwrap_or(false);
        let mut found = false;
        for (name, value) in &members {
            if name.eq_ignore_ascii_case("op") {
                continue;
            }
            found = true;
            match name.split_once(':') {
                Some((table, key)) => self.row(text, table, key, value, delete)?,
                None => self.table(text, name, value, delete)?,
            }
        }
        if had_op && !found {
            return Err(shape(line, "an entry without a row"));
        }
        Ok(())
    }

    /// `{key: {fields}}`.
    fn table(
        &mut self,
        text: &str,
        table: &str,
        rows: &RawValue,
        delete: bool,
    ) -> Result<(), FileError> {
        if !rows.get().starts_with('{') {
            let line = self.lines.of(offset(text, rows.get()));
            return Err(shape(
                line,
                format!("`{table}` is neither `TABLE:key` nor a table of rows"),
            ));
        }
        let Members(members) = parse(text, rows.get(), &self.lines)?;
        for (key, value) in &members {
            self.row(text, table, key, value, delete)?;
        }
        Ok(())
    }

    fn row(
        &mut self,
        text: &str,
        table: &str,
        key: &str,
        value: &RawValue,
        delete: bool,
    ) -> Result<(), FileError> {
        let op = if delete {
            // Templates leave the fields of the SET behind.
            ConfigOp::Del
        } else {
            ConfigOp::Set(parse(text, value.get(), &self.lines)?)
        };
        self.rows.push(ConfigRow {
            table: table.to_owned(),
            key: key.to_owned(),
            op,
            index: self.rows.len(),
            line: self.lines.of(offset(text, value.get())),
        });
        Ok(())
    }
}

/// The members of an object as written: in order, a name given twice twice.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((Name(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(InOrder).map(Members)
    }
}

/// A member's name; owned when it holds escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl<'de> Visitor<'de> for Text {
            type Value = Cow<'de, str>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(text))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Cow::Owned(text.to_owned()))
            }
        }

        deserializer.deserialize_str(Text).map(Name)
    }
}
