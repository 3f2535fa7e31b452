//! Tests of the whole program: the real binary, spoken to over real sockets, before a real Redis or embedded.
//!
//! Every server takes a free port and a folder of its own, shows its log when its test fails, and is killed when its
//! test ends. Tests wait for conditions and promised times, not for a while.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

mod addresses;
mod algorithms;
mod cluster;
mod cluster_face;
mod cluster_scripts;
mod commands;
mod common;
mod costs;
mod denials;
mod descriptors;
mod dialing;
mod differential;
mod ends;
mod exactness;
mod fallback;
mod faults;
mod full;
mod handshake;
mod healthcheck;
mod hostile;
mod http;
mod ids;
mod inspect;
mod log;
mod logs;
mod lost_answers;
mod model;
mod order;
mod passthrough;
mod plain;
mod policies;
mod protocol;
mod redis_rs;
mod redis_rs_dropin;
mod restarts;
mod rings;
mod script_costs;
mod security;
mod sentinel;
mod server;
mod shares;
mod soak;
mod syntax;
mod throttle;
mod top;
mod transactions;
mod trouble;
