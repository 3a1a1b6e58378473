//! Runners that wait for work: claims that are parked, each on a connection of its own, and no thread for any.

use crate::caller::Caller;
use crate::plane::Plane;
use crate::work::{Claimed, claim_of};
use rustix::event::epoll;
use std::time::{Duration, Instant};

pub(crate) struct Parked {
    callers: Vec<Caller>,
    ready: rustix::fd::OwnedFd,
}

impl Parked {
    /// Parks so many claims.
    pub(crate) fn park(plane: &Plane, count: u64) -> Result<Self, String> {
        let ready = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|error| error.to_string())?;
        let mut parked = Self { callers: Vec::new(), ready };
        for n in 0..count {
            let caller = plane.caller()?;
            let data = epoll::EventData::new_u64(n);
            epoll::add(&parked.ready, &caller, data, epoll::EventFlags::IN)
                .map_err(|error| format!("failed to wait for a connection: {error}"))?;
            parked.callers.push(caller);
            parked.claim(plane, n as usize)?;
            // Unknown connections are bounded: each has to show its token before too many others come.
            if n % 256 == 255 {
                settle(plane)?;
            }
        }
        settle(plane)?;
        Ok(parked)
    }

    fn claim(&mut self, plane: &Plane, n: usize) -> Result<(), String> {
        let claim = claim_of(&format!("parked-{n}"));
        self.callers[n].send("POST /api/v3/runner/claim?wait=55", &plane.class_token, claim.as_bytes())
    }

    /// From the trigger of a pipeline of one job to its task at one of the runners, so many times; shortest first. Each
    /// task is run, and its runner parks again.
    pub(crate) fn dispatch(&mut self, plane: &Plane, times: u64) -> Result<Vec<Duration>, String> {
        let (mut caller, mut taken) = (plane.caller()?, Vec::new());
        while (taken.len() as u64) < times {
            let began = Instant::now();
            plane.trigger(&mut caller, 1)?;
            taken.push(self.wait_for_task(plane, &mut caller, began)?);
        }
        taken.sort_unstable();
        Ok(taken)
    }

    fn wait_for_task(
        &mut self,
        plane: &Plane,
        caller: &mut Caller,
        began: Instant,
    ) -> Result<Duration, String> {
        loop {
            let mut events = Vec::with_capacity(16);
            let limit = rustix::event::Timespec { tv_sec: 60, tv_nsec: 0 };
            epoll::wait(&self.ready, rustix::buffer::spare_capacity(&mut events), Some(&limit))
                .map_err(|error| format!("failed to wait for the runners: {error}"))?;
            let took = began.elapsed();
            if events.is_empty() {
                return Err("a task did not get to any of the runners that wait".to_owned());
            }
            let mut found = None;
            for event in events {
                let n = event.data.u64() as usize;
                let answer = self.callers[n].receive()?;
                // Another status says that the time of the claim was over.
                if answer.status == 200 {
                    found = Some(Claimed::of(&answer)?);
                }
                self.claim(plane, n)?;
            }
            if let Some(task) = found {
                task.run(caller)?;
                return Ok(took);
            }
        }
    }
}

/// Waits until the process has nothing to do.
fn settle(plane: &Plane) -> Result<(), String> {
    let mut before = plane.cpu()?;
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let now = plane.cpu()?;
        if now.saturating_sub(before) < Duration::from_millis(20) {
            return Ok(());
        }
        before = now;
    }
}
