//! `amqp://user:password@host:port/vhost?heartbeat=10`.

/// Where a broker is and who logs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uri {
    /// A name or an address, IPv6 without its brackets.
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: String,
    pub vhost: String,
    /// The most channels to negotiate; 0 leaves it to the broker.
    pub channel_max: u16,
}

impl Uri {
    /// Reads a URI. What is left out is `guest:guest`, `127.0.0.1`, 5672, and the vhost `/`. Of the query,
    /// `channel_max` is used; `heartbeat` must be a number but is not used, because the generator's connections have
    /// no heartbeats; anything else is ignored.
    ///
    /// # Errors
    /// What is wrong, for the user.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest = match text.split_once("://") {
            Some(("amqp", rest)) => rest,
            Some(("amqps", _)) => return Err("TLS (amqps) is not supported".to_owned()),
            _ => return Err("expected amqp://user:password@host:port/vhost".to_owned()),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, address) = authority.rsplit_once('@').unwrap_or(("guest:guest", authority));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let (host, port) = host_and_port(address)?;
        let vhost = if path.is_empty() { "/".to_owned() } else { decode(path)? };
        if vhost.len() > 255 {
            return Err("the vhost's name is longer than 255 bytes".to_owned());
        }
        let channel_max = read_query(query)?;
        Ok(Self { host, port, user: decode(user)?, password: decode(password)?, vhost, channel_max })
    }
}

fn host_and_port(address: &str) -> Result<(String, u16), String> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or("the bracket of the IPv6 address is not closed")?;
            let port = match after {
                "" => None,
                after => Some(after.strip_prefix(':').ok_or("expected :port after the IPv6 address")?),
            };
            (host.to_owned(), port)
        }
        None => match address.split_once(':') {
            Some((host, port)) => (decode(host)?, Some(port)),
            None => (decode(address)?, None),
        },
    };
    let port = match port {
        None | Some("") => 5672,
        Some(port) => port.parse().map_err(|_| format!("{port:?} is not a port"))?,
    };
    let host = if host.is_empty() { "127.0.0.1".to_owned() } else { host };
    Ok((host, port))
}

/// Checks the query; its value is `channel_max`.
fn read_query(query: &str) -> Result<u16, String> {
    let mut channel_max = 0;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let number = || value.parse::<u16>().map_err(|_| format!("{key}={value}: expected a number up to 65535"));
        match key {
            "channel_max" => channel_max = number()?,
            "heartbeat" => drop(number()?),
            _ => {}
        }
    }
    Ok(channel_max)
}

/// Decodes `%2F` and its like.
fn decode(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        match (digit(rest.next()), digit(rest.next())) {
            (Some(high), Some(low)) => bytes.push(u8::try_from(high * 16 + low).unwrap_or_default()),
            _ => return Err(format!("{text:?}: expected two hexadecimal digits after %")),
        }
    }
    String::from_utf8(bytes).map_err(|_| format!("{text:?} is not UTF-8 once decoded"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(host: &str, port: u16, user: &str, password: &str, vhost: &str) -> Uri {
        let [host, user, password, vhost] = [host, user, password, vhost].map(str::to_owned);
        Uri { host, port, user, password, vhost, channel_max: 0 }
    }

    #[test]
    fn everything_has_a_default() {
        let plain = uri("127.0.0.1", 5672, "guest", "guest", "/");
        for text in
            ["amqp://", "amqp:///", "amqp://guest:guest@127.0.0.1:5672/", "amqp://127.0.0.1/%2f", "amqp://:5672"]
        {
            assert_eq!(Uri::parse(text).as_ref(), Ok(&plain), "{text}");
        }
    }

    #[test]
    fn parts_are_percent_decoded() {
        let parsed = Uri::parse("amqp://a%40b:p%3a%2F%25@broker.example:5673/v%2fh%C3%B6st");
        assert_eq!(parsed, Ok(uri("broker.example", 5673, "a@b", "p:/%", "v/höst")));
        assert_eq!(Uri::parse("amqp://u:p@h/my vhost"), Ok(uri("h", 5672, "u", "p", "my vhost")));
        assert_eq!(Uri::parse("amqp://u@h//"), Ok(uri("h", 5672, "u", "", "/")));
    }

    #[test]
    fn ipv6_addresses_stand_in_brackets() {
        assert_eq!(Uri::parse("amqp://[::1]:5680/"), Ok(uri("::1", 5680, "guest", "guest", "/")));
        assert_eq!(Uri::parse("amqp://u:p@[fe80::1]"), Ok(uri("fe80::1", 5672, "u", "p", "/")));
        assert!(Uri::parse("amqp://[::1").is_err());
        assert!(Uri::parse("amqp://[::1]5672").is_err());
    }

    #[test]
    fn the_query_is_read_gracefully() {
        let parsed = Uri::parse("amqp://h/v?heartbeat=30&channel_max=12&connection_timeout=1&verify").unwrap();
        assert_eq!((parsed.vhost.as_str(), parsed.channel_max), ("v", 12));
        assert_eq!(Uri::parse("amqp://h?channel_max=7").unwrap().channel_max, 7);
        assert!(Uri::parse("amqp://h/?heartbeat=often").unwrap_err().contains("heartbeat=often"));
        assert!(Uri::parse("amqp://h/?channel_max=65536").is_err());
    }

    #[test]
    fn mistakes_are_named() {
        assert!(Uri::parse("localhost:5672").unwrap_err().contains("amqp://"));
        assert!(Uri::parse("amqps://localhost").unwrap_err().contains("TLS"));
        assert!(Uri::parse("amqp://h:99999").unwrap_err().contains("99999"));
        assert!(Uri::parse("amqp://h/%2").unwrap_err().contains("hexadecimal"));
        assert!(Uri::parse("amqp://h/%ff").unwrap_err().contains("UTF-8"));
    }
}
