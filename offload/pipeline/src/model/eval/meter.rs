//! Metering: bytes of classes.

use dash_wire::tables::{Direction, Meta};

use super::words::direction_name;
use super::{ABORT, Run, Step};
use crate::ir::Expr;
use crate::model::value::Value;

impl<'p> Run<'_, 'p> {
    pub(super) fn meter(&mut self, len: &'p Expr) -> Step<'p> {
        let Meta {
            eni,
            meter_class: class,
            direction,
            ..
        } = self.packet.meta;
        if class == 0 {
            return Ok(());
        }
        let len = self.eval(len).and_then(Value::num).ok_or(ABORT)?;
        let inbound = direction == Direction::Inbound as u8;
        self.counters
            .meter((eni, class), inbound, len)
            .ok_or(ABORT)?;
        self.note(|_| format!("meter: class {class}, {} +{len}", direction_name(direction)));
        Ok(())
    }
}
