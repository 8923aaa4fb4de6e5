//! Table contents with names for numbers, so that two planners can be compared.

use std::collections::BTreeMap;

use dash_pipeline::plan::Planner;
use dash_wire::tables as t;
use nic_target::Table;
use zerocopy::FromBytes;

use crate::support::Contents;

/// Rows as text, key to row.
pub(crate) fn named(planner: &Planner, contents: &Contents) -> BTreeMap<String, String> {
    let n = Names(planner);
    let rows = contents.rows.iter();
    let mut all: BTreeMap<String, String> = rows
        .map(|((table, key), row)| {
            let (key, row) = n.row(*table, key, row);
            (format!("{} {key}", table.name()), row)
        })
        .collect();
    for (group, rules) in &contents.acl {
        all.insert(format!("acl {}", n.acl_group(*group)), format!("{rules:?}"));
    }
    let numbers = contents.rows.len() + contents.acl.len();
    assert_eq!(all.len(), numbers, "two numbers with one name");
    all
}

struct Names<'a>(&'a Planner);

impl Names<'_> {
    fn eni(&self, index: u32) -> String {
        let key = self.0.eni_key(index).expect("an ENI in use");
        assert_eq!(self.0.eni_index(key), Some(index));
        key.to_string()
    }

    fn vnet(&self, id: u16) -> String {
        if id == 0 {
            return "-".to_owned();
        }
        let name = self.0.vnet(id).expect("a VNET in use");
        assert_eq!(self.0.vnet_id(name), Some(id));
        name.to_string()
    }

    fn route_group(&self, id: u32) -> String {
        if id == 0 {
            return "-".to_owned();
        }
        let group = self.0.route_group(id).expect("a route group in use");
        assert_eq!(self.0.route_group_id(group), Some(id));
        group.to_string()
    }

    fn acl_group(&self, id: u32) -> String {
        if id == 0 {
            return "-".to_owned();
        }
        let group = self.0.acl_group(id).expect("an ACL group in use");
        assert_eq!(self.0.acl_group_id(group), Some(id));
        group.to_string()
    }

    fn tunnel(&self, id: u32) -> String {
        if id == 0 {
            return "-".to_owned();
        }
        let name = self.0.tunnel(id).expect("a tunnel in use");
        name.to_string()
    }

    fn port_map(&self, id: u32) -> String {
        if id == 0 {
            return "-".to_owned();
        }
        let name = self.0.port_map(id).expect("a port map in use");
        name.to_string()
    }

    fn meter_policy(&self, id: u32) -> String {
        if id == 0 {
            return "none".to_owned();
        }
        let policy = self.0.meter_policy(id).expect("a meter policy in use");
        assert_eq!(self.0.meter_policy_id(policy), Some(id));
        policy.to_string()
    }

    fn row(&self, table: Table, key: &[u8], row: &[u8]) -> (String, String) {
        match table {
            Table::Route4More => {
                let key: t::Route4Key = read(key);
                let group = self.route_group(key.group);
                let key = format!("{group} {:?}/{}", key.dst, key.prefix_len);
                (key, self.route_more(row))
            }
            Table::Route6More => {
                let key: t::Route6Key = read(key);
                let group = self.route_group(key.group);
                let key = format!("{group} {:?}/{}", key.dst, key.prefix_len);
                (key, self.route_more(row))
            }
            Table::MappingMore => {
                let key: t::MappingKey = read(key);
                let row: t::MappingMoreRow = read(row);
                let names = (self.tunnel(row.tunnel), self.port_map(row.port_map));
                let bare = t::MappingMoreRow {
                    tunnel: 0,
                    port_map: 0,
                    ..row
                };
                (
                    format!("{} {} {:?}", self.vnet(key.vnet), key.v6, key.ip),
                    format!("{names:?} {bare:?}"),
                )
            }
            Table::RoutingType => (
                format!("{key:?}"),
                format!("{:?}", read::<t::RoutingTypeRow>(row)),
            ),
            Table::Tunnel => {
                let key: t::TunnelKey = read(key);
                (
                    format!("{} {}", self.tunnel(key.tunnel), key.member),
                    format!("{:?}", read::<t::TunnelRow>(row)),
                )
            }
            Table::PortRange => {
                let key: t::PortRangeKey = read(key);
                let map = self.port_map(key.map);
                (
                    format!("{map} {:?}/{}", key.port, key.prefix_len),
                    format!("{:?}", read::<t::PortRangeRow>(row)),
                )
            }
            Table::Globals => (format!("{key:?}"), format!("{:?}", read::<t::Globals>(row))),
            Table::EniMac => (format!("{key:?}"), self.eni(read(row))),
            Table::Eni => {
                let row: t::EniRow = read(row);
                let acl = row.acl.map(|stages| stages.map(|id| self.acl_group(id)));
                let meter = row.meter.map(|id| self.meter_policy(id));
                let names = (
                    self.vnet(row.vnet),
                    self.route_group(row.route_group),
                    acl,
                    meter,
                );
                let bare = t::EniRow {
                    vnet: 0,
                    route_group: 0,
                    acl: [[0; 5]; 4],
                    meter: [0; 2],
                    ..row
                };
                (self.eni(read(key)), format!("{names:?} {bare:?}"))
            }
            Table::TrustedVni => {
                let key: t::TrustedVniKey = read(key);
                let owner = match key.eni {
                    t::TRUSTED_VNI_GLOBAL => "all".to_owned(),
                    index => self.eni(u16::from_be_bytes(index).into()),
                };
                let key = format!("{owner} {:?}/{}", key.vni, key.prefix_len);
                (key, format!("{row:?}"))
            }
            Table::Route4 => {
                let key: t::Route4Key = read(key);
                let group = self.route_group(key.group);
                let key = format!("{group} {:?}/{}", key.dst, key.prefix_len);
                (key, self.route(row))
            }
            Table::Route6 => {
                let key: t::Route6Key = read(key);
                let group = self.route_group(key.group);
                let key = format!("{group} {:?}/{}", key.dst, key.prefix_len);
                (key, self.route(row))
            }
            Table::Mapping => {
                let key: t::MappingKey = read(key);
                let key = format!("{} {} {:?}", self.vnet(key.vnet), key.v6, key.ip);
                (key, format!("{:?}", read::<t::MappingRow>(row)))
            }
            Table::Inbound => {
                let key: t::InboundKey = read(key);
                let row: t::InboundRow = read(row);
                let eni = self.eni(key.eni);
                (
                    format!("{eni} {} {:?}/{}", key.vni, key.sip, key.prefix_len),
                    format!(
                        "{} {:?}",
                        self.vnet(row.vnet),
                        t::InboundRow { vnet: 0, ..row }
                    ),
                )
            }
            Table::PaValidation => {
                let key: t::PaKey = read(key);
                let key = format!("{} {:?}", self.vnet(key.vnet), key.sip);
                (key, format!("{row:?}"))
            }
            Table::PaPrefix => {
                let key: t::PaPrefixKey = read(key);
                let vnet = self.vnet(key.vnet as u16);
                let key = format!("{vnet} {:?}/{}", key.sip, key.prefix_len);
                (key, format!("{row:?}"))
            }
            Table::Qos => {
                let row = format!("{:?}", read::<t::QosRow>(row));
                (self.eni(read(key)), row)
            }
            Table::MeterRule => {
                let key: t::MeterRuleKey = read(key);
                let policy = self.meter_policy(key.policy);
                let key = format!("{policy} {:?}/{}", key.ip, key.prefix_len);
                (key, format!("{row:?}"))
            }
            Table::Underlay | Table::PortMtu => (format!("{key:?}"), format!("{row:?}")),
            _ => panic!("{table:?} has no rows of policy"),
        }
    }

    fn route_more(&self, row: &[u8]) -> String {
        let row: t::RouteMoreRow = read(row);
        let tunnel = self.tunnel(row.tunnel);
        format!("{tunnel} {:?}", t::RouteMoreRow { tunnel: 0, ..row })
    }

    fn route(&self, row: &[u8]) -> String {
        let row: t::RouteRow = read(row);
        let vnet = self.vnet(row.vnet);
        format!("{vnet} {:?}", t::RouteRow { vnet: 0, ..row })
    }
}

fn read<T: FromBytes>(bytes: &[u8]) -> T {
    T::read_from_bytes(bytes).expect("bytes of the table's size")
}
