//! Conformance programs as text: hex of instructions and memory.

use dash_bpf::{Insn, Program, ProgramKind};
use serde::Deserialize;
use thiserror::Error;

/// Why a text is not a program.
#[derive(Debug, Error)]
pub enum CaseError {
    /// Not a list of `{name, program, memory, result}`.
    #[error("list of programs: {0}")]
    Json(#[from] serde_json::Error),
    /// Not hexadecimal.
    #[error("{what}: {found:?} at character {at} is not a byte in hex")]
    Hex {
        /// What the text is.
        what: &'static str,
        /// Place of the byte's first digit.
        at: usize,
        /// What stands there.
        found: String,
    },
    /// Instructions have 8 bytes.
    #[error("program: {0} bytes are no whole number of instructions")]
    Length(usize),
    /// A result is at most 64 bits.
    #[error("result {0:?} is not a number of 64 bits in hex")]
    Result(String),
}

/// A program, what it is run on, and what it returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Name in the suite.
    pub name: String,
    /// The program.
    pub program: Program,
    /// What r1 points to.
    pub memory: Vec<u8>,
    /// r0 at the end.
    pub result: u64,
}

#[derive(Deserialize)]
struct Row {
    name: String,
    program: String,
    memory: Option<String>,
    result: String,
}

/// Reads a JSON array of `{name, program, memory, result}`, all but the name in hex.
///
/// # Errors
/// The text is not that.
pub fn cases(json: &str) -> Result<Vec<Case>, CaseError> {
    let rows: Vec<Row> = serde_json::from_str(json)?;
    let case = |row: Row| {
        let digits = row.result.strip_prefix("0x").unwrap_or(&row.result);
        let result = u64::from_str_radix(digits, 16);
        Ok(Case {
            program: program(&row.name, &hex("program", &row.program)?)?,
            memory: hex("memory", row.memory.as_deref().unwrap_or_default())?,
            result: result.map_err(|_| CaseError::Result(row.result.clone()))?,
            name: row.name,
        })
    };
    rows.into_iter().map(case).collect()
}

/// A bare program from its instructions, 8 bytes each.
///
/// # Errors
/// They are no whole number of instructions.
pub fn program(name: &str, bytes: &[u8]) -> Result<Program, CaseError> {
    let (slots, []) = bytes.as_chunks::<8>() else {
        return Err(CaseError::Length(bytes.len()));
    };
    Ok(Program {
        name: name.to_owned(),
        kind: ProgramKind::Raw,
        insns: slots.iter().map(|slot| Insn::from_bytes(*slot)).collect(),
        ..Program::default()
    })
}

/// Bytes from pairs of hex digits, between which there may be white space.
///
/// # Errors
/// Something else stands in the text; `what` is it called in the error.
pub fn hex(what: &'static str, text: &str) -> Result<Vec<u8>, CaseError> {
    let mut digits = text.char_indices().filter(|(_, c)| !c.is_whitespace());
    let mut bytes = Vec::with_capacity(text.len() / 2);
    while let Some((at, high)) = digits.next() {
        let low = digits.next().map(|(_, low)| low);
        let byte = high.to_digit(16).zip(low.and_then(|low| low.to_digit(16)));
        let (high_digit, low_digit) = byte.ok_or_else(|| CaseError::Hex {
            what,
            at,
            found: std::iter::once(high).chain(low).collect(),
        })?;
        // Two digits are below 256.
        bytes.push((high_digit << 4 | low_digit) as u8);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::{CaseError, cases, hex};

    #[test]
    fn hex_has_blanks_anywhere_but_nothing_else() {
        assert_eq!(hex("", "01  fF\n a0 ").ok(), Some(vec![1, 0xff, 0xa0]));
        assert_eq!(hex("", "").ok(), Some(Vec::new()));
        for (text, place) in [("0", 0), ("01 x", 3), ("010", 2), ("é0", 0), ("0é", 0)] {
            let error = hex("memory", text).expect_err(text);
            assert!(
                matches!(error, CaseError::Hex { at, what: "memory", .. } if at == place),
                "{error}"
            );
        }
    }

    #[test]
    fn a_list_of_programs_is_read_or_refused_with_the_reason() {
        let list = r#"[{"name": "one", "program": "b700000001000000 9500000000000000",
            "memory": null, "result": "0x1"}]"#;
        let read = cases(list).expect("a list");
        assert_eq!((read.len(), read[0].program.insns.len()), (1, 2));
        assert_eq!((read[0].result, read[0].memory.len()), (1, 0));
        let short = list.replace("9500000000000000", "95");
        assert!(matches!(cases(&short), Err(CaseError::Length(9))));
        let wide = list.replace("0x1", "0x10000000000000000");
        assert!(matches!(cases(&wide), Err(CaseError::Result(_))));
        assert!(matches!(cases("{}"), Err(CaseError::Json(_))));
    }
}
