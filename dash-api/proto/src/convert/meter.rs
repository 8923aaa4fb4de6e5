//! Metering: policies, their rules, and the bits that other rows give. QoS profiles.

use dash_model::objects::{Family, MeterBits, MeterClass, MeterPolicy, MeterRule, Qos};

use super::{Notes, net};
use crate::dash;
use crate::dash::types::IpVersion;
use crate::row::FieldError;

pub(super) fn policy(
    row: &dash::meter_policy::MeterPolicy,
    notes: &mut Notes,
) -> Result<MeterPolicy, FieldError> {
    let family = if row.ip_version == i32::from(IpVersion::Unspecified) {
        // Orchagent makes an IPv4 policy of it without a word.
        notes.add("ip_version unset: treated as IPv4");
        Family::V4
    } else {
        net::family("ip_version", row.ip_version)?
    };
    Ok(MeterPolicy { family })
}

pub(super) fn rule(row: &dash::meter_rule::MeterRule) -> Result<MeterRule, FieldError> {
    let prefix = match &row.ip_prefix {
        Some(prefix) => net::prefix("ip_prefix", prefix)?,
        None => return Err(FieldError::invalid("ip_prefix", "prefix missing")),
    };
    Ok(MeterRule {
        priority: row.priority,
        prefix,
        class: class("metering_class", row.metering_class)?,
    })
}

pub(super) fn qos(row: &dash::qos::Qos) -> Qos {
    Qos {
        bandwidth_kbps: row.bw,
        connections_per_second: row.cps,
        flows: row.flows,
    }
}

/// A class that ENIs have a bucket for, or 0.
fn class(field: &str, number: u64) -> Result<MeterClass, FieldError> {
    MeterClass::new(number).ok_or_else(|| {
        FieldError::invalid(
            field,
            format!(
                "{number} is above the {} classes there are",
                MeterClass::MAX.get()
            ),
        )
    })
}

/// `metering_class_or`, which sets nothing where it is unset.
pub(super) fn class_or(number: Option<u32>) -> Result<MeterClass, FieldError> {
    class("metering_class_or", number.unwrap_or(0).into())
}

/// `metering_class_or` and `metering_class_and`, which leaves everything where it is unset.
pub(super) fn bits(or: Option<u32>, and: Option<u32>) -> Result<MeterBits, FieldError> {
    Ok(MeterBits {
        or: class_or(or)?,
        and: MeterClass::of_mask(and.unwrap_or(u32::MAX)),
    })
}
