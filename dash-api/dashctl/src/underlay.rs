//! The underlay as options: `--route PREFIX=PORT[,NEXTHOP]` and `--neighbor IP=MAC@PORT`.

use std::net::IpAddr;
use std::str::FromStr;

use dash_model::net::IpPrefix;
use dash_pipeline::plan::{UnderlayRoute, UnderlayTable};
use dash_prog::helpers::fib::{Answer, Query};

/// A neighbour's address, MAC and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbor {
    /// Its address.
    pub ip: IpAddr,
    /// Its MAC.
    pub mac: [u8; 6],
    /// The port it is on.
    pub port: u32,
}

/// A route as `--route` gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteArg(pub UnderlayRoute);

impl FromStr for RouteArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (prefix, way) = text
            .split_once('=')
            .ok_or("expected PREFIX=PORT[,NEXTHOP]")?;
        let prefix: IpPrefix = prefix.parse().map_err(|e| format!("{e}"))?;
        let (port, next_hop) = match way.split_once(',') {
            Some((port, hop)) => (port, Some(hop)),
            None => (way, None),
        };
        let port = number(port)?;
        let next_hop = next_hop.map(address).transpose()?;
        if next_hop.is_some_and(|hop| hop.is_ipv4() != prefix.addr().is_ipv4()) {
            return Err("prefix and next hop are of different families".to_owned());
        }
        Ok(Self(UnderlayRoute {
            prefix,
            port,
            next_hop,
        }))
    }
}

impl FromStr for Neighbor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (ip, rest) = text.split_once('=').ok_or("expected IP=MAC@PORT")?;
        let (mac_text, port) = rest.split_once('@').ok_or("expected IP=MAC@PORT")?;
        Ok(Self {
            ip: address(ip)?,
            mac: mac(mac_text)?,
            port: number(port)?,
        })
    }
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is not an IP address"))
}

fn number(text: &str) -> Result<u32, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is not a port number"))
}

/// Reads `02:00:00:00:00:01`.
pub fn mac(text: &str) -> Result<[u8; 6], String> {
    let wrong = || format!("`{text}` is not a MAC");
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let digits = |part: &&str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
        let part = parts.next().filter(digits).ok_or_else(wrong)?;
        *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
    }
    parts.next().is_none().then_some(mac).ok_or_else(wrong)
}

/// The MAC of a port that has no interface behind it: locally administered, counted from
/// 02:00:00:00:00:01 at port 0.
pub fn virtual_mac(port: u32) -> [u8; 6] {
    let [a, b, c, d] = (port.saturating_add(1)).to_be_bytes();
    [2, 0, a, b, c, d]
}

/// The underlay of a run without interfaces.
pub fn table(routes: &[RouteArg], neighbors: &[Neighbor]) -> UnderlayTable {
    let ports = routes
        .iter()
        .map(|r| r.0.port)
        .chain(neighbors.iter().map(|n| n.port));
    // One row a port; a number that large is a slip, and gets no MAC instead of gigabytes.
    let last = ports.filter(|port| *port < 1 << 16).max().unwrap_or(0);
    UnderlayTable {
        routes: routes.iter().map(|r| r.0.clone()).collect(),
        neighbors: neighbors.iter().map(|n| (n.ip, (n.mac, n.port))).collect(),
        port_macs: (0..=last).map(virtual_mac).collect(),
    }
}

/// What `bpf_fib_lookup` is told of a packet's destination, by ports that take IP packets of `mtu` bytes: the
/// longest prefix's route, and the next hop's MAC where it is known.
pub fn lookup(table: &UnderlayTable, query: &Query, mtu: impl Fn(u32) -> u16) -> Answer {
    let routes = table.routes.iter();
    let matching = routes.filter(|route| route.prefix.contains(query.destination));
    let Some(route) = matching.max_by_key(|route| route.prefix.prefix_len()) else {
        return Answer::NotForwarded;
    };
    let next_hop = route.next_hop.unwrap_or(query.destination);
    let neighbor = table.neighbors.get(&next_hop);
    let port = neighbor.map_or(route.port, |(_, port)| *port);
    let source = table.port_macs.get(port as usize).copied();
    Answer::Forward {
        ifindex: port,
        next_hop,
        source: source.unwrap_or_else(|| virtual_mac(port)),
        destination: neighbor.map(|(mac, _)| *mac),
        mtu: mtu(port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_read_with_and_without_a_next_hop() {
        let on_link: RouteArg = "10.0.0.0/8=1".parse().expect("a route");
        assert_eq!((on_link.0.port, on_link.0.next_hop), (1, None));
        let via: RouteArg = "2001:db8::/32=2,fe80::1".parse().expect("a route");
        assert_eq!(via.0.next_hop, Some("fe80::1".parse().expect("an address")));
    }

    #[test]
    fn wrong_routes_and_neighbors_say_what_is_wrong() {
        let route = |text: &str| text.parse::<RouteArg>().expect_err(text);
        assert_eq!(route("10.0.0.0/8"), "expected PREFIX=PORT[,NEXTHOP]");
        assert_eq!(route("10.0.0.0/8=x"), "`x` is not a port number");
        assert_eq!(
            route("10.0.0.0/8=0,::1"),
            "prefix and next hop are of different families"
        );
        let neighbor = |text: &str| text.parse::<Neighbor>().expect_err(text);
        assert_eq!(
            neighbor("10.0.0.1=02:00:00:00:00:01"),
            "expected IP=MAC@PORT"
        );
        for bad in [
            "02:00:00:00:00",
            "02:00:00:00:00:01:02",
            "2:0:0:0:0:1",
            "02:00:00:00:00:0g",
            "+2:00:00:00:00:01",
        ] {
            assert_eq!(
                neighbor(&format!("10.0.0.1={bad}@0")),
                format!("`{bad}` is not a MAC")
            );
        }
    }

    #[test]
    fn a_port_number_out_of_reason_does_not_make_a_table_of_that_size() {
        let route: RouteArg = "0.0.0.0/0=4294967295".parse().expect("a route");
        assert_eq!(table(&[route], &[]).port_macs, vec![[2, 0, 0, 0, 0, 1]]);
    }
}
