//! Numbers in as few digits as say something.

/// What stands where there is no number.
pub(super) const NONE: &str = "–";

/// Three significant digits, or all of a large whole number, with separators: `0.0123`, `1.23`,
/// `45.6`, `789`, `1,234,567`.
pub(super) fn number(v: f64) -> String {
    if !v.is_finite() {
        return NONE.to_owned();
    }
    let size = v.abs();
    // Rounding may carry into the next decade: judge what will be shown.
    match size {
        0.0 => "0".to_owned(),
        s if s >= 99.95 => grouped(v.round()),
        s if s >= 9.995 => format!("{v:.1}"),
        s if s >= 0.9995 => format!("{v:.2}"),
        s if s >= 0.000_999_5 => {
            let places = (-s.log10().floor()) as usize + 2;
            format!("{v:.places$}")
        }
        _ => format!("{v:.1e}"),
    }
}

fn grouped(v: f64) -> String {
    let digits = format!("{:.0}", v.abs());
    if digits.len() > 9 {
        return format!("{v:.2e}");
    }
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(c);
    }
    if v < 0.0 { format!("-{out}") } else { out }
}

/// A label of an axis: as short as it can be. Powers of two keep their names (64k, 16M).
pub(super) fn tick(v: f64) -> String {
    const BINARY: [(f64, &str); 3] = [(1_073_741_824.0, "G"), (1_048_576.0, "M"), (1_024.0, "k")];
    const DECIMAL: [(f64, &str); 3] = [(1e9, "G"), (1e6, "M"), (1e3, "k")];
    if !v.is_finite() {
        return NONE.to_owned();
    }
    if v >= 16_384.0 && v % 1_024.0 == 0.0 {
        let binary = BINARY.iter().find(|(unit, _)| v % unit == 0.0);
        if let Some((unit, name)) = binary {
            return format!("{}{name}", v / unit);
        }
    }
    if v.abs() < 10_000.0 {
        return trimmed(v);
    }
    match DECIMAL.iter().find(|(unit, _)| v.abs() >= *unit) {
        Some((unit, name)) => format!("{}{name}", trimmed(v / unit)),
        None => trimmed(v),
    }
}

/// At most three decimals, and no zeros at the end of them.
fn trimmed(v: f64) -> String {
    let text = format!("{v:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" {
        "0".to_owned()
    } else {
        text.to_owned()
    }
}

/// Least and greatest, or one number if they read alike.
pub(super) fn range(low: f64, high: f64) -> String {
    let (low, high) = (number(low), number(high));
    if low == high {
        low
    } else {
        format!("{low} – {high}")
    }
}

/// Bytes as people say them.
pub(super) fn bytes(n: u64) -> String {
    const UNITS: [(u64, &str); 4] = [
        (1 << 40, "TiB"),
        (1 << 30, "GiB"),
        (1 << 20, "MiB"),
        (1 << 10, "KiB"),
    ];
    match UNITS.iter().find(|(unit, _)| n >= *unit) {
        Some((unit, name)) => format!("{} {name}", number(n as f64 / *unit as f64)),
        None => format!("{n} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_large_ones_all() {
        let cases = [
            (0.0, "0"),
            (0.012_345, "0.0123"),
            (0.999_9, "1.00"),
            (1.0, "1.00"),
            (9.996, "10.0"),
            (45.64, "45.6"),
            (99.96, "100"),
            (1_234_567.4, "1,234,567"),
            (-1_234.0, "-1,234"),
            (1.5e-7, "1.5e-7"),
            (f64::NAN, NONE),
            (f64::INFINITY, NONE),
        ];
        for (v, text) in cases {
            assert_eq!(number(v), text, "{v}");
        }
    }

    #[test]
    fn ticks_are_short() {
        let cases = [
            (64.0, "64"),
            (1_518.0, "1518"),
            (65_536.0, "64k"),
            (1_048_576.0, "1M"),
            (33_554_432.0, "32M"),
            (1_500_000.0, "1.5M"),
            (0.25, "0.25"),
            (20_000.0, "20k"),
            (f64::NAN, NONE),
        ];
        for (v, text) in cases {
            assert_eq!(tick(v), text, "{v}");
        }
    }

    #[test]
    fn ranges_that_read_alike_are_one_number() {
        assert_eq!(range(1.001, 1.002), "1.00");
        assert_eq!(range(1.0, 2.0), "1.00 – 2.00");
        assert_eq!(range(f64::NAN, f64::NAN), NONE);
    }

    #[test]
    fn memory_is_in_binary_units() {
        assert_eq!(bytes(24 << 30), "24.0 GiB");
        assert_eq!(bytes(100), "100 B");
    }
}
