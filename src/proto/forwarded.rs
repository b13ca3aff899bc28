//! Where a client is when proxies stand between: `X-Forwarded-For`, as far as it can be believed. Does not know
//! sockets, nor what addresses are good for.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::http::Head;

/// The proxies whose word about their clients counts. The default is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    networks: Box<[IpNet]>,
}

/// An entry that is no address and no network: the operator's mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyError {
    /// The entry's place in the list, from 0.
    pub index: usize,
    /// The entry.
    pub entry: String,
    /// What is wrong with it and what to write instead.
    pub message: String,
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "trusted_proxies[{}] {:?}: {}", self.index, self.entry, self.message)
    }
}

impl std::error::Error for ProxyError {}

impl TrustedProxies {
    /// Reads addresses (`10.0.0.7`) and networks (`10.0.0.0/8`, `fd00::/8`).
    ///
    /// # Errors
    /// The first entry that is neither.
    pub fn new(entries: &[String]) -> Result<TrustedProxies, ProxyError> {
        let network = |(index, entry): (usize, &String)| {
            network(entry).ok_or_else(|| ProxyError {
                index,
                entry: entry.clone(),
                message: "must be an address or a network, as in \"10.0.0.7\", \"10.0.0.0/8\" or \"fd00::/8\""
                    .to_owned(),
            })
        };
        Ok(TrustedProxies { networks: entries.iter().enumerate().map(network).collect::<Result<_, _>>()? })
    }

    /// The address of the client that `head` came from, over a connection from `peer`.
    ///
    /// Each proxy appends whom it was called by, so the list is believed from its end: while the speaker is trusted,
    /// the entry before it is true. The first address that is not trusted is the client; what stands to its left it may
    /// have made up.
    #[must_use]
    pub fn client_ip(&self, peer: IpAddr, head: &Head<'_, '_>) -> IpAddr {
        let mut client = peer.to_canonical();
        if !self.trusts(client) {
            return client;
        }
        let entries = head.values("x-forwarded-for").rev().flat_map(|line| line.rsplit(|byte| *byte == b','));
        for entry in entries.map(<[u8]>::trim_ascii).filter(|entry| !entry.is_empty()) {
            // A trusted proxy does not know either, or names it otherwise: it speaks for its client itself.
            let Some(ip) = address(entry) else { return client };
            client = ip;
            if !self.trusts(client) {
                return client;
            }
        }
        client
    }

    /// True if what `ip` says about its client counts. IPv4 addresses in their own form.
    #[must_use]
    pub fn trusts(&self, ip: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&ip))
    }
}

/// A network, or an address as the network of itself. IPv4 in its IPv6 form becomes IPv4, as addresses do.
fn network(entry: &str) -> Option<IpNet> {
    if let Ok(ip) = entry.parse::<IpAddr>() {
        return Some(ip.to_canonical().into());
    }
    let network: IpNet = entry.parse().ok()?;
    match (network.addr().to_canonical(), network.prefix_len()) {
        (ip @ IpAddr::V4(_), bits @ 96..) if network.addr().is_ipv6() => IpNet::new(ip, bits - 96).ok(),
        _ => Some(network),
    }
}

