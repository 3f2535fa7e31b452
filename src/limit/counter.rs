//! What limits count in, and how its states are called in Redis and live there.

use super::{Period, PolicyName, Window, fixed, gcra, log};

/// What limits count in. For one key, limits of the same counter share a state, however high each of them is: a limit
/// can be raised or lowered without a loss of history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Counter {
    /// For which policy, if for any.
    pub policy: Option<PolicyName>,
    /// How.
    pub rule: Rule,
}

impl Counter {
    /// The log of a window, for no policy.
    pub const fn log(window: Window) -> Self {
        Self { policy: None, rule: Rule::Log(window) }
    }

    /// The counter whose states' names in Redis end so.
    pub fn of_name(name: &str) -> Option<Self> {
        let (policy, rule) = match name.split_once(':') {
            Some((policy, rule)) => (Some(PolicyName::new(policy)?), rule),
            None => (None, name),
        };
        Some(Self { policy, rule: Rule::of_name(rule)? })
    }

    /// Appends the last part of its states' names in Redis, by which it is registered there too.
    pub fn write_name(self, out: &mut Vec<u8>) {
        if let Some(policy) = self.policy {
            out.extend_from_slice(policy.as_str().as_bytes());
            out.push(b':');
        }
        self.rule.write_name(out);
    }
}

/// How something is counted, but for how much may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// In the log of this window.
    Log(Window),
    /// By GCRA, at a rate for this window.
    Gcra(Window),
    /// For each of these periods.
    Fixed(Period),
}

impl Rule {
    /// The time in which what was counted passes, or of GCRA that of its rate.
    pub const fn window(self) -> Window {
        match self {
            Self::Log(window) | Self::Gcra(window) => window,
            Self::Fixed(period) => period.longest(),
        }
    }

    /// For how long what is counted may matter.
    pub const fn counts_us(self) -> u64 {
        match self {
            Self::Log(window) => window.us(),
            Self::Gcra(window) => gcra::longest_us(window),
            Self::Fixed(period) => period.longest().us(),
        }
    }

    /// Whether a state knows all that it has counted by their ids, or only the last few.
    pub const fn knows_all_ids(self) -> bool {
        matches!(self, Self::Log(_))
    }

    /// The name of its algorithm.
    pub const fn algorithm(self) -> &'static str {
        match self {
            Self::Log(_) => "log",
            Self::Gcra(_) => "gcra",
            Self::Fixed(_) => "fixed",
        }
    }

    /// Appends it as the scripts read it that are told of counters: a log as the length of its window.
    pub fn pack(self, out: &mut Vec<u8>) {
        /// What no length begins with.
        const IS_NO_LOG: u8 = b'=';
        match self {
            Self::Log(window) => log::write_name(window, out),
            Self::Gcra(window) => {
                out.push(IS_NO_LOG);
                gcra::write_counter(window, out);
            }
            Self::Fixed(period) => {
                out.push(IS_NO_LOG);
                period.pack(out);
            }
        }
    }

    /// The same, of a state in which something is to be counted: of a group of checks of this cost, which was the item of
    /// this number in its batch, under a limit that was no lower than `max`.
    pub fn pack_record(self, item: u16, max: u32, cost: u32, out: &mut Vec<u8>) {
        let number = item.to_le_bytes();
        self.pack(out);
        if !matches!(self, Self::Log(_)) {
            // Behind the sign.
            out.splice(1..1, number);
        }
        if let Self::Gcra(window) = self {
            gcra::pack_step(max, window, cost, out);
        }
    }

    /// Appends its own part of a counter's name.
    fn write_name(self, out: &mut Vec<u8>) {
        match self {
            Self::Log(window) => log::write_name(window, out),
            Self::Gcra(window) => gcra::write_name(window, out),
            Self::Fixed(period) => fixed::write_name(period, out),
        }
    }

    fn of_name(name: &str) -> Option<Self> {
        let gcra = || gcra::of_name(name).map(Self::Gcra);
        let fixed = || fixed::of_name(name).map(Self::Fixed);
        log::of_name(name).map(Self::Log).or_else(gcra).or_else(fixed)
    }

    /// How long a state that was kept alive for one entry certainly outlives it: further entries that are made within
    /// this time need not see to it. `None` of a state that is kept alive whenever it is written.
    pub const fn spare_us(self) -> Option<u64> {
        match self {
            Self::Log(window) => Some(log::spare_us(window)),
            Self::Gcra(_) | Self::Fixed(_) => None,
        }
    }

    /// The longest that a state lives after its last entry.
    pub const fn max_life_us(self) -> u64 {
        match self {
            Self::Log(window) => log::max_life_us(window),
            Self::Gcra(window) => gcra::max_life_us(window),
            Self::Fixed(period) => fixed::max_life_us(period),
        }
    }
}
