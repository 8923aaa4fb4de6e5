//! What `bpf_trace_printk` prints: at most three arguments, as `bpf_bprintf_prepare` takes them.

use std::fmt::Write as _;

/// A format with its arguments filled in; `None` where Linux refuses the format. Pointers and strings of
/// the kernel do not exist here: `%s` and `%p...` are refused.
pub(super) fn line(format: &[u8], arguments: [u64; 3]) -> Option<String> {
    let end = format.iter().position(|&byte| byte == 0)?;
    let text = &format[..end];
    let printable = |byte: &u8| (0x20..0x7f).contains(byte) || (0x09..=0x0d).contains(byte);
    if !text.iter().all(printable) {
        return None;
    }
    let mut arguments = arguments.into_iter();
    let mut out = String::with_capacity(text.len());
    let mut rest = text.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            out.push(char::from(byte));
            continue;
        }
        if rest.peek() == Some(&b'%') {
            rest.next();
            out.push('%');
            continue;
        }
        // Flags and width: `%-08x`.
        let (mut left, mut zeros, mut width) = (false, false, 0usize);
        while let Some(flag) = rest.next_if(|b| matches!(b, b'-' | b'0' | b'+' | b' ' | b'#')) {
            left |= flag == b'-';
            zeros |= flag == b'0';
        }
        while let Some(digit) = rest.next_if(u8::is_ascii_digit) {
            width = (width * 10 + usize::from(digit - b'0')).min(256);
        }
        let mut long = 0;
        while rest.next_if_eq(&b'l').is_some() {
            long += 1;
        }
        let (kind, value) = (rest.next()?, arguments.next()?);
        let low = if long > 0 {
            value
        } else {
            u64::from(value as u32)
        };
        let signed = if long > 0 {
            value as i64
        } else {
            i64::from(value as i32)
        };
        let number = match kind {
            b'd' | b'i' => signed.to_string(),
            b'u' => low.to_string(),
            b'x' => format!("{low:x}"),
            b'X' => format!("{low:X}"),
            b'c' if long == 0 => char::from(value as u8).to_string(),
            _ => return None,
        };
        let done = match (left, zeros) {
            (true, _) => write!(out, "{number:<width$}"),
            (_, true) => {
                let (sign, digits) = match number.strip_prefix('-') {
                    Some(digits) => ("-", digits),
                    None => ("", number.as_str()),
                };
                let width = width.saturating_sub(sign.len());
                write!(out, "{sign}{digits:0>width$}")
            }
            _ => write!(out, "{number:>width$}"),
        };
        done.ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn formats_are_those_of_linux() {
        let said = |format: &str| line(format!("{format}\0").as_bytes(), [10, u64::MAX, 3]);
        assert_eq!(said("a %d b %d c %u\n").as_deref(), Some("a 10 b -1 c 3\n"));
        assert_eq!(said("%x %llx").as_deref(), Some("a ffffffffffffffff"));
        assert_eq!(said("%04x|%-4d|%5u").as_deref(), Some("000a|-1  |    3"));
        assert_eq!(said("100%%").as_deref(), Some("100%"));
        assert_eq!(said("%c").as_deref(), Some("\n"));
    }

    #[test]
    fn what_linux_refuses_is_refused() {
        assert_eq!(line(b"no end", [0; 3]), None);
        assert_eq!(line(b"%d %d %d %d\0", [0; 3]), None, "four arguments");
        assert_eq!(line(b"%s\0", [0; 3]), None, "strings");
        assert_eq!(line(b"\x01\0", [0; 3]), None, "control characters");
        assert_eq!(line(b"%\0", [0; 3]), None, "a cut conversion");
    }
}
