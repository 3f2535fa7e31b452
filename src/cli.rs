//! The command line: a few flags, each a short way to a key of the configuration, or a question.

mod flags;
mod pages;

use crate::config::{self, Config, Loaded};
use flags::{Asks, FLAGS, Flag, SHELLS};
use std::ffi::OsString;
use std::path::PathBuf;

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Serve, and say in the log what has no effect.
    Run(Box<Config>, Vec<String>),
    /// Print this.
    Print(String),
    /// Print this report of a valid configuration, and then try whether the Redis that it names can be used.
    CheckConnection(String, Box<Config>),
    /// Ask the Tollgate of this configuration whether it answers.
    Health(Box<Config>),
}

/// What `--version` says. The commit is known where the build was told it (TOLLGATE_COMMIT), or could ask git.
pub fn version() -> String {
    let commit = option_env!("TOLLGATE_COMMIT").map(|commit| format!(" ({commit})")).unwrap_or_default();
    format!("tollgate {}{commit}", env!("CARGO_PKG_VERSION"))
}

/// Reads `args` (without the program's name), and the file and environment that they stand on.
///
/// # Errors
/// Text for the operator, a line a mistake: a flag that is unknown or lacks its value, or what [`config::load`] found.
pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Command, String> {
    let mut file = None;
    let mut settings = Vec::new();
    let (mut check_config, mut connect, mut health) = (false, false, false);
    let mut args = args.map(|arg| arg.into_string().map_err(|_| "an argument is not UTF-8".to_owned()));
    while let Some(arg) = args.next().transpose()? {
        let (flag, value) = read_flag(&arg, &mut args)?;
        match flag.asks {
            Asks::Set(key) => settings.push(config::Flag { name: flag.name, key, value }),
            Asks::Config => file = Some(PathBuf::from(value)),
            Asks::CheckConfig => check_config = true,
            Asks::Connect => connect = true,
            Asks::Health => health = true,
            Asks::Man => return Ok(Command::Print(pages::man())),
            Asks::Completions if SHELLS.contains(&&*value) => return Ok(Command::Print(pages::completions(&value))),
            Asks::Completions => return Err(format!("{} must be {}", flag.name, SHELLS.join(" or "))),
            Asks::Version => return Ok(Command::Print(format!("{}\n", version()))),
            Asks::Help => return Ok(Command::Print(pages::help())),
        }
    }
    let Loaded { config, report, warnings } = config::load(file.as_deref(), std::env::vars_os(), &settings)?;
    match (check_config, connect) {
        _ if health && (check_config || connect) => Err("--health comes without --check-config".to_owned()),
        _ if health => Ok(Command::Health(Box::new(config))),
        (false, true) => Err("--connect comes with --check-config: see tollgate --help".to_owned()),
        (true, true) => Ok(Command::CheckConnection(report, Box::new(config))),
        (true, false) => Ok(Command::Print(report)),
        (false, false) => Ok(Command::Run(Box::new(config), warnings)),
    }
}

/// The flag that an argument names, and its value: after `=`, or else the next argument. One that begins with dashes is
/// the next flag: no value does. What takes none has the value `true`.
fn read_flag(
    arg: &str,
    args: &mut impl Iterator<Item = Result<String, String>>,
) -> Result<(&'static Flag, String), String> {
    let (name, value) = match arg.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (arg, None),
    };
    let Some(flag) = FLAGS.iter().find(|flag| flag.name == name || flag.short == Some(name)) else {
        // Only a flag's name is repeated: all else may be an address with its password.
        return Err(match name.starts_with('-') {
            true => format!("unknown flag '{}': see tollgate --help", name.escape_debug()),
            false => "unexpected argument, all are flags: see tollgate --help".to_owned(),
        });
    };
    let value = match (&flag.value, value) {
        (None, Some(_)) => return Err(format!("{name} takes no value")),
        (None, None) => Some("true".to_owned()),
        (Some(_), Some(value)) => Some(value),
        (Some(_), None) => args.next().transpose()?.filter(|next| !next.starts_with("--")),
    };
    value.map(|value| (flag, value)).ok_or_else(|| format!("{name} needs a value: see tollgate --help"))
}
