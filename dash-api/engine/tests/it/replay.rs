use std::convert::Infallible;

use dash_engine::{Summary, replay};
use dash_wire::tables::FlowEntry;
use nic_target::frame::MAX_FRAME;
use nic_target::{
    CounterSnapshot, FlowEdit, FlowQuery, Frame, PacketEngine, Target, TargetError, Update, Verdict,
};

/// Sends packets that begin with `s`, with their first byte changed; `d`rops, `p`asses, `a`borts.
#[derive(Default)]
struct Letters {
    times: Vec<u64>,
    fail: bool,
}

impl Target for Letters {
    fn apply(&mut self, _: &Update) -> Result<(), TargetError> {
        Ok(())
    }
    fn counters(&mut self) -> Result<CounterSnapshot, TargetError> {
        Ok(CounterSnapshot::default())
    }
    fn flows(&mut self) -> Result<Vec<FlowEntry>, TargetError> {
        Ok(Vec::new())
    }
    fn edit_flows(&mut self, _: &FlowQuery, _: FlowEdit) -> Result<u64, TargetError> {
        Ok(0)
    }
}

impl PacketEngine for Letters {
    fn name(&self) -> &'static str {
        "letters"
    }
    fn advance(&mut self, _: u64) {}
    fn run(&mut self, frame: &mut Frame) -> Result<Verdict, TargetError> {
        if self.fail {
            return Err(TargetError::NoImage);
        }
        self.times.push(frame.timestamp_ns);
        assert_eq!(frame.port, 0);
        Ok(match frame.data().first() {
            Some(b's') => {
                frame.data_mut()[0] = b'S';
                Verdict::Send(3)
            }
            Some(b'p') => Verdict::Pass,
            Some(b'a') => Verdict::Aborted,
            _ => Verdict::Drop,
        })
    }
}

#[test]
fn what_is_sent_keeps_its_order_and_time_while_the_clock_never_goes_back() {
    let packets = [
        (5, "s1"),
        (9, "d"),
        (7, "s2"),
        (10, "p"),
        (11, "a"),
        (11, "s3"),
    ];
    let packets = packets.map(|(time, data)| Ok::<_, Infallible>((time, data.as_bytes().to_vec())));
    let too_long = Ok((12, vec![b's'; MAX_FRAME + 1]));
    let mut engine = Letters::default();
    let mut sent = Vec::new();
    let summary = replay(
        &mut engine,
        packets.into_iter().chain([too_long]),
        |time, data: &[u8]| {
            sent.push((time, String::from_utf8_lossy(data).into_owned()));
            Ok(())
        },
    )
    .expect("nothing fails");
    assert_eq!(
        sent,
        [
            (5, "S1".to_owned()),
            (7, "S2".to_owned()),
            (11, "S3".to_owned())
        ]
    );
    assert_eq!(engine.times, [5, 9, 9, 10, 11, 11]);
    let expected = Summary {
        received: 7,
        // s1, d, s2, p, a, s3, and the one that is too long.
        received_octets: 2 + 1 + 2 + 1 + 1 + 2 + MAX_FRAME as u64 + 1,
        forwarded: 3,
        forwarded_octets: 6,
        dropped: 1,
        passed: 1,
        too_long: 1,
        aborted: 1,
        first_ns: Some(5),
        last_ns: Some(12),
    };
    assert_eq!(summary, expected);
}

#[test]
fn a_replay_ends_at_the_first_failure_and_says_at_which_packet() {
    let packets = || [Ok::<_, std::io::Error>((1, b"s1")), Ok((2, b"s2"))];
    let mut engine = Letters::default();
    let mut written = 0;
    let error = replay(&mut engine, packets(), |_, _: &[u8]| {
        written += 1;
        if written == 2 {
            Err(std::io::Error::other("disk full"))
        } else {
            Ok(())
        }
    })
    .expect_err("the second write fails");
    assert_eq!(error.to_string(), "disk full");

    engine.fail = true;
    let error = replay(&mut engine, packets(), |_, _: &[u8]| Ok(())).expect_err("the engine fails");
    assert_eq!(error.to_string(), "packet 1: no code is installed");
}
