//! Where requests are counted: in the upstream Redis ([`redis`], asked in [`batch`]es by [`script`]s on a
//! [`connection`], told of the rest by the [`ledger`], with a registry
//! of what is in use, [`registry`]) or in this process ([`embedded`]). Stores count and report; what
//! an answer means to a client is the limiter's business.

pub mod batch;
pub mod connection;
pub mod embedded;
pub mod inspect;
pub mod ledger;
pub(crate) mod policies;
pub mod redis;
pub(crate) mod registry;
pub mod reset;
pub mod script;
pub mod throttle;
pub mod throttles;
pub(crate) mod ttl_cache;
