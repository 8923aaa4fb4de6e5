//! Capture files: both formats, both resolutions, every kind of damage.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]

use std::path::{Path, PathBuf};

use nic_sim::{CaptureError, CaptureWriter, Captured, PcapPort, read_capture};
use nic_target::{FramePool, Port, Rx, Tx};
use proptest::prelude::*;
use tempfile::TempDir;

/// A file that lives as long as the folder.
fn file(dir: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn read_all(path: &Path) -> Result<Vec<Captured>, CaptureError> {
    read_capture(path)?.collect()
}

/// A pcap by hand: magic as the reader's byte order sees it, then (sec, fraction, saved, data).
fn pcap(magic: u32, big: bool, link: u32, packets: &[(u32, u32, u32, &[u8])]) -> Vec<u8> {
    let word = |n: u32| {
        if big {
            n.to_be_bytes()
        } else {
            n.to_le_bytes()
        }
    };
    let half = |n: u16| {
        if big {
            n.to_be_bytes()
        } else {
            n.to_le_bytes()
        }
    };
    let mut out = word(magic).to_vec();
    out.extend([half(2), half(4)].concat());
    for n in [0, 0, 96, link] {
        out.extend(word(n));
    }
    for (sec, fraction, original, data) in packets {
        for n in [*sec, *fraction, data.len() as u32, *original] {
            out.extend(word(n));
        }
        out.extend_from_slice(data);
    }
    out
}

/// A pcapng block, little-endian.
fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let padded = body.len().next_multiple_of(4);
    let total = (padded as u32 + 12).to_le_bytes();
    let mut out = [kind.to_le_bytes(), total].concat();
    out.extend_from_slice(body);
    out.resize(8 + padded, 0);
    out.extend(total);
    out
}

