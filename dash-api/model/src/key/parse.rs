//! Key text to [`ObjectKey`].

use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;

use super::{
    AclGroupId, EniKey, ObjectKey, RouteGroupId, RouteRuleKey, RoutingType, SWITCH, SourcePrefix,
    Table, VnetName,
};
use crate::error::Kind;
use crate::net::{IpPrefix, PortRange, PrefixError, Vni};

/// Why a table and key text name no row.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Not a `DASH_*` table.
    #[error("`{table}` is not a DASH table")]
    NotDash {
        /// The table's name.
        table: String,
    },
    /// A key or one of its parts has no text.
    #[error("{part} is empty")]
    Empty {
        /// Which part.
        part: &'static str,
    },
    /// A name that other keys embed holds the separator.
    #[error("{part} `{name}` must not hold a colon: it separates the parts of a key")]
    Colon {
        /// Which part.
        part: &'static str,
        /// The name.
        name: String,
    },
    /// Too few parts.
    #[error("`{key}` is not of the form `{form}`")]
    Form {
        /// The key's text.
        key: String,
        /// What the table wants.
        form: &'static str,
    },
    /// Not a VNI.
    #[error("`{text}` is not a VNI (1..=16777215)")]
    Vni {
        /// What was found.
        text: String,
    },
    /// Not a prefix.
    #[error("`{text}` is not a prefix: {source}")]
    Prefix {
        /// What was found.
        text: String,
        /// What is wrong with it.
        source: PrefixError,
    },
    /// A source prefix made by hand with host bits set or too long a mask.
    #[error("source prefix {prefix} has host bits set or a mask length above 32")]
    SourcePrefix {
        /// The prefix.
        prefix: SourcePrefix,
    },
    /// Not an address.
    #[error("`{text}` is not an IP address")]
    Address {
        /// What was found.
        text: String,
    },
    /// Not an ACL stage.
    #[error("`{text}` is not an ACL stage (1..=5)")]
    Stage {
        /// What was found.
        text: String,
    },
    /// All digits, but too large for a priority.
    #[error("`{text}` is not a priority (0..=4294967295)")]
    Priority {
        /// What was found.
        text: String,
    },
    /// Not a range of ports.
    #[error("`{text}` is not a range of ports (min-max, each 0..=65535)")]
    Ports {
        /// What was found.
        text: String,
    },
    /// Not a routing type's name.
    #[error("`{text}` is not a routing type")]
    RoutingType {
        /// What was found.
        text: String,
    },
    /// Another row than the only one of `SWITCH_TABLE`.
    #[error("`{text}` is not `{SWITCH}`, the only row there is")]
    Switch {
        /// What was found.
        text: String,
    },
    /// An inbound rule for an IPv6 outer source (A42).
    #[error("IPv6 underlay is not supported yet: source prefix {prefix}")]
    Ipv6Underlay {
        /// The prefix asked for.
        prefix: IpPrefix,
    },
    /// An opaque key made by hand for a table that acts.
    #[error("a row of `{table}` cannot be stored without acting on it")]
    ActingTable {
        /// The table's name.
        table: String,
    },
}

impl KeyError {
    /// The class of the error.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Ipv6Underlay { .. } => Kind::Unimplemented,
            _ => Kind::InvalidArgument,
        }
    }
}

const ENI: &str = "ENI key";
const VNET: &str = "VNET name";
const ROUTE_GROUP: &str = "route group id";
const ACL_GROUP: &str = "ACL group id";
const PORT_MAP: &str = "port map id";
const METER_POLICY: &str = "meter policy id";

