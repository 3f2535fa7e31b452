//! Policies: limits with names, which are changed while they hold.
//!
//! A policy is the rest of a command line, with a name: `RL.CHECK user:42 login` asks what `RL.CHECK user:42 5 1m 20 1h`
//! would, but for a state of its own. What holds is said in two layers, of which the upper wins: the file, and what was
//! said to a running Tollgate, which Redis keeps for all of them. [`Policies`] is both, as they hold at one moment; a
//! change makes another, and who is asking goes on with what he began with ([`live`]).
//!
//! ```text
//!                    mode for all ──► block ──► off ──► override of the key ──► the policy's limits
//!   RL.CHECK key policy   │             │        │              │                      │
//!                         └─────────────┴────────┴──► answered  └──────────┬───────────┘
//!                                                                          └──► asked, or tried out (shadow)
//! ```
//! Pure: no input or output, and no clock. Times are microseconds of a clock that does not step back.

mod change;
mod compare;
mod definition;
pub(crate) mod live;
mod order;
mod overrides;

pub use change::{Change, Entry, Target};
pub use definition::{ALLOWED_FALLBACK, ALLOWED_MODE, Definition, DefinitionError, Mode, fallback_of};
pub use order::{Order, OrderError, OverrideOrder};
pub use overrides::{MAX_PATTERN_BYTES, Override, Overrides, Rule};

use crate::limit::{MAX_LIMIT, PolicyName, RetryAfter, Terms, Verdict, us_to_ms_ceil};
use crate::quotas::Quotas;
use ahash::RandomState;
use std::collections::HashMap;
use std::sync::Arc;

/// Most policies of a process.
pub const MAX_POLICIES: usize = 1000;
/// Most overrides of all policies together.
pub const MAX_OVERRIDES: usize = 100_000;

/// All that holds at one moment.
#[derive(Debug, Clone, Default)]
pub struct Policies {
    by_name: HashMap<&'static str, Arc<Policy>, RandomState>,
    /// The mode of all policies, and of limits without one, if they share one.
    all: Option<Switch>,
}

/// A policy, by whomever it was said what it is.
#[derive(Debug, Clone)]
pub struct Policy {
    name: PolicyName,
    file: Layer,
    live: Layer,
    switch: Option<Switch>,
}

/// What one of the two has said of a policy.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    /// What it is, if this one has said so.
    pub definition: Option<Definition>,
    /// The keys for which something else holds.
    pub overrides: Overrides,
}

/// A mode in place of a policy's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switch {
    /// Which.
    pub mode: Mode,
    /// Until when, if not for good.
    pub until: Option<Until>,
}

/// When something ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Until {
    /// Unix time in milliseconds, by Redis's clock.
    pub unix_ms: u64,
    /// The same moment by this process's clock, in microseconds.
    pub us: u64,
}

impl Until {
    /// Whether that is over.
    pub fn is_past(until: Option<Self>, now_us: u64) -> bool {
        until.is_some_and(|until| until.us <= now_us)
    }
}

/// What is to be done about a check.
#[derive(Debug)]
pub struct Ruling {
    /// The limits that hold.
    pub quotas: Quotas,
    /// What is answered whatever they allow, and nobody is asked.
    pub answer: Option<Verdict>,
}

impl Policies {
    /// The policy of this name.
    pub fn get(&self, name: &[u8]) -> Option<&Arc<Policy>> {
        self.by_name.get(str::from_utf8(name).ok()?).filter(|policy| policy.definition().is_some())
    }

    /// All that are defined, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Policy>> {
        let mut policies: Vec<_> = self.by_name.values().filter(|policy| policy.definition().is_some()).collect();
        policies.sort_by_key(|policy| policy.name);
        policies.into_iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_name.values().filter(|policy| policy.definition().is_some()).count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many overrides they have, of both layers.
    pub fn overrides(&self) -> usize {
        self.by_name.values().map(|policy| policy.file.overrides.len() + policy.live.overrides.len()).sum()
    }

