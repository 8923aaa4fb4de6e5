//! Addresses, prefixes, VNIs, MACs and ports from their messages.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dash_model::net::{IpPrefix, Mac, MaskedIp, PortRange, Vni, VniRange};
use dash_model::objects::Family;

use crate::dash::types::ip_address::Ip;
use crate::dash::types::value_or_range::ValueOrRange as Choice;
use crate::dash::types::{self, IpVersion, ValueOrRange};
use crate::row::FieldError;

/// An address of either family.
pub(super) fn ip(field: &str, value: Option<&types::IpAddress>) -> Result<IpAddr, FieldError> {
    match value.and_then(|a| a.ip.as_ref()) {
        None => Err(FieldError::invalid(field, "address missing")),
        // The message's fixed32 is the dotted quad as a little-endian word.
        Some(Ip::Ipv4(word)) => Ok(Ipv4Addr::from(word.to_le_bytes()).into()),
        Some(Ip::Ipv6(bytes)) => <[u8; 16]>::try_from(bytes.as_slice())
            .map(|b| Ipv6Addr::from(b).into())
            .map_err(|_| {
                FieldError::invalid(
                    field,
                    format!("an IPv6 address has 16 bytes, this one {}", bytes.len()),
                )
            }),
    }
}

/// An address of the underlay, which is IPv4 in this release (A42).
pub(super) fn underlay(
    field: &str,
    value: Option<&types::IpAddress>,
) -> Result<Ipv4Addr, FieldError> {
    match ip(field, value)? {
        IpAddr::V4(ip) => Ok(ip),
        IpAddr::V6(ip) => Err(FieldError::unimplemented(
            field,
            format!("IPv6 underlay is not supported yet: {ip}"),
        )),
    }
}

/// An address of the underlay where `0.0.0.0`, `::` and nothing at all mean that there is none.
pub(super) fn optional_underlay(
    field: &str,
    value: Option<&types::IpAddress>,
) -> Result<Option<Ipv4Addr>, FieldError> {
    is_set(value).then(|| underlay(field, value)).transpose()
}

fn ipv6(field: &str, value: Option<&types::IpAddress>) -> Result<Ipv6Addr, FieldError> {
    match ip(field, value)? {
        IpAddr::V6(ip) => Ok(ip),
        IpAddr::V4(ip) => Err(FieldError::invalid(field, format!("{ip} is not IPv6"))),
    }
}

/// Bits of an IPv6 address. The mask may have holes and the address bits outside of it.
pub(super) fn masked(field: &str, value: &types::IpPrefix) -> Result<MaskedIp, FieldError> {
    Ok(MaskedIp {
        addr: ipv6(&format!("{field}.ip"), value.ip.as_ref())?,
        mask: ipv6(&format!("{field}.mask"), value.mask.as_ref())?,
    })
}

/// What a service tunnel makes of addresses: the message has no mask, so it is /96 where the last
/// 32 bits are zero and /128 where they are not.
pub(super) fn translated(
    field: &str,
    value: Option<&types::IpAddress>,
) -> Result<MaskedIp, FieldError> {
    let addr = ipv6(field, value)?;
    let host = u128::from(u32::MAX);
    let mask = if u128::from(addr) & host == 0 {
        !host
    } else {
        u128::MAX
    };
    Ok(MaskedIp {
        addr,
        mask: mask.into(),
    })
}

/// True when the field holds an address other than `0.0.0.0` or `::`, SAI's "not set".
pub(super) fn is_set(value: Option<&types::IpAddress>) -> bool {
    match value.and_then(|a| a.ip.as_ref()) {
        None => false,
        Some(Ip::Ipv4(word)) => *word != 0,
        Some(Ip::Ipv6(bytes)) => bytes.iter().any(|&b| b != 0),
    }
}

/// A prefix; host bits are masked off, a mask with holes is refused.
pub(super) fn prefix(field: &str, value: &types::IpPrefix) -> Result<IpPrefix, FieldError> {
    let addr = ip(&format!("{field}.ip"), value.ip.as_ref())?;
    let mask = ip(&format!("{field}.mask"), value.mask.as_ref())?;
    IpPrefix::from_mask(addr, mask)
        .map_err(|e| FieldError::invalid(field, format!("{addr}/{mask}: {e}")))
}

