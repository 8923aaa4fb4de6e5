//! Where each byte of a region's frames lives: in memory or in registers.
//!
//! Bytes whose address matters stay in memory. The others are cut into *pieces* at every boundary
//! of an access, and each piece becomes one variable of the code generator, so a value stored
//! whole and read in parts, or built from parts and read whole, never goes through memory. That
//! matters: a key built by narrow stores and read back wide costs a store-forwarding stall.

use crate::analysis::{Analysis, StackUse, UseKind};

/// Bytes of a frame (`MAX_BPF_STACK`).
pub(crate) const FRAME_SIZE: usize = 512;

/// Bytes of a frame kept in one variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Offset from r10.
    pub(crate) off: i16,
    /// 1 to 8.
    pub(crate) size: u8,
}

/// Homes of one frame's bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Ordered, disjoint.
    pub(crate) pieces: Vec<Piece>,
    /// Bytes below r10 that are memory.
    pub(crate) memory: usize,
}

/// Where an access goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Home<'a> {
    /// To memory.
    Memory,
    /// To these pieces, the first of them with this index.
    Pieces(usize, &'a [Piece]),
}

impl Frame {
    /// Where an access of `size` bytes at `off` goes. Every access the analysis noted lies in
    /// memory or in whole pieces.
    pub(crate) fn home(&self, off: i16, size: usize) -> Home<'_> {
        let end = i32::from(off) + size as i32;
        let first = self.pieces.partition_point(|p| p.off < off);
        let count = self.pieces[first..]
            .iter()
            .take_while(|p| i32::from(p.off) < end)
            .count();
        match &self.pieces[first..first + count] {
            [] => Home::Memory,
            pieces => Home::Pieces(first, pieces),
        }
    }
}

/// Decides for each frame of a region.
pub(crate) fn layout(analysis: &Analysis, frames: usize, promote: bool) -> Vec<Frame> {
    (0..frames)
        .map(|depth| {
            let depth = depth as u8;
            let mut uses: Vec<StackUse> = analysis
                .uses
                .iter()
                .filter(|u| u.place.depth == depth)
                .copied()
                .collect();
            uses.sort_by_key(|u| (u.place.off, u.size));
            uses.dedup();
            frame(&uses, promote, analysis.escaped.contains(depth))
        })
        .collect()
}

fn frame(uses: &[StackUse], promote: bool, escaped: bool) -> Frame {
    let mut frame = Frame::default();
    if escaped {
        frame.memory = FRAME_SIZE;
        return frame;
    }
    for cluster in clusters(uses) {
        match pieces(cluster) {
            Some(pieces) if promote => frame.pieces.extend(pieces),
            _ => {
                let low = cluster.iter().map(|u| u.place.off).min().unwrap_or(0);
                frame.memory = frame.memory.max(usize::from(low.unsigned_abs()));
            }
        }
    }
    frame
}

fn end(u: &StackUse) -> i32 {
    i32::from(u.place.off) + u.size as i32
}

/// Splits uses, ordered by offset, into groups that share no byte.
fn clusters(uses: &[StackUse]) -> impl Iterator<Item = &[StackUse]> {
    let mut reach = i32::MIN;
    let mut starts: Vec<usize> = Vec::new();
    for (i, u) in uses.iter().enumerate() {
        if i32::from(u.place.off) >= reach {
            starts.push(i);
        }
        reach = reach.max(end(u));
    }
    let ends: Vec<usize> = starts.iter().skip(1).copied().chain([uses.len()]).collect();
    starts.into_iter().zip(ends).map(|(a, b)| &uses[a..b])
}

/// Cuts a cluster at every boundary of an access; `None` where it has to stay in memory.
fn pieces(cluster: &[StackUse]) -> Option<Vec<Piece>> {
    if cluster.iter().any(|u| u.kind == UseKind::Address) {
        return None;
    }
    let mut cuts: Vec<i32> = cluster
        .iter()
        .flat_map(|u| [i32::from(u.place.off), end(u)])
        .collect();
    cuts.sort_unstable();
    cuts.dedup();
    // Neighbouring cuts are at most one access, 8 bytes, apart: every byte of a cluster is used.
    let pieces = cuts.windows(2).map(|w| Piece {
        off: w[0] as i16,
        size: (w[1] - w[0]) as u8,
    });
    Some(pieces.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::Place;

    fn value(off: i16, size: usize) -> StackUse {
        StackUse {
            place: Place { depth: 0, off },
            size,
            kind: UseKind::Value,
        }
    }

    fn address(off: i16, size: usize) -> StackUse {
        StackUse {
            kind: UseKind::Address,
            ..value(off, size)
        }
    }

    fn laid_out(mut uses: Vec<StackUse>) -> Frame {
        uses.sort_by_key(|u| (u.place.off, u.size));
        frame(&uses, true, false)
    }

    #[test]
    fn overlapping_accesses_of_different_sizes_share_pieces() {
        let frame = laid_out(vec![
            value(-8, 8),
            value(-8, 4),
            value(-4, 2),
            value(-16, 8),
        ]);
        let cut = [(-16, 8), (-8, 4), (-4, 2), (-2, 2)].map(|(off, size)| Piece { off, size });
        assert_eq!(frame.pieces, cut);
        assert_eq!(frame.memory, 0);
        assert_eq!(frame.home(-8, 8), Home::Pieces(1, &cut[1..]));
        assert_eq!(frame.home(-4, 2), Home::Pieces(2, &cut[2..3]));
    }

    #[test]
    fn an_address_keeps_its_whole_cluster_in_memory_and_only_that() {
        let frame = laid_out(vec![value(-8, 8), address(-12, 6), value(-32, 8)]);
        assert_eq!(frame.pieces, [Piece { off: -32, size: 8 }]);
        assert_eq!(frame.memory, 12);
        assert_eq!(frame.home(-8, 8), Home::Memory);
    }

    #[test]
    fn eight_single_bytes_read_as_one_word_are_eight_pieces() {
        let mut uses: Vec<_> = (-8..0).map(|off| value(off, 1)).collect();
        uses.push(value(-8, 8));
        let frame = laid_out(uses);
        assert!(matches!(frame.home(-8, 8), Home::Pieces(0, pieces) if pieces.len() == 8));
    }
}
