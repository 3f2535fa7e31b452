//! Asks several at once, and waits no longer than for as many answers as are enough.

use std::io;
use std::pin::Pin;
use std::task::Poll;

/// Answers and who gave them, as an index, in the order in which they came; and the last error.
pub type Gathered<T> = (Vec<(usize, T)>, Option<io::Error>);

/// Asks `asked` of them, at most `width` at a time and the first ones first, until `enough` have answered or all have
/// been asked. `ask` is to end in a bounded time.
pub async fn gather<A, T>(
    asked: &[A],
    width: usize,
    enough: usize,
    ask: impl AsyncFn(&A) -> io::Result<T>,
) -> Gathered<T> {
    let mut waiting = asked.iter().enumerate();
    let mut under_way = Vec::new();
    let (mut answers, mut error) = (Vec::new(), None);
    std::future::poll_fn(|cx| {
        loop {
            let mut at = 0;
            while let Some((who, attempt)) = under_way.get_mut(at) {
                match Future::poll(Pin::as_mut(attempt), cx) {
                    Poll::Pending => at += 1,
                    Poll::Ready(outcome) => {
                        match outcome {
                            Ok(answer) => answers.push((*who, answer)),
                            Err(failure) => error = Some(failure),
                        }
                        drop(under_way.swap_remove(at));
                    }
                }
            }
            if answers.len() >= enough {
                return Poll::Ready(());
            }
            let before = under_way.len();
            let more = waiting.by_ref().take(width.saturating_sub(before));
            under_way.extend(more.map(|(who, asked)| (who, Box::pin(ask(asked)))));
            if under_way.is_empty() {
                return Poll::Ready(());
            }
            if under_way.len() == before {
                return Poll::Pending;
            }
        }
    })
    .await;
    drop(under_way);
    (answers, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::future::pending;
    use tokio::task::yield_now;

    const SILENT: i32 = 0;

    /// Asks those who answer after so many turns, or fail after minus so many. Who has answered, how many were asked, and
    /// whether there is an error.
    fn gathered(asked: &[i32], width: usize, enough: usize) -> (Vec<i32>, usize, bool) {
        let count = Cell::new(0);
        let ask = async |turns: &i32| {
            count.set(count.get() + 1);
            if *turns == SILENT {
                pending::<()>().await;
            }
            for _ in 0..turns.abs() {
                yield_now().await;
            }
            if *turns > 0 { Ok(*turns) } else { Err(io::Error::other("no")) }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (answers, error) = runtime.block_on(gather(asked, width, enough, ask));
        assert!(answers.iter().all(|(who, turns)| asked[*who] == *turns));
        (answers.into_iter().map(|(_, turns)| turns).collect(), count.get(), error.is_some())
    }

    #[test]
    fn nobody_is_waited_for_longer_than_needed() {
        assert_eq!(gathered(&[], 3, 1), (vec![], 0, false));
        assert_eq!(gathered(&[SILENT, 8, 4], 3, 2), (vec![4, 8], 3, false));
        assert_eq!(gathered(&[8, 4, SILENT], 1, 2), (vec![8, 4], 2, false), "one after another");
        assert_eq!(gathered(&[SILENT, -2, 8, 4], 2, 1), (vec![8], 3, true), "one that fails makes room");
        assert_eq!(gathered(&[-2, -4, 8], 3, 2), (vec![8], 3, true), "there are no more");
    }
}
