//! Authentication: who is let in, and what they may do there: users of the configuration, and a memory of whom Redis has let in.
//!
//! Nothing here speaks to Redis or to a client. The wording is Redis's, because clients match on it.

use crate::command::OwnCommand;
use crate::config::{self, Commands, PasswordHash, PolicyRights, User};
use ring::hmac;
use ring::rand::SystemRandom;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use subtle::{Choice, ConstantTimeEq};

/// Most logins of Redis's users that are remembered; the oldest make room.
const MAX_REMEMBERED: usize = 10_000;
/// How long before Redis went away it must have accepted a login for that to hold while it is away. A user who is
/// deleted or locked by then, and of whom no connection told so, comes in for no outage that begins later.
pub const REMEMBERED_FOR: Duration = Duration::from_secs(600);
/// The user whom `AUTH password` means.
pub const DEFAULT_USER: &[u8] = b"default";

/// A client has yet to say who it is.
pub const NO_AUTH: &str = "NOAUTH Authentication required.";
/// It says HELLO without saying who it is.
pub const NO_AUTH_HELLO: &str = "NOAUTH HELLO must be called with the client already authenticated, otherwise the \
     HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol \
     version at the same time";
/// It is not who it says.
pub const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";
/// It is somebody who may not run this.
pub const NO_PERMISSION: &str = "NOPERM this user may run Tollgate's own commands only";
/// It is somebody who may not learn of other keys than its own.
pub const NOT_ALL_KEYS: &str = "NOPERM this user has a key prefix, and this tells of all keys";
/// It is somebody who may not change policies.
pub const NO_POLICIES: &str = "NOPERM this user may not change policies or see overrides: it takes commands = \"admin\" \
     (auth.users), or auth.policies = \"all\"";
/// It is of another machine, and nobody asks who it is. It is told and the connection closes.
pub const DENIED: &str = "DENIED Tollgate is running in protected mode: no password is asked for, and so only clients \
     of its own machine are let in. To let in others, require a password (auth.mode = \"password\" or \
     \"redis\"), or, if nobody but your own clients can reach this address, set server.protected_mode = false. To let \
     in this machine's alone, listen on a loopback address.";

/// What a client may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permissions {
    /// Who it is.
    pub user: String,
    /// What it may run.
    pub commands: Commands,
    /// What is put before each key of its `RL.` commands.
    pub key_prefix: String,
}

impl Permissions {
    /// Those of whoever comes in where nobody is asked.
    pub fn unrestricted() -> Self {
        let user = String::from_utf8_lossy(DEFAULT_USER).into_owned();
        Self { user, commands: Commands::All, key_prefix: String::new() }
    }

    /// Whether it may be told of everybody's keys.
    pub fn may_see_all_keys(&self) -> bool {
        self.key_prefix.is_empty()
    }

    /// Whether it may change policies. `is_local` tells that nobody is asked who it is, and it is of this machine.
    pub fn may_change_policies(&self, rights: PolicyRights, is_local: bool) -> bool {
        self.may_see_all_keys()
            && match self.commands {
                Commands::Admin => true,
                Commands::All => rights == PolicyRights::All || is_local,
                Commands::RlOnly => false,
            }
    }
}

/// Who may come in.
#[derive(Debug)]
pub enum Auth {
    /// Everyone.
    None(Arc<Permissions>),
    /// The users of the configuration.
    Password(Users),
    /// Whom Redis lets in.
    Redis(Box<Remembered>),
}