/// A list of prefixes of one family.
pub(super) fn prefixes(
    field: &str,
    values: &[types::IpPrefix],
) -> Result<Vec<IpPrefix>, FieldError> {
    values
        .iter()
        .enumerate()
        .map(|(n, value)| prefix(&format!("{field}[{n}]"), value))
        .collect()
}

/// The family of a group or tag, which must be said.
pub(super) fn family(field: &str, number: i32) -> Result<Family, FieldError> {
    match IpVersion::try_from(number) {
        Ok(IpVersion::Ipv4) => Ok(Family::V4),
        Ok(IpVersion::Ipv6) => Ok(Family::V6),
        Ok(IpVersion::Unspecified) => Err(FieldError::invalid(field, "IP version missing")),
        Err(_) => Err(FieldError::invalid(
            field,
            format!("{number} is not an IP version (1 is IPv4, 2 IPv6)"),
        )),
    }
}

pub(super) fn vni(field: &str, number: u32) -> Result<Vni, FieldError> {
    Vni::new(number)
        .ok_or_else(|| FieldError::invalid(field, format!("{number} is not a VNI (1..=16777215)")))
}

/// Six bytes.
pub(super) fn mac(field: &str, bytes: &[u8]) -> Result<Mac, FieldError> {
    <[u8; 6]>::try_from(bytes).map(Mac).map_err(|_| {
        FieldError::invalid(
            field,
            format!("a MAC address has 6 bytes, this one {}", bytes.len()),
        )
    })
}

/// The ends of a single value or of a range that is not empty.
fn ends(field: &str, value: &ValueOrRange) -> Result<(u32, u32), FieldError> {
    match &value.value_or_range {
        None => Err(FieldError::invalid(
            field,
            "neither value nor range is given",
        )),
        Some(Choice::Value(v)) => Ok((*v, *v)),
        Some(Choice::Range(r)) if r.min > r.max => Err(FieldError::invalid(
            field,
            format!("range {}-{} has its min above its max", r.min, r.max),
        )),
        Some(Choice::Range(r)) => Ok((r.min, r.max)),
    }
}

/// Trusted VNIs: the old single field together with the list.
pub(super) fn vni_ranges(
    single: Option<&ValueOrRange>,
    list: &[ValueOrRange],
) -> Result<Vec<VniRange>, FieldError> {
    let single = single.map(|value| ("trusted_vnis".to_owned(), value));
    let list = list
        .iter()
        .enumerate()
        .map(|(n, value)| (format!("trusted_vnis_list[{n}]"), value));
    single
        .into_iter()
        .chain(list)
        .map(|(field, value)| {
            let (min, max) = ends(&field, value)?;
            Ok(VniRange {
                min: vni(&field, min)?,
                max: vni(&field, max)?,
            })
        })
        .collect()
}

pub(super) fn ports(field: &str, values: &[ValueOrRange]) -> Result<Vec<PortRange>, FieldError> {
    values
        .iter()
        .enumerate()
        .map(|(n, value)| {
            let field = format!("{field}[{n}]");
            let (min, max) = ends(&field, value)?;
            let port = |p: u32| {
                u16::try_from(p).map_err(|_| {
                    FieldError::invalid(&field, format!("{p} is not a port (0..=65535)"))
                })
            };
            Ok(PortRange {
                min: port(min)?,
                max: port(max)?,
            })
        })
        .collect()
}

/// `None` for the empty text that protobuf has for an unset string.
pub(super) fn text(value: Option<&String>) -> Option<&str> {
    value.map(String::as_str).filter(|s| !s.is_empty())
}

/// The enum constant of a number, or an error that names the field and the number.
pub(super) fn constant<E: TryFrom<i32>>(
    field: &str,
    number: i32,
    what: &str,
) -> Result<E, FieldError> {
    E::try_from(number).map_err(|_| FieldError::invalid(field, format!("{number} is not {what}")))
}
