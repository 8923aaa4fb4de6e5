//! ACL groups, rules, bindings and prefix tags.

use dash_model::key::TagName;
use dash_model::net::IpPrefix;
use dash_model::objects::{AclAction, AclBind, AclGroup, AclRule, Family, PrefixTag};

use super::net;
use crate::dash;
use crate::dash::acl_rule::Action;
use crate::row::FieldError;

pub(super) fn group(row: &dash::acl_group::AclGroup) -> Result<AclGroup, FieldError> {
    Ok(AclGroup {
        family: net::family("ip_version", row.ip_version)?,
    })
}

pub(super) fn rule(row: dash::acl_rule::AclRule) -> Result<AclRule, FieldError> {
    let action = match net::constant("action", row.action, "an ACL action (1 is deny, 2 permit)")? {
        Action::Permit => AclAction::Permit,
        Action::Deny => AclAction::Deny,
        Action::Unspecified => return Err(FieldError::invalid("action", "action missing")),
    };
    let protocols = row.protocol.iter().enumerate().map(|(n, &number)| {
        u8::try_from(number).map_err(|_| {
            FieldError::invalid(
                format!("protocol[{n}]"),
                format!("{number} is not an IP protocol (0..=255)"),
            )
        })
    });
    let protocols = protocols.collect::<Result<_, _>>()?;
    let src_prefixes = net::prefixes("src_addr", &row.src_addr)?;
    let dst_prefixes = net::prefixes("dst_addr", &row.dst_addr)?;
    if let Some(first) = src_prefixes.first().or(dst_prefixes.first()) {
        let family = family_of(first);
        same_family("src_addr", &src_prefixes, family)?;
        same_family("dst_addr", &dst_prefixes, family)?;
    }
    Ok(AclRule {
        priority: row.priority,
        action,
        terminating: row.terminating,
        protocols,
        src_prefixes,
        dst_prefixes,
        src_ports: net::ports("src_port", &row.src_port)?,
        dst_ports: net::ports("dst_port", &row.dst_port)?,
        src_tags: tags("src_tag", &row.src_tag)?,
        dst_tags: tags("dst_tag", &row.dst_tag)?,
    })
}

fn tags(field: &str, names: &[String]) -> Result<Vec<TagName>, FieldError> {
    names
        .iter()
        .enumerate()
        .map(|(n, name)| match name.as_str() {
            "" => Err(FieldError::invalid(
                format!("{field}[{n}]"),
                "tag name missing",
            )),
            name => Ok(name.into()),
        })
        .collect()
}

fn family_of(prefix: &IpPrefix) -> Family {
    if prefix.addr().is_ipv4() {
        Family::V4
    } else {
        Family::V6
    }
}

fn same_family(field: &str, prefixes: &[IpPrefix], family: Family) -> Result<(), FieldError> {
    match prefixes.iter().position(|p| family_of(p) != family) {
        None => Ok(()),
        Some(n) => Err(FieldError::invalid(
            format!("{field}[{n}]"),
            format!("{} is not {family}", prefixes[n]),
        )),
    }
}

pub(super) fn bind(v4: &String, v6: &String) -> Result<AclBind, FieldError> {
    let bind = AclBind {
        v4: net::text(Some(v4)).map(Into::into),
        v6: net::text(Some(v6)).map(Into::into),
    };
    if bind.v4.is_none() && bind.v6.is_none() {
        return Err(FieldError::invalid(
            "v4_acl_group_id",
            "neither v4_acl_group_id nor v6_acl_group_id is given",
        ));
    }
    Ok(bind)
}

pub(super) fn tag(row: &dash::tag::PrefixTag) -> Result<PrefixTag, FieldError> {
    let family = net::family("ip_version", row.ip_version)?;
    let prefixes = net::prefixes("prefix_list", &row.prefix_list)?;
    same_family("prefix_list", &prefixes, family)?;
    Ok(PrefixTag { family, prefixes })
}
