//! A control plane in this process: started, used from synchronous code, stopped.

use crate::logging::record;
use crate::orbs::OrbSites;
use crate::protocol::Secret;
use crate::server::auth::{new_token, token_hash};
use crate::server::backup;
use crate::server::blobs::{Blobs, Error as BlobError, Rows, write_private};
use crate::server::certificate::Certificate;
use crate::server::clients::Proxies;
use crate::server::data_folder::{DataFolder, FolderError};
use crate::server::engine::commit::clock;
use crate::server::ids::{ClassTokenId, PipelineId, ResourceClassId};
use crate::server::listen;
use crate::server::live::hub::Hub;
use crate::server::live::watch::{self, Notification};
use crate::server::people;
use crate::server::pipelines::create;
use crate::server::pipelines::forge;
use crate::server::pipelines::repository::Mirrors;
use crate::server::pipelines::types::{CreatedPipeline, Error as PipelineError, Trigger};
use crate::server::secrets::sealer::{self, KeyError};
use crate::server::state::{Elsewhere, Keeping, Only, Routing, ServerSettings, Shared, State};
use crate::server::store::tables::classes::{self, Class, ClassTokenRow};
use crate::server::store::tables::projects;
use crate::server::store::tables::small_outputs;
use crate::server::store::{Error as StoreError, Store};
use crate::server::sweep;
use crate::server::time::Millis;
use crate::system::service;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Options of a start.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Folder of everything that is kept.
    pub data: PathBuf,
    /// Address to listen on; port 0 takes any.
    pub listen: SocketAddr,
    /// Certificate chain and key, PEM.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// A TLS proxy stands in front: plain HTTP is fine on any address.
    pub behind_proxy: bool,
    /// Proxies that are believed about whom they speak for.
    pub trusted_proxies: Proxies,
    /// Base of the URLs that people see.
    pub public_url: Option<String>,
    /// Every task queues in this class.
    pub route_all_to: Option<String>,
    /// The end of jobs that no runner may take.
    pub elsewhere: Elsewhere,
    /// Class of `machine: true` jobs that name none.
    pub default_resource_class: Option<String>,
    /// The part of every config that is run; by default all of it.
    pub only: Only,
    /// Bytes of output kept of a step.
    pub max_step_output_bytes: u64,
    /// How long things are kept, and how much of them.
    pub keeping: Keeping,
    /// Sources of orbs.
    pub orbs: OrbSites,
    /// Key file of sealed values; `secrets.key` in the data folder unless given.
    pub secrets_key: Option<PathBuf>,
    /// How the log is written by whoever starts this.
    pub log_format: crate::logging::Format,
    /// Hosts that webhooks may call though their addresses are not public: `HOST` or `HOST:PORT`.
    pub webhook_hosts: Vec<String>,
    /// Wait for the disk at each commit.
    pub durable: bool,
    /// Threads for calls; as many as there are processors unless given.
    pub threads: Option<usize>,
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
            trusted_proxies: Proxies::default(),
            public_url: None,
            route_all_to: None,
            elsewhere: Elsewhere::Fail,
            default_resource_class: None,
            only: Only::default(),
            max_step_output_bytes: 100 * 1024 * 1024,
            keeping: Keeping::default(),
            orbs: OrbSites::default(),
            secrets_key: None,
            log_format: crate::logging::Format::Text,
            webhook_hosts: Vec::new(),
            durable: true,
            threads: None,
            is_restored: false,
        }
    }

    /// The only runners are on this host: jobs that want to run elsewhere run on it, or do not run.
    pub fn is_for_this_host(&mut self, on_host: bool) {
        self.elsewhere = if on_host { Elsewhere::OnHost } else { Elsewhere::Skip };
    }
}

/// A running control plane.
pub struct Running {
    runtime: tokio::runtime::Runtime,
    pub(super) state: Shared,
    certificate: Option<Arc<Certificate>>,
    serving: Option<tokio::task::JoinHandle<()>>,
    /// Base URL, as reached from this host.
    pub url: String,
    /// Set on the first start only: the token of the first person.
    pub first_token: Option<Secret>,
    /// Held as long as this runs.
    _folder: DataFolder,
}

