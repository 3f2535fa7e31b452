//! What the Redis behind is taken for.

use std::fmt;

use super::addr::{RedisAddr, Transport};
use super::layers::Settings;

/// What the Redis behind is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisMode {
    /// What its address says, or else what it says itself.
    Auto,
    /// One server, whatever it says.
    Single,
    /// The one primary that sentinels watch, or that of the name in its address.
    Sentinel,
    /// A cluster.
    Cluster,
}

impl fmt::Display for RedisMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Single => "single",
            Self::Sentinel => "sentinel",
            Self::Cluster => "cluster",
        })
    }
}

impl RedisMode {
    pub(super) fn read(settings: &mut Settings, addr: &RedisAddr) -> Self {
        use RedisMode::{Auto, Cluster, Sentinel, Single};
        let mode = settings.one_of("redis.mode", Auto, &[Auto, Single, Sentinel, Cluster]);
        let rule = match (&addr.transport, mode) {
            (Transport::Sentinel(_), Single | Cluster) => "redis.addr names sentinels",
            (Transport::Cluster(_), Single | Sentinel) => "redis.addr names a cluster",
            (Transport::Unix(_), Sentinel | Cluster) => "redis.addr names a socket, which leads to one server",
            _ => return mode,
        };
        settings.conflict::<()>("redis.mode", rule);
        mode
    }
}
