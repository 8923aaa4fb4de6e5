//! What a run measured, as the JSON file holds it and the reports show it.

use serde::{Deserialize, Serialize};

/// One run of the lab.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Where and when it ran.
    pub machine: Machine,
    /// Groups in the order they ran.
    pub groups: Vec<Group>,
}

/// What it ran on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Processor, as the system names it.
    pub cpu: String,
    /// Logical processors this process may use.
    pub cores: usize,
    /// Memory, bytes.
    pub memory: u64,
    /// Operating system and its release.
    pub system: String,
    /// Revision that was built, and the profile.
    pub build: String,
    /// Start, UTC, RFC 3339.
    pub date: String,
    /// One-minute load average when it began and when it ended: other work spoils figures.
    pub load: [f64; 2],
    /// Anything else worth knowing (huge pages, DPDK version), as name and value.
    pub notes: Vec<(String, String)>,
}

/// Measurements that belong together: a sub-command.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Sub-command.
    pub name: String,
    /// One sentence: what is measured and how.
    pub about: String,
    /// Command that measures it again.
    pub command: String,
    /// Rows of its table.
    pub measurements: Vec<Measurement>,
    /// What could not be measured here, and why.
    pub skipped: Vec<String>,
}

/// One figure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// What: "outbound vnet, 64 B".
    pub name: String,
    /// Of the number: "ns/packet", "Mpps", "CPS", "bytes", "x" (a ratio), "ms".
    pub unit: String,
    /// Samples in the order they were taken; the median and the spread are made of these.
    pub samples: Vec<f64>,
    /// Position on the x axis of the group's plot, where it has one (flows, frame size, offered load).
    pub x: Option<f64>,
    /// Curve of the plot it belongs to.
    pub series: Option<String>,
    /// Goal, where there is one: the text of it, and whether it was reached.
    pub goal: Option<(String, bool)>,
    /// The goal's number in the same unit, to be drawn.
    #[serde(default)]
    pub limit: Option<f64>,
    /// What holds it back, or how to read it.
    pub note: Option<String>,
}

impl Measurement {
    /// Middle of the samples (mean of the middle two of an even number); NaN without samples.
    pub fn median(&self) -> f64 {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        match n {
            0 => f64::NAN,
            _ if n % 2 == 1 => sorted[n / 2],
            _ => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
        }
    }

    /// Least and greatest sample; NaN without samples.
    pub fn spread(&self) -> (f64, f64) {
        let least = self.samples.iter().copied().fold(f64::NAN, f64::min);
        let most = self.samples.iter().copied().fold(f64::NAN, f64::max);
        (least, most)
    }
}

#[cfg(test)]
mod tests {
    use super::Measurement;

    #[test]
    fn median_and_spread_do_not_depend_on_order() {
        let of = |samples: &[f64]| Measurement {
            samples: samples.to_vec(),
            ..Measurement::default()
        };
        assert_eq!(of(&[9.0, 1.0, 4.0]).median(), 4.0);
        assert_eq!(of(&[9.0, 1.0, 4.0, 6.0]).median(), 5.0);
        assert_eq!(of(&[9.0, 1.0, 4.0]).spread(), (1.0, 9.0));
        assert!(of(&[]).median().is_nan());
    }
}