impl Auth {
    /// As configured.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new(config: &config::Auth) -> Result<Self, String> {
        Ok(match config {
            config::Auth::None => Self::None(Arc::new(Permissions::unrestricted())),
            config::Auth::Password(users) => Self::Password(Users::new(users)),
            config::Auth::Redis => Self::Redis(Box::new(Remembered::new()?)),
        })
    }

    /// What a client may do that has not said who it is: nothing, unless nobody asks. RESET brings a client back here.
    pub fn before_login(&self) -> Option<Arc<Permissions>> {
        match self {
            Self::None(permissions) => Some(permissions.clone()),
            Self::Password(_) | Self::Redis(_) => None,
        }
    }

    /// What a client may do that logs in so, as far as that is known without asking Redis, which has been away since
    /// `down_since`. `None` if it may not come in, or if only Redis could tell.
    pub fn check(&self, user: &[u8], password: &[u8], down_since: Option<Instant>) -> Option<Arc<Permissions>> {
        match self {
            // As a Redis without a password does.
            Self::None(permissions) => (user == DEFAULT_USER).then(|| permissions.clone()),
            Self::Password(users) => users.check(user, password),
            Self::Redis(remembered) => remembered.check(user, password, down_since.unwrap_or_else(Instant::now)),
        }
    }

    /// Redis has let a client in that logged in so. What the client may do.
    pub fn accepted(&self, user: &[u8], password: &[u8]) -> Option<Arc<Permissions>> {
        match self {
            Self::None(permissions) => Some(permissions.clone()),
            Self::Password(_) => None,
            Self::Redis(remembered) => Some(remembered.accepted(user, password)),
        }
    }

    /// A connection that had logged in so was open until now. What Redis has refused meanwhile stays refused.
    pub fn confirmed(&self, user: &[u8], password: &[u8]) {
        if let Self::Redis(remembered) = self {
            remembered.confirmed(user, password);
        }
    }

    /// Redis has refused a client that logged in so: a password that was changed lets nobody in any more.
    pub fn refused(&self, user: &[u8], password: &[u8]) {
        if let Self::Redis(remembered) = self {
            remembered.refused(user, password);
        }
    }

    /// Whether protected mode keeps a client at `peer` out: nobody asks who it is, and it is not of this machine.
    pub fn protects_from(&self, peer: IpAddr) -> bool {
        matches!(self, Self::None(_)) && !peer.to_canonical().is_loopback()
    }
}

/// What a client library says at its start, and what can be known without touching the data of anyone: Tollgate answers
/// it itself to who may run nothing else, and while Redis is down.
pub const ANSWERED_HERE: [&[u8]; 10] =
    [b"ping", b"echo", b"hello", b"auth", b"select", b"client", b"command", b"info", b"reset", b"quit"];

/// What libraries say at their start that know of clusters, and with a request that was redirected: nothing is told of
/// the cluster behind.
const OF_CLUSTERS: [&[u8]; 4] = [b"cluster", b"readonly", b"readwrite", b"asking"];

/// Why a client may not run the command of this name, if it may not. `permissions` are `None` until it has logged in.
pub fn refusal(permissions: Option<&Permissions>, name: &[u8]) -> Option<&'static str> {
    const BEFORE_LOGIN: [&[u8]; 4] = [b"auth", b"hello", b"quit", b"reset"];
    // Libraries wrap pipelines in these; of others the transaction could hold none.
    const TRANSACTION: [&[u8]; 3] = [b"multi", b"exec", b"discard"];
    let is_one_of = |names: &[&[u8]]| names.iter().any(|other| name.eq_ignore_ascii_case(other));
    let own = || OwnCommand::of(name);
    // Most users have none, and need not be asked for the name of the command.
    if permissions.is_some_and(|may| !may.may_see_all_keys()) && own().is_some_and(|own| own.tells_of_all_keys) {
        return Some(NOT_ALL_KEYS);
    }
    match permissions.map(|permissions| permissions.commands) {
        Some(Commands::All | Commands::Admin) => None,
        Some(Commands::RlOnly) if own().is_some_and(|own| own.is_for_rl_only) => None,
        Some(Commands::RlOnly) if is_one_of(&ANSWERED_HERE) || is_one_of(&TRANSACTION) || is_one_of(&OF_CLUSTERS) => {
            None
        }
        Some(Commands::RlOnly) => Some(NO_PERMISSION),
        None if is_one_of(&BEFORE_LOGIN) => None,
        None => Some(NO_AUTH),
    }
}

/// How long a client is to wait after so many logins that failed: not at all at first, so that a password which was
/// mistyped, or has just been changed, costs nobody anything.
pub fn pause_after(failed_logins: u32) -> Option<Duration> {
    const FREE: u32 = 2;
    const FIRST_MS: u64 = 100;
    const LONGEST_DOUBLINGS: u32 = 5;
    let doublings = failed_logins.checked_sub(FREE + 1)?.min(LONGEST_DOUBLINGS);
    Some(Duration::from_millis(FIRST_MS << doublings))
}

