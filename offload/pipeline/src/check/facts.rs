//! What is known at a point of a pipeline about the paths that lead there.

use crate::fields::META;

/// A set of steps, one bit each.
pub(super) type Steps = u16;

pub(super) const UNDERLAY: Steps = 1;
/// `parse vxlan` or `parse encap`.
pub(super) const VXLAN: Steps = 1 << 1;
/// `parse vxlan` or `parse encap` in the stage at hand.
pub(super) const VXLAN_HERE: Steps = 1 << 2;
pub(super) const DECAP: Steps = 1 << 3;
pub(super) const INNER: Steps = 1 << 4;
pub(super) const ACCOUNT: Steps = 1 << 5;
/// `account` in the stage at hand.
pub(super) const ACCOUNT_HERE: Steps = 1 << 6;
pub(super) const APPLY: Steps = 1 << 7;
pub(super) const TRANSLATE: Steps = 1 << 8;

/// A step as a message names it.
pub(super) fn step_name(step: Steps) -> &'static str {
    match step {
        UNDERLAY => "`parse underlay`",
        VXLAN => "`parse vxlan`",
        VXLAN_HERE => "`parse vxlan` in the same stage",
        DECAP => "`decap`",
        INNER => "`parse inner`",
        ACCOUNT => "`account`",
        ACCOUNT_HERE => "`account` in the same stage",
        TRANSLATE => "`translate`",
        _ => "`apply`",
    }
}

const _: () = assert!(META.len() <= 64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// Steps taken on every path.
    pub(super) must: Steps,
    /// Steps taken on some path.
    pub(super) may: Steps,
    /// Bit i: `META[i]` is written on every path.
    pub(super) written: u64,
}

impl Facts {
    /// Before the first stage.
    pub(super) const START: Self = Self {
        must: 0,
        may: 0,
        written: 0,
    };

    /// What holds after either of two paths.
    pub(super) fn meet(self, other: Self) -> Self {
        Self {
            must: self.must & other.must,
            may: self.may | other.may,
            written: self.written & other.written,
        }
    }

    /// Forgets what only holds inside one stage.
    pub(super) fn enter_stage(self) -> Self {
        const HERE: Steps = VXLAN_HERE | ACCOUNT_HERE;
        Self {
            must: self.must & !HERE,
            may: self.may & !HERE,
            ..self
        }
    }

    pub(super) fn step(&mut self, steps: Steps) {
        self.must |= steps;
        self.may |= steps;
    }

    /// Marks every metadata field for which `which` holds as written.
    pub(super) fn write(&mut self, which: impl Fn(&str) -> bool) {
        for (i, field) in META.iter().enumerate() {
            if which(field.name) {
                self.written |= 1 << i;
            }
        }
    }

    /// The first metadata field for which `which` holds that is not written.
    pub(super) fn unwritten(&self, which: impl Fn(&str) -> bool) -> Option<&'static str> {
        let unwritten = META
            .iter()
            .enumerate()
            .find(|(i, f)| self.written & (1 << i) == 0 && which(f.name));
        unwritten.map(|(_, f)| f.name)
    }
}
