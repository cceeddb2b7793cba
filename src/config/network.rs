//! Networks of trusted hosts, `10.0.0.0/8`, and addresses with ports to listen on, `127.0.0.1:5673`.

use std::net::{IpAddr, SocketAddr};

use super::kind::{Kind, Secrets, toml_text};
use super::origin::Problems;
use super::raw::Raw;
use super::types::Network;

/// A network in the notation of CIDR, or a single address.
pub(crate) struct Subnet;

impl Kind for Subnet {
    type Value = Network;

    fn read(&self, key: &str, raw: &Raw, problems: &mut Problems) -> Option<Network> {
        let network = raw.text().and_then(parse);
        if network.is_none() {
            self.refuse(key, raw, problems);
        }
        network
    }

    fn write(&self, value: &Network, _: Secrets) -> String {
        let Network { address, prefix } = value;
        let text = if *prefix == bits(*address) { address.to_string() } else { format!("{address}/{prefix}") };
        toml_text(&text)
    }

    fn expects(&self) -> String {
        "an IP address or a network such as \"10.0.0.0/8\"".to_owned()
    }
}

/// An address of this host and a port, that a listener binds. Port 0 is a free one.
pub(crate) struct Endpoint;

impl Kind for Endpoint {
    type Value = SocketAddr;

    fn read(&self, key: &str, raw: &Raw, problems: &mut Problems) -> Option<SocketAddr> {
        let address = raw.text().and_then(|text| text.parse().ok());
        if address.is_none() {
            self.refuse(key, raw, problems);
        }
        address
    }

    fn write(&self, value: &SocketAddr, _: Secrets) -> String {
        toml_text(&value.to_string())
    }

    fn expects(&self) -> String {
        "an IP address with a port such as \"127.0.0.1:5673\" or \"[::1]:5673\"".to_owned()
    }
}

fn parse(text: &str) -> Option<Network> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let most = bits(address);
    let prefix: u8 = prefix.map_or(Some(most), |prefix| prefix.parse().ok())?;
    if prefix > most {
        return None;
    }
    match address.to_canonical() {
        // An IPv4 network, written as IPv6 embeds it.
        canonical if canonical.is_ipv4() && address.is_ipv6() => {
            Some(Network { address: canonical, prefix: prefix.checked_sub(96)? })
        }
        _ => Some(Network { address, prefix }),
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}
