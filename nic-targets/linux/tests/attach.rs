//! XDP programs on interfaces, in a network namespace that dies with the test.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]

use dash_bpf::builder::R0;
use dash_bpf::helper::XdpAction;
use dash_bpf::{Builder, ProgramKind};
use nic_linux::sys::bpf::Program;
use nic_linux::sys::{netdev, rtnl};
use nic_linux::{AttachError, AttachMode, Attached};

use netns::{in_namespace, ip};

#[path = "support/netns.rs"]
mod netns;

fn pass(name: &str) -> Program {
    let mut b = Builder::new();
    b.mov(R0, XdpAction::Pass as i32);
    b.exit();
    Program::load(name, ProgramKind::Xdp, &b.finish().unwrap()).unwrap()
}

fn program_on(interface: &str) -> Option<u32> {
    rtnl::link(netdev::device(interface).unwrap().index)
        .unwrap()
        .xdp
}

#[test]
fn a_program_stays_as_long_as_its_link_and_keeps_others_out() {
    in_namespace("inside_attach");
}

#[test]
#[ignore = "run in its own namespace by a_program_stays_as_long_as_its_link_and_keeps_others_out"]
fn inside_attach() {
    netns::enter();
    ip("link add va type veth peer name vb");
    let (first, second) = (pass("the_first"), pass("the_second"));
    for (mode, native) in [
        (AttachMode::Auto, true),
        (AttachMode::Native, true),
        (AttachMode::Skb, false),
    ] {
        let attached = Attached::attach(&first, "va", mode).unwrap();
        assert_eq!(attached.is_native(), native, "{mode:?}");
        let id = program_on("va").expect("a program");
        for other in [AttachMode::Auto, AttachMode::Native, AttachMode::Skb] {
            let error = Attached::attach(&second, "va", other).unwrap_err();
            assert!(
                matches!(&error, AttachError::Occupied { interface, program, id: i }
                    if interface == "va" && program == "the_first" && *i == id),
                "{error}"
            );
        }
        drop(attached);
        assert_eq!(program_on("va"), None);
    }
    // Loopback has no XDP in its driver: SKB mode is what is left.
    assert!(
        !Attached::attach(&first, "lo", AttachMode::Auto)
            .unwrap()
            .is_native()
    );
    let error = Attached::attach(&first, "lo", AttachMode::Native).unwrap_err();
    assert!(matches!(error, AttachError::NoNative { .. }), "{error}");
    // Frames longer than a page need a program that says it takes fragments; veth refuses others.
    ip("link set va mtu 9000");
    ip("link set vb mtu 9000");
    let error = Attached::attach(&first, "va", AttachMode::Native).unwrap_err();
    assert!(matches!(error, AttachError::NoNative { .. }), "{error}");
    let error = Attached::attach(&first, "no-such-if", AttachMode::Auto).unwrap_err();
    assert!(matches!(error, AttachError::Interface { .. }), "{error}");
    // Removed with its program on it: the link is of nothing then, and drops quietly.
    let attached = Attached::attach(&first, "vb", AttachMode::Skb).unwrap();
    ip("link del va");
    drop(attached);
}
