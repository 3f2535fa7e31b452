//! Who may look: the users of the configuration, and whoever has `http.token`.

use crate::auth::{Auth, DEFAULT_USER, Permissions};
use crate::config::{self, Commands, PasswordHash, User};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::sync::Arc;

/// Those of whom one has to let a visitor in; none if nobody is asked.
pub struct Logins(Vec<Auth>);

impl Logins {
    /// The users of `auth`, as far as they are known here, and the `token`, which is one more password of the user
    /// `default`.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new(auth: &config::Auth, token: Option<&PasswordHash>) -> Result<Self, String> {
        let users = match auth {
            config::Auth::Password(users) => Some(users.clone()),
            config::Auth::None | config::Auth::Redis => None,
        };
        let of_token = token.map(|token| {
            let name = String::from_utf8_lossy(DEFAULT_USER).into_owned();
            vec![User { name, passwords: vec![token.clone()], commands: Commands::All, key_prefix: String::new() }]
        });
        let lists = users.into_iter().chain(of_token);
        lists.map(|users| Auth::new(&config::Auth::Password(users))).collect::<Result<_, _>>().map(Self)
    }

    /// Whether anybody is asked who it is.
    pub fn ask(&self) -> bool {
        !self.0.is_empty()
    }

    /// What whoever sends this header `Authorization` may do, if that is somebody.
    pub fn check(&self, authorization: &[u8]) -> Option<Arc<Permissions>> {
        let (user, password) = credentials(authorization)?;
        // All are looked through, so that the time this takes does not tell which one it was.
        let found: Vec<_> = self.0.iter().map(|auth| auth.check(&user, &password, None)).collect();
        found.into_iter().flatten().next()
    }
}

/// User and password of `Basic` (RFC 7617), or of `Bearer` (RFC 6750), which names no user.
fn credentials(header: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (scheme, rest) = std::str::from_utf8(header).ok()?.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some((DEFAULT_USER.to_vec(), rest.as_bytes().to_vec()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = STANDARD.decode(rest).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    let (user, password) = pair.split_at_checked(colon)?;
    Some((user.to_vec(), password.get(1..)?.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(pair: &str) -> String {
        format!("Basic {}", STANDARD.encode(pair))
    }

    fn user(name: &str, password: &str, commands: Commands) -> User {
        let passwords = vec![PasswordHash::of(password.as_bytes())];
        User { name: name.to_owned(), passwords, commands, key_prefix: String::new() }
    }

    #[test]
    fn users_and_the_token_are_let_in() {
        let users = vec![user("default", "secret", Commands::All), user("shop", "a:b", Commands::RlOnly)];
        let token = PasswordHash::of(b"token");
        let logins = Logins::new(&config::Auth::Password(users), Some(&token)).unwrap();
        let who = |header: &str| logins.check(header.as_bytes()).map(|may| may.user.clone());
        for header in ["Bearer secret", "bearer  token", &basic("default:secret"), &basic("default:token")] {
            assert_eq!(who(header).as_deref(), Some("default"), "{header}");
        }
        assert_eq!(who(&basic("shop:a:b")).as_deref(), Some("shop"));
        let wrong =
            [&basic("shop:a"), &basic("shop:token"), &basic("secret"), "Bearer a:b", "Bearer", "Basic ?", "", "x"];
        for header in wrong {
            assert_eq!(who(header), None, "{header}");
        }
        assert!(logins.check(b"Bearer \xff").is_none());
    }

    #[test]
    fn nobody_is_asked_where_there_is_nobody_to_know() {
        assert!(!Logins::new(&config::Auth::None, None).unwrap().ask());
        let token = PasswordHash::of(b"token");
        for auth in [config::Auth::None, config::Auth::Redis] {
            let logins = Logins::new(&auth, Some(&token)).unwrap();
            assert!(logins.ask() && logins.check(b"Bearer token").is_some() && logins.check(b"Bearer x").is_none());
        }
    }
}
