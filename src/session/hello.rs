//! AUTH and HELLO as a client says them. Read here and nowhere else, as strictly as Redis does: what two readers would
//! take differently, one of them would take for another user.

use crate::auth::DEFAULT_USER;
use crate::command::quoted;
use crate::resp::parse_int;
use crate::resp::reply::Protocol;
use crate::resp::request::{self, Args};
use bytes::BytesMut;
use std::fmt;

/// Who a client says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    user: Option<Vec<u8>>,
    password: Vec<u8>,
}

impl Login {
    /// What AUTH says, or `None` where that is no AUTH of one or two arguments.
    pub fn of_auth(args: &Args<'_>) -> Option<Self> {
        let is_auth = args.name().eq_ignore_ascii_case(b"auth");
        match (args.len(), args.get(1)?, args.get(2)) {
            (2, password, None) if is_auth => Some(Self { user: None, password: password.to_vec() }),
            (3, user, Some(password)) if is_auth => {
                Some(Self { user: Some(user.to_vec()), password: password.to_vec() })
            }
            _ => None,
        }
    }

    /// The user: Redis's `default` where none was named.
    pub fn user(&self) -> &[u8] {
        self.user.as_deref().unwrap_or(DEFAULT_USER)
    }

    /// The password.
    pub fn password(&self) -> &[u8] {
        &self.password
    }

    /// Whether the password stands alone.
    pub fn is_password_alone(&self) -> bool {
        self.user.is_none()
    }

    /// The AUTH command that says the same.
    pub fn words(&self) -> Vec<&[u8]> {
        [Some(&b"AUTH"[..]), self.user.as_deref(), Some(&self.password)].into_iter().flatten().collect()
    }
}

/// What HELLO asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Hello {
    /// The protocol, if one was named.
    pub protocol: Option<Protocol>,
    /// AUTH; the last where there are several, as at Redis.
    pub login: Option<Login>,
    /// SETNAME.
    pub name: Option<Vec<u8>>,
}

/// What is wrong with a HELLO. Its Display is the reply, in Redis's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HelloError {
    /// The version is not a number.
    NotInteger,
    /// The version is neither 2 nor 3.
    UnknownProtocol,
    /// Not an option, or one that lacks its arguments.
    Option(String),
    /// A name that no client may have.
    Name,
}

impl fmt::Display for HelloError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInteger => f.write_str("ERR Protocol version is not an integer or out of range"),
            Self::UnknownProtocol => f.write_str("NOPROTO unsupported protocol version"),
            Self::Option(option) => write!(f, "ERR Syntax error in HELLO option '{option}'"),
            Self::Name => f.write_str(BAD_NAME),
        }
    }
}

/// A name is not one that a client may have.
pub const BAD_NAME: &str = "ERR Client names cannot contain spaces, newlines or special characters.";

impl Hello {
    /// Reads `HELLO [version [AUTH user password] [SETNAME name]]`. The arguments must all be there.
    ///
    /// # Errors
    /// The first thing that Redis would complain of.
    pub fn parse(args: &Args<'_>) -> Result<Self, HelloError> {
        let protocol = match args.get(1).map(parse_int) {
            None => None,
            Some(Some(2)) => Some(Protocol::Resp2),
            Some(Some(3)) => Some(Protocol::Resp3),
            Some(Some(_)) => return Err(HelloError::UnknownProtocol),
            Some(None) => return Err(HelloError::NotInteger),
        };
        let mut hello = Self { protocol, login: None, name: None };
        let mut options = args.from(2);
        while let Some(option) = options.next() {
            let bad_option = || HelloError::Option(quoted(option));
            if option.eq_ignore_ascii_case(b"auth") {
                let (user, password) = options.next().zip(options.next()).ok_or_else(bad_option)?;
                hello.login = Some(Login { user: Some(user.to_vec()), password: password.to_vec() });
            } else if option.eq_ignore_ascii_case(b"setname") {
                let name = options.next().ok_or_else(bad_option)?;
                if !is_client_name(name) {
                    return Err(HelloError::Name);
                }
                hello.name = Some(name.to_vec());
            } else {
                return Err(bad_option());
            }
        }
        Ok(hello)
    }

    /// Writes the request without its login, which is then not for Redis to know.
    pub fn write_without_login(&self) -> BytesMut {
        let version = self.protocol.map(|protocol| if protocol == Protocol::Resp3 { &b"3"[..] } else { b"2" });
        let name = self.name.as_deref().map(|name| [&b"SETNAME"[..], name]);
        let words: Vec<&[u8]> = [&b"HELLO"[..]].into_iter().chain(version).chain(name.into_iter().flatten()).collect();
        let mut raw = BytesMut::new();
        request::write(&mut raw, &words);
        raw
    }
}

/// Whether a client may have this name, as Redis has it.
pub fn is_client_name(name: &[u8]) -> bool {
    name.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::request::{Limits, Parser};

    fn parse(line: &str) -> Result<Hello, HelloError> {
        let mut parser = Parser::default();
        parser.parse(line.as_bytes(), Limits::of_bulk(100)).unwrap();
        Hello::parse(&parser.args(line.as_bytes()))
    }

    fn login(user: &str, password: &str) -> Option<Login> {
        Some(Login { user: Some(user.into()), password: password.into() })
    }

    #[test]
    fn options_are_told_from_their_arguments() {
        let protocol = Some(Protocol::Resp2);
        for (line, login, name) in [
            ("HELLO 2\r\n", None, None),
            ("HELLO 2 SETNAME auth AUTH alice pw\r\n", login("alice", "pw"), Some("auth")),
            ("hello 2 auth setname s3cret\r\n", login("setname", "s3cret"), None),
            ("HELLO 2 AUTH auth auth setName AUTH\r\n", login("auth", "auth"), Some("AUTH")),
            ("HELLO 2 AUTH a b AUTH c d\r\n", login("c", "d"), None),
        ] {
            let name = name.map(|name: &str| name.as_bytes().to_vec());
            assert_eq!(parse(line), Ok(Hello { protocol, login, name }), "{line}");
        }
        assert_eq!(parse("HELLO\r\n"), Ok(Hello { protocol: None, login: None, name: None }));
    }

    #[test]
    fn what_redis_refuses_is_refused_in_its_words() {
        for (line, error) in [
            ("HELLO x\r\n", "ERR Protocol version is not an integer or out of range"),
            ("HELLO AUTH a b\r\n", "ERR Protocol version is not an integer or out of range"),
            ("HELLO 4\r\n", "NOPROTO unsupported protocol version"),
            ("HELLO 3 AUTH a\r\n", "ERR Syntax error in HELLO option 'AUTH'"),
            ("HELLO 3 SETNAME\r\n", "ERR Syntax error in HELLO option 'SETNAME'"),
            ("HELLO 3 FOO\r\n", "ERR Syntax error in HELLO option 'FOO'"),
            ("HELLO 3 SETNAME \"a b\"\r\n", BAD_NAME),
        ] {
            assert_eq!(parse(line).unwrap_err().to_string(), error, "{line}");
        }
    }

    #[test]
    fn without_its_login_the_rest_is_said() {
        for (line, rest) in [
            ("HELLO 3 SETNAME auth AUTH a b\r\n", "*4\r\n$5\r\nHELLO\r\n$1\r\n3\r\n$7\r\nSETNAME\r\n$4\r\nauth\r\n"),
            ("HELLO 2 AUTH setname b\r\n", "*2\r\n$5\r\nHELLO\r\n$1\r\n2\r\n"),
        ] {
            assert_eq!(parse(line).unwrap().write_without_login(), rest, "{line}");
        }
    }
}
