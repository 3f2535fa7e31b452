//! Tollgate: a rate limiter that every Redis client already speaks to.

pub mod quota;