/// `1.2.3.4`, `1.2.3.4:567`, `::1`, `[::1]`, `[::1]:567`, each perhaps in quotes.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?;
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let ip = match bare {
        Some(inside) => inside.parse::<std::net::Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip())),
    };
    ip.map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http::{HEADERS_MAX, HeadStep, parse_head};
    use proptest::prelude::*;

    fn trusted(entries: &[&str]) -> Result<TrustedProxies, ProxyError> {
        TrustedProxies::new(&entries.iter().map(|entry| (*entry).to_owned()).collect::<Vec<_>>())
    }

    /// The client's address, by these lines of `X-Forwarded-For`.
    fn client(trusted: &TrustedProxies, peer: &str, lines: &[&str]) -> String {
        let lines: String = lines.iter().map(|line| format!("X-Forwarded-For: {line}\r\n")).collect();
        let text = format!("GET / HTTP/1.0\r\n{lines}\r\n");
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        match parse_head(text.as_bytes(), &mut headers, 8192) {
            Ok(HeadStep::Complete { head, .. }) => trusted.client_ip(peer.parse().unwrap(), &head).to_string(),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn clients_behind_proxies() {
        let proxies = trusted(&["10.0.0.0/8", "192.0.2.7", "fd00::/8", "::1"]).unwrap();
        for (peer, lines, expected) in [
            // Nobody in between, or nobody to be believed.
            ("198.51.100.1", &[][..], "198.51.100.1"),
            ("198.51.100.1", &["1.1.1.1"], "198.51.100.1"),
            ("198.51.100.1", &["10.0.0.1"], "198.51.100.1"),
            ("192.0.2.8", &["1.1.1.1"], "192.0.2.8"),
            // One proxy.
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["1.1.1.1"], "1.1.1.1"),
            ("192.0.2.7", &["1.1.1.1"], "1.1.1.1"),
            ("fd00::2", &["2001:db8::1"], "2001:db8::1"),
            ("::1", &["1.1.1.1"], "1.1.1.1"),
            // Several, in one line and in many.
            ("10.0.0.1", &["1.1.1.1, 10.0.0.2"], "1.1.1.1"),
            ("10.0.0.1", &["1.1.1.1,10.0.0.3 ,\t10.0.0.2"], "1.1.1.1"),
            ("10.0.0.1", &["1.1.1.1", "10.0.0.2"], "1.1.1.1"),
            ("10.0.0.1", &["10.0.0.2", "1.1.1.1"], "1.1.1.1"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["1.1.1.1,, 10.0.0.2,"], "1.1.1.1"),
            // A client that says who it would like to be.
            ("10.0.0.1", &["9.9.9.9, 1.1.1.1"], "1.1.1.1"),
            ("10.0.0.1", &["9.9.9.9", "1.1.1.1, 10.0.0.2"], "1.1.1.1"),
            ("10.0.0.1", &["10.9.9.9, 1.1.1.1, 10.0.0.2"], "1.1.1.1"),
            ("10.0.0.1", &["::1, 1.1.1.1"], "1.1.1.1"),
            // Forms.
            ("10.0.0.1", &["1.2.3.4:567"], "1.2.3.4"),
            ("10.0.0.1", &["[2001:db8::1]:80"], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
            ("10.0.0.1", &["\"[2001:db8::1]:80\""], "2001:db8::1"),
            ("10.0.0.1", &["\"1.2.3.4\""], "1.2.3.4"),
            ("10.0.0.1", &["1.1.1.1, \"10.0.0.2:80\""], "1.1.1.1"),
            // IPv4 as IPv6.
            ("::ffff:10.0.0.1", &["::ffff:1.1.1.1"], "1.1.1.1"),
            ("::ffff:198.51.100.1", &["1.1.1.1"], "198.51.100.1"),
            ("10.0.0.1", &["1.1.1.1, [::ffff:10.0.0.2]:80"], "1.1.1.1"),
            // Garbage says nothing about what stands before it.
            ("10.0.0.1", &["unknown"], "10.0.0.1"),
            ("10.0.0.1", &["1.1.1.1, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["1.1.1.1, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["unknown, 1.1.1.1, 10.0.0.2"], "1.1.1.1"),
            ("10.0.0.1", &["1.1.1.1, _hidden"], "10.0.0.1"),
            ("10.0.0.1", &["1.1.1.1, 1.1.1"], "10.0.0.1"),
            ("10.0.0.1", &["1.1.1.1, 01.1.1.1"], "10.0.0.1"),
            ("10.0.0.1", &["1.1.1.1, \"10.0.0.2"], "10.0.0.1"),
            ("10.0.0.1", &["1.1.1.1, [10.0.0.2]"], "10.0.0.1"),
            ("10.0.0.1", &["1.1.1.1, 10.0.0.2:99999"], "10.0.0.1"),
            ("10.0.0.1", &["1.1.1.1, fe80::1%eth0"], "10.0.0.1"),
            ("10.0.0.1", &["1.1.1.1, \u{e9}"], "10.0.0.1"),
        ] {
            assert_eq!(client(&proxies, peer, lines), expected, "{peer} {lines:?}");
        }
        assert_eq!(client(&TrustedProxies::default(), "127.0.0.1", &["1.1.1.1"]), "127.0.0.1");
        let everybody = trusted(&["0.0.0.0/0", "::/0"]).unwrap();
        assert_eq!(client(&everybody, "10.0.0.1", &["1.1.1.1, ::2"]), "1.1.1.1");
    }

    #[test]
    fn networks() {
        for (entry, yes, no) in [
            ("10.1.2.3/8", &["10.0.0.0", "10.255.255.255"][..], &["11.0.0.0", "::ffff:11.0.0.0", "::a00:0"][..]),
            ("::ffff:10.0.0.0/104", &["10.0.0.1", "::ffff:10.0.0.1"], &["11.0.0.1"]),
            ("::ffff:10.0.0.7", &["10.0.0.7"], &["10.0.0.8"]),
            ("::/0", &["::1", "2001:db8::1"], &["10.0.0.1"]),
            ("fd00::/8", &["fd12::1"], &["fc00::1"]),
        ] {
            let proxies = trusted(&[entry]).unwrap();
            for (ips, expected) in [(yes, true), (no, false)] {
                for ip in ips {
                    let ip: IpAddr = ip.parse().unwrap();
                    assert_eq!(proxies.trusts(ip.to_canonical()), expected, "{entry} {ip}");
                }
            }
        }
        for entry in ["", "localhost", "10.0.0.0/33", "10.0.0/8", "10.0.0.1:80", "[::1]", "::1/129", "10.0.0.0/-1", "*"]
        {
            let error = trusted(&["::1", entry]).expect_err(entry);
            assert_eq!((error.index, error.entry.as_str()), (1, entry));
            assert!(
                error.to_string().starts_with(&format!("trusted_proxies[1] {entry:?}: must be an address")),
                "{error}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_client_cannot_choose_its_address(said in "[0-9a-f.:,\" \\[\\]]{0,40}", trusted_peer: bool) {
            let proxies = trusted(&["10.0.0.0/8"]).unwrap();
            let line = format!("{said}, 1.1.1.1, 10.0.0.2");
            let (peer, expected) = if trusted_peer { ("10.0.0.1", "1.1.1.1") } else { ("2.2.2.2", "2.2.2.2") };
            prop_assert_eq!(client(&proxies, peer, &[&said, &line]), expected);
        }
    }
}
