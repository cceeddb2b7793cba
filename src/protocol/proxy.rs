//! The PROXY protocol, versions 1 and 2: the header with which a load balancer tells whose connection it passes on.
//!
//! What must be read of the socket is told byte for byte, so that nothing of what follows the header is taken from it.

use std::net::IpAddr;

/// The longest header of either version that is taken.
pub const HEADER_MAX: usize = 536;
/// The shortest header of all: `PROXY UNKNOWN` and a line end.
const SHORTEST: usize = 15;
/// The longest line of version 1, with its end.
const LINE_MAX: usize = 107;
const SIGNATURE_1: &[u8] = b"PROXY ";
const SIGNATURE_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const FIXED_2: usize = 16;

/// What the bytes so far are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The header has at least this many bytes more.
    Partial(usize),
    /// The connection as the client made it; None where the proxy connects for itself, or does not know.
    Complete(Option<Proxied>),
}

/// The two ends of the connection that the proxy accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proxied {
    /// Address and port of the client.
    pub source: (IpAddr, u16),
    /// The address and port it connected to.
    pub destination: (IpAddr, u16),
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    #[error("the connection does not begin with a PROXY header")]
    Missing,
    #[error("the PROXY header is longer than {HEADER_MAX} bytes, or its line than {LINE_MAX}")]
    TooLong,
    #[error("the PROXY header is malformed: {0}")]
    Malformed(&'static str),
}

/// Reads a header. `bytes` is what was read so far: never more than the last call asked for, so that a complete header is
/// all of it.
///
/// # Errors
/// As soon as the bytes cannot become a header.
pub fn parse(bytes: &[u8]) -> Result<Header, ProxyError> {
    let begins_with = |signature: &[u8]| {
        let length = bytes.len().min(signature.len());
        bytes[..length] == signature[..length]
    };
    match (begins_with(SIGNATURE_1), begins_with(SIGNATURE_2)) {
        (false, false) => Err(ProxyError::Missing),
        _ if bytes.len() < SHORTEST => Ok(Header::Partial(SHORTEST - bytes.len())),
        (true, _) => line(bytes),
        (false, true) => binary(bytes),
    }
}

/// Version 1: `PROXY TCP4 192.0.2.1 192.0.2.2 56324 5672\r\n`.
fn line(bytes: &[u8]) -> Result<Header, ProxyError> {
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else {
        let missing = if bytes.ends_with(b"\r") { 1 } else { 2 };
        return if bytes.len() + missing > LINE_MAX { Err(ProxyError::TooLong) } else { Ok(Header::Partial(missing)) };
    };
    if end + 2 != bytes.len() {
        return Err(ProxyError::Malformed("bytes after the line"));
    }
    let text = std::str::from_utf8(&bytes[SIGNATURE_1.len()..end]).map_err(|_| ProxyError::Malformed("not ASCII"))?;
    let words: Vec<&str> = text.split(' ').collect();
    let is_ipv4 = match words[0] {
        // Whatever follows is to be ignored.
        "UNKNOWN" => return Ok(Header::Complete(None)),
        "TCP4" => true,
        "TCP6" => false,
        _ => return Err(ProxyError::Malformed("neither TCP4, TCP6 nor UNKNOWN")),
    };
    let [_, source, destination, source_port, destination_port] = words[..] else {
        return Err(ProxyError::Malformed("not two addresses and two ports"));
    };
    let address = |text: &str| {
        let address: IpAddr = text.parse().map_err(|_| ProxyError::Malformed("not an address"))?;
        if address.is_ipv4() == is_ipv4 { Ok(address) } else { Err(ProxyError::Malformed("address of another family")) }
    };
    let port = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| digits).ok_or(ProxyError::Malformed("not a port"))
    };
    Ok(Header::Complete(Some(Proxied {
        source: (address(source)?, port(source_port)?),
        destination: (address(destination)?, port(destination_port)?),
    })))
}

