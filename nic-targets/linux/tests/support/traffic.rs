//! Frames through the two ends of a veth pair.

use nic_sim::{Packet, describe};
use nic_target::{Frame, FramePool, Port, Rx, Tx};

/// Rounds of a wait: many, because nothing tells how long a loaded machine takes.
const ROUNDS: u32 = 30_000;

/// Sends until something arrives, then takes all of it: the kernel turns the queues of a new link on
/// from a work queue, and until then loses what is sent without a word.
pub(crate) fn warm_up(from: &mut impl Port, to: &mut impl Port) {
    let probe = Packet::eth([2; 6], [4; 6])
        .ethertype(0x88b5)
        .payload([0xee; 46])
        .build();
    let (mut pool, mut burst, mut sent, mut received) = (FramePool::new(64), Vec::new(), 0, 0);
    for _ in 0..ROUNDS {
        if received == 0 {
            sent += send(from, [&probe]).sent;
        }
        to.idle();
        let Rx::Received(n) = to.rx(0, &mut pool, &mut burst, 64).unwrap() else {
            panic!("the port ended")
        };
        burst.drain(..).for_each(|frame| pool.give(frame));
        received += n;
        // Delivery is in order, so an empty queue after an arrival means that all have arrived.
        if received > 0 && n == 0 {
            return;
        }
    }
    panic!("{sent} frames sent, {received} received");
}

/// Sends frames of our own memory, all in one call.
pub(crate) fn send<F: AsRef<[u8]>>(
    port: &mut impl Port,
    frames: impl IntoIterator<Item = F>,
) -> Tx {
    let fill = |data: F| {
        let mut frame = Frame::new();
        assert!(frame.fill(data.as_ref()));
        frame
    };
    let mut burst = frames.into_iter().map(fill).collect::<Vec<_>>();
    let (mut pool, count) = (FramePool::new(0), burst.len());
    let tx = port.tx(&mut pool, &mut burst).unwrap();
    assert_eq!((pool.available(), tx.sent + tx.dropped), (count, count));
    tx
}

/// Receives until `wanted` says it has enough.
pub(crate) fn receive_until<P: Port>(
    port: &mut P,
    mut wanted: impl FnMut(&[Vec<u8>], &P) -> bool,
) -> Vec<Vec<u8>> {
    let (mut pool, mut burst, mut got) = (FramePool::new(64), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        if wanted(&got, port) {
            return got;
        }
        match port.rx(3, &mut pool, &mut burst, 64).unwrap() {
            Rx::Received(0) => port.idle(),
            Rx::Received(n) => assert_eq!(n, burst.len()),
            Rx::End => panic!("the port ended"),
        }
        for frame in burst.drain(..) {
            assert_eq!(frame.port, 3);
            assert_ne!(frame.timestamp_ns, 0);
            got.push(frame.data().to_vec());
            pool.give(frame);
        }
        assert_eq!(pool.available(), 64);
    }
    panic!(
        "waited in vain; got {:#?}",
        got.iter().map(|f| describe(f)).collect::<Vec<_>>()
    );
}

/// Receives this many frames.
pub(crate) fn receive(port: &mut impl Port, count: usize) -> Vec<Vec<u8>> {
    receive_until(port, |got, _| got.len() >= count)
}
