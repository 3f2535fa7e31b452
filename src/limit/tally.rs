//! What this process itself keeps of a key and counter, where no Redis does: what lua/ has of each algorithm, in Rust.

use super::fixed::Fixed;
use super::gcra::Gcra;
use super::log::Log;
use super::{Algorithm, Counter, Limit, LimitState, PolicyName, Rule, Standing};

/// What time it is.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// By a clock that does not step back.
    pub us: u64,
    /// By the calendar's, which may: since 1970.
    pub unix_us: u64,
}

/// What this process itself keeps of one key and counter, where no Redis does.
pub enum Tally {
    /// The log.
    Log(Log),
    /// GCRA's time.
    Gcra(Gcra),
    /// The number for a period.
    Fixed(Fixed),
}

impl Tally {
    /// A tally that has counted one request.
    pub fn new(limit: &Limit, cost: u32, now: Moment) -> Self {
        let mut tally = match limit.algorithm {
            Algorithm::Log => return Self::Log(Log::new(limit.window, cost, now.us)),
            Algorithm::Gcra { .. } => Self::Gcra(Gcra::new(limit.window)),
            Algorithm::Fixed(period) => Self::Fixed(Fixed::new(period, now.unix_us)),
        };
        tally.count(limit, cost, now);
        tally
    }

    /// How it counts.
    pub fn rule(&self) -> Rule {
        match self {
            Self::Log(log) => Rule::Log(log.window()),
            Self::Gcra(gcra) => Rule::Gcra(gcra.window()),
            Self::Fixed(fixed) => Rule::Fixed(fixed.period()),
        }
    }

    /// How the limit, which is counted in this, stands for a request of this cost.
    pub fn state(&self, limit: &Limit, cost: u32, now: Moment) -> LimitState {
        match self {
            Self::Log(log) => log.state(limit.max, cost, now.us),
            Self::Gcra(gcra) => gcra.state(limit, limit.capacity(), now.us),
            Self::Fixed(fixed) => fixed.state(now.unix_us),
        }
    }

    /// What a log adds to its state for who asks in full: [`LimitState::next_in_us`].
    pub fn next_in_us(&self, limit: &Limit, now: Moment) -> u64 {
        match self {
            Self::Log(log) => log.next_in_us(limit.max, now.us),
            Self::Gcra(_) | Self::Fixed(_) => 0,
        }
    }

    /// Counts a request.
    pub fn count(&mut self, limit: &Limit, cost: u32, now: Moment) {
        match self {
            Self::Log(log) => log.count(cost, now.us),
            Self::Gcra(gcra) => gcra.count(limit, limit.capacity(), cost, now.us),
            Self::Fixed(fixed) => fixed.count(cost, now.unix_us),
        }
    }

    /// A request was denied. What a clock that stepped back has put further ahead than anything can be counts from now on.
    pub fn denied(&mut self, limit: &Limit, now: Moment) {
        match self {
            Self::Log(_) => {}
            Self::Gcra(gcra) if gcra.is_ahead(now.us) => gcra.count(limit, limit.capacity(), 0, now.us),
            Self::Gcra(_) => {}
            Self::Fixed(fixed) => fixed.keep_up(now.unix_us),
        }
    }

    /// Drops what counts no longer, and says how many entries that were.
    pub fn prune(&mut self, now: Moment) -> usize {
        match self {
            Self::Log(log) => log.prune(now.us),
            Self::Gcra(_) | Self::Fixed(_) => 0,
        }
    }

    /// Entries kept, those included that count no longer.
    pub fn entries(&self) -> usize {
        match self {
            Self::Log(log) => log.len(),
            Self::Gcra(_) | Self::Fixed(_) => 1,
        }
    }

    /// Whether nothing in it is of any use any more.
    pub fn is_over(&self, now: Moment) -> bool {
        match self {
            Self::Log(log) => log.len() == 0,
            Self::Gcra(gcra) => !gcra.is_live(now.us),
            Self::Fixed(fixed) => fixed.is_over(now.unix_us),
        }
    }

    /// Whether a request that is counted now adds an entry.
    pub fn grows(&self, now: Moment) -> bool {
        match self {
            Self::Log(log) => log.find(now.us).is_err(),
            Self::Gcra(_) | Self::Fixed(_) => false,
        }
    }

    /// How it stands as this policy's, with at most so many entries; `None` if nothing counts. By which of the clocks its
    /// times are `now_us` of it says.
    pub fn standing(&self, policy: Option<PolicyName>, most: usize, now: Moment) -> Option<Standing> {
        let counter = Counter { policy, rule: self.rule() };
        match self {
            Self::Log(log) => log.standing(counter, most, now.us),
            Self::Gcra(gcra) => gcra.standing(counter, now.us),
            Self::Fixed(fixed) => fixed.standing(counter, now.unix_us),
        }
    }

    /// Whether anything in it still counts.
    pub fn is_live(&self, now: Moment) -> bool {
        match self {
            Self::Log(log) => log.is_live(now.us),
            Self::Gcra(gcra) => gcra.is_live(now.us),
            Self::Fixed(fixed) => fixed.is_live(now.unix_us),
        }
    }
}
