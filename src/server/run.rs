//! A control plane in this process: started, used from synchronous code, stopped.

use crate::config::OrbSites;
use crate::protocol::Secret;
use crate::server::api::ours::watch::{self, Told};
use crate::server::blobs::{Blobs, write_private};
use crate::server::engine::commit::{Routing, clock};
use crate::server::listen::{self, Listener};
use crate::server::live::hub::Hub;
use crate::server::pipelines::repository::Mirrors;
use crate::server::pipelines::{self, Created, Trigger};
use crate::server::secrets::sealer;
use crate::server::state::{Settings, Shared, State, new_token, now_ms, token_hash};
use crate::server::store::tables::people;
use crate::server::store::{Error as StoreError, Store, new_id};
use crate::server::sweep;
use crate::server::time::Millis;
use rusqlite::params;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How to start.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Folder of everything that is kept.
    pub data: PathBuf,
    /// Where to listen; port 0 takes any.
    pub listen: SocketAddr,
    /// Certificate chain and key, PEM.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// A TLS proxy stands in front: plain HTTP is fine on any address.
    pub behind_proxy: bool,
    /// Base of the URLs that people see.
    pub public_url: Option<String>,
    /// Every task queues in this class.
    pub route_all_to: Option<String>,
    /// Class of `machine: true` jobs that name none.
    pub default_resource_class: Option<String>,
    /// Bytes of output kept of a step.
    pub max_step_output_bytes: u64,
    /// Where orbs come from.
    pub orbs: OrbSites,
    /// Key file of sealed values; `secrets.key` in the data folder unless given.
    pub secrets_key: Option<PathBuf>,
    /// Wait for the disk at each commit.
    pub durable: bool,
    /// The data folder is that of a backup: what has not ended is held until an administrator decides.
    pub is_restored: bool,
}

impl ServerOptions {
    /// The defaults, on loopback.
    pub fn new(data: PathBuf) -> Self {
        Self {
            data,
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            tls: None,
            behind_proxy: false,
            public_url: None,
            route_all_to: None,
            default_resource_class: None,
            max_step_output_bytes: 100 * 1024 * 1024,
            orbs: OrbSites::default(),
            secrets_key: None,
            durable: true,
            is_restored: false,
        }
    }
}

/// A running control plane.
pub struct Running {
    runtime: tokio::runtime::Runtime,
    state: Shared,
    serving: Option<tokio::task::JoinHandle<()>>,
    /// Base URL, as reached from this host.
    pub url: String,
    /// Set on the first start only: the token of the first person.
    pub first_token: Option<Secret>,
    /// Held as long as this runs.
    _lock: File,
}

/// Starts a control plane.
pub fn start(options: ServerOptions) -> Result<Running, String> {
    let shown = options.data.display().to_string();
    // Closed to others from the start; a folder that exists keeps the rights that it was given.
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&options.data)
        .map_err(|e| format!("failed to create the data folder `{shown}`: {e}"))?;
    // git is started in folders of its own: a relative path would lead elsewhere from there.
    let data = std::path::absolute(&options.data);
    let data = data.map_err(|e| format!("failed to find the data folder `{shown}`: {e}"))?;
    let options = ServerOptions { data, ..options };
    let lock = lock(&options.data)?;
    if options.tls.is_none() && !options.listen.ip().is_loopback() && !options.behind_proxy {
        return Err(format!(
            "refusing to serve plain HTTP on {}: tokens would be readable on the way (give `--tls-cert` and `--tls-key`, listen on loopback, or say `--behind-proxy` when a TLS proxy stands in front)",
            options.listen
        ));
    }
    let tls = options.tls.as_ref().map(|(certificate, key)| listen::tls(certificate, key)).transpose()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("failed to start the control plane's threads: {e}"))?;
    let socket = runtime.block_on(tokio::net::TcpListener::bind(options.listen)).map_err(|e| {
        format!("failed to listen on {}: {e} (choose another address with `--listen`)", options.listen)
    })?;
    let address = socket.local_addr().map_err(|e| e.to_string())?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{address}");

    let hub = Arc::new(Hub::default());
    let announce = Arc::clone(&hub);
    let store_error = |e: StoreError| format!("failed to open the store in `{shown}`: {e}");
    let store = Store::open(&options.data.join("runlet.db"), options.durable, move |effects| {
        announce.committed(effects)
    })
    .map_err(store_error)?;
    let blobs = Blobs::open(&options.data, options.durable)
        .map_err(|e| format!("failed to open the blobs in `{shown}`: {e}"))?;
    let key = options.secrets_key.clone().unwrap_or_else(|| options.data.join("secrets.key"));
    let sealer = store.read_blocking(|c| Ok(sealer::open_key(&key, c))).map_err(store_error)??;
    let settings = Settings {
        public_url: options
            .public_url
            .clone()
            .unwrap_or_else(|| url.clone())
            .trim_end_matches('/')
            .to_owned(),
        routing: Routing { route_all_to: options.route_all_to.clone() },
        default_resource_class: options.default_resource_class.clone(),
        lease_seconds: 60,
        heartbeat_wait_seconds: 20,
        max_step_output_bytes: options.max_step_output_bytes,
        max_artifact_bytes: 3 * 1024 * 1024 * 1024,
        orbs: options.orbs.clone(),
        mirrors: Arc::new(Mirrors::new(options.data.join("mirrors"))),
        sealer: Arc::new(sealer),
    };
    let first_token = store.write_blocking(|tx| people::first(tx, now_ms())).map_err(store_error)?;
    if options.is_restored {
        let held = store.write_blocking(|tx| clock::hold_all(tx, Millis::now())).map_err(store_error)?;
        log::warn!(
            "the data is that of a backup: tasks that have not ended are held; see `runlet admin task held` task_count={held}"
        );
    }
    let state: Shared = Arc::new(State {
        store,
        blobs,
        hub,
        settings,
        stopping: tokio::sync::watch::channel(false).0,
        requests: Default::default(),
        output_bytes: Default::default(),
    });
    let serving = {
        let _inside = runtime.enter();
        let listener = Listener::start(socket, tls).map_err(|e| format!("failed to listen: {e}"))?;
        runtime.spawn(sweep::run(state.clone()));
        runtime.spawn(sweep::run_old(state.clone()));
        runtime.spawn(listen::serve(listener, state.clone()))
    };
    Ok(Running { runtime, state, serving: Some(serving), url, first_token, _lock: lock })
}

