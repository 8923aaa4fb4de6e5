//! Programs of users at ports: order, verdicts, and what replacing them does to packets.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use dash_bpf::builder::R0;
use dash_bpf::helper::XdpAction;
use dash_runtime::hooks::{
    Attachment, HookPacket, HookVerdict, Hooks, Link, LinkStats, PacketRunner, Point,
};
use dash_runtime::{Core, Engine};
use dash_wire::hook::{DashMeta, Place};
use dash_wire::stats::PortStat;
use nic_target::{Frame, PacketEngine, Target, Verdict};

use crate::support::*;
use crate::worker::{bench, packet, port, wait};

/// A program made of a closure.
struct Closure<F> {
    f: F,
    /// Told when it is freed, and on which thread.
    gone: Option<Arc<Mutex<Vec<std::thread::ThreadId>>>>,
}

impl<F> std::fmt::Debug for Closure<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Closure")
    }
}

impl<F> Drop for Closure<F> {
    fn drop(&mut self) {
        if let Some(gone) = &self.gone {
            gone.lock().unwrap().push(std::thread::current().id());
        }
    }
}

impl<F: FnMut(&mut HookPacket<'_>, &DashMeta) -> HookVerdict + Send> PacketRunner for Closure<F> {
    fn run(&mut self, packet: &mut HookPacket<'_>, about: &DashMeta) -> HookVerdict {
        (self.f)(packet, about)
    }
}

