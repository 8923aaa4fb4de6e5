//! Counts of the objects that the shape depends on.

use dash_model::key::ObjectKey;
use dash_model::objects::{AclBind, Object, RouteRule, RuleAction};
use dash_wire::tables::ACL_STAGES;

use super::{Shape, trusted};

/// How many objects call for each part of the shape.
#[derive(Clone, Debug, Default)]
pub(super) struct Census {
    /// Appliances and ENIs that list trusted VNIs.
    trusting: usize,
    /// Inbound rules that validate PAs.
    validating: usize,
    /// Binds of outbound stages that name a group.
    out: [usize; ACL_STAGES],
    /// Binds of inbound stages that name a group.
    r#in: [usize; ACL_STAGES],
}

impl Census {
    pub(super) fn add(&mut self, key: &ObjectKey, object: &Object) {
        if let Some(count) = self.counter(key, object) {
            *count += 1;
        }
    }

    pub(super) fn remove(&mut self, key: &ObjectKey, object: &Object) {
        if let Some(count) = self.counter(key, object) {
            *count = count
                .checked_sub(1)
                .expect("an object goes once for each time it came");
        }
    }

    /// The count that the object is part of.
    fn counter(&mut self, key: &ObjectKey, object: &Object) -> Option<&mut usize> {
        match (key, object) {
            (_, Object::Appliance(_) | Object::Eni(_)) => {
                (!trusted::listed(object).is_empty()).then_some(&mut self.trusting)
            }
            (_, Object::RouteRule(rule)) => validates(rule).then_some(&mut self.validating),
            (ObjectKey::AclOut(_, stage), Object::AclOut(bind)) => {
                stage_of(&mut self.out, *stage, bind)
            }
            (ObjectKey::AclIn(_, stage), Object::AclIn(bind)) => {
                stage_of(&mut self.r#in, *stage, bind)
            }
            _ => None,
        }
    }

    /// The shape, but for the underlay.
    pub(super) fn shape(&self) -> Shape {
        Shape {
            trusted_vnis: self.trusting > 0,
            acl_out: bits(&self.out),
            acl_in: bits(&self.r#in),
            inbound_pa_validation: self.validating > 0,
            underlay_routes: false,
        }
    }
}

/// True for a rule whose packets are taken only from PAs of a VNET.
pub(super) fn validates(rule: &RouteRule) -> bool {
    rule.action == RuleAction::Decap && rule.pa_validation
}

fn stage_of<'a>(
    counts: &'a mut [usize; ACL_STAGES],
    stage: u8,
    bind: &AclBind,
) -> Option<&'a mut usize> {
    let bound = bind.v4.is_some() || bind.v6.is_some();
    let stage = usize::from(stage).checked_sub(1)?;
    counts.get_mut(stage).filter(|_| bound)
}

fn bits(counts: &[usize; ACL_STAGES]) -> u8 {
    let bound = counts.iter().enumerate().filter(|(_, count)| **count > 0);
    bound.fold(0, |bits, (stage, _)| bits | 1 << stage)
}
