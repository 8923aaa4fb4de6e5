use nic_sim::{CaptureWriter, read_capture};

use super::*;
use crate::measure::Bench;
use crate::result::Group;
use crate::world::Way;

const PACKETS: u32 = 500;

/// A folder with the demo's configuration and a capture of packets that are sent, and some that are
/// not.
struct Place {
    folder: tempfile::TempDir,
    config: PathBuf,
    capture: PathBuf,
}

impl Place {
    fn new(dropped: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config.json");
        std::fs::write(&config, world::DEMO).unwrap();
        let capture = folder.path().join("in.pcap");
        let mut writer = CaptureWriter::create(&capture).unwrap();
        let (sent, not) = (Way::Vnet.template(64), Way::Deny.template(64));
        let (sent, not) = (sent.unwrap(), not.unwrap());
        for m in 0..PACKETS {
            let of = if m < dropped { &not } else { &sent };
            let time = 1_000_000 * u64::from(m + 1);
            writer.write(time, &of.packet(m)).unwrap();
        }
        writer.finish().unwrap();
        Self {
            folder,
            config,
            capture,
        }
    }
}

fn bench(run: impl FnOnce(&Bench<'_>) -> Result<Group>) -> Result<Group> {
    let options = Options {
        quick: true,
        samples: Some(2),
        seconds: Some(20.0),
        ..Options::default()
    };
    run(&Bench {
        options: &options,
        progress: &|_| (),
    })
}

fn samples(group: &Group, name: &str, unit: &str) -> Vec<f64> {
    let rows = &group.measurements;
    let mut found = rows.iter().filter(|r| r.name == name && r.unit == unit);
    let found = found.next();
    let found = found.unwrap_or_else(|| panic!("no {name}, {unit} in {rows:#?}"));
    assert!(found.samples.iter().all(|s| s.is_finite() && *s >= 0.0));
    found.samples.clone()
}

fn sum(group: &Group, name: &str) -> f64 {
    samples(group, name, "packets").iter().sum()
}

#[test]
fn what_comes_through_a_target_is_counted() {
    let place = Place::new(100);
    let out = place.folder.path().join("out.pcap");
    let (from, to) = (place.capture.display(), out.display());
    let spec: TargetSpec = format!("pcap:in={from},out={to}").parse().unwrap();
    let files = [place.config.clone()];
    let group = bench(|bench| target(&spec, &files, bench)).unwrap();
    assert_eq!(sum(&group, "received"), 500.0);
    assert_eq!(sum(&group, "sent"), 400.0);
    assert_eq!(sum(&group, "received and not sent"), 100.0);
    assert_eq!(sum(&group, "no room to send or to hand over"), 0.0);
    assert_eq!(read_capture(&out).unwrap().count(), 400);
    let command = &group.command;
    assert!(command.contains("--target 'pcap:in="), "{command}");
    assert!(command.contains("--config /"), "{command}");
}

#[test]
fn the_packets_of_a_capture_are_looped() {
    let place = Place::new(100);
    let files = [place.config.clone()];
    let group = bench(|bench| capture(&place.capture, &files, bench)).unwrap();
    assert_eq!(samples(&group, "came out", "%"), [80.0, 80.0]);
    for name in ["packets", "floor"] {
        let all = samples(&group, name, "ns/packet");
        assert!(all.iter().all(|ns| *ns > 0.0), "{all:?}");
    }
    assert!(group.skipped.is_empty());
}

#[test]
fn what_cannot_be_read_or_sent_is_said() {
    let place = Place::new(0);
    let missing = place.folder.path().join("none");
    let why = |capture_of: &Path, files: &[PathBuf]| {
        let error = bench(|bench| capture(capture_of, files, bench)).unwrap_err();
        format!("{error:#}")
    };
    assert!(why(&place.capture, std::slice::from_ref(&missing)).contains("none"));
    assert!(why(&missing, &[]).contains("none"));
    // A packet that no frame holds, and one that is none.
    let odd = place.folder.path().join("odd.pcap");
    let mut writer = CaptureWriter::create(&odd).unwrap();
    writer.write(1, &[7; 100_000]).unwrap();
    writer.write(2, &[7; 5]).unwrap();
    writer.finish().unwrap();
    let why = why(&odd, &[]);
    assert!(why.contains("no packet that fits"), "{why}");
}

#[test]
fn commands_are_such_that_a_shell_reads_them() {
    let files = [PathBuf::from("/a b/it's.json"), PathBuf::from("c.json")];
    assert_eq!(
        command(&Options::default(), "--pcap x.pcap", &files),
        r"dashctl bench --pcap x.pcap --config '/a b/it'\''s.json' --config c.json"
    );
}

#[test]
fn a_target_whose_packets_come_to_no_worker_is_refused() {
    let spec: TargetSpec = "kernel:lo".parse().unwrap();
    let why = bench(|bench| target(&spec, &[], bench)).unwrap_err();
    assert!(why.to_string().contains("come to no worker"), "{why:#}");
}