    /// The mode of all, if they share one.
    pub fn switch(&self, now_us: u64) -> Option<Switch> {
        self.all.filter(|all| !Until::is_past(all.until, now_us))
    }

    /// The mode that holds for a policy.
    pub fn mode_of(&self, policy: &Policy, now_us: u64) -> Mode {
        let own = policy.definition().map_or(Mode::Enforce, |definition| definition.mode);
        let switch = self.switch(now_us).or(policy.switch(now_us));
        switch.map_or(own, |switch| switch.mode)
    }

    /// What is to be done about a check by limits that stand in the command; `None` if it is to be asked as it stands.
    pub fn rule_plain(&self, quotas: &Quotas, now_us: u64) -> Option<Ruling> {
        let Switch { mode, until } = self.switch(now_us)?;
        let answered = |answer| Some(Ruling { quotas: *quotas, answer: Some(answer) });
        match mode {
            Mode::Enforce => None,
            Mode::Shadow => {
                let terms = Terms { is_shadow: true, ..Terms::PLAIN };
                Some(Ruling { quotas: quotas.under(terms), answer: None })
            }
            Mode::Off => answered(OFF),
            Mode::Block => answered(blocked(quotas, until, now_us)),
        }
    }

    /// What is to be done about a check of a key by the policy of this name, if there is one.
    pub fn rule(&self, name: &[u8], key: &[u8], now_us: u64) -> Option<Ruling> {
        let policy = self.get(name)?;
        let definition = policy.definition()?;
        let (all, mode) = (self.switch(now_us), self.mode_of(policy, now_us));
        let quotas = definition.quotas.under(policy.terms(mode));
        let answered = |answer| Some(Ruling { quotas, answer: Some(answer) });
        if mode == Mode::Block {
            let until = all.or(policy.switch(now_us)).and_then(|switch| switch.until);
            return answered(blocked(&quotas, until, now_us));
        }
        let found = policy.override_of(key, now_us).filter(|_| all.is_none_or(|all| all.mode != Mode::Off));
        match (found.map(|found| &found.rule), mode) {
            (Some(Rule::Block), _) => answered(blocked(&quotas, found?.until, now_us)),
            (Some(Rule::Off), _) | (_, Mode::Off) => answered(OFF),
            (Some(Rule::Limits(limits)), _) => {
                let mut quotas = Quotas::of(limits);
                quotas.inherit(&definition.quotas);
                Some(Ruling { quotas: quotas.under(policy.terms(mode)), answer: None })
            }
            (None, _) => Some(Ruling { quotas, answer: None }),
        }
    }

    /// What holds for a key in place of policies' limits, with each policy's name.
    pub fn overrides_of(&self, key: &[u8], now_us: u64) -> Vec<(PolicyName, &Override)> {
        self.iter().filter_map(|policy| Some((policy.name, policy.override_of(key, now_us)?))).collect()
    }

    /// Puts a change into force.
    pub fn apply(&mut self, change: Change) {
        let Change { target, entry } = change;
        match (target, entry) {
            (Target::All, Entry::Switch(switch)) => self.all = switch,
            (Target::Policy(name), entry) => {
                let policy = self.policy_mut(name);
                match entry {
                    Entry::Definition(definition) => policy.live.definition = definition.map(|definition| *definition),
                    Entry::Switch(switch) => policy.switch = switch,
                    Entry::Override(pattern, found) => policy.live.overrides.set(&pattern, found),
                }
                self.drop_if_empty(name);
            }
            // Only a mode is for all.
            (Target::All, _) => {}
        }
    }

    /// Puts what the file says in place of what it said before.
    pub fn set_file(&mut self, file: Vec<(PolicyName, Layer)>) {
        let names: Vec<_> = self.by_name.values().map(|policy| policy.name).collect();
        for name in &names {
            self.policy_mut(*name).file = Layer::default();
        }
        for (name, layer) in file {
            self.policy_mut(name).file = layer;
        }
        names.into_iter().for_each(|name| self.drop_if_empty(name));
    }

