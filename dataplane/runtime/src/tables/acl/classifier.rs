//! One ACL group as bit vectors (Lakshman and Stiliadis, SIGCOMM '98).
//!
//! Each of the five fields of a packet falls in a class of values that the rules cannot tell apart;
//! a class has one bit a rule that accepts it. The AND of the five vectors are the rules that match,
//! and the lowest bit is the first of them. Values map to classes by binary search over the borders
//! of the rules' ranges; equal vectors are stored once, so 100,000 prefixes of a hundred rules make
//! a long border list but few vectors.

use std::collections::HashMap;

use dash_wire::tables::AclKey;
use nic_target::{AclPrefix, AclPrefixes, AclRuleRow};

/// A group, ready to answer.
#[derive(Debug)]
pub struct Classifier {
    /// By rule; a look-up returns the address of one.
    actions: Box<[u32]>,
    /// Words of a vector.
    words: usize,
    proto: Field<u8>,
    src: Field<u128>,
    dst: Field<u128>,
    sport: Field<u16>,
    dport: Field<u16>,
}

impl Classifier {
    /// Compiles the rules, given in the order of evaluation.
    pub fn new(rules: &[AclRuleRow]) -> Self {
        let words = rules.len().div_ceil(64);
        let prefixes = |list: &Option<AclPrefixes>| {
            list.as_ref()
                .map(|list| list.iter().map(range).collect::<Vec<_>>())
        };
        let ports = |list: &Option<Box<[(u16, u16)]>>| list.as_ref().map(|list| list.to_vec());
        Self {
            actions: rules.iter().map(|rule| rule.action).collect(),
            words,
            proto: Field::new(
                words,
                u8::MAX,
                |p| p.checked_add(1),
                rules.iter().map(|rule| {
                    rule.protocols
                        .as_ref()
                        .map(|list| list.iter().map(|&p| (p, p)).collect())
                }),
            ),
            src: Field::new(
                words,
                u128::MAX,
                |a| a.checked_add(1),
                rules.iter().map(|r| prefixes(&r.src)),
            ),
            dst: Field::new(
                words,
                u128::MAX,
                |a| a.checked_add(1),
                rules.iter().map(|r| prefixes(&r.dst)),
            ),
            sport: Field::new(
                words,
                u16::MAX,
                |p| p.checked_add(1),
                rules.iter().map(|r| ports(&r.src_ports)),
            ),
            dport: Field::new(
                words,
                u16::MAX,
                |p| p.checked_add(1),
                rules.iter().map(|r| ports(&r.dst_ports)),
            ),
        }
    }

    /// Row of the first rule that matches.
    pub fn first(&self, key: &AclKey) -> Option<&u32> {
        let vectors = [
            self.proto.vector(self.words, key.proto),
            self.src.vector(self.words, u128::from_be_bytes(key.sip)),
            self.dst.vector(self.words, u128::from_be_bytes(key.dip)),
            self.sport.vector(self.words, u16::from_be_bytes(key.sport)),
            self.dport.vector(self.words, u16::from_be_bytes(key.dport)),
        ];
        let [a, b, c, d, e] = vectors;
        let all = a.iter().zip(b).zip(c).zip(d).zip(e);
        let (word, bits) = all
            .map(|((((a, b), c), d), e)| a & b & c & d & e)
            .enumerate()
            .find(|&(_, bits)| bits != 0)?;
        self.actions.get(word * 64 + bits.trailing_zeros() as usize)
    }
}

/// First and last address of a prefix.
fn range(prefix: &AclPrefix) -> (u128, u128) {
    let host = u128::MAX.checked_shr(u32::from(prefix.len)).unwrap_or(0);
    let addr = u128::from_be_bytes(prefix.addr);
    (addr & !host, addr | host)
}

/// One field of the key: borders between classes, and the vectors of the classes.
#[derive(Debug)]
struct Field<T> {
    /// First value of each interval, ascending; the first is 0.
    starts: Box<[T]>,
    /// Class of each interval.
    class: Box<[u32]>,
    /// Vectors of the classes, `words` each.
    vectors: Box<[u64]>,
}

impl<T: Copy + Ord + Default> Field<T> {
    /// From each rule's inclusive ranges; `None` accepts every value. `after` gives the next value.
    fn new(
        words: usize,
        max: T,
        after: impl Fn(T) -> Option<T>,
        rules: impl Iterator<Item = Option<Vec<(T, T)>>>,
    ) -> Self {
        // Where a rule begins (+1) and stops (-1) to accept.
        let mut events = Vec::new();
        for (rule, ranges) in rules.enumerate() {
            let ranges = ranges.unwrap_or_else(|| vec![(T::default(), max)]);
            for (low, high) in ranges.into_iter().filter(|(low, high)| low <= high) {
                events.push((low, rule, 1i32));
                events.extend(after(high).map(|stop| (stop, rule, -1)));
            }
        }
        events.sort_unstable();

        let mut field = Builder {
            words,
            classes: HashMap::new(),
            starts: vec![],
            class: vec![],
            vectors: vec![],
        };
        let mut now = vec![0u64; words];
        // Ranges of one rule may overlap: it accepts while any of them is open.
        let mut open = vec![0i32; words * 64];
        let mut at = T::default();
        for (value, rule, step) in events {
            if value != at {
                field.interval(at, &now);
                at = value;
            }
            open[rule] += step;
            let (word, bit) = (rule / 64, 1 << (rule % 64));
            if open[rule] > 0 {
                now[word] |= bit;
            } else {
                now[word] &= !bit;
            }
        }
        field.interval(at, &now);
        Self {
            starts: field.starts.into_boxed_slice(),
            class: field.class.into_boxed_slice(),
            vectors: field.vectors.into_boxed_slice(),
        }
    }

    fn vector(&self, words: usize, value: T) -> &[u64] {
        // The first interval starts at the least value, so one is always at or before `value`.
        let interval = self.starts.partition_point(|start| *start <= value) - 1;
        let class = self.class[interval] as usize;
        &self.vectors[class * words..(class + 1) * words]
    }
}

struct Builder<T> {
    words: usize,
    classes: HashMap<Box<[u64]>, u32>,
    starts: Vec<T>,
    class: Vec<u32>,
    vectors: Vec<u64>,
}

impl<T> Builder<T> {
    fn interval(&mut self, start: T, vector: &[u64]) {
        debug_assert_eq!(vector.len(), self.words);
        let class = match self.classes.get(vector) {
            Some(&class) => class,
            None => {
                let class = self.classes.len() as u32;
                self.classes.insert(vector.into(), class);
                self.vectors.extend_from_slice(vector);
                class
            }
        };
        if self.class.last() != Some(&class) {
            self.starts.push(start);
            self.class.push(class);
        }
    }
}
