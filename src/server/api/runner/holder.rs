//! The task agent behind a call: who it is by its token, what the machine says of its call, and what every answer to it
//! says in `Runlet-Task`.

use crate::protocol::{RefusalCode, TASK_CANCEL, TASK_ENDED, TASK_HEADER, TaskId};
use crate::server::api::shared::callers::{bearer_of, check_protocol, holder_of};
use crate::server::api::shared::failure::{Answer, ApiError};
use crate::server::auth;
use crate::server::engine::commit::task::{self, InHand};
use crate::server::engine::task::{Call, Denied, Passed};
use crate::server::ids::{JobId, PipelineId, ProjectId};
use crate::server::state::Shared;
use crate::server::store::status::EndedBy;
use crate::server::store::{Error, Tx, View};
use crate::server::time::Millis;
use axum::extract::{FromRequestParts, Request};
use axum::http::{HeaderValue, StatusCode, request::Parts};
use axum::response::Response;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// News of a task for the answer to the call that is being handled.
#[derive(Debug, Default)]
pub(super) struct News {
    cancel: AtomicBool,
    ended: AtomicBool,
}

/// Runs the call of a runner, and puts the news of the task on the answer, whatever it is.
pub(in crate::server::api) async fn tell<F>(mut request: Request, next: impl FnOnce(Request) -> F) -> Response
where
    F: Future<Output = Response>,
{
    let news = Arc::new(News::default());
    request.extensions_mut().insert(Arc::clone(&news));
    let mut response = next(request).await;
    let word = if news.ended.load(Ordering::Relaxed) {
        TASK_ENDED
    } else if news.cancel.load(Ordering::Relaxed) {
        TASK_CANCEL
    } else {
        return response;
    };
    response.headers_mut().insert(TASK_HEADER_NAME, HeaderValue::from_static(word));
    response
}

/// [`TASK_HEADER`] as the library wants it.
const TASK_HEADER_NAME: axum::http::HeaderName = axum::http::HeaderName::from_static("runlet-task");

/// A task by its token, as it was when the call came in. The task in the path must be the token's. The lease is renewed by
/// calls that the machine takes: a refused one, or one that cannot be read, changes nothing.
#[derive(Debug)]
pub(in crate::server::api) struct Holder {
    /// Task that the token of the call is for.
    pub(in crate::server::api) id: TaskId,
    /// Pipeline of the task, whose watchers are told.
    pub(in crate::server::api) pipeline: PipelineId,
    /// Job that the task is an attempt at.
    pub(in crate::server::api) job: JobId,
    /// Project whose caches the task reads and writes.
    pub(in crate::server::api) project: ProjectId,
    hand: InHand,
    news: Arc<News>,
}

impl FromRequestParts<Shared> for Holder {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &Shared) -> Result<Self, ApiError> {
        check_protocol(parts)?;
        let tokens = bearer_of(parts).map(str::to_owned).into_iter().collect();
        let found = holder_of(parts, state, tokens, |view, tokens| match tokens.first() {
            Some(token) => auth::task_of(view, token),
            None => Ok(None),
        });
        let row = found
            .await?
            .ok_or_else(|| ApiError::new(StatusCode::UNAUTHORIZED, "a valid task token is needed here"))?;
        if let Some(rest) = parts.uri.path().strip_prefix("/api/v3/runner/tasks/") {
            if rest.split('/').next() != Some(row.id.as_str()) {
                return Err(ApiError::not_found("this token is for another task"));
            }
        }
        debug_assert!(TASK_HEADER_NAME.as_str().eq_ignore_ascii_case(TASK_HEADER));
        let news = parts.extensions.get::<Arc<News>>().cloned().unwrap_or_default();
        let holder = Self {
            id: row.id.clone(),
            pipeline: row.pipeline.clone(),
            job: row.job.clone(),
            project: row.project.clone(),
            hand: InHand::of(row)?,
            news,
        };
        holder.hear(holder.hand.task.cancel_asked);
        Ok(holder)
    }
}

impl Holder {
    /// The answer will say that a cancel is asked for.
    pub(super) fn hear(&self, cancel: bool) {
        self.news.cancel.fetch_or(cancel, Ordering::Relaxed);
    }

