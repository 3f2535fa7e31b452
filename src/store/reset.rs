//! A reset on its way: which logs of which keys are to be looked at next.
//!
//! A key may have a log for each window in use, so a reset of many keys is more than Redis may be held up with at once.
//! It goes in pieces, each a run of the script:
//!
//! ```text
//!             windows in use
//!          ┌───────────────────┐
//!    keys  │ ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒ │ ─► a piece: all windows of some keys
//!          │ ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒ │
//!          │ ░░░░░░░░░░░░░░░░░ │ ─► the next one; or, where there are very many windows, some windows of one key
//!          └───────────────────┘
//! ```

use crate::limit::Counter;

/// Most logs that one piece looks at, and most bytes of their names, unless one key has more: they bound the time that a
/// piece holds Redis up.
const MAX_LOGS: usize = 256;
const MAX_NAME_BYTES: usize = 64 * 1024;

/// A reset of some keys.
#[derive(Debug)]
pub struct Reset {
    keys: Vec<Vec<u8>>,
    /// What is in use, once Redis has said which.
    counters: Option<Vec<Counter>>,
    /// The key and, of its counters, the one that the next piece begins with.
    next_key: usize,
    next_counter: usize,
    /// Most logs that a piece looks at.
    most_logs: usize,
    /// Keys that had any state, and whether the one that a piece ended within had.
    had_state: u64,
    is_live: bool,
}

/// What one run of the script is to forget.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The keys.
    pub keys: &'a [Vec<u8>],
    /// The counters of each.
    pub counters: &'a [Counter],
    /// No piece after this one names the keys.
    pub completes_its_keys: bool,
}

impl Reset {
    /// A reset of these keys.
    pub fn new(keys: Vec<Vec<u8>>) -> Self {
        Self { keys, counters: None, next_key: 0, next_counter: 0, most_logs: MAX_LOGS, had_state: 0, is_live: false }
    }

    /// The keys that are not done.
    pub fn keys_left(&self) -> &[Vec<u8>] {
        self.keys.get(self.next_key..).unwrap_or_default()
    }

    /// Redis has said which counters are in use.
    pub fn set_counters(&mut self, counters: Vec<Counter>) {
        self.counters = Some(counters);
    }

    /// Has the pieces be of one log each, of which one may be elsewhere and another not.
    pub fn take_one_log_at_a_time(&mut self) {
        self.most_logs = 1;
    }

    /// What is to be forgotten next. `None` as long as it is not known which windows are in use.
    pub fn piece(&self) -> Option<Piece<'_>> {
        let counters = self.counters.as_deref()?;
        let keys = self.keys_left();
        let counters = counters.get(self.next_counter..).unwrap_or_default();
        if counters.len() > self.most_logs || self.next_counter > 0 {
            let count = counters.len().min(self.most_logs);
            let (counters, rest) = counters.split_at(count);
            return Some(Piece { keys: keys.get(..1).unwrap_or(keys), counters, completes_its_keys: rest.is_empty() });
        }
        let most = self.most_logs / counters.len().max(1);
        let mut bytes = 0;
        let fitting = keys.iter().take(most).take_while(|key| {
            bytes += key.len() * counters.len().max(1);
            bytes <= MAX_NAME_BYTES
        });
        let count = fitting.count().max(1).min(keys.len());
        Some(Piece { keys: keys.get(..count).unwrap_or(keys), counters, completes_its_keys: true })
    }

    /// The script has done the piece, and said of each of its keys whether it was `live`.
    pub fn piece_done(&mut self, live: &[i64]) {
        let Some(piece) = self.piece() else { return };
        let (keys, counters, completes_its_keys) = (piece.keys.len(), piece.counters.len(), piece.completes_its_keys);
        for flag in live.iter().take(keys) {
            self.is_live |= *flag == 1;
            if completes_its_keys {
                self.had_state += u64::from(std::mem::take(&mut self.is_live));
            }
        }
        if completes_its_keys {
            (self.next_key, self.next_counter) = (self.next_key + keys, 0);
        } else {
            self.next_counter += counters;
        }
    }

    /// Whether the next piece is the last.
    pub fn ends_with_next_piece(&self) -> bool {
        let is_last =
            |piece: Piece<'_>| piece.completes_its_keys && self.next_key + piece.keys.len() >= self.keys.len();
        self.piece().is_some_and(is_last)
    }

    /// Whether there is nothing more to do.
    pub fn is_done(&self) -> bool {
        self.next_key >= self.keys.len()
    }

    /// How many of the keys that are done had an entry that still counted.
    pub fn had_state(&self) -> u64 {
        self.had_state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(count: u64) -> Vec<Counter> {
        (1..=count).map(|number| Counter::of_name(&number.to_string()).unwrap()).collect()
    }

    /// Does a reset of keys of this length. The size of each piece: keys, windows, and whether it completes its keys.
    fn pieces(
        keys: usize,
        key_bytes: usize,
        counter_count: u64,
        live: impl Fn(usize) -> i64,
    ) -> (Vec<(usize, usize, bool)>, u64) {
        let mut reset = Reset::new(vec![vec![b'k'; key_bytes]; keys]);
        assert_eq!(reset.piece(), None, "the windows are not known");
        reset.set_counters(counters(counter_count));
        let mut sizes = Vec::new();
        while !reset.is_done() {
            let piece = reset.piece().unwrap();
            let size = (piece.keys.len(), piece.counters.len(), piece.completes_its_keys);
            let live: Vec<i64> = (0..size.0).map(|_| live(sizes.len())).collect();
            sizes.push(size);
            let is_last = reset.ends_with_next_piece();
            reset.piece_done(&live);
            assert_eq!(is_last, reset.is_done());
        }
        (sizes, reset.had_state())
    }

    #[test]
    fn a_piece_is_bounded_and_all_pieces_are_all_logs() {
        assert_eq!(pieces(3, 10, 4, |_| 1), (vec![(3, 4, true)], 3));
        assert_eq!(
            pieces(300, 10, 2, |piece| i64::from(piece == 1)),
            (vec![(128, 2, true), (128, 2, true), (44, 2, true)], 128)
        );
        assert_eq!(pieces(100, 1024, 2, |_| 0), (vec![(32, 2, true), (32, 2, true), (32, 2, true), (4, 2, true)], 0));
        assert_eq!(pieces(300, 10, 0, |_| 0).0, [(256, 0, true), (44, 0, true)], "keys are told of all the same");
    }

    /// A key counts once, whichever of its pieces finds an entry.
    #[test]
    fn a_key_of_very_many_windows_is_done_in_pieces() {
        let of_one_key = [(1, 256, false), (1, 256, false), (1, 88, true)];
        let (sizes, had_state) = pieces(2, 10, 600, |piece| i64::from(piece < 2));
        assert_eq!(sizes, [of_one_key, of_one_key].concat());
        assert_eq!(had_state, 1);
        assert_eq!(pieces(2, 10, 600, |_| 1).1, 2);
    }
}