/// The users of the configuration, by the SHA-256 of their names: what is looked up is no longer what a client sent, so
/// that the time it takes says nothing about names that are alike.
#[derive(Debug)]
pub struct Users(HashMap<[u8; 32], KnownUser>);

#[derive(Debug)]
struct KnownUser {
    /// As many as any user may have, the last one repeated: the time that comparing takes does not tell how many.
    passwords: [PasswordHash; config::MAX_PASSWORDS],
    permissions: Arc<Permissions>,
}

impl Users {
    fn new(users: &[User]) -> Self {
        let known = users.iter().map(|user| {
            let last = user.passwords.last().cloned().unwrap_or(NOBODY);
            let mut passwords = user.passwords.iter().cloned().chain(std::iter::repeat(last));
            let known = KnownUser {
                passwords: std::array::from_fn(|_| passwords.next().unwrap_or(NOBODY)),
                permissions: Arc::new(Permissions {
                    user: user.name.clone(),
                    commands: user.commands,
                    key_prefix: user.key_prefix.clone(),
                }),
            };
            (PasswordHash::of(user.name.as_bytes()).0, known)
        });
        Self(known.collect())
    }

    /// One that is not known is compared with as much, so that the time it takes tells nobody which users there are, how
    /// many passwords one has, or how much of a hash was right. It does not grow with the number of users.
    fn check(&self, name: &[u8], password: &[u8]) -> Option<Arc<Permissions>> {
        let user = self.0.get(&PasswordHash::of(name).0);
        let password = PasswordHash::of(password).0;
        let passwords = user.map_or(&[NOBODY; config::MAX_PASSWORDS], |user| &user.passwords);
        let is_password = passwords.iter().fold(Choice::from(0), |any, hash| any | hash.0.ct_eq(&password));
        user.filter(|_| is_password.into()).map(|user| user.permissions.clone())
    }
}

/// What no password hashes to, as far as anybody knows.
const NOBODY: PasswordHash = PasswordHash([0; 32]);

/// The logins that Redis has accepted, so that known clients still come in while it is down.
///
/// Kept under an HMAC whose key is this process's own and is written nowhere: a copy of the memory's contents serves
/// nobody, not even to try passwords on.
#[derive(Debug)]
pub struct Remembered {
    key: hmac::Key,
    logins: Mutex<Logins>,
    permissions: Arc<Permissions>,
}

/// At most [`MAX_REMEMBERED`].
#[derive(Debug, Default)]
struct Logins {
    /// When Redis last accepted each, or was last seen to hold a connection that had logged in so.
    known: HashMap<Login, Instant>,
    /// The same, oldest first.
    by_age: VecDeque<Login>,
}

type Login = [u8; 32];

