//! The text form of a gNMI path, as gnmic, pygnmi and gnmi_set take it.
//!
//! `origin:/elem/elem[name=value]`; a backslash takes the next character as it is. Inside a
//! bracket a slash needs no backslash.

use super::{ORIGIN, PathError, element};
use crate::gnmi;

/// Prints a path so that [`parse_path`] gives it back.
pub fn path_text(path: &gnmi::Path) -> String {
    let mut out = String::new();
    if !path.origin.is_empty() {
        out.push_str(&path.origin);
        out.push(':');
    }
    if path.elem.is_empty() {
        out.push('/');
    }
    for elem in &path.elem {
        out.push('/');
        escape(&mut out, &elem.name, &['/', '[', '\\']);

        for (name, value) in &elem.key {
            out.push('[');
            escape(&mut out, name, &['=', ']', '\\']);
            out.push('=');
            escape(&mut out, value, &[']', '\\']);
            out.push(']');
        }
    }
    out
}

fn escape(out: &mut String, text: &str, special: &[char]) {
    for c in text.chars() {
        if special.contains(&c) {
            out.push('\\');
        }
        out.push(c);
    }
}

/// Reads a path's text.
///
/// The origin may stand in front (`sonic-db:/..`) or in the first element
/// (`/sonic-db:DPU_APPL_DB/..`). A prefix as the last part of a key given as an element needs no
/// escape: `DASH_ROUTE_TABLE/group:10.2.0.0/16`.
///
/// # Errors
/// When the text ends inside a bracket or an escape, a bracket holds no `name=value`, or an
/// element has no name.
pub fn parse_path(text: &str) -> Result<gnmi::Path, PathError> {
    let mut path = gnmi::Path::default();
    let mut rest = text;
    if let Some((origin, after)) = text.split_once(":/")
        && !origin.is_empty()
        && origin
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    {
        path.origin = origin.to_owned();
        rest = after;
    } else {
        rest = rest.strip_prefix('/').unwrap_or(rest);
        for origin in [ORIGIN, "sonic_db"] {
            let after = rest.strip_prefix(origin).and_then(|r| r.strip_prefix(':'));
            if let Some(after) = after {
                path.origin = origin.to_owned();
                rest = after;
                break;
            }
        }
    }
    if rest.is_empty() {
        return Ok(path);
    }
    let mut reader = Reader {
        text,
        at: text.chars().count() - rest.chars().count(),
        chars: rest.chars(),
    };
    loop {
        let (elem, more) = reader.element()?;
        if !elem.name.is_empty() {
            path.elem.push(elem);
        } else if more || !elem.key.is_empty() || path.elem.is_empty() {
            return Err(reader.error("an element without a name"));
        }
        // A slash at the end adds nothing.
        if !more {
            break;
        }
    }
    join_mask(&mut path.elem);
    Ok(path)
}