/// Two control planes on one data folder would destroy it.
fn lock(data: &std::path::Path) -> Result<File, String> {
    let path = data.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|e| format!("failed to open `{}`: {e}", path.display()))?;
    if crate::system::locks::take(&file) {
        return Ok(file);
    }
    Err(format!(
        "another control plane uses the data folder `{}`: stop it, or use another `--data`",
        data.display()
    ))
}

impl Running {
    /// Makes sure that a resource class exists, and makes a token for it.
    pub fn class_token(&self, class: &str, nickname: &str) -> Result<Secret, String> {
        let (class, nickname) = (class.to_owned(), nickname.to_owned());
        let made = self.state.store.write_blocking(move |tx| {
            let (token, now) = (new_token("rlc_")?, now_ms() as i64);
            tx.execute("INSERT OR IGNORE INTO resource_classes (id, name, description, created_at_ms) VALUES (?1, ?2, '', ?3)", params![new_id(), class, now])?;
            tx.execute(
                "INSERT INTO resource_class_tokens SELECT ?1, id, ?3, ?4, ?5 FROM resource_classes WHERE name = ?2",
                params![new_id(), class, nickname, token_hash(&token), now],
            )?;
            Ok(token)
        });
        made.map(Secret::new).map_err(|e| format!("failed to make a resource class token: {e}"))
    }

    /// Makes sure that a project exists. `slug` is `vcs/org/repo`.
    pub fn ensure_project(&self, slug: &str, repository_url: Option<&str>) -> Result<(), String> {
        let (slug, url) = (slug.to_owned(), repository_url.map(str::to_owned));
        let made = self
            .state
            .store
            .write_blocking(move |tx| pipelines::create_project(tx, &slug, url.as_deref(), now_ms()));
        made.map(|_| ()).map_err(|e| format!("failed to register the project: {e}"))
    }

    /// Creates a pipeline.
    pub fn trigger(&self, trigger: Trigger) -> Result<Created, String> {
        self.runtime.block_on(pipelines::create(&self.state, trigger)).map_err(|e| e.to_string())
    }

    /// Watches a pipeline from within this process: no encoding, and large pieces of output.
    pub fn watch(&self, pipeline: &str) -> Watcher {
        let _inside = self.runtime.enter();
        let events = watch::follow(self.state.clone(), pipeline.to_owned(), 1024 * 1024);
        Watcher { runtime: self.runtime.handle().clone(), events }
    }

    /// Keeps a token in a file of the data folder that only the owner can read.
    pub fn keep_token(&self, options: &ServerOptions, token: &Secret) -> Result<PathBuf, String> {
        let path = options.data.join("admin-token");
        write_private(&path, token.expose())
            .map_err(|e| format!("failed to write `{}`: {e}", path.display()))?;
        Ok(path)
    }

    /// Stops: parked calls are answered, what was accepted is committed.
    pub fn stop(mut self) {
        self.state.stopping.send_replace(true);
        if let Some(serving) = self.serving.take() {
            // Streams to clients that do not read would keep it up for ever.
            let _ =
                self.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(5), serving).await });
        }
        self.state.store.close();
        self.runtime.shutdown_timeout(Duration::from_secs(2));
    }
}

/// A pipeline as it happens; see [`Running::watch`].
pub struct Watcher {
    runtime: tokio::runtime::Handle,
    events: tokio::sync::mpsc::Receiver<Told>,
}

impl Watcher {
    /// The next event, if one comes within `wait`. The error is the end of them all.
    pub fn next(&mut self, wait: Duration) -> Result<Option<Told>, WatchEnded> {
        let next = async { tokio::time::timeout(wait, self.events.recv()).await };
        match self.runtime.block_on(next) {
            Ok(Some(told)) => Ok(Some(told)),
            Ok(None) => Err(WatchEnded),
            Err(_) => Ok(None),
        }
    }

    /// The next event, if it is there already.
    pub fn ready(&mut self) -> Option<Told> {
        self.events.try_recv().ok()
    }
}

/// Nothing more will be told.
#[derive(Debug)]
pub struct WatchEnded;
