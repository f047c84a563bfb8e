//! Which addresses a name may lead to: public ones, and of the others those that the operator excepted. Pure.
//!
//! Metadata services, link-local, multicast and unspecified addresses are never reached, whatever is excepted.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;

use crate::message::{HostName, HostPattern};

/// Why an address is not public.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A private network, a carrier's own, or unique local IPv6.
    Private,
    /// The worker's machine itself.
    Loopback,
    /// A cloud's metadata service.
    Metadata,
    /// Link-local, multicast, broadcast, unspecified, reserved, documentation, or an IPv4 address in the clothes of IPv6.
    Special,
}

impl Kind {
    /// A word for a sentence.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Loopback => "loopback",
            Self::Metadata => "metadata",
            Self::Special => "reserved",
        }
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6(head: [u16; 4], tail: u16, length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(head[0], head[1], head[2], head[3], 0, 0, 0, tail), length)
}

/// The first that holds an address decides.
const IPV4: [(Ipv4Net, Kind); 18] = [
    (v4(169, 254, 0, 0, 16), Kind::Metadata),
    (v4(100, 100, 100, 200, 32), Kind::Metadata),
    (v4(168, 63, 129, 16, 32), Kind::Metadata),
    (v4(127, 0, 0, 0, 8), Kind::Loopback),
    (v4(10, 0, 0, 0, 8), Kind::Private),
    (v4(172, 16, 0, 0, 12), Kind::Private),
    (v4(192, 168, 0, 0, 16), Kind::Private),
    (v4(100, 64, 0, 0, 10), Kind::Private),
    (v4(0, 0, 0, 0, 8), Kind::Special),
    (v4(192, 0, 0, 0, 24), Kind::Special),
    (v4(192, 0, 2, 0, 24), Kind::Special),
    (v4(192, 31, 196, 0, 24), Kind::Special),
    (v4(192, 88, 99, 0, 24), Kind::Special),
    (v4(198, 18, 0, 0, 15), Kind::Special),
    (v4(198, 51, 100, 0, 24), Kind::Special),
    (v4(203, 0, 113, 0, 24), Kind::Special),
    (v4(224, 0, 0, 0, 4), Kind::Special),
    (v4(240, 0, 0, 0, 4), Kind::Special),
];

/// The first that holds an address decides; what no line holds is public only as global unicast.
const IPV6: [(Ipv6Net, Kind); 10] = [
    (v6([0xfd00, 0x0ec2, 0, 0], 0, 32), Kind::Metadata),
    (v6([0xfd20, 0x00ce, 0, 0], 0, 32), Kind::Metadata),
    (v6([0xfd00, 0x00c1, 0, 0], 0, 32), Kind::Metadata),
    (v6([0xfd00, 0x0042, 0, 0], 0, 32), Kind::Metadata),
    (v6([0, 0, 0, 0], 1, 128), Kind::Loopback),
    (v6([0xfc00, 0, 0, 0], 0, 7), Kind::Private),
    (v6([0x2001, 0, 0, 0], 0, 23), Kind::Special),
    (v6([0x2001, 0x0db8, 0, 0], 0, 32), Kind::Special),
    (v6([0x3fff, 0, 0, 0], 0, 20), Kind::Special),
    (v6([0x5f00, 0, 0, 0], 0, 16), Kind::Special),
];

/// Names of metadata services: none of them is an operator's own host, wherever it leads.
const METADATA_NAMES: [&str; 4] = [
    "metadata.google.internal",
    "metadata.goog",
    "instance-data",
    "instance-data.ec2.internal",
];

/// All of global unicast.
const GLOBAL: Ipv6Net = v6([0x2000, 0, 0, 0], 0, 3);
/// Leads to an IPv4 address through the network's translator.
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0, 0], 0, 96);
/// Leads to an IPv4 address through a tunnel.
const SIX_TO_FOUR: Ipv6Net = v6([0x2002, 0, 0, 0], 0, 16);

