//! Where to listen, and with which certificate: AMQP, the management API, Prometheus.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::super::super::origin::Origin;
use super::super::super::raw::RawValue;
use super::super::conf::Line;
use super::super::value::endpoint;
use super::super::{Translator, Unit};

/// The keys here of one protocol's listeners.
struct Target {
    bind: &'static str,
    port: &'static str,
    tls_port: &'static str,
    listen: &'static str,
    tls_listen: &'static str,
}

const AMQP: Target = Target {
    bind: "amqp.bind",
    port: "amqp.port",
    tls_port: "amqp.tls_port",
    listen: "amqp.listen",
    tls_listen: "amqp.tls_listen",
};
const MANAGEMENT: Target = Target {
    bind: "management.bind",
    port: "management.port",
    tls_port: "management.tls_port",
    listen: "management.listen",
    tls_listen: "management.tls_listen",
};
const PROMETHEUS: Target = Target {
    bind: "prometheus.bind",
    port: "prometheus.port",
    tls_port: "prometheus.tls_port",
    listen: "prometheus.listen",
    tls_listen: "prometheus.tls_listen",
};

/// RabbitMQ listens on all addresses unless it is told otherwise.
const EVERYWHERE: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// An address to listen on, and where it was named.
type ListenAddress = (SocketAddr, Origin);

pub(super) fn translate(translator: &mut Translator<'_>, main: &Origin) {
    let tcp =
        amqp(translator, "listeners.tcp").unwrap_or_else(|| vec![(SocketAddr::new(EVERYWHERE, 5672), main.clone())]);
    let ssl = amqp(translator, "listeners.ssl").unwrap_or_default();
    listen(translator, &AMQP, main, tcp, ssl);
    proxy_protocol(translator);
    http(translator, &MANAGEMENT, main, "management", [15_672, 15_671]);
    http(translator, &PROMETHEUS, main, "prometheus", [15_692, 15_691]);
}

/// The listeners below a key; None where there is nothing of them, and an empty list where they are turned off.
fn amqp(translator: &mut Translator<'_>, key: &str) -> Option<Vec<ListenAddress>> {
    let conf = translator.conf;
    if let Some(line) = conf.get(key) {
        if line.value == "none" {
            return Some(Vec::new());
        }
        translator.refuse(line, &format!("expected none; an address is written as {key}.1 = 127.0.0.1:5672"));
    }
    let mut lines = conf.under(key);
    // Its port is the one that people look for.
    lines.sort_by_key(|line| line.part(2) != "default");
    let mut places = Vec::new();
    for line in &lines {
        let Some(text) = translator.text(line) else { continue };
        match endpoint(&text) {
            Ok(address) => places.push((address, line.origin.clone())),
            Err(expected) => translator.unreadable(line, &expected),
        }
    }
    (!lines.is_empty()).then_some(places)
}

/// Sets the keys of a protocol. The first address without TLS, or with it, is the one of `bind` and the port.
fn listen(
    translator: &mut Translator<'_>,
    target: &Target,
    main: &Origin,
    tcp: Vec<ListenAddress>,
    ssl: Vec<ListenAddress>,
) {
    let first = tcp.first().or_else(|| ssl.first()).cloned();
    let (first, first_origin) = first.unwrap_or_else(|| (SocketAddr::new(EVERYWHERE, 0), main.clone()));
    let bind = first.ip();
    translator.set(target.bind, first_origin, RawValue::Text(bind.to_string()));
    // Only what listens on that address can be told by its port alone.
    for (places, port_key, listen_key) in [(tcp, target.port, target.listen), (ssl, target.tls_port, target.tls_listen)]
    {
        let mut places = places;
        let own = places.iter().position(|(address, _)| address.ip() == bind).map(|index| places.remove(index));
        let (port, origin) = match own {
            Some((address, origin)) => (i64::from(address.port()), origin),
            None => (-1, places.first().map_or_else(|| main.clone(), |place| place.1.clone())),
        };
        translator.set(port_key, origin, RawValue::Integer(port));
        if let Some((_, origin)) = places.first() {
            let origin = origin.clone();
            let texts = places.into_iter().map(|(address, origin)| (origin, address.to_string())).collect();
            translator.set_list(listen_key, origin, texts);
        }
    }
}

fn proxy_protocol(translator: &mut Translator<'_>) {
    let Some(line) = translator.conf.get("proxy_protocol") else { return };
    let Some(is_on) = translator.boolean("proxy_protocol") else { return };
    translator.set("amqp.proxy_protocol", line.origin.clone(), RawValue::Boolean(is_on));
    if is_on {
        let everybody = ["0.0.0.0/0", "::/0"].map(|network| (line.origin.clone(), network.to_owned()));
        translator.set_list("amqp.proxy_trusted", line.origin.clone(), everybody.to_vec());
        translator.remark(
            line,
            "every peer is believed what it says of its address, as in RabbitMQ; amqp.proxy_trusted limits that",
        );
    }
}

