//! Samples of users' programs: what links counted, and elements of maps that were asked for.

use dash_bpf::MapDef;
use dash_prog::Map;

use super::{escape, family};
use crate::programs::Programs;

/// Elements of one map that are shown.
const MOST_ELEMENTS: usize = 1_024;

const VERDICTS: [&str; 5] = ["aborted", "drop", "pass", "tx", "redirect"];

/// Writes all families, each where it has samples.
pub(super) fn samples(out: &mut String, programs: &Programs) {
    let (mut packets, mut spent) = (Vec::new(), Vec::new());
    for (id, link) in programs.links() {
        let program = escape(&link.program);
        let stats = link.stats();
        for (verdict, n) in VERDICTS.iter().zip(stats.verdicts) {
            let labels = format!("{{link=\"{id}\",program=\"{program}\",verdict=\"{verdict}\"}}");
            packets.push((labels, n));
        }
        let labels = format!("{{link=\"{id}\",program=\"{program}\"}}");
        spent.push((labels, stats.out_of_fuel));
    }
    let mut values = Vec::new();
    for (name, object) in programs.objects() {
        for map in &object.metrics {
            if let Some(map) = object.loaded.maps().get(map) {
                elements(&mut values, name, map);
            }
        }
    }
    for (name, kind, help, samples) in [
        (
            "dashwire_link_packets_total",
            "counter",
            "Packets that a link's program ran on, by what it said.",
            packets,
        ),
        (
            "dashwire_link_out_of_fuel_total",
            "counter",
            "Packets whose run a link's program was ended in, for want of fuel (--program-fuel).",
            spent,
        ),
        (
            "dashwire_program_map",
            "gauge",
            "Words of values in maps of programs that are not 0; of maps per CPU, sums over workers.",
            values,
        ),
    ] {
        if !samples.is_empty() {
            let samples = samples.iter().map(|(labels, n)| (labels.as_str(), *n));
            family(out, name, kind, help, samples);
        }
    }
}

/// Adds a map's elements: a sample for each word that is not 0.
fn elements(to: &mut Vec<(String, u64)>, object: &str, map: &Map) {
    let label = format!("map=\"{}/{}\"", escape(object), escape(&map.def().name));
    let (mut key, mut shown) = (None::<Vec<u8>>, 0);
    // Keys may come again where programs add and remove meanwhile: never more than fit.
    for _ in 0..map.def().max_entries {
        let Ok(Some(next)) = map.next_key(key.as_deref()) else {
            return;
        };
        let value = map.lookup(&next).ok().flatten().unwrap_or_default();
        let hex: String = next.iter().map(|byte| format!("{byte:02x}")).collect();
        let before = to.len();
        for (word, n) in words(&value, map.def(), map.is_per_cpu())
            .into_iter()
            .enumerate()
        {
            if n != 0 {
                to.push((format!("{{{label},key=\"{hex}\",word=\"{word}\"}}"), n));
            }
        }
        shown += usize::from(to.len() > before);
        if shown >= MOST_ELEMENTS {
            return;
        }
        key = Some(next);
    }
}

/// A value as numbers of 64 bits and one of what is left, in this machine's byte order; those of all CPUs added.
fn words(value: &[u8], def: &MapDef, per_cpu: bool) -> Vec<u64> {
    let size = def.value_size as usize;
    let stride = match per_cpu {
        true => def.stride() as usize,
        false => size,
    };
    let mut sums = vec![0u64; size.div_ceil(8)];
    for cpu in value.chunks(stride.max(1)) {
        let cpu = &cpu[..size.min(cpu.len())];
        for (sum, word) in sums.iter_mut().zip(cpu.chunks(8)) {
            let mut bytes = [0; 8];
            match cfg!(target_endian = "big") {
                true => bytes[8 - word.len()..].copy_from_slice(word),
                false => bytes[..word.len()].copy_from_slice(word),
            }
            *sum = sum.wrapping_add(u64::from_ne_bytes(bytes));
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_words_and_those_of_cpus_are_added() {
        let def = |value_size| MapDef {
            value_size,
            ..MapDef::default()
        };
        let value = [7u64.to_ne_bytes().to_vec(), 9u32.to_ne_bytes().to_vec()].concat();
        assert_eq!(words(&value, &def(12), false), [7, 9]);
        let padded = [value, vec![0xff; 4]].concat();
        assert_eq!(words(&padded.repeat(3), &def(12), true), [21, 27]);
        assert_eq!(words(&[200], &def(1), false), [200]);
        assert_eq!(words(&[], &def(8), false), [0]);
    }
}