fn link(
    f: impl FnMut(&mut HookPacket<'_>, &DashMeta) -> HookVerdict + Send + 'static,
) -> Arc<Link> {
    Arc::new(Link::new(vec![Box::new(Closure { f, gone: None })]))
}

fn says(action: XdpAction) -> HookVerdict {
    HookVerdict {
        action,
        port: None,
        out_of_fuel: false,
    }
}

fn at(point: Point, sequence: u32, link: &Arc<Link>) -> Attachment {
    Attachment {
        point,
        sequence,
        link: Arc::clone(link),
    }
}

/// Adds a byte to the packet's end, and says PASS.
fn append(byte: u8) -> Arc<Link> {
    link(move |packet, _| {
        packet.memory[packet.end] = byte;
        packet.end += 1;
        says(XdpAction::Pass)
    })
}

/// A core whose image says this of every packet.
fn core(action: XdpAction) -> Core {
    let mut core = Core::new(Engine::Interp, &capacity()).unwrap();
    let image = single(|b| {
        b.mov(R0, action as i32);
    });
    core.apply(&update(1, Some(image), vec![])).unwrap();
    core
}

fn run(core: &mut Core, port: u16) -> (Verdict, Vec<u8>) {
    let mut frame = Frame::new();
    assert!(frame.fill(&[7; 60]));
    frame.port = port;
    let verdict = core.run(&mut frame).unwrap();
    (verdict, frame.data()[60.min(frame.len())..].to_vec())
}

fn verdicts(link: &Link) -> [u64; 5] {
    link.stats().verdicts
}

#[test]
fn programs_run_by_sequence_number_while_they_let_pass() {
    let mut core = core(XdpAction::Tx);
    let (a, b, c) = (append(1), append(2), append(3));
    core.set_hooks(Hooks::new(&[
        at(Point::Ingress(0), 30, &c),
        at(Point::Egress(0), 1, &b),
        at(Point::Ingress(0), 10, &a),
        at(Point::Egress(0), 1, &a),
    ]));
    assert_eq!(run(&mut core, 0), (Verdict::Send(0), vec![1, 3, 2, 1]));
    // Another port has none.
    assert_eq!(run(&mut core, 1), (Verdict::Send(1), vec![]));
    let stop = link(|_, _| says(XdpAction::Drop));
    core.set_hooks(Hooks::new(&[
        at(Point::Ingress(0), 10, &a),
        at(Point::Ingress(0), 20, &stop),
        at(Point::Ingress(0), 30, &c),
    ]));
    assert_eq!(run(&mut core, 0), (Verdict::Drop, vec![1]));
    assert_eq!(verdicts(&c), [0, 0, 1, 0, 0], "not again");
    assert_eq!(verdicts(&stop), [0, 1, 0, 0, 0]);
    let counters = core.counters().unwrap();
    assert_eq!(port(&counters, PortStat::IfInDiscards), 1);
}

#[test]
fn verdicts_at_ingress_do_what_they_do_on_linux() {
    let mut core = core(XdpAction::Drop);
    for (said, to, verdict, counted) in [
        (XdpAction::Aborted, None, Verdict::Drop, XdpAction::Aborted),
        (XdpAction::Drop, None, Verdict::Drop, XdpAction::Drop),
        // On to the image, which drops.
        (XdpAction::Pass, None, Verdict::Drop, XdpAction::Pass),
        (XdpAction::Tx, None, Verdict::Send(4), XdpAction::Tx),
        (
            XdpAction::Redirect,
            Some(9),
            Verdict::Send(9),
            XdpAction::Redirect,
        ),
        (XdpAction::Redirect, None, Verdict::Drop, XdpAction::Aborted),
    ] {
        let program = link(move |_, about| {
            assert_eq!(*about, DashMeta::unknown(Place::Ingress));
            HookVerdict {
                action: said,
                port: to,
                out_of_fuel: false,
            }
        });
        // What is sent meets the programs of the port it leaves by.
        let leaving = append(1);
        core.set_hooks(Hooks::new(&[
            at(Point::Ingress(4), 0, &program),
            at(Point::Egress(4), 0, &leaving),
            at(Point::Egress(9), 0, &leaving),
        ]));
        let sent = matches!(verdict, Verdict::Send(_));
        let tail = if sent { vec![1] } else { vec![] };
        assert_eq!(run(&mut core, 4), (verdict, tail), "{said:?}");
        let mut expected = [0; 5];
        expected[counted as usize] = 1;
        assert_eq!(verdicts(&program), expected, "{said:?}");
        assert_eq!(leaving.stats().packets(), u64::from(sent));
    }
}

#[test]
fn at_egress_only_pass_sends() {
    let mut core = core(XdpAction::Tx);
    for (said, to, counted) in [
        (XdpAction::Drop, None, XdpAction::Drop),
        (XdpAction::Tx, None, XdpAction::Aborted),
        (XdpAction::Redirect, Some(1), XdpAction::Aborted),
        (XdpAction::Aborted, None, XdpAction::Aborted),
    ] {
        let program = link(move |packet, about| {
            assert_eq!((packet.ingress_ifindex, packet.egress_ifindex), (3, 3));
            assert_eq!(about.place, Place::Egress as u8);
            HookVerdict {
                action: said,
                port: to,
                out_of_fuel: false,
            }
        });
        core.set_hooks(Hooks::new(&[at(Point::Egress(3), 0, &program)]));
        assert_eq!(run(&mut core, 3).0, Verdict::Drop, "{said:?}");
        assert_eq!(verdicts(&program)[counted as usize], 1, "{said:?}");
    }
    let counters = core.counters().unwrap();
    assert_eq!(port(&counters, PortStat::IfOutDiscards), 4);
}

#[test]
fn a_program_that_leaves_no_packet_has_failed() {
    let mut core = core(XdpAction::Tx);
    let bad = link(|packet, _| {
        packet.end = packet.memory.len() + 1;
        says(XdpAction::Pass)
    });
    core.set_hooks(Hooks::new(&[at(Point::Ingress(0), 0, &bad)]));
    assert_eq!(run(&mut core, 0), (Verdict::Drop, vec![]));
    assert_eq!(verdicts(&bad), [1, 0, 0, 0, 0]);
}

#[test]
fn runs_are_timed_while_asked_for() {
    let mut core = core(XdpAction::Tx);
    let program = append(1);
    core.set_hooks(Hooks::new(&[at(Point::Ingress(0), 0, &program)]));
    run(&mut core, 0);
    let (one, other) = (program.timing(), program.timing());
    drop(one);
    run(&mut core, 0);
    drop(other);
    run(&mut core, 0);
    let LinkStats {
        timed, nanoseconds, ..
    } = program.stats();
    assert_eq!(timed, 1);
    assert!(nanoseconds > 0);
    assert_eq!(program.stats().packets(), 3);
}

#[test]
fn programs_replaced_under_load_lose_no_packet_and_are_freed_by_control() {
    const PACKETS: usize = 20_000;
    let mut bench = bench(1, false, usize::MAX);
    let image = single(|b| {
        b.mov(R0, XdpAction::Tx as i32);
    });
    bench
        .runtime
        .apply(&update(1, Some(image), vec![]))
        .unwrap();
    let gone: Arc<Mutex<Vec<std::thread::ThreadId>>> = Arc::default();
    let seen = Arc::new(AtomicUsize::new(0));
    let (mut fed, mut rounds) = (0, 0);
    while fed < PACKETS {
        let marks = rounds as u8;
        let both = Closure {
            f: {
                let seen = Arc::clone(&seen);
                move |packet: &mut HookPacket<'_>, about: &DashMeta| {
                    seen.fetch_add(1, Ordering::Relaxed);
                    let place = usize::from(about.place == Place::Egress as u8);
                    let at = packet.data + 40 + place;
                    packet.memory[at] = marks;
                    says(XdpAction::Pass)
                }
            },
            gone: Some(Arc::clone(&gone)),
        };
        let link = Arc::new(Link::new(vec![Box::new(both)]));
        let hooks = Hooks::new(&[
            at(Point::Ingress(0), 0, &link),
            at(Point::Egress(0), 0, &link),
        ]);
        drop(link);
        bench.feed(0, (0..500).map(|n| packet([10, 0, 0, 1], 1, n)));
        fed += 500;
        bench.runtime.set_hooks(hooks).unwrap();
        // Those before this one are gone once no worker is in the middle of a burst with them.
        let freed = gone.lock().unwrap().len();
        assert!(freed <= rounds, "{freed} freed of {rounds} replaced");
        rounds += 1;
    }
    bench.runtime.set_hooks(Hooks::default()).unwrap();
    wait("all packets", || bench.sent(0).len() == PACKETS);
    wait("all replaced ones freed", || {
        bench.runtime.set_hooks(Hooks::default()).unwrap();
        gone.lock().unwrap().len() == rounds
    });
    let freed = gone.lock().unwrap();
    let here = std::thread::current().id();
    assert!(
        freed.iter().all(|thread| *thread == here),
        "not by a worker"
    );
    // No packet met one program coming in and another going out.
    let torn = bench
        .sent(0)
        .iter()
        .filter(|(_, data)| data[40] != data[41])
        .count();
    assert_eq!(torn, 0);
    assert!(seen.load(Ordering::Relaxed) > 0, "some packet met one");
    let counters = bench.runtime.counters().unwrap();
    assert_eq!(port(&counters, PortStat::IfInUcastPkts), PACKETS as u64);
    assert_eq!(port(&counters, PortStat::IfInDiscards), 0);
}