/// The listeners of a protocol over HTTP. Where only those with TLS are named, there are no others.
fn http(translator: &mut Translator<'_>, target: &Target, main: &Origin, section: &'static str, ports: [u16; 2]) {
    let old = old_listener(translator, section);
    let mut place = |kind: &str, usual: u16| {
        let conf = translator.conf;
        let key = |name: &str| conf.get(&format!("{section}.{kind}.{name}"));
        let listener = key("listener");
        if let Some(line) = listener {
            if line.value == "none" {
                return Some(None);
            }
            return match endpoint(&line.value) {
                Ok(address) => Some(Some((address, line.origin.clone()))),
                Err(expected) => {
                    translator.unreadable(line, &expected);
                    None
                }
            };
        }
        let (ip, port) = (key("ip"), key("port"));
        let certificate = if kind == "ssl" { key("certfile") } else { None };
        let named = port.or(ip).or(certificate)?;
        let address = ip.map_or(Some(EVERYWHERE), |line| address(translator, line))?;
        let port = port.map_or(Some(usual), |line| port_of(translator, line))?;
        Some(Some((SocketAddr::new(address, port), named.origin.clone())))
    };
    let (mut tcp, mut ssl) = (place("tcp", ports[0]), place("ssl", ports[1]));
    if let Some((place, has_tls)) = old {
        let slot = if has_tls { &mut ssl } else { &mut tcp };
        if slot.is_none() {
            *slot = Some(Some(place));
        }
    }
    let tcp = match (tcp, &ssl) {
        (Some(tcp), _) => tcp,
        (None, Some(Some(_))) => None,
        (None, _) => Some((SocketAddr::new(EVERYWHERE, ports[0]), main.clone())),
    };
    listen(translator, target, main, tcp.into_iter().collect(), ssl.flatten().into_iter().collect());
    certificate(translator, section);
}

/// The form of RabbitMQ 3.7: `management.listener.port`, and whether it has TLS.
fn old_listener(translator: &mut Translator<'_>, section: &str) -> Option<(ListenAddress, bool)> {
    let conf = translator.conf;
    let key = |name: &str| conf.get(&format!("{section}.listener.{name}"));
    let has_tls = translator.boolean(&format!("{section}.listener.ssl")).unwrap_or(false);
    let (ip, port) = (key("ip"), key("port"));
    let named = port.or(ip)?;
    let address = ip.map_or(Some(EVERYWHERE), |line| address(translator, line))?;
    let usual = if has_tls { 15_671 } else { 15_672 };
    let port = port.map_or(Some(usual), |line| port_of(translator, line))?;
    Some(((SocketAddr::new(address, port), named.origin.clone()), has_tls))
}

fn address(translator: &mut Translator<'_>, line: &Line) -> Option<IpAddr> {
    let text = translator.text(line)?;
    match Unit::Address.translate(&text) {
        Ok(translated) => match translated.value {
            RawValue::Text(text) => text.parse().ok(),
            _ => None,
        },
        Err(expected) => {
            translator.unreadable(line, &expected);
            None
        }
    }
}

fn port_of(translator: &mut Translator<'_>, line: &Line) -> Option<u16> {
    let text = translator.text(line)?;
    let port = text.parse().ok();
    if port.is_none() {
        translator.unreadable(line, "expected a port from 0 to 65535");
    }
    port
}

/// A certificate of its own, where it is another one than that of `ssl_options`.
fn certificate(translator: &mut Translator<'_>, section: &'static str) {
    let (certificate_key, key_key) = match section {
        "management" => ("management.certificate_file", "management.key_file"),
        _ => ("prometheus.certificate_file", "prometheus.key_file"),
    };
    let conf = translator.conf;
    let own = |name: &str| {
        let old = format!("{section}.listener.ssl_opts.{name}");
        conf.get(&format!("{section}.ssl.{name}")).or_else(|| conf.get(&old))
    };
    let (certificate, key) = (own("certfile"), own("keyfile"));
    let is_shared = |line: Option<&Line>, name: &str| {
        line.map(|line| &line.value) == conf.get(&format!("ssl_options.{name}")).map(|line| &line.value)
    };
    if is_shared(certificate, "certfile") && is_shared(key, "keyfile") {
        return;
    }
    for (line, path) in [(certificate, certificate_key), (key, key_key)] {
        if let Some(line) = line {
            translator.apply(line, path, Unit::Text);
        }
    }
}
