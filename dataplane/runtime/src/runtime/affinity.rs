//! Pinning threads to cores.

use std::fmt;
use std::io;

use thiserror::Error;

/// Cores that threads are to have to themselves, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores(Vec<usize>);

/// Why text does not name cores.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are what the message says")]
pub enum CoresError {
    #[error("{part:?} is neither a core nor a range of cores such as 3-5")]
    Malformed { part: String },
    #[error("{part}: a range starts with its lowest core")]
    Backwards { part: String },
    #[error("core {core} is named twice")]
    Twice { core: usize },
    #[error("core {core}: cores are below {MOST}")]
    TooHigh { core: usize },
}

/// Cores that the system's calls can name here.
const MOST: usize = libc::CPU_SETSIZE as usize;

impl Cores {
    /// These cores.
    ///
    /// # Errors
    /// One is named twice or does not exist anywhere.
    pub fn new(cores: Vec<usize>) -> Result<Self, CoresError> {
        for (at, &core) in cores.iter().enumerate() {
            if core >= MOST {
                return Err(CoresError::TooHigh { core });
            }
            if cores[..at].contains(&core) {
                return Err(CoresError::Twice { core });
            }
        }
        Ok(Self(cores))
    }

    /// In order.
    pub fn as_slice(&self) -> &[usize] {
        &self.0
    }
}

impl std::str::FromStr for Cores {
    type Err = CoresError;

    /// Cores and ranges of them between commas: `1,3-5`.
    fn from_str(text: &str) -> Result<Self, CoresError> {
        let mut cores = Vec::new();
        for part in text.split(',') {
            let malformed = || CoresError::Malformed {
                part: part.to_owned(),
            };
            let number = |digits: &str| {
                let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
                let number = digits.parse::<usize>().ok().filter(|_| plain);
                number.ok_or_else(malformed)
            };
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(part)?, number(part)?),
            };
            if first > last {
                return Err(CoresError::Backwards {
                    part: part.to_owned(),
                });
            }
            if last >= MOST {
                return Err(CoresError::TooHigh { core: last });
            }
            cores.extend(first..=last);
        }
        Self::new(cores)
    }
}

impl fmt::Display for Cores {
    /// As [`FromStr`](std::str::FromStr) reads it, ranges joined.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_slice();
        let mut comma = "";
        while let [first, ..] = rest {
            let run = rest.iter().zip(*first..).take_while(|(a, b)| *a == b);
            let run = run.count();
            match run {
                1 => write!(f, "{comma}{first}")?,
                _ => write!(f, "{comma}{first}-{}", first + run - 1)?,
            }
            comma = ",";
            rest = &rest[run..];
        }
        Ok(())
    }
}

/// Cores this thread may run on, in order.
///
/// # Errors
/// The system does not say.
pub fn allowed() -> io::Result<Cores> {
    // SAFETY: all zeros is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: 0 is the calling thread; the set is ours and as long as said.
    let done = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `core` is below the number of bits.
    let cores = (0..MOST).filter(|&core| unsafe { libc::CPU_ISSET(core, &set) });
    Ok(Cores(cores.collect()))
}

/// Makes the calling thread run on one core alone.
///
/// # Errors
/// The core is not there, or not this thread's to run on.
pub fn pin(core: usize) -> io::Result<()> {
    if core >= MOST {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: all zeros is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `core` is below the number of bits.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: 0 is the calling thread; the set is ours and as long as said.
    match unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Cores, CoresError, MOST, allowed, pin};

    #[test]
    fn lists_and_ranges_are_read_and_written() {
        let cores: Cores = "1,3-5,9".parse().unwrap();
        assert_eq!(cores.as_slice(), [1, 3, 4, 5, 9]);
        assert_eq!(cores.to_string(), "1,3-5,9");
        assert_eq!("7-7".parse::<Cores>().unwrap().to_string(), "7");
        let refused = |text: &str| text.parse::<Cores>().unwrap_err();
        for text in ["", "1,", "a", "+1", "1-", "-1", "1-2-3", " 1"] {
            assert!(
                matches!(refused(text), CoresError::Malformed { .. }),
                "{text:?}"
            );
        }
        assert_eq!(
            refused("5-3"),
            CoresError::Backwards {
                part: "5-3".to_owned()
            }
        );
        assert_eq!(refused("1,0-2"), CoresError::Twice { core: 1 });
        let core = MOST;
        assert_eq!(refused(&format!("0-{core}")), CoresError::TooHigh { core });
    }

    #[test]
    fn a_pinned_thread_runs_where_it_was_told() {
        let core = allowed().unwrap().as_slice()[0];
        let seen = std::thread::spawn(move || {
            pin(core).unwrap();
            allowed().unwrap()
        });
        assert_eq!(seen.join().unwrap().as_slice(), [core]);
        assert!(pin(MOST - 1).is_err() || allowed().unwrap().as_slice().contains(&(MOST - 1)));
    }
}
