//! Text to tokens, each with its place.

use super::TextError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind<'t> {
    Word(&'t str),
    Number(u64),
    Punct(&'static str),
    End,
}

impl Kind<'_> {
    /// As a message shows it.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Word(w) => format!("`{w}`"),
            Self::Number(n) => format!("`{n}`"),
            Self::Punct(p) => format!("`{p}`"),
            Self::End => "the end of the text".to_owned(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'t> {
    pub(super) kind: Kind<'t>,
    pub(super) line: usize,
    pub(super) column: usize,
}

/// Longest first, so that `<<` is not two tokens.
const PUNCT: &[&str] = &[
    "<<", ">>", "==", "!=", "&&", "||", "{", "}", "[", "]", "(", ")", ";", ":", ",", ".", "=", "+",
    "-", "&", "|",
];

/// All tokens of a text; the last is [`Kind::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Token<'_>>, TextError> {
    let mut out = Vec::new();
    let mut last = (1, 1);
    for (number, line) in text.lines().enumerate() {
        let line_number = number + 1;
        let code = line.split('#').next().unwrap_or_default();
        let mut rest = code;
        let mut column = 1;
        loop {
            let trimmed = rest.trim_start();
            column += rest[..rest.len() - trimmed.len()].chars().count();
            rest = trimmed;
            if rest.is_empty() {
                break;
            }
            let (kind, length) = token(rest).map_err(|what| TextError {
                line: line_number,
                column,
                what,
            })?;
            out.push(Token {
                kind,
                line: line_number,
                column,
            });
            // Tokens are ASCII, so bytes are characters.
            column += length;
            rest = &rest[length..];
        }
        last = (line_number, column);
    }
    out.push(Token {
        kind: Kind::End,
        line: last.0,
        column: last.1,
    });
    Ok(out)
}

/// The token `rest` begins with, and its length in bytes.
fn token(rest: &str) -> Result<(Kind<'_>, usize), String> {
    if let Some(p) = PUNCT.iter().find(|p| rest.starts_with(**p)) {
        return Ok((Kind::Punct(p), p.len()));
    }
    let length = rest
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .unwrap_or(rest.len());
    let word = &rest[..length];
    match word.as_bytes().first() {
        None => Err(format!(
            "unexpected character {:?}",
            rest.chars().next().unwrap_or_default()
        )),
        Some(b'0'..=b'9') => {
            let parsed = match word.strip_prefix("0x") {
                Some(hex) => u64::from_str_radix(hex, 16),
                None => word.parse(),
            };
            match parsed {
                Ok(n) => Ok((Kind::Number(n), length)),
                Err(e) => Err(format!("`{word}` is not a number of 64 bits: {e}")),
            }
        }
        Some(_) => Ok((Kind::Word(word), length)),
    }
}