fn section() -> Vec<u8> {
    block(
        0x0a0d_0d0a,
        &[&0x1a2b_3c4du32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat(),
    )
}

fn interface(link: u16, options: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = [link.to_le_bytes(), [0; 2]].concat();
    body.extend(0u32.to_le_bytes());
    for (code, value) in options {
        body.extend([code.to_le_bytes(), (value.len() as u16).to_le_bytes()].concat());
        body.extend_from_slice(value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    body.extend([0; 4]);
    block(1, &body)
}

fn enhanced(interface: u32, ticks: u64, data: &[u8]) -> Vec<u8> {
    let words = [
        interface,
        (ticks >> 32) as u32,
        ticks as u32,
        data.len() as u32,
        data.len() as u32,
    ];
    block(
        6,
        &[&words.map(u32::to_le_bytes).concat()[..], data].concat(),
    )
}

const US: u32 = 0xa1b2_c3d4;
const NS: u32 = 0xa1b2_3c4d;

#[test]
fn pcap_of_both_resolutions_and_byte_orders_is_read() {
    let dir = tempfile::tempdir().unwrap();
    for (magic, big, fraction, ns) in [
        (US, false, 25, 25_000),
        (US, true, 25, 25_000),
        (NS, false, 999_999_999, 999_999_999),
        (NS, true, 7, 7),
    ] {
        let path = file(
            &dir,
            "a.pcap",
            &pcap(magic, big, 1, &[(3, fraction, 4, b"abcd"), (4, 0, 0, b"")]),
        );
        let want = [
            Captured {
                timestamp_ns: 3_000_000_000 + ns,
                data: b"abcd".to_vec(),
            },
            Captured {
                timestamp_ns: 4_000_000_000,
                data: vec![],
            },
        ];
        assert_eq!(
            read_all(&path).unwrap(),
            want,
            "magic {magic:#x}, big-endian {big}"
        );
    }
}

#[test]
fn a_packet_cut_short_by_the_capture_is_read_as_saved() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(
        &dir,
        "a.pcap",
        &pcap(US, false, 1, &[(0, 0, 1500, b"first bytes")]),
    );
    assert_eq!(read_all(&path).unwrap()[0].data, b"first bytes");
}

#[test]
fn pcapng_is_read_in_the_resolution_of_each_interface() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = [
        section(),
        interface(1, &[]),
        interface(1, &[(9, &[9]), (14, &2u64.to_le_bytes())]),
        interface(1, &[(9, &[0x80 | 10])]),
        enhanced(0, 1_000_001, b"microseconds"),
        enhanced(1, 5, b"nanoseconds, two seconds late"),
        block(0x0bad, b"of a kind nobody knows"),
        enhanced(2, 512, b"1/1024 s"),
        block(3, &[&6u32.to_le_bytes()[..], b"simple"].concat()),
        // A new section forgets the interfaces.
        section(),
        interface(1, &[]),
        enhanced(0, 3, b"again"),
    ]
    .concat();
    let got = read_all(&file(&dir, "a.pcapng", &bytes)).unwrap();
    let got = got
        .iter()
        .map(|p| (p.timestamp_ns, &p.data[..]))
        .collect::<Vec<_>>();
    let want: [(u64, &[u8]); 5] = [
        (1_000_001_000, b"microseconds"),
        (2_000_000_005, b"nanoseconds, two seconds late"),
        (500_000_000, b"1/1024 s"),
        (500_000_000, b"simple"),
        (3_000, b"again"),
    ];
    assert_eq!(got, want);
}

#[test]
fn damage_is_named_with_file_and_packet() {
    let dir = tempfile::tempdir().unwrap();
    let good = pcap(US, false, 1, &[(0, 0, 4, b"abcd"), (0, 0, 4, b"efgh")]);
    let cases: [(&str, Vec<u8>, &str); 12] = [
        ("empty", vec![], "is not a capture: it starts with []"),
        (
            "text",
            b"hello".to_vec(),
            "is not a capture: it starts with [68, 65, 6c, 6c]",
        ),
        (
            "header",
            good[..20].to_vec(),
            "bad file header: the file ends inside it",
        ),
        (
            "raw-ip",
            pcap(US, false, 101, &[]),
            "link type RAW, not Ethernet",
        ),
        (
            "cut",
            good[..good.len() - 1].to_vec(),
            "the file ends inside packet 2",
        ),
        (
            "cut-header",
            good[..30].to_vec(),
            "the file ends inside packet 1",
        ),
        (
            "fraction",
            pcap(US, false, 1, &[(0, 1_000_000, 1, b"a")]),
            "packet 1 is corrupt: its time has 1000000",
        ),
        (
            "lengths",
            pcap(US, false, 1, &[(0, 0, 1, b"ab")]),
            "packet 1 is corrupt: it saved 2 bytes of 1",
        ),
        (
            "ng-link",
            [section(), interface(113, &[]), enhanced(0, 0, b"x")].concat(),
            "not Ethernet",
        ),
        (
            "ng-none",
            [section(), enhanced(0, 0, b"x")].concat(),
            "packet 1 is corrupt: it names interface 0",
        ),
        (
            "ng-cut",
            [
                section(),
                interface(1, &[]),
                enhanced(0, 0, b"x")[..20].to_vec(),
            ]
            .concat(),
            "ends inside packet 1",
        ),
        (
            "ng-late",
            [section(), interface(1, &[]), enhanced(0, u64::MAX, b"x")].concat(),
            "past the year 2554",
        ),
    ];
    for (name, bytes, part) in cases {
        let path = file(&dir, name, &bytes);
        let message = read_all(&path).expect_err(name).to_string();
        assert!(
            message.contains(part) && message.contains(path.to_str().unwrap()),
            "{name}: {message}"
        );
    }
    let message = read_all(&dir.path().join("absent"))
        .unwrap_err()
        .to_string();
    assert!(message.contains("absent"), "{message}");
}

#[test]
fn reading_ends_after_the_first_error() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = pcap(
        US,
        false,
        1,
        &[(0, 2_000_000, 4, b"abcd"), (0, 0, 4, b"efgh")],
    );
    let mut reader = read_capture(&file(&dir, "a", &bytes)).unwrap();
    assert!(matches!(
        reader.next(),
        Some(Err(CaptureError::Corrupt { packet: 1, .. }))
    ));
    assert!(reader.next().is_none());
}

/// Runs a port to its end and sends back what came, as a wire that reflects.
fn reflect(port: &mut PcapPort) -> (usize, usize) {
    let (mut pool, mut burst, mut sent) = (FramePool::new(3), Vec::new(), Tx::default());
    while let Rx::Received(n) = port.rx(5, &mut pool, &mut burst, 8).unwrap() {
        assert!(n > 0 && burst.iter().all(|f| f.port == 5));
        let tx = port.tx(&mut pool, &mut burst).unwrap();
        sent = Tx {
            sent: sent.sent + tx.sent,
            octets: sent.octets + tx.octets,
            dropped: sent.dropped + tx.dropped,
        };
    }
    assert_eq!(pool.available(), 3);
    (sent.sent, sent.dropped)
}

