//! Why a transaction is refused: which item, which row, what for.

use std::fmt;

use thiserror::Error;

use crate::key::{
    AclGroupId, ApplianceId, EniKey, KeyError, MeterPolicyId, ObjectKey, RoutingType, TagName,
};
use crate::net::{IpPrefix, Mac};
use crate::objects::Family;

/// Class of an error, for the door that answers the client (the names are gRPC's).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The row is wrong whatever else is configured.
    InvalidArgument,
    /// The row is right but the state is not ready for it; sending it again later may succeed.
    FailedPrecondition,
    /// Legal DASH that this release cannot do yet.
    Unimplemented,
    /// Something that may exist once exists already.
    AlreadyExists,
}

/// What is wrong with one item of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Reason {
    /// The key cannot name a row.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The object is not of the key's table.
    #[error("the object is a row of {found}")]
    WrongObject {
        /// Table of the object.
        found: &'static str,
    },
    /// A VNET or an ENI without an appliance.
    #[error("there is no row in DASH_APPLIANCE_TABLE")]
    NoAppliance,
    /// A row that this one names does not exist.
    #[error("{parent} does not exist")]
    MissingParent {
        /// The row that is missing.
        parent: ObjectKey,
    },
    /// The row cannot go while others need it.
    #[error("needed by {dependant}{}", AndMore(.count.saturating_sub(1)))]
    InUse {
        /// One of the rows.
        dependant: ObjectKey,
        /// How many rows there are.
        count: usize,
    },
    /// There can be one appliance.
    #[error("appliance `{existing}` exists and there can be one only")]
    SecondAppliance {
        /// The appliance that exists.
        existing: ApplianceId,
    },
    /// The field cannot change in the life of the object (A3).
    #[error("{field} cannot change: delete the object first, in a transaction of its own")]
    Immutable {
        /// The field.
        field: &'static str,
    },
    /// A VM's MAC that is a group address or zero.
    #[error("mac_address {mac} is not unicast")]
    MacNotUnicast {
        /// The address.
        mac: Mac,
    },
    /// Two ENIs with one MAC.
    #[error("mac_address {mac} is that of DASH_ENI_TABLE:{other}")]
    DuplicateMac {
        /// The address.
        mac: Mac,
        /// The other ENI.
        other: EniKey,
    },
    /// A range that ends before it begins.
    #[error("{field} has a range whose min is above its max")]
    EmptyRange {
        /// The field.
        field: &'static str,
    },
    /// A prefix that is not of the family of its ACL group or tag.
    #[error("{field}: {prefix} is not {expected}")]
    PrefixFamily {
        /// The field.
        field: &'static str,
        /// The prefix.
        prefix: IpPrefix,
        /// The family of the group or tag.
        expected: Family,
    },
    /// A tag that is not of the family of the ACL group whose rule names it.
    #[error("DASH_PREFIX_TAG_TABLE:{tag} is not {expected} as DASH_ACL_GROUP_TABLE:{group} is")]
    TagFamily {
        /// The tag.
        tag: TagName,
        /// The group.
        group: AclGroupId,
        /// The family of the group.
        expected: Family,
    },
    /// An ACL group bound in the field of the other family.
    #[error("DASH_ACL_GROUP_TABLE:{group} is not {expected}")]
    GroupFamily {
        /// The group.
        group: AclGroupId,
        /// The family of the field.
        expected: Family,
    },
    /// A meter policy that an ENI names in the field of the other family.
    #[error("DASH_METER_POLICY_TABLE:{policy} is not {expected}")]
    PolicyFamily {
        /// The policy.
        policy: MeterPolicyId,
        /// The family of the field.
        expected: Family,
    },
    /// An ACL group that is bound must have a rule.
    #[error("DASH_ACL_GROUP_TABLE:{group} would be bound without any rule")]
    EmptyGroup {
        /// The group.
        group: AclGroupId,
    },
    /// The contents of a bound group are frozen (A24).
    #[error(
        "{group} is bound by {binder}: make a new group and rebind, or allow updates of bound groups"
    )]
    GroupBound {
        /// The group.
        group: ObjectKey,
        /// One of the rows that bind it.
        binder: ObjectKey,
    },
    /// IPv4 that becomes IPv6 must be IPv4.
    #[error("{kind} makes IPv6 of IPv4: the row's key must be IPv4")]
    TranslatesIpv4 {
        /// The routing type.
        kind: RoutingType,
    },
    /// A routing type without the encap that rows of it need.
    #[error("DASH_ROUTING_TYPE_TABLE:{kind} has no staticencap with an encap type and a vni")]
    NoStaticEncap {
        /// The routing type.
        kind: RoutingType,
    },
    /// A tunnel that leads nowhere.
    #[error("endpoints is empty")]
    NoEndpoint,
    /// Two ranges of a port map with a port in common.
    #[error("ports are part of {other} too")]
    PortsMeet {
        /// The other range.
        other: ObjectKey,
    },
    /// PA validation has nothing to validate against.
    #[error("pa_validation needs a vnet")]
    PaValidationWithoutVnet,
    /// A row that would be stored and do nothing, where that is not wanted
    /// ([`crate::StoreOptions::strict`]).
    #[error("nothing acts on {table}: {why}")]
    NothingActs {
        /// The table.
        table: String,
        /// Why nothing does.
        why: &'static str,
    },
}

