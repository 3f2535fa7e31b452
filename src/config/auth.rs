//! `[auth]`: who may come in, and what they may do.

use std::fmt;

use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use super::layers::Settings;
use super::secret::{self, MASK};

/// Most users of a file. Each is compared at each AUTH.
const MAX_USERS: usize = 1000;
/// Most passwords of one user: enough for a change of passwords while both are in use.
pub const MAX_PASSWORDS: usize = 16;
/// The user whom `AUTH password` means, as in Redis.
const DEFAULT_USER: &str = "default";
/// Longest password in plain text.
const MAX_PASSWORD_BYTES: usize = 1024;

/// `[auth]`: who may come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// Everyone.
    None,
    /// These users: 1 to 1,001, no two of one name.
    Password(Vec<User>),
    /// Whom the upstream Redis lets in.
    Redis,
}

/// Somebody who may come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// 1 to 64 bytes without blanks and control characters.
    pub name: String,
    /// Those that let the user in: 1 to 16.
    pub passwords: Vec<PasswordHash>,
    /// What the user may run.
    pub commands: Commands,
    /// What is put before each key of the user's `RL.` commands: 0 to 64 bytes. No prefix begins with another one, so
    /// that no user can name a key of another's, unless the prefixes are the same or one is empty.
    pub key_prefix: String,
}

/// What a user may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commands {
    /// Everything that Tollgate's own user of the upstream Redis may.
    All,
    /// The same, and to change policies.
    Admin,
    /// Tollgate's own commands, and what a client says at its start.
    RlOnly,
}

/// Who may change policies while Tollgate runs. Never who has `commands = "rl-only"` or a key prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyRights {
    /// Users with `commands = "admin"`; and, where nobody is asked who it is, clients of this machine.
    Admin,
    /// Users with `commands = "all"` besides; and, where nobody or Redis is asked, everybody who is let in.
    All,
}

impl fmt::Display for PolicyRights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Admin => "admin",
            Self::All => "all",
        })
    }
}

/// The SHA-256 of a password, the form in which Redis's `ACL SETUSER` takes one too. Shows itself to nobody who
/// prints it.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(pub [u8; SHA256_OUTPUT_LEN]);

impl PasswordHash {
    /// The hash of a password in plain text.
    pub fn of(password: &[u8]) -> Self {
        let mut hash = [0; SHA256_OUTPUT_LEN];
        // Both are as long as any SHA-256.
        hash.copy_from_slice(digest(&SHA256, password).as_ref());
        Self(hash)
    }

    fn parse_hex(text: &str) -> Option<Self> {
        // `from_str_radix` would take a sign for a digit.
        if text.len() != 2 * SHA256_OUTPUT_LEN || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let mut hash = [0; SHA256_OUTPUT_LEN];
        for (index, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
        }
        Some(Self(hash))
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    None,
    Password,
    Redis,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Password => "password",
            Self::Redis => "redis",
        })
    }
}

impl fmt::Display for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "all",
            Self::Admin => "admin",
            Self::RlOnly => "rl-only",
        })
    }
}

impl Auth {
    /// Who may come in, and who of them may change policies.
    pub(super) fn read(settings: &mut Settings) -> (Self, PolicyRights) {
        const NEEDS_MODE: &str = "needs auth.mode = 'password'";
        let mode = settings.one_of("auth.mode", Mode::None, &[Mode::None, Mode::Password, Mode::Redis]);
        let password = settings.optional("auth.password", parse_password, |_| MASK.to_owned());
        let rights = settings.one_of("auth.policies", PolicyRights::Admin, &[PolicyRights::Admin, PolicyRights::All]);
        let mut users: Vec<User> = password.into_iter().map(User::of_password).collect();
        for n in 1..=settings.tables("auth.users", MAX_USERS) {
            let user = User::read(n, &users, settings);
            users.push(user);
        }
        match mode {
            Mode::Password if users.is_empty() => {
                settings.conflict::<()>("auth.mode", "needs auth.password or [[auth.users]]");
            }
            Mode::Password => {}
            // A password that nobody is asked for is worse than none.
            Mode::None | Mode::Redis => {
                settings.conflict::<()>("auth.password", NEEDS_MODE);
                settings.conflict::<()>("auth.users[1].name", NEEDS_MODE);
            }
        }
        let auth = match mode {
            Mode::None => Self::None,
            Mode::Password => Self::Password(users),
            Mode::Redis => Self::Redis,
        };
        (auth, rights)
    }
}

impl User {
    /// The user that `auth.password` is short for.
    fn of_password(password: PasswordHash) -> Self {
        let (commands, key_prefix) = (Commands::All, String::new());
        Self { name: DEFAULT_USER.to_owned(), passwords: vec![password], commands, key_prefix }
    }

    /// The `n`th table, from 1. `earlier` are the users before it.
    fn read(n: usize, earlier: &[Self], settings: &mut Settings) -> Self {
        let key = |name: &str| format!("auth.users[{n}].{name}");
        let user = Self {
            name: settings.required(&key("name"), parse_name, String::clone).unwrap_or_default(),
            passwords: settings
                .required(&key("password_sha256"), parse_passwords, |_| MASK.to_owned())
                .unwrap_or_default(),
            commands: settings.one_of(
                &key("commands"),
                Commands::All,
                &[Commands::All, Commands::Admin, Commands::RlOnly],
            ),
            key_prefix: settings.parsed(&key("key_prefix"), String::new(), parse_key_prefix),
        };
        if user.commands == Commands::Admin && !user.key_prefix.is_empty() {
            // Policies are about everybody's keys.
            settings.conflict::<()>(&key("key_prefix"), "must be empty with commands = 'admin'");
        }
        if earlier.iter().any(|other| other.name == user.name) {
            settings.conflict::<()>(&key("name"), "is another user's ('default' is that of auth.password)");
        }
        if let Some(other) = earlier.iter().find(|other| overlap(&other.key_prefix, &user.key_prefix)) {
            let rule = format!("'{}' is another user's: neither may begin with the other", other.key_prefix);
            settings.conflict::<()>(&key("key_prefix"), &rule);
        }
        user
    }
}

/// Whether a user of one prefix could name keys of the other. Users who share a prefix share their keys on purpose,
/// and one without a prefix sees all.
fn overlap(one: &str, other: &str) -> bool {
    let differ = one != other && !one.is_empty() && !other.is_empty();
    differ && (one.starts_with(other) || other.starts_with(one))
}

pub(super) fn parse_password(text: &str) -> Result<PasswordHash, String> {
    secret::parse_password(text, MAX_PASSWORD_BYTES).map(|password| PasswordHash::of(password.as_bytes()))
}

fn parse_passwords(text: &str) -> Result<Vec<PasswordHash>, String> {
    let hashes: Option<Vec<_>> = text.split(',').map(|item| PasswordHash::parse_hex(item.trim())).collect();
    hashes.filter(|list| list.len() <= MAX_PASSWORDS).ok_or_else(|| {
        format!("the 64 hexadecimal digits of a password's SHA-256, or a list of 1 to {MAX_PASSWORDS} of those")
    })
}

pub(super) fn parse_name(text: &str) -> Result<String, String> {
    let is_barred = |c: char| c.is_whitespace() || c.is_control();
    match text.len() {
        1..=64 if !text.contains(is_barred) => Ok(text.to_owned()),
        _ => Err("1 to 64 bytes without blanks and control characters".to_owned()),
    }
}

fn parse_key_prefix(text: &str) -> Result<String, String> {
    if text.len() <= 64 { Ok(text.to_owned()) } else { Err("0 to 64 bytes".to_owned()) }
}
