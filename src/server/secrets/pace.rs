//! Paces of tokens: one write after another, and pauses that a forge asks for. All that goes by a token shares one.
//!
//! They are in memory only: a start learns of a pause by the first call that is refused.

use ring::digest::{SHA256, digest};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

/// How long it is remembered after a pause how often the forge has asked for one.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);

/// The paces of all tokens, by a hash of what they are for.
#[derive(Debug, Default)]
pub struct Paces(Mutex<HashMap<Vec<u8>, Arc<TokenPace>>>);

impl Paces {
    /// The pace of what these words name, such as the address of an API and a token. Those that hold nobody up go.
    pub fn of(&self, words: &[&str]) -> Arc<TokenPace> {
        let key = digest(&SHA256, words.join("\n").as_bytes()).as_ref().to_vec();
        let mut paces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        paces.retain(|_, pace| Arc::strong_count(pace) > 1 || pace.is_remembered(now));
        Arc::clone(paces.entry(key).or_default())
    }
}

/// The pace of one token.
#[derive(Debug, Default)]
pub struct TokenPace {
    /// The time before which the next write does not begin; whoever writes holds it.
    writer: Arc<tokio::sync::Mutex<Option<Instant>>>,
    asked: Mutex<AskedPause>,
}

/// The pause that the forge has asked for.
#[derive(Debug, Default)]
struct AskedPause {
    /// The end of the pause.
    until: Option<Instant>,
    /// Pauses since the last call that was answered well.
    in_a_row: u32,
}

/// The right to write, as long as it is kept.
#[derive(Debug)]
pub struct WriteTurn {
    _held: OwnedMutexGuard<Option<Instant>>,
}

impl TokenPace {
    /// Waits for all that write before, and until so much time has passed since the last of them began.
    pub async fn turn(&self, between: Duration) -> WriteTurn {
        let mut held = Arc::clone(&self.writer).lock_owned().await;
        if let Some(next) = *held {
            tokio::time::sleep_until(next).await;
        }
        *held = Some(Instant::now() + between);
        WriteTurn { _held: held }
    }

    /// The rest of the pause.
    pub fn rest(&self) -> Option<Duration> {
        let rest = self.asked().until?.saturating_duration_since(Instant::now());
        (!rest.is_zero()).then_some(rest)
    }

    /// How many pauses the forge has asked for in a row.
    pub fn in_a_row(&self) -> u32 {
        self.asked().in_a_row
    }

    /// Begins a pause; one that ends later stays.
    pub fn pause(&self, time: Duration) {
        let mut asked = self.asked();
        asked.until = asked.until.max(Some(Instant::now() + time));
        asked.in_a_row = asked.in_a_row.saturating_add(1);
    }

    /// Notes a call that was answered well.
    pub fn answered(&self) {
        self.asked().in_a_row = 0;
    }

    fn is_remembered(&self, now: Instant) -> bool {
        let is_writing = self.writer.try_lock().map_or(true, |next| next.is_some_and(|next| next > now));
        is_writing || self.asked().until.is_some_and(|until| until + REMEMBERED > now)
    }

    fn asked(&self) -> MutexGuard<'_, AskedPause> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_of_one_token_at_one_place_and_no_shorter_one_ends_it() {
        let paces = Paces::default();
        let of = |words: &[&str]| paces.of(words);
        of(&["https://api", "token"]).pause(Duration::from_secs(600));
        of(&["https://api", "token"]).pause(Duration::from_secs(1));
        let pace = of(&["https://api", "token"]);
        assert!(pace.rest().is_some_and(|rest| rest > Duration::from_secs(500)) && pace.in_a_row() == 2);
        assert_eq!(of(&["https://api", "other"]).rest(), None);
        assert_eq!(of(&["https://other", "token"]).rest(), None);
        assert_eq!(paces.0.lock().map_or(0, |paces| paces.len()), 2, "those that hold nobody up go");
        pace.answered();
        assert!(pace.in_a_row() == 0 && pace.rest().is_some());
    }
}