impl Reason {
    /// The class of the error.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Key(error) => error.kind(),
            Self::WrongObject { .. }
            | Self::Immutable { .. }
            | Self::MacNotUnicast { .. }
            | Self::EmptyRange { .. }
            | Self::PrefixFamily { .. }
            | Self::TagFamily { .. }
            | Self::GroupFamily { .. }
            | Self::PolicyFamily { .. }
            | Self::TranslatesIpv4 { .. }
            | Self::NoEndpoint
            | Self::PaValidationWithoutVnet => Kind::InvalidArgument,
            Self::NoAppliance
            | Self::MissingParent { .. }
            | Self::InUse { .. }
            | Self::EmptyGroup { .. }
            | Self::NoStaticEncap { .. }
            | Self::PortsMeet { .. }
            | Self::GroupBound { .. } => Kind::FailedPrecondition,
            Self::SecondAppliance { .. } | Self::DuplicateMac { .. } => Kind::AlreadyExists,
            Self::NothingActs { .. } => Kind::Unimplemented,
        }
    }
}

/// Prints ` and N more` for an N above zero.
struct AndMore(usize);

impl fmt::Display for AndMore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            n => write!(f, " and {n} more"),
        }
    }
}

/// One refused item.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("item {index}, {key}: {reason}")]
pub struct OpError {
    /// Position in the request or file.
    pub index: usize,
    /// The row it was about.
    pub key: ObjectKey,
    /// What is wrong.
    pub reason: Reason,
}

/// A refused transaction; nothing of it was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitError {
    /// The errors by index, at most [`CommitError::CAP`] of them; never empty.
    pub errors: Vec<OpError>,
    /// How many more there were.
    pub omitted: usize,
}

impl CommitError {
    /// Errors listed at most: enough to fix a file, not so many that an answer fails to send.
    pub const CAP: usize = 100;

    /// The class of the first error, or [`Kind::InvalidArgument`] when there is none.
    pub fn kind(&self) -> Kind {
        self.errors
            .first()
            .map_or(Kind::InvalidArgument, |e| e.reason.kind())
    }
}

/// One error a line.
impl fmt::Display for CommitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.errors.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            fmt::Display::fmt(error, f)?;
        }
        if self.omitted > 0 {
            write!(f, "\nand {} more", self.omitted)?;
        }
        Ok(())
    }
}

impl std::error::Error for CommitError {}
