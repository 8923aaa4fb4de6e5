//! Key text: what SONiC writes is read, what is read prints back, nothing panics.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dash_model::key::{KeyError, ObjectKey, RouteRuleKey, RoutingType, SourcePrefix, Table};
use dash_model::net::{IpPrefix, PrefixError, Vni};
use dash_model::{Kind, key};
use proptest::prelude::*;

fn parse(table: &str, key: &str) -> Result<ObjectKey, KeyError> {
    ObjectKey::parse(table, key)
}

fn prefix(text: &str) -> IpPrefix {
    text.parse().expect("a prefix")
}

fn rule(eni: &str, vni: u32, addr: [u8; 4], len: u8, priority: u32) -> ObjectKey {
    ObjectKey::RouteRule(RouteRuleKey {
        eni: eni.into(),
        vni: Vni::new(vni).expect("24 bits"),
        source: SourcePrefix::new(Ipv4Addr::from(addr), len).expect("a length"),
        priority,
    })
}

#[test]
fn every_table_prints_as_sonic_does() {
    let texts = [
        "DASH_APPLIANCE_TABLE:100",
        "DASH_ROUTING_TYPE_TABLE:vnet_encap",
        "DASH_VNET_TABLE:Vnet1",
        "DASH_ENI_TABLE:497f23d7-f0ac-4c99-a98f-59b470e8c7bd",
        "DASH_ROUTE_GROUP_TABLE:RouteGroup1",
        "DASH_ROUTE_TABLE:RouteGroup1:10.2.0.0/16",
        "DASH_ROUTE_TABLE:RouteGroup1:2001:db8::/32",
        "DASH_ENI_ROUTE_TABLE:F4939FEFC47E",
        "DASH_ROUTE_RULE_TABLE:eni-1000:2001:101.1.2.0/24:1",
        "DASH_VNET_MAPPING_TABLE:Vnet1:10.2.0.100",
        "DASH_VNET_MAPPING_TABLE:Vnet1:fd00::1",
        "DASH_ACL_GROUP_TABLE:acl_group_1",
        "DASH_ACL_RULE_TABLE:acl_group_1:rule_1",
        "DASH_ACL_IN_TABLE:F4939FEFC47E:1",
        "DASH_ACL_OUT_TABLE:F4939FEFC47E:5",
        "DASH_PREFIX_TAG_TABLE:AclTag1",
        "DASH_TUNNEL_TABLE:Tunnel1",
        "DASH_OUTBOUND_PORT_MAP_RANGE_TABLE:map1:100-200",
    ];
    for text in texts {
        let key: ObjectKey = text.parse().expect(text);
        assert_eq!(key.to_string(), text);
        let (table, rest) = text.split_once(':').expect("a colon");
        assert_eq!(key.table_name(), table);
        assert_eq!(key.key_text().to_string(), rest);
        assert_eq!(
            key.table().map(Table::name),
            Table::from_name(table).map(|t| t.name())
        );
        assert_eq!(key.check(), Ok(()));
    }
}

#[test]
fn tables_that_do_not_act_are_opaque_and_others_are_no_dash_tables() {
    for table in ["DASH_HA_SCOPE_TABLE", "DASH_HA_SET_TABLE", "DASH_NEW_THING"] {
        let key = parse(table, "a:b:c").expect(table);
        assert_eq!(key, ObjectKey::Opaque(table.into(), "a:b:c".into()));
        assert_eq!(key.table(), None);
    }
    for table in ["VNET_TABLE", "", "DASH_", "dash_vnet_table", "DASH_A:B"] {
        let error = parse(table, "x").expect_err(table);
        assert_eq!(
            error,
            KeyError::NotDash {
                table: table.into()
            }
        );
    }
}

#[test]
fn prefixes_lose_host_bits_and_may_be_bare_or_carry_a_mask_address() {
    let of = |text: &str| parse("DASH_ROUTE_TABLE", &format!("g:{text}"));
    let route = |text: &str| Ok(ObjectKey::Route("g".into(), prefix(text)));
    assert_eq!(of("10.2.3.4/16"), route("10.2.0.0/16"));
    assert_eq!(of("10.2.3.4"), route("10.2.3.4/32"));
    assert_eq!(of("10.2.3.4/255.255.0.0"), route("10.2.0.0/16"));
    assert_eq!(of("0.0.0.0/0.0.0.0"), route("0.0.0.0/0"));
    assert_eq!(of("2001:db8::1"), route("2001:db8::1/128"));
    assert_eq!(of("2001:db8::1/ffff:ffff::"), route("2001:db8::/32"));
    assert_eq!(of("::/0"), route("::/0"));
}