impl ObjectKey {
    /// Reads a table name and the key text after its colon.
    ///
    /// Prefixes lose their host bits and may be written `a/len`, `a/mask-address` or as a bare
    /// address; routing types are read in any case, with or without `ROUTING_TYPE_` in front. A
    /// route rule's last all-digit part is its priority (0 when there is none). `DASH_*` tables
    /// that do not act give [`ObjectKey::Opaque`].
    ///
    /// # Errors
    /// When the table is not a DASH table or the text is not a key of that table.
    pub fn parse(table: &str, key: &str) -> Result<Self, KeyError> {
        let Some(acting) = Table::from_name(table) else {
            if table.strip_prefix("DASH_").is_none_or(str::is_empty) || table.contains(':') {
                return Err(KeyError::NotDash {
                    table: table.to_owned(),
                });
            }
            non_empty("key", key)?;
            return Ok(Self::Opaque(table.into(), key.into()));
        };
        Ok(match acting {
            Table::Appliance => Self::Appliance(non_empty("appliance id", key)?.into()),
            Table::RoutingType => Self::RoutingType(routing_type(key)?),
            Table::Vnet => Self::Vnet(name(VNET, key)?.into()),
            Table::Eni => Self::Eni(name(ENI, key)?.into()),
            Table::RouteGroup => Self::RouteGroup(name(ROUTE_GROUP, key)?.into()),
            Table::Route => {
                let (group, prefix) = parts(key, "group:prefix")?;
                Self::Route(name(ROUTE_GROUP, group)?.into(), ip_prefix(prefix)?)
            }
            Table::EniRoute => Self::EniRoute(name(ENI, key)?.into()),
            Table::RouteRule => Self::RouteRule(route_rule(key)?),
            Table::VnetMapping => {
                let (vnet, ip) = parts(key, "vnet:ip")?;
                let ip: IpAddr = ip.parse().map_err(|_| KeyError::Address {
                    text: ip.to_owned(),
                })?;
                Self::VnetMapping(name(VNET, vnet)?.into(), ip)
            }
            Table::AclGroup => Self::AclGroup(name(ACL_GROUP, key)?.into()),
            Table::AclRule => {
                let (group, rule) = parts(key, "group:rule")?;
                let rule = non_empty("rule number", rule)?;
                Self::AclRule(name(ACL_GROUP, group)?.into(), rule.into())
            }
            Table::AclIn => {
                let (eni, stage) = eni_stage(key)?;
                Self::AclIn(eni, stage)
            }
            Table::AclOut => {
                let (eni, stage) = eni_stage(key)?;
                Self::AclOut(eni, stage)
            }
            Table::PrefixTag => Self::PrefixTag(non_empty("tag name", key)?.into()),
            Table::Tunnel => Self::Tunnel(non_empty("tunnel name", key)?.into()),
            Table::PortMap => Self::PortMap(name(PORT_MAP, key)?.into()),
            Table::PortMapRange => {
                let (map, ports) = parts(key, "map:min-max")?;
                Self::PortMapRange(name(PORT_MAP, map)?.into(), port_range(ports)?)
            }
            Table::PaValidation => Self::PaValidation(vni(non_empty("VNI", key)?)?),
            Table::MeterPolicy => Self::MeterPolicy(name(METER_POLICY, key)?.into()),
            Table::MeterRule => {
                let (policy, rule) = parts(key, "policy:rule")?;
                let rule = non_empty("rule number", rule)?;
                Self::MeterRule(name(METER_POLICY, policy)?.into(), rule.into())
            }
            Table::Qos => Self::Qos(non_empty("QoS profile name", key)?.into()),
            Table::Switch if key == SWITCH => Self::Switch,
            Table::Switch => {
                return Err(KeyError::Switch {
                    text: key.to_owned(),
                });
            }
            Table::EniSettings => Self::EniSettings(name(ENI, key)?.into()),
            Table::RouteGroupSettings => Self::RouteGroupSettings(name(ROUTE_GROUP, key)?.into()),
        })
    }

    /// Checks what the types of a key made by hand leave open, so that it can be printed and
    /// read back.
    ///
    /// # Errors
    /// The same as for the text the key would print as.
    pub fn check(&self) -> Result<(), KeyError> {
        let eni_ok = |eni: &EniKey| name(ENI, eni.as_str()).map(drop);
        let vnet_ok = |vnet: &VnetName| name(VNET, vnet.as_str()).map(drop);
        let routes_ok = |group: &RouteGroupId| name(ROUTE_GROUP, group.as_str()).map(drop);
        let acl_ok = |group: &AclGroupId| name(ACL_GROUP, group.as_str()).map(drop);
        match self {
            Self::Appliance(id) => non_empty("appliance id", id.as_str()).map(drop),
            Self::RoutingType(_) | Self::PaValidation(_) | Self::Switch => Ok(()),
            Self::Vnet(vnet) | Self::VnetMapping(vnet, _) => vnet_ok(vnet),
            Self::Eni(eni) | Self::EniRoute(eni) | Self::EniSettings(eni) => eni_ok(eni),
            Self::RouteGroup(group) | Self::Route(group, _) | Self::RouteGroupSettings(group) => {
                routes_ok(group)
            }
            Self::RouteRule(rule) => {
                let source = rule.source;
                if SourcePrefix::new(source.addr, source.len) != Some(source) {
                    return Err(KeyError::SourcePrefix { prefix: source });
                }
                eni_ok(&rule.eni)
            }
            Self::AclGroup(group) => acl_ok(group),
            Self::AclRule(group, rule) => {
                non_empty("rule number", rule)?;
                acl_ok(group)
            }
            Self::AclIn(eni, stage) | Self::AclOut(eni, stage) => {
                if !STAGES.contains(stage) {
                    return Err(KeyError::Stage {
                        text: stage.to_string(),
                    });
                }
                eni_ok(eni)
            }
            Self::PrefixTag(tag) => non_empty("tag name", tag.as_str()).map(drop),
            Self::Tunnel(tunnel) => non_empty("tunnel name", tunnel.as_str()).map(drop),
            Self::PortMap(map) => name(PORT_MAP, map.as_str()).map(drop),
            Self::PortMapRange(map, ports) => {
                if ports.min > ports.max {
                    return Err(KeyError::Ports {
                        text: format!("{}-{}", ports.min, ports.max),
                    });
                }
                name(PORT_MAP, map.as_str()).map(drop)
            }
            Self::MeterPolicy(policy) => name(METER_POLICY, policy.as_str()).map(drop),
            Self::MeterRule(policy, rule) => {
                non_empty("rule number", rule)?;
                name(METER_POLICY, policy.as_str()).map(drop)
            }
            Self::Qos(qos) => non_empty("QoS profile name", qos.as_str()).map(drop),
            Self::Opaque(table, key) => match Self::parse(table, key)? {
                Self::Opaque(..) => Ok(()),
                _ => Err(KeyError::ActingTable {
                    table: table.to_string(),
                }),
            },
        }
    }
}