/// Puts the mask length back to the prefix it was cut from, `:priority` included.
fn join_mask(elem: &mut Vec<gnmi::PathElem>) {
    let table = elem
        .iter()
        .position(|e| e.name.trim_start_matches('_').starts_with("DASH_") && e.key.is_empty());
    let Some(table) = table else { return };
    let (Some(key), Some(mask), None) = (
        elem.get(table + 1),
        elem.get(table + 2),
        elem.get(table + 3),
    ) else {
        return;
    };
    let is_mask = !mask.name.is_empty()
        && mask.key.is_empty()
        && mask.name.chars().all(|c| c.is_ascii_digit() || c == ':')
        && mask.name.starts_with(|c: char| c.is_ascii_digit());
    if is_mask && key.key.is_empty() && key.name.contains(':') && !key.name.contains('/') {
        let whole = element(&format!("{}/{}", key.name, mask.name));
        elem.truncate(table + 1);
        elem.push(whole);
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    chars: std::str::Chars<'a>,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.chars.next()?;
        self.at += 1;
        Some(c)
    }

    fn error(&self, reason: &'static str) -> PathError {
        PathError::Text {
            text: self.text.to_owned(),
            at: self.at,
            reason,
        }
    }

    fn escaped(&mut self) -> Result<char, PathError> {
        self.next()
            .ok_or_else(|| self.error("nothing after the backslash"))
    }

    /// One element, and whether a slash follows it.
    fn element(&mut self) -> Result<(gnmi::PathElem, bool), PathError> {
        let mut elem = gnmi::PathElem::default();
        loop {
            match self.next() {
                None => return Ok((elem, false)),
                Some('/') => return Ok((elem, true)),
                Some('\\') => {
                    let c = self.escaped()?;
                    elem.name.push(c);
                }
                Some('[') => {
                    let (name, value) = self.key()?;
                    if elem.key.insert(name, value).is_some() {
                        return Err(self.error("a key given twice"));
                    }
                }
                Some(_) if !elem.key.is_empty() => {
                    return Err(self.error("text after a bracket"));
                }
                Some(c) => elem.name.push(c),
            }
        }
    }

    /// `name=value]`.
    fn key(&mut self) -> Result<(String, String), PathError> {
        let name = self.until('=', "a bracket without `=`")?;
        let value = self.until(']', "an open bracket")?;
        if name.is_empty() {
            return Err(self.error("a key without a name"));
        }
        Ok((name, value))
    }

    fn until(&mut self, end: char, missing: &'static str) -> Result<String, PathError> {
        let mut out = String::new();
        loop {
            match self.next() {
                None => return Err(self.error(missing)),
                Some('\\') => out.push(self.escaped()?),
                Some(c) if c == end => return Ok(out),
                Some(']') => return Err(self.error(missing)),
                Some(c) => out.push(c),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::KEY;
    use super::*;

    fn names(path: &gnmi::Path) -> Vec<&str> {
        path.elem.iter().map(|e| e.name.as_str()).collect()
    }

    #[test]
    fn origin_is_read_in_front_and_in_the_first_element() {
        for text in [
            "sonic-db:/DPU_APPL_DB/dpu0",
            "/sonic-db:DPU_APPL_DB/dpu0",
            "sonic-db:DPU_APPL_DB/dpu0/",
        ] {
            let path = parse_path(text).unwrap();
            assert_eq!(path.origin, ORIGIN, "{text}");
            assert_eq!(names(&path), ["DPU_APPL_DB", "dpu0"], "{text}");
        }
    }

    #[test]
    fn bracketed_keys_may_hold_slashes_and_colons() {
        let path =
            parse_path("sonic-db:/APPL_DB/localhost/DASH_ROUTE_TABLE[key=g:fd00::/8]").unwrap();
        assert_eq!(path.elem[2].key[KEY], "g:fd00::/8");
    }

    #[test]
    fn mask_of_a_trailing_key_is_not_cut_off() {
        for (text, key) in [
            (
                "/DPU_APPL_DB/dpu0/DASH_ROUTE_TABLE/g:10.2.0.0/16",
                "g:10.2.0.0/16",
            ),
            (
                "/DPU_APPL_DB/dpu0/DASH_ROUTE_TABLE/g:10.2.0.0\\/16",
                "g:10.2.0.0/16",
            ),
            (
                "/DPU_APPL_DB/dpu0/DASH_ROUTE_RULE_TABLE/e:100:10.2.0.0/16:5",
                "e:100:10.2.0.0/16:5",
            ),
        ] {
            let path = parse_path(text).unwrap();
            assert_eq!(path.elem.len(), 4, "{text}");
            assert_eq!(path.elem[3].name, key);
        }
        let field = parse_path("/DPU_APPL_DB/dpu0/DASH_VNET_TABLE/Vnet1/vni").unwrap();
        assert_eq!(field.elem.len(), 5);
    }

    #[test]
    fn broken_texts_name_the_place() {
        for (text, at) in [
            ("/a[key=x", 8),
            ("/a[key]", 7),
            ("/a\\", 3),
            ("/a[=x]", 6),
            ("/a//b", 4),
            ("//", 2),
        ] {
            match parse_path(text) {
                Err(PathError::Text { at: found, .. }) => assert_eq!(found, at, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