/// Version 2.
fn binary(bytes: &[u8]) -> Result<Header, ProxyError> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED_2>() else {
        return Ok(Header::Partial(FIXED_2 - bytes.len()));
    };
    let [.., command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if FIXED_2 + length > HEADER_MAX {
        return Err(ProxyError::TooLong);
    }
    if rest.len() < length {
        return Ok(Header::Partial(length - rest.len()));
    }
    if rest.len() > length {
        return Err(ProxyError::Malformed("bytes after the header"));
    }
    match command {
        // The proxy itself, to see whether the broker is well.
        0x20 => return Ok(Header::Complete(None)),
        0x21 => {}
        _ => return Err(ProxyError::Malformed("neither version 2, LOCAL nor PROXY")),
    }
    // The further fields that may follow the addresses are nothing that the broker uses.
    match family {
        0x11 => addresses::<4>(rest),
        0x21 => addresses::<16>(rest),
        // Unix sockets, datagrams and what is not told: the proxy's own address counts.
        _ => Ok(Header::Complete(None)),
    }
}

fn addresses<const LENGTH: usize>(bytes: &[u8]) -> Result<Header, ProxyError>
where
    IpAddr: From<[u8; LENGTH]>,
{
    let short = ProxyError::Malformed("too short for its addresses");
    let (source, rest) = bytes.split_first_chunk::<LENGTH>().ok_or(short)?;
    let (destination, rest) = rest.split_first_chunk::<LENGTH>().ok_or(short)?;
    let (ports, _) = rest.split_first_chunk::<4>().ok_or(short)?;
    let [a, b, c, d] = *ports;
    Ok(Header::Complete(Some(Proxied {
        source: (IpAddr::from(*source), u16::from_be_bytes([a, b])),
        destination: (IpAddr::from(*destination), u16::from_be_bytes([c, d])),
    })))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn proxied(source: &str, source_port: u16, destination: &str, destination_port: u16) -> Header {
        let address = |text: &str| text.parse().expect("an address");
        Header::Complete(Some(Proxied {
            source: (address(source), source_port),
            destination: (address(destination), destination_port),
        }))
    }

    fn version_2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).expect("a short payload").to_be_bytes();
        [SIGNATURE_2, &[command, family], &length, payload].concat()
    }

    /// Reads as the server does: never more than what was asked for. Returns what is left of `input`.
    fn read(input: &[u8]) -> (Result<Header, ProxyError>, &[u8]) {
        let mut taken = 0;
        loop {
            match parse(&input[..taken]) {
                Ok(Header::Partial(0)) => panic!("nothing asked for"),
                Ok(Header::Partial(missing)) if taken < input.len() => taken = (taken + missing).min(input.len()),
                outcome => return (outcome, &input[taken..]),
            }
        }
    }

    #[test]
    fn lines_of_version_1() {
        let four = proxied("192.0.2.1", 56324, "192.0.2.2", 5672);
        let cases: [(&[u8], Result<Header, ProxyError>); 10] = [
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 5672\r\n", Ok(four)),
            (b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n", Ok(proxied("2001:db8::1", 1, "::1", 65535))),
            (b"PROXY UNKNOWN\r\n", Ok(Header::Complete(None))),
            (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", Ok(Header::Complete(None))),
            (b"PROXY TCP4 2001:db8::1 ::1 1 2\r\n", Err(ProxyError::Malformed("address of another family"))),
            (
                b"PROXY TCP4 192.0.2.1 192.0.2.2 56324\r\n",
                Err(ProxyError::Malformed("not two addresses and two ports")),
            ),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 5672\r\n", Err(ProxyError::Malformed("not a port"))),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 +1 5672\r\n", Err(ProxyError::Malformed("not a port"))),
            (b"PROXY TCP4 192.0.2.256 192.0.2.2 1 5672\r\n", Err(ProxyError::Malformed("not an address"))),
            (b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n", Err(ProxyError::Malformed("neither TCP4, TCP6 nor UNKNOWN"))),
        ];
        for (input, expected) in cases {
            let with_amqp = [input, b"AMQP\0\0\x09\x01"].concat();
            let (outcome, rest) = read(&with_amqp);
            assert_eq!(outcome, expected, "{}", String::from_utf8_lossy(input));
            assert_eq!(rest, b"AMQP\0\0\x09\x01", "{}", String::from_utf8_lossy(input));
        }
        assert_eq!(read(&[b"PROXY ", [b'x'; 200].as_slice()].concat()).0, Err(ProxyError::TooLong));
    }

    #[test]
    fn headers_of_version_2() {
        let four = [192, 0, 2, 1, 10, 0, 0, 9, 0xDC, 0x04, 0x16, 0x28];
        let six = [[0; 15].as_slice(), &[1], &[0; 15], &[2], &[0, 1, 0, 2]].concat();
        let with_fields = [four.as_slice(), &[0x03, 0, 4, 1, 2, 3, 4]].concat();
        let answer = proxied("192.0.2.1", 56324, "10.0.0.9", 5672);
        let short = Err(ProxyError::Malformed("too short for its addresses"));
        let cases = [
            (version_2(0x21, 0x11, &four), Ok(answer)),
            (version_2(0x21, 0x11, &with_fields), Ok(answer)),
            (version_2(0x21, 0x21, &six), Ok(proxied("::1", 1, "::2", 2))),
            (version_2(0x20, 0x00, &[]), Ok(Header::Complete(None))),
            (version_2(0x20, 0x11, &four), Ok(Header::Complete(None))),
            (version_2(0x21, 0x31, &[0; 216]), Ok(Header::Complete(None))),
            (version_2(0x21, 0x11, &four[..11]), short),
            (version_2(0x21, 0x21, &six[..35]), short),
            (version_2(0x11, 0x11, &four), Err(ProxyError::Malformed("neither version 2, LOCAL nor PROXY"))),
            (version_2(0x22, 0x11, &four), Err(ProxyError::Malformed("neither version 2, LOCAL nor PROXY"))),
        ];
        for (input, expected) in cases {
            let with_amqp = [input.as_slice(), b"AMQP"].concat();
            assert_eq!(read(&with_amqp), (expected, b"AMQP".as_slice()), "{input:?}");
        }
        assert_eq!(read(&version_2(0x21, 0x11, &[0; 521])).0, Err(ProxyError::TooLong));
        assert_eq!(read(&version_2(0x21, 0x11, &[0; 520])).0.map(|_| ()), Ok(()));
    }

    #[test]
    fn what_is_no_header_is_told_at_once() {
        for input in [b"AMQP\0\0\x09\x01".as_slice(), b"P ", b"\r\n\r\n\r", b"\x16\x03\x01", b"GET / HTTP/1.1"] {
            assert_eq!(parse(input), Err(ProxyError::Missing), "{input:?}");
        }
        assert_eq!(parse(b""), Ok(Header::Partial(SHORTEST)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_within_the_bound(input in proptest::collection::vec(any::<u8>(), 0..700), kind in 0..3_u8) {
            let begin = [&[][..], SIGNATURE_1, SIGNATURE_2][usize::from(kind)];
            let input = [begin, &input].concat();
            let (outcome, rest) = read(&input);
            prop_assert!(input.len() - rest.len() <= HEADER_MAX);
            // All of the input was too little, or nothing more is asked for.
            if let Ok(Header::Partial(_)) = outcome {
                prop_assert!(rest.is_empty());
            }
        }

        #[test]
        fn what_is_written_is_read(source: [u8; 16], destination: [u8; 16], ports: (u16, u16), four: bool, fields in 0..400_usize) {
            let (source, destination) = if four {
                let cut = |bytes: [u8; 16]| IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]);
                (cut(source), cut(destination))
            } else {
                (IpAddr::from(source), IpAddr::from(destination))
            };
            let expected = Header::Complete(Some(Proxied {
                source: (source, ports.0),
                destination: (destination, ports.1),
            }));
            let name = if four { "TCP4" } else { "TCP6" };
            let line = format!("PROXY {name} {source} {destination} {} {}\r\n", ports.0, ports.1);
            prop_assert_eq!(read(line.as_bytes()), (Ok(expected), [].as_slice()));

            let octets = |address: IpAddr| match address {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            };
            let mut payload = [octets(source), octets(destination)].concat();
            payload.extend([ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat());
            payload.resize(payload.len() + fields, 0);
            let binary = version_2(0x21, if four { 0x11 } else { 0x21 }, &payload);
            prop_assert_eq!(read(&binary), (Ok(expected), [].as_slice()));
        }
    }
}