#[test]
fn texts_that_are_no_prefix_are_refused_with_what_is_wrong() {
    let of = |text: &str| match parse("DASH_ROUTE_TABLE", &format!("g:{text}")) {
        Err(KeyError::Prefix {
            text: found,
            source,
        }) if found == text => source,
        other => panic!("{text}: {other:?}"),
    };
    let length = |text: &str, max| PrefixError::Length {
        text: text.into(),
        max,
    };
    let address = |text: &str| PrefixError::Address { text: text.into() };
    assert_eq!(of("10.0.0.0/33"), length("33", 32));
    assert_eq!(of("::/129"), length("129", 128));
    assert_eq!(of("10.0.0.0/"), length("", 32));
    assert_eq!(of("10.0.0.0/+8"), length("+8", 32));
    assert_eq!(of("10.0.0.0/8/8"), length("8/8", 32));
    assert_eq!(of("10.0.0.0/-1"), length("-1", 32));
    assert_eq!(of(""), address(""));
    assert_eq!(of("10.0.0/8"), address("10.0.0"));
    assert_eq!(of("tag1"), address("tag1"));
    assert_eq!(
        of("10.0.0.0/255.0.255.0"),
        PrefixError::ScatteredMask {
            mask: IpAddr::from([255, 0, 255, 0])
        }
    );
    assert!(matches!(
        of("10.0.0.0/ffff::"),
        PrefixError::MixedFamilies { .. }
    ));
}

#[test]
fn a_route_rule_ends_in_a_priority_or_has_priority_zero() {
    let of = |text: &str| parse("DASH_ROUTE_RULE_TABLE", text);
    assert_eq!(
        of("e:2001:10.0.0.0/8:100"),
        Ok(rule("e", 2001, [10, 0, 0, 0], 8, 100))
    );
    assert_eq!(
        of("e:2001:10.0.0.0/8"),
        Ok(rule("e", 2001, [10, 0, 0, 0], 8, 0))
    );
    assert_eq!(
        of("e:2001:10.1.2.3"),
        Ok(rule("e", 2001, [10, 1, 2, 3], 32, 0))
    );
    assert_eq!(
        of("e:2001:10.1.2.3:7"),
        Ok(rule("e", 2001, [10, 1, 2, 3], 32, 7))
    );
    assert_eq!(
        of("e:2001:10.1.2.3/255.255.0.0:7"),
        Ok(rule("e", 2001, [10, 1, 0, 0], 16, 7))
    );
}

#[test]
fn an_ipv6_source_is_unimplemented_however_it_is_written() {
    for (text, read) in [
        ("2001:db8::1", "2001:db8::1/128"),
        ("2001:db8::1/64", "2001:db8::/64"),
        ("2001:db8::/64:5", "2001:db8::/64"),
        // All of it is an address: no priority 5.
        ("2001:db8::1:5", "2001:db8::1:5/128"),
        ("::/0", "::/0"),
    ] {
        let error = parse("DASH_ROUTE_RULE_TABLE", &format!("e:7:{text}")).expect_err(text);
        assert_eq!(
            error,
            KeyError::Ipv6Underlay {
                prefix: prefix(read)
            }
        );
        assert_eq!(error.kind(), Kind::Unimplemented);
        assert!(
            error
                .to_string()
                .starts_with("IPv6 underlay is not supported yet")
        );
    }
}

#[test]
fn malformed_route_rules_are_refused() {
    let of = |text: &str| parse("DASH_ROUTE_RULE_TABLE", text).expect_err(text);
    let form = |text: &str| KeyError::Form {
        key: text.into(),
        form: "eni:vni:prefix[:priority]",
    };
    assert_eq!(of("e"), form("e"));
    assert_eq!(of("e:7"), form("7"));
    for vni in ["0", "16777216", "", "+7", "0x7", "99999999999"] {
        assert_eq!(
            of(&format!("e:{vni}:10.0.0.0/8")),
            KeyError::Vni { text: vni.into() }
        );
    }
    assert_eq!(
        of("e:7:10.0.0.0/8:4294967296"),
        KeyError::Priority {
            text: "4294967296".into()
        }
    );
    assert!(matches!(of("e:7:10.0.0.0/8:x"), KeyError::Prefix { .. }));
    assert!(matches!(of("e:7:10.0.0.0/8:"), KeyError::Prefix { .. }));
    assert!(matches!(of("e:7:5"), KeyError::Prefix { .. }));
    assert_eq!(of(":7:10.0.0.0/8"), KeyError::Empty { part: "ENI key" });
}

