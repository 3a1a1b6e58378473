//! `runlet server`: its arguments, its settings, and its run from the start to a signal.

use crate::outcome::{Failure, Outcome, exit};
use crate::server::api::shared::slug::short_slug;
use crate::server::clients::BadProxy;
use crate::server::state::Keeping;
use crate::server::{ServerOptions, listen, start, upkeep};
use crate::system::service;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// `runlet server --help`.
pub const HELP: &str = "\
Run the control plane.

Usage: runlet server --data DIR [OPTIONS]
       runlet server check | backup | restore ...   look after a data folder: see `runlet server check --help`

  --data DIR               where everything is kept: database, output, artifacts
  --listen ADDRESS:PORT    default: 127.0.0.1:8080; plain HTTP on loopback only
  --tls-cert FILE          certificate chain, PEM
  --tls-key FILE           its key, PEM
  --behind-proxy           a TLS proxy stands in front: plain HTTP on any address
  --trusted-proxy ADDRESS  a proxy whose `X-Forwarded-For` is believed: ADDRESS or ADDRESS/BITS (repeatable)
  --restored               the data folder was restored from a backup: tasks that had not ended wait until
                           `runlet admin task release` or `task end` says what becomes of each
  --public-url URL         base of the URLs that people see: the web page, CIRCLE_BUILD_URL
  --keep KIND=DURATION     how long artifacts (30d unless said), caches, workspaces (15d), output, tests or
                           pipelines (for ever) are kept after their end: `90d`, or `forever` (repeatable)
  --quota KIND=SIZE        how much of caches or artifacts each project may have, such as `20G`; beyond it goes
                           what was used longest ago. KIND:SLUG=SIZE is for one project, `none` is no limit
                           (repeatable)
  --orbs DIR               folder or archive of orb files, `namespace/name@version.yml`
  --allow-orb-url PREFIX   fetch orbs given by a URL that begins so: https://HOST/PATH (repeatable)
  --allow-webhook-host HOST[:PORT]
                           webhooks may call it though its address is not public (repeatable)
  --secrets-key FILE       key that seals the values of variables; default: DIR/secrets.key, made by the
                           first start; also by RUNLET_SECRETS_KEY. Back it up apart from the data
  --log-format FORMAT      of the log on standard error: color, text (unless said), json or none
  --help

The first start prints how to get in. TERM and INT stop it: parked calls are answered, nothing is lost. HUP reads the
certificate again; it is also read within a minute after its files have changed.
";

/// Runs `runlet server` with the arguments after the command.
pub fn command(args: Vec<OsString>) -> Outcome {
    if let Some(outcome) = upkeep::command(&args) {
        return outcome;
    }
    let Some(options) = parse(args)? else { return crate::outcome::print(HELP) };
    let logging = crate::logging::LogOptions { format: options.log_format, ..Default::default() };
    // A second logger (in tests) changes nothing.
    let _ = crate::logging::init(&logging);
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP])
        .map_err(|e| Failure::new(format!("failed to handle signals: {e}")))?;
    listen::raise_file_limit();
    let running = start(options.clone()).map_err(|error| Failure::new(error.to_string()))?;
    let mut text = format!("runlet: the control plane listens on {}\n", running.url);
    if let Some(token) = &running.first_token {
        let path = running.keep_token(&options, token).map_err(|error| Failure::new(error.to_string()))?;
        text.push_str(&format!(
            "runlet: this is the first start; the administrator's token is in `{path}`\n\
             runlet: next, make a resource class, a token for its runners, and a project:\n  \
             export RUNLET_SERVER={url}\n  \
             runlet admin resource-class create acme/linux --token-file {path}\n  \
             runlet admin token create acme/linux --token-file {path}\n  \
             runlet admin project create gh/acme/app --repository https://... --token-file {path}\n",
            path = path.display(),
            url = options.public_url.as_deref().unwrap_or(&running.url)
        ));
    }
    // A full disk below standard output does not stop the start: the token is in its file.
    if let Err(failure) = crate::outcome::print(&text) {
        log::error!("{}", failure.message);
    }
    service::tell(&format!("READY=1\nSTATUS=listening on {}", running.url));
    running.report_progress();
    // A single iterator for all signals: a second would lose those that the first has read.
    for _ in signals.forever().take_while(|signal| *signal == SIGHUP) {
        running.read_certificate_again();
    }
    service::tell("STOPPING=1\nSTATUS=stopping");
    log::info!("stopping");
    running.stop();
    Ok(exit::OK)
}

