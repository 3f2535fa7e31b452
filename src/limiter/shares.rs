//! Shares: what Redis has granted ahead of a key's limits, and one worker admits without asking.
//!
//! ```text
//!            asked                 granted                                           dated
//!   share ---[---------------------|-------- used here ------------------)----------|------> Redis's clock
//!            sent_us               now_us                   sent_us + e x 255/256    now_us + e
//! ```
//! Redis counts a share as one entry that is dated when it is over, so whatever is admitted by it is admitted before the
//! entry's date, and no window ever holds more than its limit. A share is over by this process's clock somewhat sooner
//! than by Redis's, should that be the faster one. What is left then is given back.
//!
//! How large a share is asked for follows from what was asked for the key lately. It is at most a quarter of what is free,
//! and none is asked for that would serve but a few checks: then each check is asked for, as if there were no shares.
//!
//! Pure: knows no connection and reads no clock.

use super::reset_marks::Moment;
use crate::limit::{Ask, Limit, RetryAfter, Verb, Verdict, us_to_ms_ceil};
use hashbrown::HashTable;

/// A share is worth its price if it serves so many checks.
const MIN_CHECKS: u64 = 4;
/// A share is at most one of so many parts of what is free.
const PARTS_OF_FREE: u32 = 4;
/// Most shares of a key: one in use, one behind it, and one that is over and not given back yet.
const MAX_HELD: usize = 3;
/// Keys that a worker keeps an account of, and how often it looks for idle ones while it has so many.
const MAX_KEYS: usize = 10_000;
const SWEEP_EVERY_US: u64 = 100_000;
/// Two clocks do not differ by as much as one part in so many.
const CLOCKS_PART: u64 = 256;

/// One worker's shares.
#[derive(Debug, Default)]
pub struct Shares {
    accounts: HashTable<Account>,
    tickets: u64,
    swept_us: u64,
}

/// What is known of a key, under some limits.
#[derive(Debug)]
struct Account {
    hash: u64,
    key: Box<[u8]>,
    limits: Box<[Limit]>,
    /// How long a share lives.
    life_us: u64,
    demand: Demand,
    /// What was granted and is not over, in that order.
    held: Vec<Share>,
    /// The share that was asked for and not answered, and when; and what was asked for behind it.
    asked: Option<(u64, Moment)>,
    behind: u32,
    told: Told,
    /// Until then there is no more free than was told.
    told_until_us: u64,
}

/// What Redis said last.
#[derive(Debug, Clone, Copy, Default)]
pub struct Told {
    /// Which limit binds.
    pub binding: u8,
    /// What is free of it, but for what is held here.
    pub remaining: u32,
    /// When it is empty.
    pub empty_at_us: u64,
}

/// How much is asked for in the time that a share lives.
#[derive(Debug, Default)]
struct Demand {
    since_us: u64,
    units: u64,
    units_before: u64,
}

/// A share that was granted.
#[derive(Debug)]
pub struct Share {
    /// By this it was asked for.
    pub ticket: u64,
    /// The id of its entries in Redis.
    pub id: String,
    /// Its size.
    pub granted: u32,
    /// What is left of it.
    pub left: u32,
    /// It may be used until then: microseconds.
    pub ends_us: u64,
    /// When it was asked for. It holds as long as its key was not reset since.
    pub since: Moment,
}

/// What Redis grants.
#[derive(Debug)]
pub struct Grant {
    /// The share's name.
    pub ticket: u64,
    /// The id of its entries.
    pub id: String,
    /// Its size.
    pub units: u32,
    /// It may be used until then: microseconds.
    pub ends_us: u64,
}

/// A share that is to be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub ticket: u64,
    /// Its size, 1 to [`MAX_COST`](crate::limit::MAX_COST).
    pub units: u32,
    /// How long it lives, by Redis's clock: microseconds.
    pub life_us: u64,
}

/// When a share may no longer be used that was asked for at a time.
pub fn end_us(sent_us: u64, life_us: u64) -> u64 {
    sent_us + life_us - life_us / CLOCKS_PART
}