#[test]
fn stages_are_the_digits_one_to_five() {
    for table in ["DASH_ACL_IN_TABLE", "DASH_ACL_OUT_TABLE"] {
        for stage in 1..=5 {
            let key = parse(table, &format!("e:{stage}")).expect("a stage");
            assert_eq!(key.to_string(), format!("{table}:e:{stage}"));
        }
        for stage in ["0", "6", "stage1", "", "+1", "257"] {
            let error = parse(table, &format!("e:{stage}")).expect_err(stage);
            assert_eq!(error, KeyError::Stage { text: stage.into() });
        }
    }
}

#[test]
fn routing_types_are_read_in_any_case_and_with_the_long_name() {
    for kind in RoutingType::ALL {
        let short = kind.name();
        let long = format!("ROUTING_TYPE_{}", short.to_ascii_uppercase());
        for text in [short, &short.to_uppercase(), &long, &long.to_lowercase()] {
            assert_eq!(
                parse("DASH_ROUTING_TYPE_TABLE", text),
                Ok(ObjectKey::RoutingType(kind))
            );
        }
    }
    for text in [
        "",
        "routing_type_",
        "vnet-encap",
        "ROUTING_TYPE_ROUTING_TYPE_VNET",
        "é",
    ] {
        let error = parse("DASH_ROUTING_TYPE_TABLE", text).expect_err(text);
        assert_eq!(error, KeyError::RoutingType { text: text.into() });
    }
}

#[test]
fn names_that_would_split_another_tables_key_are_refused() {
    for table in [
        "DASH_VNET_TABLE",
        "DASH_ENI_TABLE",
        "DASH_ENI_ROUTE_TABLE",
        "DASH_ROUTE_GROUP_TABLE",
        "DASH_ACL_GROUP_TABLE",
    ] {
        assert!(
            matches!(parse(table, "a:b"), Err(KeyError::Colon { .. })),
            "{table}"
        );
        assert!(
            matches!(parse(table, ""), Err(KeyError::Empty { .. })),
            "{table}"
        );
    }
    for (table, key) in [
        ("DASH_APPLIANCE_TABLE", ""),
        ("DASH_PREFIX_TAG_TABLE", ""),
        ("DASH_ACL_RULE_TABLE", "g:"),
        ("DASH_ACL_RULE_TABLE", ":1"),
        ("DASH_VNET_MAPPING_TABLE", ":10.0.0.1"),
        ("DASH_QOS_TABLE", ""),
        ("DASH_HA_SET_TABLE", ""),
    ] {
        assert!(
            matches!(parse(table, key), Err(KeyError::Empty { .. })),
            "{table}:{key}"
        );
    }
    for (table, key) in [
        ("DASH_ROUTE_TABLE", "g"),
        ("DASH_VNET_MAPPING_TABLE", "v"),
        ("DASH_ACL_RULE_TABLE", "g"),
        ("DASH_ACL_IN_TABLE", "e"),
    ] {
        assert!(
            matches!(parse(table, key), Err(KeyError::Form { .. })),
            "{table}:{key}"
        );
    }
    assert_eq!(
        parse("DASH_VNET_MAPPING_TABLE", "v:10.0.0.1/32"),
        Err(KeyError::Address {
            text: "10.0.0.1/32".into()
        })
    );
}

#[test]
fn a_key_made_by_hand_is_checked_for_what_its_type_leaves_open() {
    let source = SourcePrefix {
        addr: Ipv4Addr::new(10, 0, 0, 1),
        len: 8,
    };
    let unmasked = ObjectKey::RouteRule(RouteRuleKey {
        eni: "e".into(),
        vni: Vni::new(1).expect("24 bits"),
        source,
        priority: 0,
    });
    assert_eq!(
        unmasked.check(),
        Err(KeyError::SourcePrefix { prefix: source })
    );
    let stage = ObjectKey::AclOut("e".into(), 6);
    assert_eq!(stage.check(), Err(KeyError::Stage { text: "6".into() }));
    let acting = ObjectKey::Opaque("DASH_VNET_TABLE".into(), "v".into());
    assert_eq!(
        acting.check(),
        Err(KeyError::ActingTable {
            table: "DASH_VNET_TABLE".into()
        })
    );
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[^:]{1,6}", "[0-9]{1,3}", "[0-9a-f.]{1,9}", "[0-9./]{1,9}"]
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<Ipv4Addr>().prop_map(IpAddr::V4),
        any::<Ipv6Addr>().prop_map(IpAddr::V6),
        // Mostly zeros, and IPv4 inside IPv6: the short forms of the text.
        (any::<u16>(), any::<u16>())
            .prop_map(|(a, b)| { IpAddr::V6(Ipv6Addr::new(a, 0, 0, 0, 0, 0, 0, b)) }),
        any::<Ipv4Addr>().prop_map(|a| IpAddr::V6(a.to_ipv6_mapped())),
    ]
}

