//! Evidence of a figure: packets that were counted going in and coming out.

use std::fmt;
use std::ops::AddAssign;

use anyhow::{Result, ensure};

/// Fewest packets of a sample.
const FEWEST: u64 = 10_000;
/// Counters are read one after the other while packets pass: so much of them may differ.
const SLACK: f64 = 0.02;

/// What was counted while a sample was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// Packets that came in.
    pub(super) received: u64,
    /// Packets that went out.
    pub(super) sent: u64,
    /// Bytes that went out; `None` where the port does not count them.
    pub(super) octets: Option<u64>,
}

/// A figure's name and one sample of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) name: &'static str,
    /// CPU time of a packet that went out.
    pub(super) ns: f64,
    pub(super) counted: Counted,
}

impl Sample {
    /// A sample of a thread's time, if the counts prove that what came in went out, each packet with
    /// so many bytes.
    ///
    /// # Errors
    /// They do not.
    pub(super) fn proven(
        name: &'static str,
        cpu_ns: u64,
        counted: Counted,
        length: usize,
    ) -> Result<Self> {
        let Counted {
            received,
            sent,
            octets,
        } = counted;
        ensure!(
            sent >= FEWEST,
            "{name}: {sent} packets out of {received} in: too few to be a figure"
        );
        let apart = received.abs_diff(sent) as f64 / received.max(1) as f64;
        ensure!(
            apart <= SLACK,
            "{name}: {received} packets in and {sent} out: not what is said to be measured"
        );
        if let Some(octets) = octets {
            let each = octets as f64 / sent as f64;
            let apart = (each - length as f64).abs() / length as f64;
            ensure!(
                apart <= SLACK,
                "{name}: {each:.1} bytes a packet out, and it must be {length}"
            );
        }
        Ok(Self {
            name,
            ns: cpu_ns as f64 / sent as f64,
            counted,
        })
    }
}

impl AddAssign for Counted {
    fn add_assign(&mut self, other: Self) {
        // A sum of nothing yet takes the other's bytes; one without bytes has none to add to.
        self.octets = match (self.octets, other.octets) {
            (Some(a), Some(b)) => Some(a + b),
            (None, b) if self.sent == 0 => b,
            _ => None,
        };
        self.received += other.received;
        self.sent += other.sent;
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "counted: {} packets in, {} out",
            self.received, self.sent
        )?;
        match self.octets {
            Some(octets) => write!(
                f,
                " of {:.0} bytes",
                octets as f64 / self.sent.max(1) as f64
            ),
            None => write!(f, "; the port counts no bytes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_needs_packets_that_came_out_as_they_must() {
        let of = |received, sent, octets| {
            let counted = Counted {
                received,
                sent,
                octets,
            };
            Sample::proven("it", 1_000_000, counted, 110)
        };
        assert_eq!(of(20_100, 20_000, Some(2_200_000)).expect("proof").ns, 50.0);
        assert!(of(20_000, 20_000, None).is_ok(), "no bytes to look at");
        for (received, sent, octets, why) in [
            (20_000, 19_000, None, "20000 packets in and 19000 out"),
            (20_000, 40_000, None, "20000 packets in and 40000 out"),
            (20_000, 0, Some(0), "too few"),
            (20_000, 20_000, Some(1_200_000), "60.0 bytes a packet out"),
        ] {
            let said = of(received, sent, octets).expect_err(why).to_string();
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn sums_are_of_what_was_counted() {
        let one = Counted {
            received: 3,
            sent: 2,
            octets: Some(220),
        };
        let mut sum = Counted::default();
        sum += one;
        sum += one;
        assert_eq!(sum.to_string(), "counted: 6 packets in, 4 out of 110 bytes");
        sum += Counted {
            octets: None,
            ..one
        };
        assert_eq!(
            sum.to_string(),
            "counted: 9 packets in, 6 out; the port counts no bytes"
        );
    }
}