/// The limits under which Redis is to grant so many units: so much lower that they are no more than their part of what is
/// free.
pub fn lowered(limits: &[Limit], units: u32) -> Vec<Limit> {
    let by = (PARTS_OF_FREE - 1).saturating_mul(units);
    limits.iter().map(|limit| Limit { max: limit.max.saturating_sub(by), ..*limit }).collect()
}

/// The limits that were lowered so.
pub fn raised(limits: &[Limit], units: u32) -> Vec<Limit> {
    let by = (PARTS_OF_FREE - 1).saturating_mul(units);
    limits.iter().map(|limit| Limit { max: limit.max.saturating_add(by), ..*limit }).collect()
}

impl Shares {
    /// Admits what a share of `since` has room for, and counts it there if it is a check. And what share is to be asked
    /// for, because those that are held are soon used up.
    pub fn take(
        &mut self,
        verb: Verb,
        (hash, ask): (u64, &Ask<'_>),
        since: Moment,
        now_us: u64,
    ) -> Option<(Verdict, Option<Wanted>)> {
        let account = find(&mut self.accounts, hash, ask)?;
        let is_usable = |share: &Share| share.left >= ask.cost && now_us < share.ends_us && share.since == since;
        let place = account.held.iter().position(is_usable)?;
        let verdict = account.verdict(ask.cost, now_us);
        if verb == Verb::Peek {
            return Some((verdict, None));
        }
        account.demand.note(ask.cost, account.life_us, now_us);
        let is_last = place + 1 == account.held.len();
        let share = account.held.get_mut(place)?;
        share.left -= ask.cost;
        let is_low = is_last && share.left < share.granted / 4;
        if share.left == 0 {
            account.held.remove(place);
        }
        Some((verdict, if is_low { account.want(ask.cost, &mut self.tickets, since, now_us) } else { None }))
    }

    /// Notes a check that no share of `since` has admitted. What share is to be asked for, if one is worth it.
    pub fn missed(&mut self, (hash, ask): (u64, &Ask<'_>), since: Moment, now_us: u64) -> Option<Wanted> {
        if find(&mut self.accounts, hash, ask).is_none() {
            self.open(hash, ask, now_us)?;
        }
        let account = find(&mut self.accounts, hash, ask)?;
        account.demand.note(ask.cost, account.life_us, now_us);
        match account.asked {
            Some(_) => account.behind = account.behind.saturating_add(ask.cost),
            None => account.told.remaining = account.told.remaining.saturating_sub(ask.cost),
        }
        let is_held = account.held.iter().any(|share| now_us < share.ends_us && share.left >= share.granted / 4);
        if is_held { None } else { account.want(ask.cost, &mut self.tickets, since, now_us) }
    }

    /// The share of this name was granted, of this size, and ends then. Whether there is use for it still.
    pub fn granted(&mut self, (hash, ask): (u64, &Ask<'_>), grant: Grant, told: Told, now_us: u64) -> bool {
        let Grant { ticket, id, units, ends_us } = grant;
        let Some((account, since)) = self.answered(hash, ask, ticket) else { return false };
        let remaining = told.remaining.saturating_sub(account.behind);
        account.tell(Told { remaining, ..told }, now_us);
        let is_of_use = now_us < ends_us;
        if is_of_use {
            account.held.push(Share { ticket, id, granted: units, left: units, ends_us, since });
        }
        is_of_use
    }

    /// The share of this name was refused, where this is how it stands; or there is no answer.
    pub fn refused(&mut self, (hash, ask): (u64, &Ask<'_>), ticket: u64, told: Option<Told>, now_us: u64) {
        if let Some((account, _)) = self.answered(hash, ask, ticket) {
            account.tell(told.unwrap_or_default(), now_us);
        }
    }

    /// Who has asked for the share of this name, and when, if that was not answered yet.
    fn answered(&mut self, hash: u64, ask: &Ask<'_>, ticket: u64) -> Option<(&mut Account, Moment)> {
        let account = find(&mut self.accounts, hash, ask)?;
        let (_, since) = account.asked.take_if(|(asked, _)| *asked == ticket)?;
        Some((account, since))
    }

    /// A share is over. Returns it if something of it is left.
    pub fn end(&mut self, (hash, ask): (u64, &Ask<'_>), ticket: u64) -> Option<Share> {
        let account = find(&mut self.accounts, hash, ask)?;
        let place = account.held.iter().position(|share| share.ticket == ticket)?;
        let share = account.held.remove(place);
        account.told.remaining = account.told.remaining.saturating_add(share.left);
        Some(share).filter(|share| share.left > 0)
    }

    /// Ends all shares, and passes what is left of each to `give_back`, with its key and limits.
    pub fn end_all(&mut self, mut give_back: impl FnMut(&Ask<'_>, Share)) {
        for account in self.accounts.drain() {
            let ask = Ask { key: &account.key, limits: &account.limits, cost: 1 };
            account.held.into_iter().for_each(|share| give_back(&ask, share));
        }
    }

    /// Keeps an account of a key from now on, if there is room and there may be shares.
    fn open(&mut self, hash: u64, ask: &Ask<'_>, now_us: u64) -> Option<()> {
        let life_us = ask.share_life_us()?;
        if self.accounts.len() >= MAX_KEYS && now_us >= self.swept_us + SWEEP_EVERY_US {
            self.swept_us = now_us;
            self.accounts.retain(|account| !account.is_idle(now_us));
        }
        if self.accounts.len() >= MAX_KEYS {
            return None;
        }
        let account = Account {
            hash,
            key: ask.key.into(),
            limits: ask.limits.into(),
            life_us,
            demand: Demand::default(),
            held: Vec::new(),
            asked: None,
            behind: 0,
            told: Told::default(),
            told_until_us: 0,
        };
        self.accounts.insert_unique(hash, account, |account| account.hash);
        Some(())
    }
}

fn find<'a>(accounts: &'a mut HashTable<Account>, hash: u64, ask: &Ask<'_>) -> Option<&'a mut Account> {
    accounts.find_mut(hash, |account| *account.key == *ask.key && *account.limits == *ask.limits)
}

impl Account {
    /// That a check of this cost is admitted here.
    fn verdict(&self, cost: u32, now_us: u64) -> Verdict {
        let Told { binding, remaining, empty_at_us } = self.told;
        let left = self.held.iter().map(|share| share.left).fold(remaining, u32::saturating_add);
        Verdict {
            allowed: true,
            is_shadow: false,
            binding,
            limit: self.limits.get(usize::from(binding)).map_or(0, |limit| limit.max),
            remaining: left.saturating_sub(cost),
            retry_after: RetryAfter::Now,
            reset_after_ms: us_to_ms_ceil(empty_at_us.saturating_sub(now_us)),
            degraded: false,
        }
    }

    /// The share that is to be asked for next, by who asks for so much at once.
    fn want(&mut self, cost: u32, tickets: &mut u64, since: Moment, now_us: u64) -> Option<Wanted> {
        if self.asked.is_some() || self.held.len() >= MAX_HELD {
            return None;
        }
        let free = if now_us < self.told_until_us { self.told.remaining } else { u32::MAX };
        let free = self.limits.iter().map(|limit| limit.max).fold(free, u32::min);
        let most = self.limits.first()?.terms.prefetch?.max_units().min(free / PARTS_OF_FREE);
        let units = self.demand.in_life().min(most.into());
        if units < MIN_CHECKS * u64::from(cost) {
            return None;
        }
        *tickets += 1;
        (self.asked, self.behind) = (Some((*tickets, since)), 0);
        Some(Wanted { ticket: *tickets, units: u32::try_from(units).ok()?, life_us: self.life_us })
    }

    fn tell(&mut self, told: Told, now_us: u64) {
        (self.told, self.told_until_us) = (told, now_us + self.life_us);
    }

    /// Whether nothing was asked for the key lately, and nothing is held.
    fn is_idle(&self, now_us: u64) -> bool {
        self.held.is_empty() && self.asked.is_none() && now_us >= self.demand.since_us + 2 * self.life_us
    }
}

impl Demand {
    fn note(&mut self, units: u32, life_us: u64, now_us: u64) {
        let passed_us = now_us.saturating_sub(self.since_us);
        if passed_us >= life_us {
            self.units_before = if passed_us < 2 * life_us { self.units } else { 0 };
            (self.since_us, self.units) = (now_us, 0);
        }
        self.units += u64::from(units);
    }

    fn in_life(&self) -> u64 {
        self.units.max(self.units_before)
    }
}

#[cfg(test)]
mod tests;