fn object_key() -> impl Strategy<Value = ObjectKey> {
    let vni = (1u32..=0xff_ffff).prop_map(|v| Vni::new(v).expect("24 bits"));
    let source = (any::<Ipv4Addr>(), 0u8..=32)
        .prop_map(|(addr, len)| SourcePrefix::new(addr, len).expect("a length"));
    let cidr = (address(), 0u8..=128).prop_map(|(addr, len)| {
        let max = if addr.is_ipv4() { 32 } else { 128 };
        IpPrefix::new(addr, len.min(max)).expect("a length")
    });
    prop_oneof![
        name().prop_map(|s| ObjectKey::Appliance(key::ApplianceId::from(&*s))),
        proptest::sample::select(&RoutingType::ALL[..]).prop_map(ObjectKey::RoutingType),
        name().prop_map(|s| ObjectKey::Vnet(s.as_str().into())),
        name().prop_map(|s| ObjectKey::Eni(s.as_str().into())),
        name().prop_map(|s| ObjectKey::RouteGroup(s.as_str().into())),
        (name(), cidr).prop_map(|(s, p)| ObjectKey::Route(s.as_str().into(), p)),
        name().prop_map(|s| ObjectKey::EniRoute(s.as_str().into())),
        (name(), vni, source, any::<u32>()).prop_map(|(eni, vni, source, priority)| {
            ObjectKey::RouteRule(RouteRuleKey {
                eni: eni.as_str().into(),
                vni,
                source,
                priority,
            })
        }),
        (name(), address()).prop_map(|(s, ip)| ObjectKey::VnetMapping(s.as_str().into(), ip)),
        name().prop_map(|s| ObjectKey::AclGroup(s.as_str().into())),
        (name(), ".{1,8}").prop_map(|(s, r)| ObjectKey::AclRule(s.as_str().into(), r.into())),
        (name(), 1u8..=5).prop_map(|(s, n)| ObjectKey::AclIn(s.as_str().into(), n)),
        (name(), 1u8..=5).prop_map(|(s, n)| ObjectKey::AclOut(s.as_str().into(), n)),
        ".{1,8}".prop_map(|s| ObjectKey::PrefixTag(s.as_str().into())),
        name().prop_map(|s| ObjectKey::EniSettings(s.as_str().into())),
        Just(ObjectKey::Switch),
        name().prop_map(|s| ObjectKey::RouteGroupSettings(s.as_str().into())),
        ("DASH_[A-Z]{1,6}", ".{1,8}").prop_map(|(t, s)| ObjectKey::Opaque(t.into(), s.into())),
    ]
}

/// Near misses: pieces of good keys in any order.
fn soup() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just(":".to_owned()),
        Just("/".to_owned()),
        Just("::".to_owned()),
        Just("10.0.0.1".to_owned()),
        Just("/255.255.0.0".to_owned()),
        Just("ROUTING_TYPE_".to_owned()),
        "[0-9]{1,12}",
        "[0-9a-f:]{1,8}",
        ".{0,3}",
    ];
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn what_a_key_prints_reads_back_as_the_key(key in object_key()) {
        prop_assert_eq!(key.check(), Ok(()));
        prop_assert_eq!(key.to_string().parse(), Ok(key));
    }

    #[test]
    fn any_text_is_a_good_key_or_an_error(
        table in prop_oneof![
            proptest::sample::select(&Table::ALL[..]).prop_map(|t| t.name().to_owned()),
            Just("DASH_HA_SET_TABLE".to_owned()),
            any::<String>(),
        ],
        text in prop_oneof![soup(), any::<String>()],
    ) {
        match ObjectKey::parse(&table, &text) {
            Ok(key) => {
                prop_assert_eq!(key.check(), Ok(()));
                prop_assert_eq!(key.to_string().parse(), Ok(key));
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn a_mask_address_means_its_length(addr in address(), len in 0u8..=128) {
        let (mask, len): (IpAddr, u8) = match addr {
            IpAddr::V4(_) => {
                let len = len.min(32);
                let ones = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
                (Ipv4Addr::from(ones).into(), len)
            }
            IpAddr::V6(_) => {
                let ones = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
                (Ipv6Addr::from(ones).into(), len)
            }
        };
        prop_assert_eq!(IpPrefix::from_mask(addr, mask).ok(), IpPrefix::new(addr, len));
        prop_assert_eq!(format!("{addr}/{mask}").parse().ok(), IpPrefix::new(addr, len));
    }
}
