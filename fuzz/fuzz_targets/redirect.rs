//! A load balancer's redirect of any bytes, for flows of every kind: reference model and checking
//! interpreter agree about the verdict, the counters and the flows, and nothing is ever sent.

#![no_main]

use std::cell::RefCell;
use std::path::Path;

use dash_engine::{Engine, Options};
use dashctl::config::ConfigFile;
use dashctl::engines::{EngineName, start};
use libfuzzer_sys::fuzz_target;
use nic_sim::Packet;
use nic_target::{Frame, PacketEngine, Verdict};

const ENI: [u8; 6] = [0xf4, 0x93, 0x9f, 0xef, 0xc4, 0x7e];
const MUX: [u8; 6] = [0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc];
const DPU: [u8; 6] = [2, 0, 0, 0, 0, 1];
const NPU: [u8; 6] = [2, 0, 0, 0, 0, 2];
const VIP: [u8; 4] = [2, 2, 2, 1];
/// Bare, mapped, and a private link's.
const TO: [[u8; 4]; 3] = [[20, 69, 29, 62], [10, 1, 1, 1], [30, 0, 0, 5]];

struct Both {
    engines: [Engine<dyn PacketEngine>; 2],
    frame: Frame,
    now_ns: u64,
}

impl Both {
    fn new() -> Self {
        let text = include_str!("redirect.json");
        let engines = [EngineName::Model, EngineName::Interp].map(|name| {
            let config = ConfigFile::parse(Path::new("redirect.json"), text);
            let config = config.expect("a configuration");
            let mut engine = start(name, Options::default()).expect("an engine");
            config.commit(&mut engine).expect("it is legal");
            engine
        });
        Self {
            engines,
            frame: Frame::new(),
            now_ns: 0,
        }
    }

    fn run(&mut self, packet: &[u8]) -> Verdict {
        let now_ns = self.now_ns;
        let frame = &mut self.frame;
        let [model, interp] = &mut self.engines;
        let [wanted, got] = [model, interp].map(|engine| {
            assert!(frame.fill(packet));
            frame.timestamp_ns = now_ns;
            let verdict = engine.target_mut().run(frame).expect("a verdict");
            let sent = matches!(verdict, Verdict::Send(_)).then(|| frame.data().to_vec());
            (verdict, sent)
        });
        assert_eq!(got, wanted);
        assert_ne!(got.0, Verdict::Aborted);
        got.0
    }

    /// A packet of each flow, and then all that can be seen from outside.
    fn compare(&mut self) {
        for to in TO {
            for proto in [6, 17] {
                let ip = Packet::eth(DPU, NPU)
                    .ipv4([25, 1, 1, 1], VIP)
                    .udp(5137, 4789)
                    .vxlan(4321)
                    .eth(MUX, ENI)
                    .ipv4([10, 0, 0, 8], to);
                let packet = match proto {
                    6 => ip.tcp(1000, 443).flags(0x10).payload(b"x").build(),
                    _ => ip.udp(1000, 443).payload(b"x").build(),
                };
                let verdict = self.run(&packet);
                assert!(matches!(verdict, Verdict::Send(_)), "{verdict:?}");
            }
        }
        let [model, interp] = &mut self.engines;
        assert_eq!(
            interp.counters().expect("counters"),
            model.counters().expect("counters")
        );
        assert_eq!(
            interp.flows_jsonl().expect("flows"),
            model.flows_jsonl().expect("flows")
        );
    }
}

thread_local! {
    static BOTH: RefCell<Both> = RefCell::new(Both::new());
}

fuzz_target!(|input: (bool, bool, u8, &[u8])| {
    let (vip, v6, pause, message) = input;
    if message.len() > 400 {
        return;
    }
    BOTH.with_borrow_mut(|both| {
        // Long enough a pause and the flows are new ones, which nothing has redirected.
        both.now_ns += u64::from(pause) * 150_000_000;
        both.compare();
        let tunnel = Packet::eth(DPU, NPU)
            .ipv4([5, 5, 5, 5], VIP)
            .nvgre(if vip { 253 } else { 254 })
            .eth(ENI, MUX);
        let packet = match v6 {
            true => tunnel
                .ipv6([0; 8], [0; 8])
                .protocol(58)
                .payload([&[137], message].concat())
                .build(),
            false => tunnel
                .ipv4([0; 4], [0; 4])
                .protocol(1)
                .payload([&[5], message].concat())
                .build(),
        };
        assert_eq!(both.run(&packet), Verdict::Drop, "a redirect was forwarded");
        both.compare();
    });
});
