//! The subcommands of Redis's commands that Tollgate can answer without a Redis, and what their HELP says.

/// A subcommand.
#[derive(Debug)]
pub struct Sub {
    /// In lower case.
    pub name: &'static str,
    /// As of a command.
    pub arity: i64,
    /// Its arguments, for HELP.
    pub usage: &'static str,
    /// What it does, for HELP.
    pub summary: &'static str,
    /// As of a command.
    pub is_handshake: bool,
}

const fn sub(name: &'static str, arity: i64, usage: &'static str, summary: &'static str) -> Sub {
    Sub { name, arity, usage, summary, is_handshake: false }
}

const fn handshake(name: &'static str, arity: i64, usage: &'static str, summary: &'static str) -> Sub {
    Sub { is_handshake: true, ..sub(name, arity, usage, summary) }
}

const HELP: Sub = sub("help", 2, "", "This text.");

/// Of CLIENT.
pub const CLIENT: &[Sub] = &[
    handshake("getname", 2, "", "The name that this connection gave itself."),
    sub("getredir", 2, "", "-1: nothing is tracked here."),
    sub("id", 2, "", "The number of this connection."),
    sub("info", 2, "", "This connection, as CLIENT LIST shows it."),
    sub("list", -2, "[TYPE normal|...] [ID id ...]", "Connections, a line each."),
    sub("no-evict", 3, "ON|OFF", "Taken, and nothing comes of it: nobody is evicted here."),
    sub("no-touch", 3, "ON|OFF", "Taken, and nothing comes of it: nothing ages here."),
    handshake("setinfo", 4, "LIB-NAME|LIB-VER text", "Says which library connects."),
    handshake("setname", 3, "name", "Gives this connection a name."),
    HELP,
];

/// Of COMMAND.
pub const COMMAND: &[Sub] = &[
    sub("count", 2, "", "How many commands there are of Tollgate's own."),
    sub("docs", -2, "[name ...]", "What they do."),
    sub("getkeys", -3, "request", "The keys of a request of one of them."),
    sub("getkeysandflags", -3, "request", "The keys, and what is done to them."),
    sub("info", -2, "[name ...]", "What Redis's COMMAND says of each command."),
    sub("list", -2, "[FILTERBY ACLCAT|PATTERN|MODULE text]", "Their names."),
    HELP,
];

/// Of CONFIG.
pub const CONFIG: &[Sub] = &[
    sub("get", -3, "pattern ...", "Settings that have a counterpart in Redis."),
    sub("set", -4, "name value ...", "Refused: settings are made at the start."),
    HELP,
];

/// Of SLOWLOG.
pub const SLOWLOG: &[Sub] = &[
    sub("get", -2, "[count]", "Nothing: no log of slow commands is kept."),
    sub("len", 2, "", "0."),
    sub("reset", 2, "", "Taken, and nothing comes of it."),
    HELP,
];

/// Of LATENCY.
pub const LATENCY: &[Sub] = &[
    sub("histogram", -2, "[name ...]", "Nothing: commands are not timed."),
    sub("history", 3, "event", "Nothing: no events are kept."),
    sub("latest", 2, "", "Nothing: no events are kept."),
    sub("reset", -2, "[event ...]", "0."),
    HELP,
];

/// Of MEMORY.
pub const MEMORY: &[Sub] = &[
    sub("stats", 2, "", "What memory this process takes."),
    sub("usage", -3, "key [SAMPLES count]", "Null: there are no keys of this name."),
    HELP,
];

/// Of MODULE.
pub const MODULE: &[Sub] = &[sub("list", 2, "", "Nothing: there are no modules."), HELP];

/// Of ACL.
pub const ACL: &[Sub] = &[sub("whoami", 2, "", "The user of this connection."), HELP];

/// Of OBJECT.
pub const OBJECT: &[Sub] = &[
    sub("encoding", 3, "key", "Null: there are no keys of this name."),
    sub("freq", 3, "key", "Null."),
    sub("idletime", 3, "key", "Null."),
    sub("refcount", 3, "key", "Null."),
    HELP,
];

/// Of CLUSTER.
pub const CLUSTER: &[Sub] = &[
    sub("info", 2, "", "That all slots are served."),
    sub("keyslot", 3, "key", "The slot of a key."),
    sub("links", 2, "", "Nothing: there are no other nodes."),
    sub("myid", 2, "", "The id of the one node, which is this Tollgate."),
    sub("nodes", 2, "", "The one node, in a line."),
    sub("shards", 2, "", "The one node, which serves all slots."),
    sub("slots", 2, "", "All slots, and the one node that serves them."),
    HELP,
];
