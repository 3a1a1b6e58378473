//! Claims: a thread for each resource class, which asks as long as there is a slot.

use super::plane::{self, ClaimedTask};
use super::settings::ContainerSettings;
use super::slots::{Slot, Slots};
use crate::agent::calls;
use crate::agent::pace::{Notice, Pace};
use crate::http::{Client, Error, retry};
use crate::protocol::{ClaimRequest, RefusalCode, Secret, TaskKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Longest that a claim asks to be parked: its slot is taken meanwhile, and other classes may need it.
const PARK: Duration = Duration::from_secs(20);
/// How often it is looked whether a class that no node fits is open again.
const CLOSED: Duration = Duration::from_millis(200);

/// A class that is claimed for.
pub(super) struct Claiming {
    /// Token of the class.
    pub(super) token: Secret,
    /// Client for claims alone: closed to end them.
    pub(super) client: Arc<Client>,
    /// Source of slots.
    pub(super) slots: Slots,
    /// Set when no further claim is to be made.
    pub(super) stopping: Arc<AtomicBool>,
    /// Set while no node of the cluster fits the pods of the class.
    pub(super) is_closed: Arc<AtomicBool>,
}

impl Claiming {
    /// Claims until that is stopped; `tell` gets every task, with its slot.
    pub(super) fn run(
        &self,
        settings: &ContainerSettings,
        class: &str,
        tell: impl Fn(Box<ClaimedTask>, Slot),
    ) {
        let mut request = ClaimRequest {
            name: settings.name.clone(),
            hostname: settings.instance.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            os: std::env::consts::OS.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            nonce: crate::system::random_id(),
            machine_id: None,
            boot_id: None,
            takes: vec![TaskKind::Container],
            resource_class: None,
        };
        let mut pace = Pace::new(PARK);
        let whose = format!(" for `{class}`");
        let say = |notice: Option<Notice>| notice.into_iter().for_each(|notice| notice.tell(&whose));
        let mut is_hopeless = false;
        loop {
            while self.is_closed.load(Ordering::Relaxed) && !self.stopping.load(Ordering::Relaxed) {
                self.pause(CLOSED);
            }
            self.pause(pace.rest(Instant::now()));
            let Some(slot) = self.slots.take() else { return };
            let (started, wait) = (Instant::now(), pace.longest());
            pace.asks(wait);
            match plane::claim(&self.client, &self.token, &request, wait) {
                Ok(None) => say(pace.nothing_came(started, Instant::now(), retry::random())),
                Ok(Some(task)) => {
                    say(pace.usable(Instant::now()));
                    is_hopeless = false;
                    request.nonce = crate::system::random_id();
                    tell(Box::new(task), slot);
                }
                Err(_) if self.stopping.load(Ordering::Relaxed) => return,
                // The answer was lost on the way, and its task is known here or comes back by its lease.
                Err(error) if error.code() == Some(RefusalCode::HoldsTask) => {
                    request.nonce = crate::system::random_id();
                }
                Err(error) => {
                    drop(slot);
                    if let Error::TooLong { claimed: Some(claimed), .. } = &error {
                        self.give_back(claimed, &error.to_string());
                    }
                    if matches!(error, Error::Undecodable(_) | Error::TooLong { .. }) {
                        request.nonce = crate::system::random_id();
                    }
                    match pace.failed(&error, started, Instant::now(), retry::random()) {
                        Ok(notice) => say(notice),
                        // Runners of other classes go on; this one tries again now and then.
                        Err(why) if !std::mem::replace(&mut is_hopeless, true) => {
                            log::error!("cannot claim tasks{whose}, trying on quietly: {why}");
                        }
                        Err(_) => {}
                    }
                }
            }
        }
    }

    /// Gives back the task whose claim cannot be read. Unheard, it goes back when its claim lapses.
    fn give_back(&self, claimed: &str, why: &str) {
        let Some((task, allocation)) = calls::claimed(claimed) else { return };
        if let Err(error) = plane::lost(&self.client, &self.token, &task, allocation, why) {
            log::warn!("cannot give back the task `{task}`: {error}");
        }
    }

    fn pause(&self, time: Duration) {
        let until = std::time::Instant::now() + time;
        while !self.stopping.load(Ordering::Relaxed) && std::time::Instant::now() < until {
            std::thread::sleep(time.min(Duration::from_millis(200)));
        }
    }
}
