//! What a run of the lab was asked for.

use std::path::PathBuf;

/// What every sub-command takes.
#[derive(Clone, Debug)]
pub struct Options {
    /// Tiny scale: every sub-command whole, in a minute all together.
    pub quick: bool,
    /// Samples of each figure; `None` is 3 when quick and 9 otherwise.
    pub samples: Option<usize>,
    /// Time of what is bounded by time (a soak, a latency trial), seconds; `None` is the
    /// sub-command's own.
    pub seconds: Option<f64>,
    /// Worker threads.
    pub workers: usize,
    /// Flows that are there, and are used, while connections are made.
    pub background: Option<u32>,
    /// Folder for the verifier's verdicts.
    pub cache_dir: Option<PathBuf>,
    /// Of everything random.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            quick: false,
            samples: None,
            seconds: None,
            workers: 1,
            background: None,
            cache_dir: None,
            seed: 1,
        }
    }
}

impl Options {
    /// Samples of each figure.
    pub fn samples(&self) -> usize {
        self.samples
            .unwrap_or(if self.quick { 3 } else { 9 })
            .max(1)
    }

    /// Time of what is bounded by time, seconds.
    pub fn seconds(&self, quick: f64, full: f64) -> f64 {
        self.seconds
            .unwrap_or(if self.quick { quick } else { full })
            .max(0.001)
    }

    /// One of two scales.
    pub fn scale<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }

    /// The command line that measures a group again.
    pub fn command(&self, name: &str) -> String {
        let mut out = format!("dashctl bench {name}");
        let mut add = |flag: &str, value: &dyn std::fmt::Display| {
            out.push_str(&format!(" --{flag} {value}"));
        };
        if let Some(n) = self.samples {
            add("samples", &n);
        }
        if let Some(n) = self.seconds {
            add("seconds", &n);
        }
        if self.workers != 1 {
            add("workers", &self.workers);
        }
        if let Some(n) = self.background {
            add("background", &n);
        }
        if self.seed != Self::default().seed {
            add("seed", &self.seed);
        }
        if self.quick {
            out.push_str(" --quick");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::Options;

    #[test]
    fn a_command_names_what_differs_from_the_defaults() {
        let plain = Options::default();
        assert_eq!(plain.command("flows"), "dashctl bench flows");
        let other = Options {
            quick: true,
            samples: Some(5),
            workers: 2,
            background: Some(7),
            ..plain
        };
        assert_eq!(
            other.command("cps"),
            "dashctl bench cps --samples 5 --workers 2 --background 7 --quick"
        );
    }
}