/// What stands against an address; nothing where it is public.
#[must_use]
pub fn kind(address: IpAddr) -> Option<Kind> {
    match address {
        IpAddr::V4(address) => IPV4
            .iter()
            .find(|(net, _)| net.contains(&address))
            .map(|(_, kind)| *kind),
        IpAddr::V6(address) => {
            let [.., w, x, y, z] = address.octets();
            if NAT64.contains(&address) {
                return kind(IpAddr::V4(Ipv4Addr::new(w, x, y, z))).map(disguised);
            }
            if SIX_TO_FOUR.contains(&address) {
                let [_, _, a, b, c, d, ..] = address.octets();
                return kind(IpAddr::V4(Ipv4Addr::new(a, b, c, d))).map(disguised);
            }
            match IPV6.iter().find(|(net, _)| net.contains(&address)) {
                Some((_, kind)) => Some(*kind),
                None => (!GLOBAL.contains(&address)).then_some(Kind::Special),
            }
        }
    }
}

/// No exception is meant for an address in another's clothes.
fn disguised(_: Kind) -> Kind {
    Kind::Special
}

/// What an operator excepts: a network (`10.1.0.0/16`, `127.0.0.0/8`), or a host by name (`registry.internal`, `.internal`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub enum Excepted {
    /// Every allowed name may lead into this network.
    Net(IpNet),
    /// This name may lead to private addresses; not to loopback.
    Host(HostPattern),
}

impl FromStr for Excepted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('/') {
            return text
                .parse()
                .map(Self::Net)
                .map_err(|_| format!("{text:?} is no network such as 10.1.0.0/16"));
        }
        text.parse()
            .map(Self::Host)
            .map_err(|error| format!("{text:?} is no host and no network with a length: {error}"))
    }
}

impl TryFrom<String> for Excepted {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Excepted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(net) => net.fmt(formatter),
            Self::Host(host) => host.fmt(formatter),
        }
    }
}