#[test]
fn a_port_carries_a_capture_over_with_its_times() {
    let dir = tempfile::tempdir().unwrap();
    let packets = (0..10u64)
        .map(|i| Captured {
            timestamp_ns: 1_700_000_000_000_000_000 + i * 1_234_567,
            data: vec![i as u8; 60 + i as usize],
        })
        .collect::<Vec<_>>();
    let (input, output) = (dir.path().join("in.pcap"), dir.path().join("out.pcap"));
    let mut writer = CaptureWriter::create(&input).unwrap();
    packets
        .iter()
        .for_each(|p| writer.write(p.timestamp_ns, &p.data).unwrap());
    writer.write(0, &[0; 9_601]).unwrap();
    assert_eq!(writer.count(), 11);
    writer.finish().unwrap();

    let mut port = PcapPort::open(Some(&input), Some(&output)).unwrap();
    assert!(port.virtual_time());
    assert_eq!(reflect(&mut port), (10, 0));
    assert_eq!(port.too_long(), 1);
    port.finish().unwrap();
    assert_eq!(read_all(&output).unwrap(), packets);
}

#[test]
fn a_port_reports_a_damaged_capture_after_the_packets_before_the_damage() {
    let dir = tempfile::tempdir().unwrap();
    let good = pcap(US, false, 1, &[(0, 0, 4, b"abcd"), (0, 0, 4, b"efgh")]);
    let path = file(&dir, "cut.pcap", &good[..good.len() - 1]);
    let mut port = PcapPort::open(Some(&path), None).unwrap();
    let (mut pool, mut burst) = (FramePool::new(3), Vec::new());
    assert_eq!(
        port.rx(0, &mut pool, &mut burst, 1).unwrap(),
        Rx::Received(1)
    );
    let error = port
        .rx(0, &mut pool, &mut burst, 8)
        .unwrap_err()
        .to_string();
    assert!(error.contains("ends inside packet 2"), "{error}");
    assert_eq!(port.rx(0, &mut pool, &mut burst, 8).unwrap(), Rx::End);
}

#[test]
fn a_port_never_empties_the_file_it_reads() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = pcap(US, false, 1, &[(0, 0, 4, b"abcd")]);
    let path = file(&dir, "a.pcap", &bytes);
    let same = dir.path().join(".").join("a.pcap");
    let refused = PcapPort::open(Some(&path), Some(&same));
    assert!(
        matches!(refused, Err(CaptureError::SameFile { .. })),
        "{refused:?}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let good = prop_oneof![
        Just(pcap(
            US,
            false,
            1,
            &[(1, 2, 5, b"abcde"), (3, 4, 4, b"efgh")]
        )),
        Just(
            [
                section(),
                interface(1, &[(9, &[6]), (2, b"eth0")]),
                enhanced(0, 1, b"abcde"),
                enhanced(0, 2, b"f")
            ]
            .concat()
        ),
    ];
    let hits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (good, hits, any::<prop::sample::Index>()).prop_map(|(mut bytes, hits, end)| {
        for (at, value) in hits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(end.index(bytes.len()) + 1);
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_damage_panics_and_reading_ends(bytes in prop_oneof![damaged(), prop::collection::vec(any::<u8>(), 0..100)]) {
        let dir = tempfile::tempdir().unwrap();
        let path = file(&dir, "a", &bytes);
        if let Ok(reader) = read_capture(&path) {
            let saved: usize = reader.filter_map(Result::ok).map(|p| p.data.len()).sum();
            prop_assert!(saved <= bytes.len());
        }
    }

    #[test]
    fn what_is_written_is_read(
        packets in prop::collection::vec((0..4_000_000_000_000_000_000u64, prop::collection::vec(any::<u8>(), 0..300)), 0..8),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.pcap");
        let mut writer = CaptureWriter::create(&path).unwrap();
        for (timestamp_ns, data) in &packets {
            writer.write(*timestamp_ns, data).unwrap();
        }
        writer.finish().unwrap();
        let got = read_all(&path).unwrap().into_iter().map(|p| (p.timestamp_ns, p.data)).collect::<Vec<_>>();
        prop_assert_eq!(got, packets);
    }
}
