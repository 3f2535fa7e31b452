//! The command line: a few flags, each a short way to a key of the configuration.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::config::{self, Config, Flag, Loaded};

/// What `--version` prints.
pub const VERSION: &str = concat!("tollgate ", env!("CARGO_PKG_VERSION"));

/// What `--help` prints.
pub const HELP: &str = "\
Tollgate: a rate limiter that every Redis client already speaks to.

Usage: tollgate [--config FILE] [--listen ADDR] [--redis URL | --embedded] [--workers N]

  --config FILE    read settings from a TOML file (tollgate.example.toml shows them all)
  --listen ADDR    listen here: host:port, :port (all interfaces), port (127.0.0.1), or several
                   separated by commas [127.0.0.1:6380]
  --redis URL      the Redis behind: host[:port], redis://[user:pass@]host[:port][/db],
                   rediss://... with TLS, unix:///path, redis+sentinel://host,.../name or
                   redis+cluster://host,... [localhost:6379]
  --embedded       no Redis behind: keep the exact log in this process
  --workers N      worker threads, 0 for one per core [0]
  --check-config   print the settings in force and where each comes from, and exit
  --connect        with --check-config: try Redis too, all that is needed of it
  -V, --version    print the version, and exit
  -h, --help       print this, and exit

Environment (over the file, under the flags):
  TOLLGATE_CONFIG               as --config
  REDIS_ADDR, or else REDIS_URL as --redis, and unlike it not seen in a list of processes
  TOLLGATE_<SECTION>__<NAME>    any key of the file, as TOLLGATE_REDIS__TIMEOUT_MS=20
  REDIS_ADDR_FILE, REDIS_PASSWORD_FILE, TOLLGATE_AUTH__PASSWORD_FILE
                                a file that holds the address or password alone

Examples:
  tollgate --embedded
      Then: redis-cli -p 6380 RL.CHECK user:42 10 60
  tollgate --listen 0.0.0.0:6380 --redis redis.internal:6379
  REDIS_ADDR=rediss://app:secret@redis.internal tollgate --config /etc/tollgate.toml --check-config

Exit status: 0 done, 1 failed while running, 2 bad flag or setting.
";

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Serve, and say in the log what has no effect.
    Run(Box<Config>, Vec<String>),
    /// Print this report of a valid configuration.
    CheckConfig(String),
    /// Print it, and then try whether the Redis that it names can be used.
    CheckConnection(String, Box<Config>),
    /// Print [`HELP`].
    Help,
    /// Print [`VERSION`].
    Version,
}

/// Flags that set a key to the value that follows them.
const VALUE_FLAGS: [(&str, &str); 3] =
    [("--listen", "server.listen"), ("--redis", "redis.addr"), ("--workers", "server.workers")];

/// Reads `args` (without the program's name), and the file and environment that they stand on.
///
/// # Errors
/// Text for the operator, a line a mistake: a flag that is unknown or lacks its value, or what [`config::load`] found.
pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Command, String> {
    let mut file = None;
    let mut flags = Vec::new();
    let (mut check_config, mut connect) = (false, false);
    let mut args = args.map(|arg| arg.into_string().map_err(|_| "an argument is not UTF-8".to_owned()));
    while let Some(arg) = args.next().transpose()? {
        let (name, value) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (arg.as_str(), None),
        };
        if let Some(&(name, key)) = VALUE_FLAGS.iter().find(|(flag, _)| *flag == name) {
            flags.push(Flag { name, key, value: value_of(name, value, &mut args)? });
            continue;
        }
        match (name, value) {
            ("--config", value) => file = Some(PathBuf::from(value_of(name, value, &mut args)?)),
            ("--embedded", None) => {
                flags.push(Flag { name: "--embedded", key: "embedded.enabled", value: "true".to_owned() });
            }
            ("--check-config", None) => check_config = true,
            ("--connect", None) => connect = true,
            ("--version" | "-V", None) => return Ok(Command::Version),
            ("--help" | "-h", None) => return Ok(Command::Help),
            ("--embedded" | "--check-config" | "--connect" | "--version" | "-V" | "--help" | "-h", Some(_)) => {
                return Err(format!("{name} takes no value"));
            }
            // Only a flag's name is repeated: all else may be an address with its password.
            _ if name.starts_with('-') => {
                return Err(format!("unknown flag '{}': see tollgate --help", name.escape_debug()));
            }
            _ => return Err("unexpected argument, all are flags: see tollgate --help".to_owned()),
        }
    }
    let Loaded { config, report, warnings } = config::load(file.as_deref(), std::env::vars_os(), &flags)?;
    match (check_config, connect) {
        (false, true) => Err("--connect comes with --check-config: see tollgate --help".to_owned()),
        (true, true) => Ok(Command::CheckConnection(report, Box::new(config))),
        (true, false) => Ok(Command::CheckConfig(report)),
        (false, false) => Ok(Command::Run(Box::new(config), warnings)),
    }
}

/// The value after `=`, or else the next argument. One that begins with dashes is the next flag: no value does.
fn value_of(
    flag: &str,
    value: Option<String>,
    args: &mut impl Iterator<Item = Result<String, String>>,
) -> Result<String, String> {
    let value = match value {
        Some(value) => Some(value),
        None => args.next().transpose()?.filter(|next| !next.starts_with("--")),
    };
    value.ok_or_else(|| format!("{flag} needs a value: see tollgate --help"))
}