fn parse(args: Vec<OsString>) -> Result<Option<ServerOptions>, Failure> {
    use lexopt::prelude::*;
    let (mut data, mut certificate, mut key) = (None, None, None);
    let mut options = ServerOptions::new(PathBuf::new());
    options.secrets_key =
        std::env::var_os("RUNLET_SECRETS_KEY").filter(|path| !path.is_empty()).map(PathBuf::from);
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("data") => data = Some(PathBuf::from(parser.value()?)),
            Long("listen") => {
                let text = parser.value()?.string()?;
                options.listen = text.parse().map_err(|_| {
                    Failure::usage(format!("`--listen {text}` is not ADDRESS:PORT, such as 127.0.0.1:8080"))
                })?;
            }
            Long("tls-cert") => certificate = Some(PathBuf::from(parser.value()?)),
            Long("tls-key") => key = Some(PathBuf::from(parser.value()?)),
            Long("log-format") => {
                let text = parser.value()?.string()?;
                options.log_format = crate::logging::Format::parse(&text)
                    .map_err(|why| Failure::usage(format!("`--log-format {text}`: {why}")))?;
            }
            Long("restored") => options.is_restored = true,
            Long("trusted-proxy") => {
                let proxy = parser.value()?.string()?.parse();
                let proxy =
                    proxy.map_err(|bad: BadProxy| Failure::usage(format!("`--trusted-proxy`: {bad}")))?;
                options.trusted_proxies.0.push(proxy);
            }
            Long("behind-proxy") => options.behind_proxy = true,
            Long("public-url") => options.public_url = Some(parser.value()?.string()?),
            Long("keep") => keep(&mut options.keeping, &parser.value()?.string()?)?,
            Long("quota") => quota(&mut options.keeping, &parser.value()?.string()?)?,
            Long("orbs") => options.orbs.use_folder(parser.value()?.into()),
            Long("allow-orb-url") => {
                options.orbs.allow(&parser.value()?.string()?).map_err(Failure::usage)?;
            }
            Long("allow-webhook-host") => options.webhook_hosts.push(parser.value()?.string()?),
            Long("secrets-key") => options.secrets_key = Some(parser.value()?.into()),
            Long("help") | Short('h') => return Ok(None),
            _ => {
                return Err(Failure::usage(format!("{}; see `runlet server --help`", argument.unexpected())));
            }
        }
    }
    options.data = data.ok_or_else(|| Failure::usage("`runlet server` needs `--data DIR`"))?;
    options.tls = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => return Err(Failure::usage("`--tls-cert` and `--tls-key` go together")),
    };
    Ok(Some(options))
}

/// The shortest time that anything is kept: what comes late for a task that has ended is taken for a day.
const SHORTEST: Duration = Duration::from_secs(2 * 24 * 60 * 60);

/// Reads `--keep KIND=TIME` into the limits of age.
fn keep(keeping: &mut Keeping, text: &str) -> Result<(), Failure> {
    let fail = |why: &str| Failure::usage(format!("`--keep {text}`: {why}"));
    let (kind, duration) =
        text.split_once('=').ok_or_else(|| fail("expected KIND=DURATION, such as output=90d"))?;
    let place = match kind {
        "artifacts" => &mut keeping.artifacts,
        "caches" => &mut keeping.caches,
        "workspaces" => &mut keeping.workspaces,
        "output" => &mut keeping.output,
        "tests" => &mut keeping.tests,
        "pipelines" => &mut keeping.pipelines,
        _ => {
            return Err(fail(
                "unknown kind (known: artifacts, caches, workspaces, output, tests, pipelines)",
            ));
        }
    };
    *place = match duration {
        "forever" => None,
        _ => {
            let kept = humantime::parse_duration(duration).map_err(|error| fail(&error.to_string()))?;
            if kept < SHORTEST {
                return Err(fail("the shortest time is 2d"));
            }
            Some(kept)
        }
    };
    Ok(())
}

