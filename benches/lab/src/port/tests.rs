use nic_sim::Packet;

use super::*;
use crate::traffic::{Template, Vm};

fn traffic(expect: Expect) -> Arc<Traffic> {
    let packet = Packet::eth([2; 6], [4; 6])
        .ipv4([25, 1, 1, 1], [101, 1, 2, 3])
        .udp(5137, 4789)
        .vxlan(45654)
        .eth([6; 6], [8; 6])
        .ipv4([10, 9, 0, 0], [20, 0, 0, 5])
        .udp(1, 2)
        .payload([0; 18])
        .build();
    Arc::new(Traffic::of(
        Template::new(packet, Vm::Source, expect).unwrap(),
    ))
}

const AS_SENT: Expect = Expect::Vxlan {
    vni: 45654,
    dip: [101, 1, 2, 3],
};

#[test]
fn the_floor_gets_back_what_it_sends_and_the_check_sees_what_is_wrong() {
    let order = Order::Sequential { from: 0 };
    let outcome = floor(Job::new(&traffic(AS_SENT), order, 1_000));
    assert_eq!((outcome.packets(), outcome.out), (1_000, 1_000));
    assert_eq!((outcome.octets, outcome.out_octets), (110_000, 110_000));
    assert_eq!((outcome.wrong, outcome.buffers_missing), (0, 0));
    assert!(outcome.cpu_ns > 0 && outcome.wall_ns > 0);

    for expect in [
        Expect::Bare,
        Expect::Nothing,
        Expect::Vxlan {
            vni: 1,
            dip: [101, 1, 2, 3],
        },
        Expect::Vxlan {
            vni: 45654,
            dip: [101, 1, 2, 4],
        },
    ] {
        let outcome = floor(Job::new(&traffic(expect), order, 1_000));
        assert_eq!(outcome.wrong, 16, "{expect:?}: one of 64 is looked at");
    }
}

#[test]
fn streams_take_turns_by_share_and_a_job_can_be_timed_or_stopped() {
    let stream = |share| Stream {
        traffic: traffic(AS_SENT),
        order: Order::Random {
            from: 0,
            flows: 10,
            seed: 3,
        },
        share,
    };
    let mut job = Job::new(&traffic(AS_SENT), Order::Sequential { from: 0 }, 3_200);
    job.streams = vec![stream(31), stream(1)];
    assert_eq!(floor(job.clone()).sent, [3_100, 100]);

    job.packets = u64::MAX;
    job.time = Some(Duration::from_millis(2));
    assert!(floor(job.clone()).packets() > 0);
    job.time = None;
    job.stop = Some(Arc::new(AtomicBool::new(true)));
    assert!(floor(job).packets() <= 32 * u64::from(LOOK_EACH));
}

#[test]
fn paced_packets_have_latencies_from_when_they_were_due() {
    let ring = Arc::new(TimeRing::new(256));
    let mut job = Job::new(&traffic(AS_SENT), Order::Sequential { from: 0 }, u64::MAX);
    job.pace = Some(Arc::clone(&ring));
    let time = Duration::from_millis(5);
    let generator = crate::pace::Generator::spawn(ring, job.epoch, 50_000.0, time, None).unwrap();
    let outcome = floor(job);
    let offered = generator.join().unwrap();
    assert_eq!(outcome.packets() + offered.lost, 250);
    let latency = outcome.latency.unwrap();
    assert_eq!(latency.len(), outcome.out);
    assert!(latency.max() >= latency.min());
}

#[test]
fn a_watch_tells_when_a_packet_first_went_there() {
    let watch = Arc::new(Watch::default());
    let mut job = Job::new(&traffic(AS_SENT), Order::Sequential { from: 0 }, 100);
    job.watch = Some(Arc::clone(&watch));
    watch.want([9, 9, 9, 9]);
    floor(job.clone());
    assert_eq!(watch.seen(), None);
    watch.want([101, 1, 2, 3]);
    floor(job);
    assert!(watch.seen().is_some());
}

#[test]
fn a_gap_keeps_packets_apart() {
    let mut job = Job::new(&traffic(AS_SENT), Order::Sequential { from: 0 }, 5);
    job.gap = Some(Duration::from_millis(1));
    let outcome = floor(job);
    assert_eq!(outcome.packets(), 5);
    assert!(
        outcome.wall_ns >= 4_000_000,
        "four gaps of 1 ms: {}",
        outcome.wall_ns
    );
}
