//! What an operator asks of a running Tollgate, and which changes that takes.

use super::{
    Change, Definition, Entry, MAX_OVERRIDES, MAX_POLICIES, Mode, Override, Policies, Rule, Switch, Target, Until,
};
use crate::limit::PolicyName;
use std::fmt;

/// What is asked for. Whatever ends does so after so many milliseconds.
#[derive(Debug, Clone)]
pub enum Order {
    /// That a policy be this, whether there is one of the name or not.
    Define(PolicyName, Box<Definition>),
    /// That what was said of a policy be forgotten, and what of its overrides.
    Delete(PolicyName),
    /// That a mode hold in place of what would, and until when; or none.
    Switch(Target, Option<(Mode, Option<u64>)>),
    /// That something else hold for a pattern of keys of a policy.
    Override(PolicyName, Vec<u8>, OverrideOrder),
    /// That what was said of a pattern of keys be forgotten.
    DeleteOverride(PolicyName, Vec<u8>),
}

/// What is to hold for a pattern of keys.
#[derive(Debug, Clone)]
pub struct OverrideOrder {
    /// What.
    pub rule: Rule,
    /// For how long, if not for good.
    pub for_ms: Option<u64>,
    /// Why.
    pub reason: Box<str>,
}

/// Why something cannot be done. Its Display is the reply.
#[derive(Debug, PartialEq, Eq)]
pub enum OrderError {
    /// There is no policy of the name.
    NoSuchPolicy(PolicyName),
    /// The file says it, which alone can take it back.
    PolicyOfFile(PolicyName),
    /// The same of what holds for a key.
    OverrideOfFile(PolicyName),
    /// There are [`MAX_POLICIES`].
    TooManyPolicies,
    /// There are [`MAX_OVERRIDES`].
    TooManyOverrides,
}

impl fmt::Display for OrderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchPolicy(name) => write!(f, "ERR no such policy '{}'", name.as_str()),
            Self::PolicyOfFile(name) => write!(
                f,
                "ERR policy '{0}' stands in the configuration file, which alone can take it away: \
                 RL.POLICY MODE {0} off ends its limits",
                name.as_str()
            ),
            Self::OverrideOfFile(name) => write!(
                f,
                "ERR it stands in the configuration file, which alone can take it away: RL.OVERRIDE SET {} has something \
                 else hold",
                name.as_str()
            ),
            Self::TooManyPolicies => write!(f, "ERR there are {MAX_POLICIES} policies, which is as many as may be"),
            Self::TooManyOverrides => write!(f, "ERR there are {MAX_OVERRIDES} overrides, which is as many as may be"),
        }
    }
}

impl Order {
    /// Whether it takes something back, so that its answer is whether there was something.
    pub fn is_deletion(&self) -> bool {
        matches!(self, Self::Delete(_) | Self::DeleteOverride(..))
    }
}

impl Policies {
    /// The changes by which an order is carried out: none if there is nothing to be taken back. `more` overrides are about
    /// to be set besides. `after` is the moment in so many milliseconds.
    ///
    /// # Errors
    /// It cannot be.
    pub fn changes(&self, order: &Order, more: usize, after: impl Fn(u64) -> Until) -> Result<Vec<Change>, OrderError> {
        let policy_of = |name: &PolicyName| self.by_name.get(name.as_str());
        let is_defined = |name: &PolicyName| policy_of(name).is_some_and(|policy| policy.definition().is_some());
        let known = |name: &PolicyName| if is_defined(name) { Ok(()) } else { Err(OrderError::NoSuchPolicy(*name)) };
        let entry = match order {
            Order::Define(name, definition) => {
                if !is_defined(name) && self.len() >= MAX_POLICIES {
                    return Err(OrderError::TooManyPolicies);
                }
                Entry::Definition(Some(definition.clone()))
            }
            Order::Delete(name) => return self.deletion(*name),
            Order::Switch(target, switch) => {
                if let Target::Policy(name) = target {
                    known(name)?;
                }
                Entry::Switch(switch.map(|(mode, for_ms)| Switch { mode, until: for_ms.map(after) }))
            }
            Order::Override(name, pattern, OverrideOrder { rule, for_ms, reason }) => {
                known(name)?;
                let is_new = policy_of(name).is_none_or(|policy| policy.live.overrides.get(pattern).is_none());
                if is_new && self.overrides() + more >= MAX_OVERRIDES {
                    return Err(OrderError::TooManyOverrides);
                }
                let found = Override { rule: rule.clone(), until: for_ms.map(after), reason: reason.clone() };
                Entry::Override(pattern.clone(), Some(found))
            }
            Order::DeleteOverride(name, pattern) => {
                known(name)?;
                let is_said = |layer: fn(&super::Policy) -> &super::Layer| {
                    policy_of(name).is_some_and(|policy| layer(policy).overrides.get(pattern).is_some())
                };
                match (is_said(super::Policy::live), is_said(super::Policy::file)) {
                    (true, _) => Entry::Override(pattern.clone(), None),
                    (false, true) => return Err(OrderError::OverrideOfFile(*name)),
                    (false, false) => return Ok(Vec::new()),
                }
            }
        };
        let target = match order {
            Order::Switch(target, _) => *target,
            Order::Define(name, _)
            | Order::Delete(name)
            | Order::Override(name, ..)
            | Order::DeleteOverride(name, _) => Target::Policy(*name),
        };
        Ok(vec![Change { target, entry }])
    }

