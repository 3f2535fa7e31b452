//! The scripts in lua/, each made of the files that it needs.
//!
//! What each file is stands at its head.

use crate::store::script::Script;

/// All scripts.
#[derive(Debug)]
pub struct Scripts {
    /// Decides checks and counts what is admitted.
    pub check: Script,
    /// Says what would be decided.
    pub peek: Script,
    /// Forgets keys.
    pub reset: Script,
    /// Tells how a key stands.
    pub inspect: Script,
    /// Counts what was admitted without Redis.
    pub record: Script,
    /// Gives back what was not used of shares.
    pub give_back: Script,
    /// Keeps the registry.
    pub windows: Script,
    /// Changes policies.
    pub policy_change: Script,
    /// Reads policies.
    pub policy_read: Script,
    /// Decides throttles.
    pub throttle: Script,
}

impl Scripts {
    /// Scripts that take the time from this code, in place of lua/clock.lua's.
    pub fn new(clock: &str) -> Self {
        let keys = include_str!("../../../lua/keys.lua");
        let calls = include_str!("../../../lua/calls.lua");
        let ids = include_str!("../../../lua/ids.lua");
        let entries = include_str!("../../../lua/entries.lua");
        let log = include_str!("../../../lua/log.lua");
        let state = include_str!("../../../lua/state.lua");
        let counters = include_str!("../../../lua/counters.lua");
        let run = include_str!("../../../lua/run.lua");
        let decide = include_str!("../../../lua/decide.lua");
        let items = include_str!("../../../lua/items.lua");
        let deciding = [calls, run, entries, log, decide, state, counters, items].concat();
        let states = [calls, entries, log, state, counters].concat();
        let check = [
            // Most runs need nothing of this, and Lua makes a function anew whenever it comes by its definition. What is
            // passed to it need not be captured, which would cost as much again for each.
            "local function define_general(now_us, keys)\n",
            &deciding,
            ids,
            include_str!("../../../lua/check.lua"),
            "end\n",
        ];
        Self {
            check: Script::new(&[
                clock,
                keys,
                &check.concat(),
                ids,
                entries,
                state,
                include_str!("../../../lua/plain.lua"),
            ]),
            peek: Script::new(&[clock, keys, &deciding, include_str!("../../../lua/peek.lua")]),
            reset: Script::new(&[clock, keys, calls, state, counters, include_str!("../../../lua/reset.lua")]),
            inspect: Script::new(&[clock, keys, &states, include_str!("../../../lua/inspect.lua")]),
            record: Script::new(&[clock, keys, &states, include_str!("../../../lua/record.lua")]),
            give_back: Script::new(&[keys, calls, log, include_str!("../../../lua/give_back.lua")]),
            windows: Script::new(&[clock, include_str!("../../../lua/windows.lua")]),
            policy_change: Script::new(&[include_str!("../../../lua/policy_change.lua")]),
            policy_read: Script::new(&[include_str!("../../../lua/policy_read.lua")]),
            throttle: Script::new(&[clock, include_str!("../../../lua/throttle.lua")]),
        }
    }

    /// Those of checks, shares and throttles.
    pub fn of_checks(&self) -> [&Script; 8] {
        let Self { check, peek, reset, inspect, record, give_back, windows, throttle, .. } = self;
        [check, peek, reset, inspect, record, give_back, windows, throttle]
    }
}
