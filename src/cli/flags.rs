//! The one description of the command line, from which it is read and from which its help, man page and completions are
//! made.

/// A flag.
pub struct Flag {
    /// Its name, with the dashes.
    pub name: &'static str,
    /// A shorter one.
    pub short: Option<&'static str>,
    /// What must follow it.
    pub value: Option<Value>,
    /// What it asks for.
    pub asks: Asks,
    /// What it does: what a completion says of it, up to the first colon or bracket, and then more. The lines are those of
    /// `--help`.
    pub text: &'static str,
}

/// The value of a flag.
pub struct Value {
    /// What it is, in capitals.
    pub name: &'static str,
    /// What a shell offers for it.
    pub offers: Offers,
}

/// What a shell offers when a value is to be completed.
#[derive(Clone, Copy)]
pub enum Offers {
    /// Nothing.
    Nothing,
    /// Files.
    Files,
    /// One of these.
    Words(&'static [&'static str]),
}

/// What a flag asks for.
#[derive(Clone, Copy)]
pub enum Asks {
    /// To set a key of the configuration to the value; without one, to true.
    Set(&'static str),
    /// To read this file.
    Config,
    /// To print the settings in force.
    CheckConfig,
    /// To try Redis too.
    Connect,
    /// To ask the Tollgate that runs by this configuration whether it answers.
    Health,
    /// To print one of the pages that packages install.
    Man,
    /// Likewise.
    Completions,
    /// To print the version.
    Version,
    /// To print the help.
    Help,
}

/// The shells that there are completions for.
pub const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

const fn value(name: &'static str) -> Option<Value> {
    Some(Value { name, offers: Offers::Nothing })
}

/// All flags, in the order of the help.
pub const FLAGS: [Flag; 12] = [
    Flag {
        name: "--config",
        short: None,
        value: Some(Value { name: "FILE", offers: Offers::Files }),
        asks: Asks::Config,
        text: "read settings from a TOML file (tollgate.example.toml shows them all)",
    },
    Flag {
        name: "--listen",
        short: None,
        value: value("ADDR"),
        asks: Asks::Set("server.listen"),
        text: "listen here: host:port, :port (all interfaces), port (127.0.0.1), or several\n\
               separated by commas [127.0.0.1:6380]",
    },
    Flag {
        name: "--redis",
        short: None,
        value: value("URL"),
        asks: Asks::Set("redis.addr"),
        text: "the Redis behind: host[:port], redis://[user:pass@]host[:port][/db],\n\
               rediss://... with TLS, unix:///path, redis+sentinel://host,.../name or\n\
               redis+cluster://host,... [localhost:6379]",
    },
    Flag {
        name: "--embedded",
        short: None,
        value: None,
        asks: Asks::Set("embedded.enabled"),
        text: "no Redis behind: keep the exact log in this process",
    },
    Flag {
        name: "--workers",
        short: None,
        value: value("N"),
        asks: Asks::Set("server.workers"),
        text: "worker threads, 0 for one per core [0]",
    },
    Flag {
        name: "--check-config",
        short: None,
        value: None,
        asks: Asks::CheckConfig,
        text: "print the settings in force and where each comes from, and exit",
    },
    Flag {
        name: "--connect",
        short: None,
        value: None,
        asks: Asks::Connect,
        text: "try Redis too, all that is needed of it (with --check-config)",
    },
    Flag {
        name: "--health",
        short: None,
        value: None,
        asks: Asks::Health,
        text: "ask the Tollgate that these settings are of whether it answers, and exit",
    },
    Flag { name: "--man", short: None, value: None, asks: Asks::Man, text: "print the man page, and exit" },
    Flag {
        name: "--completions",
        short: None,
        value: Some(Value { name: "SHELL", offers: Offers::Words(&SHELLS) }),
        asks: Asks::Completions,
        text: "print completions for bash, zsh or fish, and exit",
    },
    Flag {
        name: "--version",
        short: Some("-V"),
        value: None,
        asks: Asks::Version,
        text: "print the version, and exit",
    },
    Flag { name: "--help", short: Some("-h"), value: None, asks: Asks::Help, text: "print this, and exit" },
];

/// Variables of the environment, over the file and under the flags. The lines are those of `--help`.
pub const VARIABLES: [(&str, &str); 4] = [
    ("TOLLGATE_CONFIG", "as --config"),
    ("REDIS_ADDR, or else REDIS_URL", "as --redis, and unlike it not seen in a list of processes"),
    ("TOLLGATE_<SECTION>__<NAME>", "any key of the file, as TOLLGATE_REDIS__TIMEOUT_MS=20"),
    (
        "REDIS_ADDR_FILE, REDIS_PASSWORD_FILE, TOLLGATE_AUTH__PASSWORD_FILE",
        "a file that holds the address or password alone",
    ),
];

/// Commands to try.
pub const EXAMPLES: &str = "\
tollgate --embedded
    Then: redis-cli -p 6380 RL.CHECK user:42 10 60
tollgate --listen 0.0.0.0:6380 --redis redis.internal:6379
REDIS_ADDR=rediss://app:secret@redis.internal tollgate --config /etc/tollgate.toml --check-config
";

/// What the program is, in a line.
pub const SUMMARY: &str = "a rate limiter that every Redis client already speaks to";

/// The command line, in short.
pub const USAGE: &str = "tollgate [--config FILE] [--listen ADDR] [--redis URL | --embedded] [--workers N]";

/// What its exit status says.
pub const EXIT_STATUS: &str = "0 done, 1 failed while running, 2 bad flag or setting.";

/// What signals do.
pub const SIGNALS: &str = "\
SIGTERM and SIGINT stop it: it takes no more clients, answers what it has received, and exits. A second one of these \
ends it at once. SIGHUP reads the certificates of [tls] again.";