impl Remembered {
    fn new() -> Result<Self, String> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let key = key.map_err(|_| "the system has no random numbers to give")?;
        Ok(Self { key, logins: Mutex::default(), permissions: Arc::new(Permissions::unrestricted()) })
    }

    /// What a login may do that Redis has accepted within [`REMEMBERED_FOR`] before `then`.
    fn check(&self, user: &[u8], password: &[u8], then: Instant) -> Option<Arc<Permissions>> {
        let login = self.login(user, password);
        let confirmed = self.logins().known.get(&login).copied()?;
        (then.saturating_duration_since(confirmed) <= REMEMBERED_FOR).then(|| self.permissions.clone())
    }

    fn accepted(&self, user: &[u8], password: &[u8]) -> Arc<Permissions> {
        let login = self.login(user, password);
        let mut logins = self.logins();
        if logins.known.insert(login, Instant::now()).is_none() {
            logins.by_age.push_back(login);
        }
        if logins.known.len() > MAX_REMEMBERED
            && let Some(oldest) = logins.by_age.pop_front()
        {
            logins.known.remove(&oldest);
        }
        self.permissions.clone()
    }

    fn confirmed(&self, user: &[u8], password: &[u8]) {
        let login = self.login(user, password);
        if let Some(confirmed) = self.logins().known.get_mut(&login) {
            *confirmed = Instant::now();
        }
    }

    fn refused(&self, user: &[u8], password: &[u8]) {
        let login = self.login(user, password);
        let mut logins = self.logins();
        // The walk through all is only for a login that was once right: guesses do not cost it.
        if logins.known.remove(&login).is_some() {
            logins.by_age.retain(|other| *other != login);
        }
    }

    fn login(&self, user: &[u8], password: &[u8]) -> Login {
        let mut hash = hmac::Context::with_key(&self.key);
        // The length keeps user `ab` with password `c` apart from user `a` with password `bc`.
        hash.update(&(user.len() as u64).to_le_bytes());
        hash.update(user);
        hash.update(password);
        let mut login = Login::default();
        // Both are as long as any SHA-256.
        login.copy_from_slice(hash.sign().as_ref());
        login
    }

    fn logins(&self) -> MutexGuard<'_, Logins> {
        // No panic leaves the two halves apart: nothing between their changes can fail.
        self.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, passwords: &[&str], commands: Commands, key_prefix: &str) -> User {
        let passwords = passwords.iter().map(|password| PasswordHash::of(password.as_bytes())).collect();
        User { name: name.to_owned(), passwords, commands, key_prefix: key_prefix.to_owned() }
    }

    fn with_users() -> Auth {
        let users = vec![
            user("default", &["secret"], Commands::All, ""),
            user("shop", &["old", "new"], Commands::RlOnly, "shop:"),
        ];
        Auth::new(&config::Auth::Password(users)).unwrap()
    }

    fn with_redis() -> Auth {
        Auth::new(&config::Auth::Redis).unwrap()
    }

    #[test]
    fn a_user_comes_in_by_each_password_of_its_own() {
        let auth = with_users();
        let prefix = |user: &str, password: &str| {
            auth.check(user.as_bytes(), password.as_bytes(), None).map(|permissions| permissions.key_prefix.clone())
        };
        assert_eq!(prefix("default", "secret").as_deref(), Some(""));
        assert_eq!(prefix("shop", "old").as_deref(), Some("shop:"));
        assert_eq!(prefix("shop", "new").as_deref(), Some("shop:"));
        let wrong = [
            ("default", ""),
            ("default", "old"),
            ("default", "secret "),
            ("default", "secre"),
            ("shop", "secret"),
            ("Shop", "new"),
            ("shop2", "new"),
            ("sho", "new"),
            ("", ""),
            ("", "new"),
        ];
        for (user, password) in wrong {
            assert_eq!(prefix(user, password), None, "{user} {password}");
        }
        // The hash is not the password.
        let hash = PasswordHash::of(b"secret").0;
        assert_eq!(auth.check(b"default", &hash, None), None);
    }

    #[test]
    fn without_a_login_only_mode_none_gives_permissions() {
        assert_eq!(with_users().before_login(), None);
        assert_eq!(with_redis().before_login(), None);
        let none = Auth::new(&config::Auth::None).unwrap();
        assert_eq!(none.before_login().unwrap().commands, Commands::All);
        assert!(none.check(b"default", b"anything", None).is_some());
        assert!(none.check(b"other", b"anything", None).is_none());
    }

    #[test]
    fn redis_is_believed_and_its_last_word_counts() {
        let auth = with_redis();
        assert_eq!(auth.check(b"ab", b"c", None), None);
        assert_eq!(auth.accepted(b"ab", b"c"), auth.check(b"ab", b"c", None));
        assert!(auth.check(b"ab", b"c", None).is_some());
        for (user, password) in [(&b"a"[..], &b"bc"[..]), (b"abc", b""), (b"ab", b""), (b"ab", b"cc"), (b"", b"abc")] {
            assert_eq!(auth.check(user, password, None), None);
        }
        auth.refused(b"ab", b"other");
        assert!(auth.check(b"ab", b"c", None).is_some());
        auth.confirmed(b"ab", b"c");
        assert!(auth.check(b"ab", b"c", None).is_some());
        auth.refused(b"ab", b"c");
        auth.confirmed(b"ab", b"c");
        assert_eq!(auth.check(b"ab", b"c", None), None, "another connection that still had it says nothing");
    }

    #[test]
    fn a_login_that_was_not_seen_for_long_before_an_outage_is_none() {
        let auth = with_redis();
        auth.accepted(b"user", b"password");
        let login = |down_since| auth.check(b"user", b"password", Some(down_since)).is_some();
        let now = Instant::now();
        assert!(login(now) && login(now + REMEMBERED_FOR - Duration::from_secs(1)));
        assert!(!login(now + REMEMBERED_FOR + Duration::from_secs(1)));
    }

    #[test]
    fn the_oldest_logins_make_room() {
        let auth = with_redis();
        let login = |n: usize| auth.check(b"user", &n.to_le_bytes(), None).is_some();
        for n in 0..MAX_REMEMBERED {
            auth.accepted(b"user", &n.to_le_bytes());
            // Known already: takes no second place.
            auth.accepted(b"user", &n.to_le_bytes());
        }
        assert!(login(0) && login(MAX_REMEMBERED - 1));
        auth.refused(b"user", &5_usize.to_le_bytes());
        auth.accepted(b"new", b"");
        assert!(login(0) && !login(5));
        auth.accepted(b"newer", b"");
        assert!(!login(0) && login(1) && login(MAX_REMEMBERED - 1));
        let Auth::Redis(remembered) = &auth else { unreachable!() };
        let logins = remembered.logins();
        assert_eq!((logins.known.len(), logins.by_age.len()), (MAX_REMEMBERED, MAX_REMEMBERED));
    }

    #[test]
    fn a_command_is_refused_for_who_runs_it() {
        let [all, own] = [Commands::All, Commands::RlOnly].map(|commands| Permissions {
            user: String::new(),
            commands,
            key_prefix: String::new(),
        });
        let table = [
            ("RL.CHECK", Some(NO_AUTH), None),
            ("rl.help", Some(NO_AUTH), None),
            ("rl.unknown", Some(NO_AUTH), Some(NO_PERMISSION)),
            ("Auth", None, None),
            ("HELLO", None, None),
            ("quit", None, None),
            ("reset", None, None),
            ("PING", Some(NO_AUTH), None),
            ("info", Some(NO_AUTH), None),
            ("client", Some(NO_AUTH), None),
            ("get", Some(NO_AUTH), Some(NO_PERMISSION)),
            ("CONFIG", Some(NO_AUTH), Some(NO_PERMISSION)),
            ("eval", Some(NO_AUTH), Some(NO_PERMISSION)),
            ("multi", Some(NO_AUTH), None),
            ("watch", Some(NO_AUTH), Some(NO_PERMISSION)),
            ("subscribe", Some(NO_AUTH), Some(NO_PERMISSION)),
            ("", Some(NO_AUTH), Some(NO_PERMISSION)),
        ];
        for (name, before_login, of_rl_only) in table {
            assert_eq!(refusal(None, name.as_bytes()), before_login, "{name}");
            assert_eq!(refusal(Some(&own), name.as_bytes()), of_rl_only, "{name}");
            assert_eq!(refusal(Some(&all), name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn protected_mode_keeps_out_strangers_whom_nobody_asks() {
        let none = Auth::new(&config::Auth::None).unwrap();
        for peer in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
            assert!(!none.protects_from(peer.parse().unwrap()), "{peer}");
        }
        for peer in ["10.0.0.1", "192.0.2.2", "fe80::1", "::ffff:10.0.0.1", "0.0.0.0"] {
            assert!(none.protects_from(peer.parse().unwrap()), "{peer}");
            assert!(!with_users().protects_from(peer.parse().unwrap()));
        }
    }

    #[test]
    fn nothing_shows_a_password_or_its_hash() {
        let shown = format!("{:?}", with_users());
        assert!(shown.contains("***") && !shown.contains("secret"), "{shown}");
        let auth = with_redis();
        auth.accepted(b"somebody", b"secret");
        assert!(!format!("{auth:?}").contains("secret"));
        assert!(DENIED.is_ascii() && !DENIED.contains('\n'));
    }
}
