//! What a target is: the tables and images control hands over ([`image`], [`tables`]), what it asks
//! back ([`target`], [`flows`]), and the ports and frames packets travel in ([`port`], [`frame`]).

pub mod flows;
pub mod frame;
pub mod image;
pub mod port;
pub mod tables;
pub mod target;

pub use flows::{FlowEdit, FlowField, FlowFilter, FlowOp, FlowQuery, FlowValue};
pub use frame::{Frame, FramePool, Lender, Lent};
pub use image::{
    AclPrefix, AclPrefixes, AclRuleRow, Image, NativeImage, TableDelta, TableOp, Update,
};
pub use port::{Device, Link, Port, Rx, Tx};
pub use tables::{Capacity, Table};
pub use target::{CounterSnapshot, PacketEngine, Target, TargetError, Verdict};
