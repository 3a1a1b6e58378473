//! What all handlers share: the store, the blobs, who waits, and the settings.

use crate::config::OrbSites;
use crate::server::blobs::Blobs;
use crate::server::engine::commit::Routing;
use crate::server::live::hub::Hub;
use crate::server::pipelines::repository::Mirrors;
use crate::server::secrets::sealer::Sealer;
use crate::server::store::{Error, Store};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;

/// Cheap to clone.
pub type Shared = Arc<State>;

/// The control plane in memory.
pub struct State {
    /// SQLite.
    pub store: Store,
    /// Bytes.
    pub blobs: Blobs,
    /// Who waits for what.
    pub hub: Arc<Hub>,
    /// Settings.
    pub settings: Settings,
    /// True once it stops: parked calls are answered.
    pub stopping: watch::Sender<bool>,
    /// Requests since the start.
    pub requests: AtomicU64,
    /// Bytes of output since the start.
    pub output_bytes: AtomicU64,
}

/// What a start decides for good.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Base of the URLs that people see, without a trailing slash.
    pub public_url: String,
    /// Where tasks queue.
    pub routing: Routing,
    /// Class of `machine: true` jobs that name none; `None` makes them an error.
    pub default_resource_class: Option<String>,
    /// A claim lapses this long after the last heartbeat.
    pub lease_seconds: u32,
    /// How long a heartbeat is held.
    pub heartbeat_wait_seconds: u32,
    /// Output of one step beyond this is dropped by the runner.
    pub max_step_output_bytes: u64,
    /// Largest artifact.
    pub max_artifact_bytes: u64,
    /// Where orbs come from.
    pub orbs: OrbSites,
    /// Repositories that configs are read from.
    pub mirrors: Arc<Mirrors>,
    /// Seals and opens the values of variables.
    pub sealer: Arc<Sealer>,
}

impl Settings {
    /// [`Settings::lease_seconds`].
    pub fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_seconds.into())
    }
}

/// Unix time in milliseconds.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// RFC 3339 with milliseconds, as every API writes times.
pub fn timestamp(ms: i64) -> String {
    let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(ms.max(0) as u64);
    humantime::format_rfc3339_millis(time).to_string()
}

/// A fresh secret of 256 bits with a prefix that says what it opens.
pub fn new_token(prefix: &str) -> Result<String, Error> {
    let mut bytes = [0u8; 32];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Error::Corrupt("the system gave no random bytes".into()))?;
    Ok(format!("{prefix}{}", crate::system::hex(&bytes)))
}

/// What is stored of a token. Looking a token up by its hash tells nothing about it by timing.
pub fn token_hash(token: &str) -> Vec<u8> {
    digest(&SHA256, token.as_bytes()).as_ref().to_vec()
}