    /// What is to be forgotten with a policy: first what it is, so that nobody asks for it while the rest goes.
    fn deletion(&self, name: PolicyName) -> Result<Vec<Change>, OrderError> {
        let Some(policy) = self.by_name.get(name.as_str()) else { return Ok(Vec::new()) };
        if policy.live.definition.is_none() && policy.file.definition.is_some() {
            return Err(OrderError::PolicyOfFile(name));
        }
        let change = |entry| Change { target: Target::Policy(name), entry };
        let patterns = policy.live.overrides.iter().map(|(pattern, _)| Entry::Override(pattern, None));
        let first = [Entry::Definition(None), Entry::Switch(None)];
        Ok(first.into_iter().chain(patterns).map(change).collect())
    }

    /// What holds in the place of a change, as it is written.
    pub fn standing(&self, change: &Change) -> Option<String> {
        let target = change.target;
        let policy = match target {
            Target::All => None,
            Target::Policy(name) => Some(self.by_name.get(name.as_str())?),
        };
        let entry = match (&change.entry, policy) {
            (Entry::Definition(_), Some(policy)) => Entry::Definition(policy.definition().copied().map(Box::new)),
            (Entry::Switch(_), None) => Entry::Switch(self.all),
            (Entry::Switch(_), Some(policy)) => Entry::Switch(policy.switch),
            (Entry::Override(pattern, _), Some(policy)) => {
                let found = policy.live.overrides.get(pattern).or_else(|| policy.file.overrides.get(pattern));
                Entry::Override(pattern.clone(), found.cloned())
            }
            (Entry::Definition(_) | Entry::Override(..), None) => return None,
        };
        Change { target, entry }.value()
    }

    /// What was said for a time that is over, each as it was said: at most so many.
    pub fn ended(&self, now_us: u64, most: usize) -> Vec<Change> {
        let is_past = |until: Option<Until>| Until::is_past(until, now_us);
        let of_all = self.all.filter(|all| is_past(all.until));
        let of_all = of_all.map(|all| Change { target: Target::All, entry: Entry::Switch(Some(all)) });
        let of_policies = self.by_name.values().flat_map(|policy| {
            let switch = policy.switch.filter(|switch| is_past(switch.until));
            let overrides = policy.live.overrides.ended(now_us);
            let overrides = overrides.map(|(pattern, found)| Entry::Override(pattern, Some(found.clone())));
            let entries = switch.map(|switch| Entry::Switch(Some(switch))).into_iter().chain(overrides);
            entries.map(|entry| Change { target: Target::Policy(policy.name), entry })
        });
        of_all.into_iter().chain(of_policies).take(most).collect()
    }
}

impl Change {
    /// That this be forgotten.
    #[must_use]
    pub fn undone(self) -> Self {
        let entry = match self.entry {
            Entry::Definition(_) => Entry::Definition(None),
            Entry::Switch(_) => Entry::Switch(None),
            Entry::Override(pattern, _) => Entry::Override(pattern, None),
        };
        Self { entry, ..self }
    }
}