/// Reads `--quota KIND[:SLUG]=SIZE` into the limits of use.
fn quota(keeping: &mut Keeping, text: &str) -> Result<(), Failure> {
    let fail = |why: &str| Failure::usage(format!("`--quota {text}`: {why}"));
    let (kind, size) = text
        .split_once('=')
        .ok_or_else(|| fail("expected KIND=SIZE or KIND:SLUG=SIZE, such as caches=20G"))?;
    let (kind, slug) = kind.split_once(':').map_or((kind, None), |(kind, slug)| (kind, Some(slug)));
    let quota = match kind {
        "caches" => &mut keeping.cache_quota,
        "artifacts" => &mut keeping.artifact_quota,
        _ => return Err(fail("unknown kind (known: caches, artifacts)")),
    };
    let bytes = match size {
        "none" => None,
        _ => Some(
            size_bytes(size)
                .ok_or_else(|| fail("a size is a number with K, M, G or T, such as 500M, or `none`"))?,
        ),
    };
    match slug.map(short_slug) {
        None => quota.usual_bytes = bytes,
        Some(slug) if slug.split('/').filter(|part| !part.is_empty()).count() == 3 => {
            quota.own_bytes.insert(slug, bytes.unwrap_or(u64::MAX));
        }
        Some(_) => return Err(fail("a project is named by its slug, such as gh/acme/app")),
    }
    Ok(())
}

/// Bytes of a number with a unit of 1024.
fn size_bytes(text: &str) -> Option<u64> {
    let (number, power) = match text.as_bytes().last()? {
        b'K' => (&text[..text.len() - 1], 1),
        b'M' => (&text[..text.len() - 1], 2),
        b'G' => (&text[..text.len() - 1], 3),
        b'T' => (&text[..text.len() - 1], 4),
        _ => (text, 0),
    };
    number.parse::<u64>().ok()?.checked_mul(1024u64.checked_pow(power)?)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its settings should fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_read_and_nonsense_is_refused() {
        let mut keeping = Keeping::default();
        keep(&mut keeping, "output=90d").unwrap();
        keep(&mut keeping, "artifacts=forever").unwrap();
        quota(&mut keeping, "caches=20G").unwrap();
        assert_eq!((keeping.output, keeping.artifacts), (Some(45 * SHORTEST), None));
        keep(&mut keeping, "caches=forever").unwrap();
        keep(&mut keeping, "workspaces=2d").unwrap();
        assert_eq!((keeping.caches, keeping.workspaces), (None, Some(SHORTEST)));
        quota(&mut keeping, "caches:github/acme/app=1T").unwrap();
        quota(&mut keeping, "caches:gh/acme/docs=none").unwrap();
        let caches =
            ["gh/acme/other", "gh/acme/app", "gh/acme/docs"].map(|slug| keeping.cache_quota.bytes_of(slug));
        assert_eq!(caches, [Some(20 << 30), Some(1 << 40), Some(u64::MAX)]);
        assert!(!keeping.artifact_quota.is_set());
        for text in ["output", "output=", "output=x", "output=1h", "caches=1d", "logs=9d"] {
            assert!(keep(&mut keeping, text).unwrap_err().message.contains(text), "{text}");
        }
        for text in [
            "caches",
            "caches=",
            "caches=G",
            "caches=-1",
            "caches=99999999999T",
            "output=1G",
            "caches:app=1G",
        ] {
            assert!(quota(&mut keeping, text).unwrap_err().message.contains(text), "{text}");
        }
    }
}