/// The reason why a control plane did not start.
#[derive(Debug)]
pub enum StartError {
    /// The data folder cannot be used, or another control plane uses it.
    Folder(FolderError),
    /// Plain HTTP would be served on this address, where others could read it.
    PlainHttp(SocketAddr),
    /// The certificate or its key cannot be used; the sentence names the file.
    Certificate(String),
    /// Threads cannot be started.
    Threads(io::Error),
    /// The address cannot be listened on: it is in use, or not of this host, or not allowed.
    Listen(SocketAddr, io::Error),
    /// The database in this data folder cannot be opened.
    Store(PathBuf, StoreError),
    /// The stored files in this data folder cannot be opened.
    Blobs(PathBuf, BlobError),
    /// The key of sealed values cannot be used.
    Key(KeyError),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Folder(error) => error.fmt(f),
            StartError::PlainHttp(address) => write!(
                f,
                "refusing to serve plain HTTP on {address}: tokens would be readable on the way (give `--tls-cert` and `--tls-key`, listen on loopback, or say `--behind-proxy` when a TLS proxy stands in front)"
            ),
            StartError::Certificate(why) => f.write_str(why),
            StartError::Threads(error) => write!(f, "failed to start the control plane's threads: {error}"),
            StartError::Listen(address, error) => {
                write!(f, "failed to listen on {address}: {error} (choose another address with `--listen`)")
            }
            StartError::Store(folder, error) => {
                write!(f, "failed to open the store in `{}`: {error}", folder.display())
            }
            StartError::Blobs(folder, error) => {
                write!(f, "failed to open the blobs in `{}`: {error}", folder.display())
            }
            StartError::Key(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

/// Starts a control plane.
pub fn start(options: ServerOptions) -> Result<Running, StartError> {
    let folder = DataFolder::open(&options.data).map_err(StartError::Folder)?;
    let data = folder.path.clone();
    let options = ServerOptions { data: data.clone(), ..options };
    if options.tls.is_none() && !options.listen.ip().is_loopback() && !options.behind_proxy {
        return Err(StartError::PlainHttp(options.listen));
    }
    let tls = options.tls.as_ref().map(|(chain, key)| Certificate::read(chain, key)).transpose();
    let tls = tls.map_err(StartError::Certificate)?.map(Arc::new);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = options.threads {
        runtime.worker_threads(threads);
    }
    let runtime = runtime.enable_all().build().map_err(StartError::Threads)?;
    let not_heard = |error| StartError::Listen(options.listen, error);
    let socket = runtime.block_on(tokio::net::TcpListener::bind(options.listen)).map_err(not_heard)?;
    let address = socket.local_addr().map_err(not_heard)?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{address}");

    let figures = Arc::default();
    let hub = Arc::new(Hub::counting(Arc::clone(&figures)));
    let announce = Arc::clone(&hub);
    let store_error = |error: StoreError| StartError::Store(data.clone(), error);
    let store =
        Store::open(&data.join("runlet.db"), options.durable, move |effects| announce.committed(effects))
            .map_err(store_error)?;
    let blobs =
        Blobs::open(&data, options.durable).map_err(|error| StartError::Blobs(data.clone(), error))?;
    let blobs = blobs.with_rows(small_outputs_of(&store));
    let key = options.secrets_key.clone().unwrap_or_else(|| data.join("secrets.key"));
    let sealer =
        store.read_blocking(|view| Ok(sealer::open_key(&key, view, options.durable))).map_err(store_error)?;
    let sealer = sealer.map_err(StartError::Key)?;
    let settings = ServerSettings {
        public_url: options
            .public_url
            .clone()
            .unwrap_or_else(|| url.clone())
            .trim_end_matches('/')
            .to_owned(),
        routing: Routing { route_all_to: options.route_all_to.clone(), elsewhere: options.elsewhere },
        default_resource_class: options.default_resource_class.clone(),
        lease_seconds: 60,
        heartbeat_wait_seconds: 20,
        max_step_output_bytes: options.max_step_output_bytes,
        max_artifact_bytes: crate::protocol::limits::ARTIFACT_BYTES,
        only: options.only.clone(),
        keeping: options.keeping,
        orbs: options.orbs.clone(),
        mirrors: Arc::new(Mirrors::new(data.join("mirrors"))),
        webhook_hosts: options.webhook_hosts.clone(),
        sealer: Arc::new(sealer),
    };
    let first_token =
        store.write_blocking(|tx| people::create_first(tx, Millis::now())).map_err(store_error)?;
    let mark = data.join(backup::MARK);
    if options.is_restored || mark.exists() {
        let held = store.write_blocking(|tx| clock::hold_all(tx, Millis::now())).map_err(store_error)?;
        record!(Warn, task_count = held;
            "the data is that of a backup: tasks that have not ended are held; see `runlet admin task held`"
        );
        // Held once is held: the next start is an ordinary one.
        if let Err(error) = std::fs::remove_file(&mark) {
            if error.kind() != io::ErrorKind::NotFound {
                log::warn!(
                    "failed to remove `{}`: {error}; the next start will hold tasks again",
                    mark.display()
                );
            }
        }
    }
    let state: Shared = Arc::new(State {
        store,
        blobs,
        hub,
        installations: Default::default(),
        paces: Default::default(),
        settings,
        sought: Default::default(),
        stopping: tokio::sync::watch::channel(false).0,
        refusals: Default::default(),
        not_believed: Default::default(),
        figures,
    });
    forge::access::open_mirrors(&state);
    let serving = {
        let _inside = runtime.enter();
        runtime.spawn(sweep::run(state.clone()));
        runtime.spawn(sweep::run_old(state.clone()));
        runtime.spawn(forge::run(state.clone()));
        if let Some(certificate) = &tls {
            runtime.spawn(Arc::clone(certificate).watch());
        }
        runtime.spawn(listen::serve(socket, tls.clone(), options.trusted_proxies.clone(), state.clone()))
    };
    Ok(Running {
        runtime,
        state,
        certificate: tls,
        serving: Some(serving),
        url,
        first_token,
        _folder: folder,
    })
}

/// Small outputs that are complete are rows of the database.
fn small_outputs_of(store: &Store) -> Rows {
    let store = store.clone();
    Rows::read_by(move |task, step| {
        let found = store.read_blocking(|view| small_outputs::find(view, task, step));
        found.map_err(|error| {
            BlobError::Io(format!("failed to read the output of step {step} of task {task}: {error}"))
        })
    })
}

impl Running {
    /// Makes sure that a resource class exists, and makes a token for it.
    pub fn class_token(&self, class: &str, nickname: &str) -> Result<Secret, StoreError> {
        let (name, nickname) = (class.to_owned(), nickname.to_owned());
        self.state.store.write_blocking(move |tx| {
            let (secret, now) = (new_token("rlc_")?, Millis::now());
            let class = Class {
                id: ResourceClassId::fresh(),
                name,
                description: String::new(),
                budget_ms: None,
                unsafe_retries: false,
            };
            // A class that exists already serves as well.
            classes::add_class(tx, &class, now)?;
            let token = ClassTokenRow { id: ClassTokenId::fresh(), nickname, created_at: now };
            classes::add_token(tx, &class.name, &token, &token_hash(&secret))?;
            Ok(Secret::new(secret))
        })
    }

    /// Makes sure that a project exists. `slug` is `vcs/org/repo`; without a default branch it has the usual one.
    pub fn ensure_project(
        &self,
        slug: &str,
        repository_url: Option<&str>,
        default_branch: Option<&str>,
    ) -> Result<(), StoreError> {
        let (slug, url) = (slug.to_owned(), repository_url.map(str::to_owned));
        let branch = default_branch.map(str::to_owned);
        self.state.store.write_blocking(move |tx| {
            let project = projects::ensure_project(tx, &slug, url.as_deref(), Millis::now())?.project;
            match branch {
                Some(branch) => projects::set_repository(tx, &project, url.as_deref(), &branch),
                None => Ok(()),
            }
        })
    }

    /// Creates a pipeline.
    pub fn trigger(&self, trigger: Trigger) -> Result<CreatedPipeline, PipelineError> {
        self.runtime.block_on(create::create(&self.state, trigger))
    }

    /// Watches a pipeline from within this process: no encoding, and pieces of output that stay in the cache of a processor
    /// until they are drawn.
    pub fn watch(&self, pipeline: &PipelineId) -> Watcher {
        let _inside = self.runtime.enter();
        let events = watch::follow(self.state.clone(), pipeline.clone(), 256 * 1024);
        Watcher { runtime: self.runtime.handle().clone(), events }
    }

    /// Keeps a token in a file of the data folder that only the owner can read.
    pub fn keep_token(&self, options: &ServerOptions, token: &Secret) -> Result<PathBuf, KeepError> {
        let path = options.data.join("admin-token");
        match write_private(&path, token.expose()) {
            Ok(()) => Ok(path),
            Err(error) => Err(KeepError { path, error }),
        }
    }

    /// Reads the certificate again.
    pub(super) fn read_certificate_again(&self) {
        match &self.certificate {
            Some(certificate) => certificate.read_again(),
            None => log::info!("there is no certificate to read again"),
        }
    }

    /// Tells the service manager, where it wants to hear so, that the threads of the control plane make progress.
    pub(super) fn report_progress(&self) {
        let Some(time) = service::watchdog() else { return };
        self.runtime.spawn(async move {
            loop {
                service::tell("WATCHDOG=1");
                tokio::time::sleep(time / 2).await;
            }
        });
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

/// The file that a token should be kept in cannot be written.
#[derive(Debug)]
pub struct KeepError {
    path: PathBuf,
    error: io::Error,
}

impl fmt::Display for KeepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to write `{}`: {}", self.path.display(), self.error)
    }
}

impl std::error::Error for KeepError {}

/// A pipeline as it happens; see [`Running::watch`].
pub struct Watcher {
    runtime: tokio::runtime::Handle,
    events: tokio::sync::mpsc::Receiver<Notification>,
}

impl Watcher {
    /// Waits for the next event, up to `wait`. The error says that no more will come.
    pub fn next(&mut self, wait: Duration) -> Result<Option<Notification>, WatchEnded> {
        let next = async { tokio::time::timeout(wait, self.events.recv()).await };
        match self.runtime.block_on(next) {
            Ok(Some(told)) => Ok(Some(told)),
            Ok(None) => Err(WatchEnded),
            Err(_) => Ok(None),
        }
    }

    /// Takes the next event, if it is there already.
    pub fn ready(&mut self) -> Option<Notification> {
        self.events.try_recv().ok()
    }
}

/// The watched pipeline has ended, or the control plane stops: no event will come any more.
#[derive(Debug)]
pub struct WatchEnded;