    /// Whether the machine would take the call, as the task was when the call came in.
    pub(super) fn would_take(&self, call: Call) -> bool {
        self.hand.task.clone().call(call, std::time::Duration::ZERO, Millis::now()).is_ok()
    }

    /// Renews the lease for a call that is taken, where that changes anything that counts, and refuses early what would
    /// be refused in the end: before bytes go to the disk, or a file is looked for. What counts is said by
    /// [`Holder::writes`] or [`Holder::reads`]. A call that is refused renews nothing.
    pub(super) async fn takes(&self, state: &Shared, call: Call) -> Answer<Passed> {
        let lease = state.settings.lease();
        let mut task = self.hand.task.clone();
        let step = task.announce(call, lease, Millis::now());
        if task == self.hand.task {
            return self.decided(step.map(|step| step.answer));
        }
        let id = self.id.clone();
        // The state by then decides.
        let write = move |tx: &Tx<'_>| task::announce(tx, &id, call, lease, Millis::now());
        self.decided(state.store.write(write).await?)
    }

    /// Writes rows for the task, in one commit with the check that it still takes the call.
    pub(super) async fn writes<T: Send + 'static>(
        &self,
        state: &Shared,
        work: impl FnOnce(&Tx<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Answer<T> {
        let (id, lease) = (self.id.clone(), state.settings.lease());
        let written = state
            .store
            .write(move |tx| task::call_and(tx, &id, Call::Other, lease, Millis::now(), work))
            .await?;
        self.answered(written)
    }

    /// Reads for the task, in one view of the store with the check that it still takes the call.
    pub(super) async fn reads<T: Send + 'static>(
        &self,
        state: &Shared,
        call: Call,
        work: impl FnOnce(&View) -> Result<T, Error> + Send + 'static,
    ) -> Answer<T> {
        self.takes(state, call).await?;
        let id = self.id.clone();
        let read = state.store.read(move |view| task::read_for(view, &id, call, Millis::now(), work)).await?;
        self.answered(read)
    }

    /// Confirms that bytes that are on the disk by now were taken while the task took them.
    pub(super) async fn took(&self, state: &Shared, call: Call) -> Answer<Passed> {
        let id = self.id.clone();
        let read =
            state.store.look_up(move |view| task::read_for(view, &id, call, Millis::now(), |_| Ok(())));
        self.decided(read.await?.map(|(taken, ())| taken))
    }

    /// A value that the machine did not refuse, and its news told on the answer to the call.
    pub(super) fn answered<T>(&self, answer: Result<(Passed, T), Denied>) -> Answer<T> {
        match answer {
            Ok((taken, value)) => self.decided(Ok(taken)).map(|_| value),
            Err(why) => Err(self.refused(why)),
        }
    }

    /// The machine's refusal, told on the answer to the call: a cancel may have come while the call was on its way.
    pub(super) fn refused(&self, why: Denied) -> ApiError {
        self.hear(matches!(why, Denied::Ended { by: EndedBy::Cancel, .. }));
        refused(why)
    }

    /// The machine's answer, told on the answer to the call.
    pub(super) fn decided(&self, taken: Result<Passed, Denied>) -> Answer<Passed> {
        let taken = taken.map_err(|why| self.refused(why))?;
        self.hear(taken.cancel);
        self.news.ended.fetch_or(taken.late, Ordering::Relaxed);
        Ok(taken)
    }

    /// Refuses a task that has not begun or has ended.
    pub(in crate::server::api) async fn alive(self, state: &Shared) -> Answer<Self> {
        self.takes(state, Call::Other).await?;
        Ok(self)
    }

    /// The parallel node of the task.
    pub(super) fn node(&self) -> u32 {
        self.hand.row.node_index
    }
}

/// The refusal of the machine as an answer.
pub(super) fn refused(why: Denied) -> ApiError {
    let code = match why {
        Denied::NotBegun => RefusalCode::NotBegun,
        Denied::Begun => RefusalCode::Begun,
        Denied::Queued | Denied::Ended { .. } | Denied::AnotherAgent | Denied::AnotherAllocation => {
            RefusalCode::TaskEnded
        }
    };
    let mut failure = ApiError::coded(StatusCode::CONFLICT, code, why.to_string());
    failure.set_late(matches!(why, Denied::Ended { late: true, .. }));
    failure
}