/// Whether a host may be dialled at an address.
///
/// # Errors
/// What stands against it.
pub fn permit(host: &HostName, address: IpAddr, excepted: &[Excepted]) -> Result<(), Kind> {
    if METADATA_NAMES.contains(&host.as_str()) {
        return Err(Kind::Metadata);
    }
    let Some(kind) = kind(address) else { return Ok(()) };
    let by_net = || {
        excepted
            .iter()
            .any(|one| matches!(one, Excepted::Net(net) if net.contains(&address)))
    };
    let by_host = || {
        excepted
            .iter()
            .any(|one| matches!(one, Excepted::Host(name) if name.matches(host)))
    };
    let fine = match kind {
        Kind::Private => by_net() || by_host(),
        Kind::Loopback => by_net(),
        Kind::Metadata | Kind::Special => false,
    };
    if fine { Ok(()) } else { Err(kind) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_not_public_is_known() {
        for (address, expected) in [
            ("127.0.0.1", Kind::Loopback),
            ("127.255.255.254", Kind::Loopback),
            ("::1", Kind::Loopback),
            ("10.0.0.1", Kind::Private),
            ("172.31.255.255", Kind::Private),
            ("192.168.1.1", Kind::Private),
            ("100.64.0.1", Kind::Private),
            ("fd12::1", Kind::Private),
            ("fc00::1", Kind::Private),
            ("169.254.169.254", Kind::Metadata),
            ("169.254.170.2", Kind::Metadata),
            ("100.100.100.200", Kind::Metadata),
            ("168.63.129.16", Kind::Metadata),
            ("fd00:ec2::254", Kind::Metadata),
            ("fd00:ec2::23", Kind::Metadata),
            ("fd20:ce::254", Kind::Metadata),
            ("fd00:c1::a9fe:a9fe", Kind::Metadata),
            ("fd00:42::42", Kind::Metadata),
            ("0.0.0.0", Kind::Special),
            ("0.1.2.3", Kind::Special),
            ("224.0.0.1", Kind::Special),
            ("255.255.255.255", Kind::Special),
            ("192.0.2.1", Kind::Special),
            ("198.51.100.7", Kind::Special),
            ("203.0.113.7", Kind::Special),
            ("198.18.0.1", Kind::Special),
            ("::", Kind::Special),
            ("fe80::1", Kind::Special),
            ("fec0::1", Kind::Special),
            ("ff02::1", Kind::Special),
            ("2001:db8::1", Kind::Special),
            ("2001::1", Kind::Special),
            ("::ffff:127.0.0.1", Kind::Special),
            ("::ffff:8.8.8.8", Kind::Special),
            ("::8.8.8.8", Kind::Special),
            ("64:ff9b::7f00:1", Kind::Special),
            ("64:ff9b::a9fe:a9fe", Kind::Special),
            ("64:ff9b:1::808:808", Kind::Special),
            ("2002:7f00:1::", Kind::Special),
            ("2002:a9fe:a9fe::1", Kind::Special),
            ("4000::1", Kind::Special),
        ] {
            assert_eq!(kind(address.parse().unwrap()), Some(expected), "{address}");
        }
        for public in [
            "8.8.8.8",
            "172.32.0.1",
            "2606:4700::1111",
            "64:ff9b::808:808",
            "2002:808:808::1",
        ] {
            assert_eq!(kind(public.parse().unwrap()), None, "{public}");
        }
    }

    #[test]
    fn exceptions_open_what_they_name_and_never_a_metadata_service() {
        let host: HostName = "registry.internal".parse().unwrap();
        let other: HostName = "evil.example".parse().unwrap();
        let excepted: Vec<Excepted> = [
            "10.1.0.0/16",
            "registry.internal",
            "169.254.0.0/16",
            "::ffff:0:0/96",
            "0.0.0.0/0",
        ]
        .map(|text| text.parse().unwrap())
        .to_vec();
        let some = &excepted[..2];
        let at = |address: &str| address.parse::<IpAddr>().unwrap();
        assert_eq!(permit(&host, at("192.168.7.7"), some), Ok(()));
        assert_eq!(permit(&other, at("192.168.7.7"), some), Err(Kind::Private));
        assert_eq!(permit(&other, at("10.1.2.3"), some), Ok(()));
        assert_eq!(permit(&other, at("10.2.2.3"), some), Err(Kind::Private));
        // A name does not open the worker's own machine.
        assert_eq!(permit(&host, at("127.0.0.1"), some), Err(Kind::Loopback));
        assert_eq!(permit(&host, at("127.0.0.1"), &excepted), Ok(()));
        for never in [
            "169.254.169.254",
            "::ffff:10.1.2.3",
            "0.0.0.0",
            "255.255.255.255",
            "100.100.100.200",
        ] {
            assert!(permit(&host, at(never), &excepted).is_err(), "{never}");
        }
        assert_eq!(permit(&other, at("8.8.8.8"), &[]), Ok(()));
        // A name of a metadata service is none of an operator's own hosts, wherever it leads.
        let wide: Vec<Excepted> = ["fd00::/8", ".internal", "10.0.0.0/8"]
            .map(|text| text.parse().unwrap())
            .to_vec();
        assert_eq!(permit(&host, at("fd20:ce::254"), &wide), Err(Kind::Metadata));
        assert_eq!(permit(&host, at("fd20:cf::254"), &wide), Ok(()));
        for name in [
            "metadata.google.internal",
            "metadata.goog",
            "instance-data.ec2.internal",
        ] {
            for address in ["10.1.2.3", "8.8.8.8"] {
                assert_eq!(
                    permit(&name.parse().unwrap(), at(address), &wide),
                    Err(Kind::Metadata),
                    "{name}"
                );
            }
        }
        for wrong in ["10.0.0.1", "10.0.0.0/33", "", "/8", "*.internal"] {
            assert!(wrong.parse::<Excepted>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn an_ipv4_address_is_never_more_public_in_ipv6(octets in any::<[u8; 4]>()) {
            let plain = Ipv4Addr::from(octets);
            let [a, b, c, d] = octets;
            let nat64 = Ipv6Addr::from([0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]);
            prop_assert_eq!(kind(IpAddr::V6(nat64)).is_some(), kind(IpAddr::V4(plain)).is_some());
            prop_assert!(kind(IpAddr::V6(plain.to_ipv6_mapped())).is_some());
        }
    }
}
