//! Lines to tokens.

use super::{AsmErrorKind, Parse};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Word(String),
    Number(i128),
    Sign(&'static str),
}

/// Longest first: `s>>=` before `s>`.
const SIGNS: [&str; 39] = [
    "s>>=", "<<=", ">>=", "s/=", "s%=", "s>=", "s<=", "==", "!=", ">=", "<=", "s>", "s<", "+=",
    "-=", "*=", "/=", "|=", "&=", "%=", "^=", "<", ">", "&", "=", "(", ")", "[", "]", "+", "-",
    "*", ",", ":", ".", "//", ";", "#", "/",
];

pub(super) fn tokens(line: &str) -> Parse<Vec<Token>> {
    let mut out = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        if let Some(sign) = SIGNS.iter().find(|s| rest.starts_with(**s)) {
            if matches!(*sign, "//" | ";" | "#") {
                break;
            }
            out.push(Token::Sign(sign));
            rest = rest[sign.len()..].trim_start();
            continue;
        }
        if !(first.is_ascii_alphanumeric() || first == '_') {
            return Err(AsmErrorKind::Character(first));
        }
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .unwrap_or(rest.len());
        let (word, tail) = rest.split_at(end);
        out.push(if first.is_ascii_digit() {
            Token::Number(number(word)?)
        } else {
            Token::Word(word.to_owned())
        });
        rest = tail.trim_start();
    }
    Ok(out)
}

fn number(word: &str) -> Parse<i128> {
    let parsed = match word.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => word.parse(),
    };
    parsed.map(i128::from).map_err(|_| AsmErrorKind::Expected {
        expected: "a number of at most 64 bits",
        found: format!("{word:?}"),
    })
}