/// Reads `TABLE:key`, the redis form.
impl FromStr for ObjectKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (table, key) = parts(text, "TABLE:key")?;
        Self::parse(table, key)
    }
}

const STAGES: std::ops::RangeInclusive<u8> = 1..=5;

fn non_empty<'a>(part: &'static str, text: &'a str) -> Result<&'a str, KeyError> {
    if text.is_empty() {
        return Err(KeyError::Empty { part });
    }
    Ok(text)
}

/// A name that may be followed by a colon in another table's key.
fn name<'a>(part: &'static str, text: &'a str) -> Result<&'a str, KeyError> {
    if text.contains(':') {
        return Err(KeyError::Colon {
            part,
            name: text.to_owned(),
        });
    }
    non_empty(part, text)
}

/// Splits at the first colon.
fn parts<'a>(key: &'a str, form: &'static str) -> Result<(&'a str, &'a str), KeyError> {
    key.split_once(':').ok_or_else(|| KeyError::Form {
        key: key.to_owned(),
        form,
    })
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// A decimal number without the sign that `u32::from_str` would take.
fn number(text: &str) -> Option<u32> {
    is_digits(text).then(|| text.parse().ok()).flatten()
}

fn vni(text: &str) -> Result<Vni, KeyError> {
    number(text)
        .and_then(Vni::new)
        .ok_or_else(|| KeyError::Vni {
            text: text.to_owned(),
        })
}

fn ip_prefix(text: &str) -> Result<IpPrefix, KeyError> {
    text.parse().map_err(|source| KeyError::Prefix {
        text: text.to_owned(),
        source,
    })
}

fn routing_type(text: &str) -> Result<RoutingType, KeyError> {
    const LONG: &str = "ROUTING_TYPE_";
    let short = match text.get(..LONG.len()) {
        Some(head) if head.eq_ignore_ascii_case(LONG) => text.get(LONG.len()..).unwrap_or_default(),
        _ => text,
    };
    RoutingType::ALL
        .into_iter()
        .find(|kind| kind.name().eq_ignore_ascii_case(short))
        .ok_or_else(|| KeyError::RoutingType {
            text: text.to_owned(),
        })
}

fn eni_stage(key: &str) -> Result<(EniKey, u8), KeyError> {
    let (eni, stage) = key.rsplit_once(':').ok_or_else(|| KeyError::Form {
        key: key.to_owned(),
        form: "eni:stage",
    })?;
    let number = number(stage)
        .and_then(|n| u8::try_from(n).ok())
        .filter(|n| STAGES.contains(n))
        .ok_or_else(|| KeyError::Stage {
            text: stage.to_owned(),
        })?;
    Ok((name(ENI, eni)?.into(), number))
}

/// `min-max`; a range that ends before it begins is none.
fn port_range(text: &str) -> Result<PortRange, KeyError> {
    let port = |text| number(text).and_then(|n| u16::try_from(n).ok());
    let ends = text
        .split_once('-')
        .map(|(min, max)| (port(min), port(max)));
    match ends {
        Some((Some(min), Some(max))) if min <= max => Ok(PortRange { min, max }),
        _ => Err(KeyError::Ports {
            text: text.to_owned(),
        }),
    }
}

/// `eni:vni:prefix[:priority]`.
fn route_rule(key: &str) -> Result<RouteRuleKey, KeyError> {
    const FORM: &str = "eni:vni:prefix[:priority]";
    let (eni, rest) = parts(key, FORM)?;
    let (vni, rest) = parts(rest, FORM)?;
    let vni = self::vni(vni)?;
    // The whole first: the last group of a bare IPv6 address would pass for a priority.
    let (prefix, priority) = match (ip_prefix(rest), rest.rsplit_once(':')) {
        (Ok(prefix), _) => (prefix, 0),
        (Err(_), Some((prefix, digits))) if is_digits(digits) => {
            let prefix = ip_prefix(prefix)?;
            let priority = number(digits).ok_or_else(|| KeyError::Priority {
                text: digits.to_owned(),
            })?;
            (prefix, priority)
        }
        (Err(error), _) => return Err(error),
    };
    let source = match prefix.addr() {
        IpAddr::V4(addr) => SourcePrefix {
            addr,
            len: prefix.prefix_len(),
        },
        IpAddr::V6(_) => return Err(KeyError::Ipv6Underlay { prefix }),
    };
    Ok(RouteRuleKey {
        eni: name(ENI, eni)?.into(),
        vni,
        source,
        priority,
    })
}
