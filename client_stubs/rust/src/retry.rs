//! When a call is sent again by the client: a pure decision. The server's own resends are not its concern.

use std::time::{Duration, Instant};

use crate::errors::Error;

/// Limits of the client's own resends of one call.
///
/// A call is sent again only before anything of it was delivered, and only where the server said so (RetryInfo) or was
/// not reached at all (UNAVAILABLE without ErrorInfo). The defaults bridge a server's restart of some seconds.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// Sends of one call, the first included; 1: never again.
    pub max_tries: u32,
    /// Wait before the first resend to a server that was not reached; doubled each time.
    pub first_wait: Duration,
    /// Longest of those waits.
    pub longest_wait: Duration,
    /// Most waiting of one call; a wait that would pass it, or the call's deadline, is not begun.
    pub total_wait: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            max_tries: 8,
            first_wait: Duration::from_millis(100),
            longest_wait: Duration::from_secs(2),
            total_wait: Duration::from_secs(30),
        }
    }
}

impl Retry {
    /// Decides about a call that failed: how long to wait before the next send, `None` when the error is final.
    ///
    /// `tries` and `waited` are those so far, `remaining` is the time until the deadline, `jitter` is from 0 to below 1.
    fn wait(
        &self,
        error: &Error,
        tries: u32,
        waited: Duration,
        remaining: Option<Duration>,
        jitter: f64,
    ) -> Option<Duration> {
        let wait = if let Some(after) = error.facts.retry_after {
            after.saturating_add(self.first_wait.mul_f64(jitter))
        } else if error.facts.is_transport_failure {
            let doubled = 2_u32.checked_pow(tries - 1).and_then(|times| self.first_wait.checked_mul(times));
            doubled.unwrap_or(self.longest_wait).min(self.longest_wait).mul_f64(0.5 + 0.5 * jitter)
        } else {
            return None;
        };
        let is_final = tries >= self.max_tries
            || waited.saturating_add(wait) > self.total_wait
            || remaining.is_some_and(|remaining| wait >= remaining);
        (!is_final).then_some(wait)
    }
}

/// The sends of one call: counts them, keeps its deadline, says how long to wait between them.
#[derive(Debug)]
pub(crate) struct Tries {
    retry: Retry,
    deadline: Option<Instant>,
    count: u32,
    waited: Duration,
}

impl Tries {
    /// Starts the deadline; without a timeout there is none.
    pub(crate) fn new(retry: Retry, timeout: Option<Duration>) -> Self {
        // A deadline beyond the clock's end is none.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        Self { retry, deadline, count: 1, waited: Duration::ZERO }
    }

    /// Until the deadline, at least zero; `None` without one.
    pub(crate) fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// The wait before the next send, which is counted; `None` when the error is final.
    pub(crate) fn next_wait(&mut self, error: &Error) -> Option<Duration> {
        let wait = self.retry.wait(error, self.count, self.waited, self.remaining(), fastrand::f64())?;
        self.count += 1;
        self.waited += wait;
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Retry;
    use crate::errors::{Error, ErrorFacts, ErrorKind};

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn failure(retry_after: Option<Duration>, is_transport_failure: bool) -> Error {
        let facts = ErrorFacts { retry_after, is_transport_failure, ..ErrorFacts::default() };
        Error::new(ErrorKind::Unavailable, "", facts)
    }

    #[test]
    fn waits_follow_the_contract() {
        let (lost, told, other) = (failure(None, true), failure(Some(ms(700)), false), failure(None, false));
        for (name, error, tries, waited, remaining, jitter, expected) in [
            ("neither told nor lost", &other, 1, 0, None, 0.0, None),
            ("told, with jitter on top", &told, 1, 0, None, 0.5, Some(750)),
            ("lost, shortest", &lost, 1, 0, None, 0.0, Some(50)),
            ("doubled", &lost, 3, 0, None, 0.5, Some(300)),
            ("at most the longest", &lost, 7, 0, None, 0.0, Some(1000)),
            ("the last send", &lost, 8, 0, None, 0.0, None),
            ("all waiting used up", &told, 2, 29_301, None, 0.0, None),
            ("just not used up", &told, 2, 29_300, None, 0.0, Some(700)),
            ("would pass the deadline", &told, 1, 0, Some(700), 0.0, None),
            ("just before the deadline", &told, 1, 0, Some(701), 0.0, Some(700)),
        ] {
            let found = Retry::default().wait(error, tries, ms(waited), remaining.map(ms), jitter);
            assert_eq!(found, expected.map(ms), "{name}");
        }
    }

    #[test]
    fn a_delay_beyond_all_bounds_is_final_and_no_overflow() {
        let retry = Retry { max_tries: u32::MAX, ..Retry::default() };

        assert_eq!(retry.wait(&failure(Some(Duration::MAX), false), 1, ms(1), None, 0.9), None);
        assert_eq!(retry.wait(&failure(None, true), 4000, ms(1), None, 0.0), Some(ms(1000)));
    }
}
