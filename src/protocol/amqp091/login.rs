//! SASL responses: PLAIN, AMQPLAIN, EXTERNAL.

use crate::model::exception::{Exception, ReplyCode};
use crate::model::names::UserName;
use crate::model::request::Mechanism;
use crate::model::table::{FieldTable, FieldValue};

/// Reads the response of `connection.start-ok`. The error's text is for the log: the client only sees its socket closed.
/// `external` is the name of the client certificate, where EXTERNAL is offered.
pub(super) fn parse(
    mechanism: &str,
    offered: &[&str],
    response: &[u8],
    external: Option<&Result<UserName, String>>,
) -> Result<Mechanism, Exception> {
    if !offered.contains(&mechanism) {
        let text = format!("unknown authentication mechanism '{mechanism}'");
        return Err(Exception::new(ReplyCode::CommandInvalid, text));
    }
    match (mechanism, external) {
        ("PLAIN", _) => plain(response),
        ("AMQPLAIN", _) => amqplain(response),
        // Nothing the client may say there counts.
        ("EXTERNAL", Some(user)) => Ok(Mechanism::External { user: user.clone() }),
        ("ANONYMOUS", _) => Ok(Mechanism::Anonymous),
        _ => Err(Exception::new(ReplyCode::CommandInvalid, format!("mechanism '{mechanism}' has no implementation"))),
    }
}

fn plain(response: &[u8]) -> Result<Mechanism, Exception> {
    let malformed = || Exception::new(ReplyCode::SyntaxError, "PLAIN response is not NUL, user, NUL, password");
    let mut parts = response.split(|byte| *byte == 0);
    let (Some(b""), Some(user), Some(password), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(malformed());
    };
    let user = std::str::from_utf8(user).map_err(|_| malformed())?;
    Ok(Mechanism::Password { user: UserName::new(user), password: password.to_vec(), mechanism: "PLAIN" })
}

fn amqplain(response: &[u8]) -> Result<Mechanism, Exception> {
    let missing = || Exception::new(ReplyCode::SyntaxError, "AMQPLAIN auth info is missing LOGIN or PASSWORD field");
    let table = FieldTable::decode(response).map_err(|_| missing())?;
    match (table.find("LOGIN"), table.find("PASSWORD")) {
        (Some(login), Some(FieldValue::LongString(password))) => Ok(Mechanism::Password {
            user: UserName::new(login.as_str().ok_or_else(missing)?),
            password: password.to_vec(),
            mechanism: "AMQPLAIN",
        }),
        _ => Err(missing()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mechanism: &str, response: &[u8]) -> Option<(String, Vec<u8>)> {
        match parse(mechanism, &["PLAIN", "AMQPLAIN"], response, None) {
            Ok(Mechanism::Password { user, password, .. }) => Some((user.to_string(), password)),
            _ => None,
        }
    }

    #[test]
    fn plain_is_nul_user_nul_password() {
        assert_eq!(read("PLAIN", b"\0guest\0secret"), Some(("guest".into(), b"secret".to_vec())));
        for malformed in [&b"guest\0secret"[..], b"x\0guest\0secret", b"\0guest", b"\0guest\0a\0b", b"\0\xff\0b", b""] {
            assert_eq!(read("PLAIN", malformed), None);
        }
        assert_eq!(read("EXTERNAL", b"\0guest\0secret"), None);
    }

    #[test]
    fn external_is_the_name_of_the_certificate_whatever_the_client_says() {
        let name = Ok("CN=client".into());
        let external = |response| parse("EXTERNAL", &["PLAIN", "EXTERNAL"], response, Some(&name));
        assert_eq!(external(b"").ok(), Some(Mechanism::External { user: Ok("CN=client".into()) }));
        assert_eq!(external(b"admin").ok(), Some(Mechanism::External { user: Ok("CN=client".into()) }));
        assert!(parse("EXTERNAL", &["PLAIN"], b"", None).is_err());
    }

    #[test]
    fn amqplain_is_a_table_without_its_length() {
        let response = b"\x05LOGINS\0\0\0\x05guest\x08PASSWORDS\0\0\0\x02pw";
        assert_eq!(read("AMQPLAIN", response), Some(("guest".into(), b"pw".to_vec())));
        assert_eq!(read("AMQPLAIN", b"\x05LOGINS\0\0\0\x05guest"), None);
    }
}