    /// Puts these changes in place of all that was said to running Tollgates before.
    pub fn set_live(&mut self, changes: impl IntoIterator<Item = Change>) {
        self.all = None;
        let names: Vec<_> = self.by_name.values().map(|policy| policy.name).collect();
        for name in &names {
            let policy = self.policy_mut(*name);
            (policy.live, policy.switch) = (Layer::default(), None);
        }
        changes.into_iter().for_each(|change| self.apply(change));
        names.into_iter().for_each(|name| self.drop_if_empty(name));
    }

    fn policy_mut(&mut self, name: PolicyName) -> &mut Policy {
        let new = || Policy { name, file: Layer::default(), live: Layer::default(), switch: None };
        Arc::make_mut(self.by_name.entry(name.as_str()).or_insert_with(|| Arc::new(new())))
    }

    fn drop_if_empty(&mut self, name: PolicyName) {
        let is_empty = |layer: &Layer| layer.definition.is_none() && layer.overrides.is_empty();
        let nothing_said =
            |policy: &Arc<Policy>| is_empty(&policy.file) && is_empty(&policy.live) && policy.switch.is_none();
        if self.by_name.get(name.as_str()).is_some_and(nothing_said) {
            self.by_name.remove(name.as_str());
        }
    }
}

impl Policy {
    /// Its name.
    pub fn name(&self) -> PolicyName {
        self.name
    }

    /// What it is. `None` if only a mode or overrides were said of it.
    pub fn definition(&self) -> Option<&Definition> {
        self.live.definition.as_ref().or(self.file.definition.as_ref())
    }

    /// What the file says of it.
    pub fn file(&self) -> &Layer {
        &self.file
    }

    /// What was said of it to a running Tollgate.
    pub fn live(&self) -> &Layer {
        &self.live
    }

    /// The mode in place of its own, if one holds.
    pub fn switch(&self, now_us: u64) -> Option<Switch> {
        self.switch.filter(|switch| !Until::is_past(switch.until, now_us))
    }

    /// What holds for this key in place of its limits: the exact key before a prefix, the longest prefix first, and of
    /// the same pattern what was said last.
    pub fn override_of(&self, key: &[u8], now_us: u64) -> Option<&Override> {
        let layers = [&self.live.overrides, &self.file.overrides];
        let exact = layers.into_iter().find_map(|overrides| overrides.exact(key, now_us));
        exact.or_else(|| {
            let found = layers.map(|overrides| overrides.longest_prefix(key, now_us));
            let [live, file] = found;
            match (live, file) {
                (Some((live_len, _)), Some((file_len, file))) if file_len > live_len => Some(file),
                (Some((_, live)), _) => Some(live),
                (None, file) => file.map(|(_, file)| file),
            }
        })
    }

    fn terms(&self, mode: Mode) -> Terms {
        let fallback = self.definition().and_then(|definition| definition.fallback);
        Terms { policy: Some(self.name), is_shadow: mode == Mode::Shadow, fallback, ..Terms::PLAIN }
    }
}

/// The answer where nothing is limited.
const OFF: Verdict = Verdict {
    allowed: true,
    limit: MAX_LIMIT,
    remaining: MAX_LIMIT,
    retry_after: RetryAfter::Now,
    ..Verdict::NOTHING_ASKED
};

fn blocked(quotas: &Quotas, until: Option<Until>, now_us: u64) -> Verdict {
    let limit = quotas.as_slice().first().map_or(0, |limit| limit.capacity());
    let retry_after = match until {
        Some(until) => RetryAfter::Ms(us_to_ms_ceil(until.us.saturating_sub(now_us)).max(1)),
        None => RetryAfter::Never,
    };
    Verdict { limit, retry_after, ..Verdict::NOTHING_ASKED }
}

#[cfg(test)]
mod tests;
