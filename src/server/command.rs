//! `runlet server`.

use crate::outcome::{Failure, Outcome, exit};
use crate::server::{ServerOptions, start, upkeep};
use std::ffi::OsString;
use std::path::PathBuf;

const HELP: &str = "\
Run the control plane.

Usage: runlet server --data DIR [OPTIONS]
       runlet server check | backup | restore ...   look after a data folder: see `runlet server check --help`

  --data DIR               where everything is kept: database, output, artifacts
  --listen ADDRESS:PORT    default: 127.0.0.1:8080; plain HTTP on loopback only
  --tls-cert FILE          certificate chain, PEM
  --tls-key FILE           its key, PEM
  --behind-proxy           a TLS proxy stands in front: plain HTTP on any address
  --restored               the data folder was restored from a backup: tasks that had not ended wait until
                           `runlet admin task release` or `task end` says what becomes of each
  --public-url URL         base of the URLs that people see
  --orbs DIR               folder of orb files, `namespace/name@version.yml`
  --allow-orb-url PREFIX   fetch orbs given by a URL that begins so: https://HOST/PATH (repeatable)
  --secrets-key FILE       key that seals the values of variables; default: DIR/secrets.key, made by the
                           first start; also by RUNLET_SECRETS_KEY. Back it up apart from the data
  --help

The first start prints how to get in. TERM and INT stop it: parked calls are answered, nothing is lost.
";

/// Runs `runlet server` with the arguments after the command.
pub fn command(args: Vec<OsString>) -> Outcome {
    if let Some(outcome) = upkeep::command(&args) {
        return outcome;
    }
    let Some(options) = parse(args)? else { return crate::outcome::print(HELP) };
    let logging = crate::logging::Options { format: crate::logging::Format::Text, ..Default::default() };
    // A second logger (in tests) changes nothing.
    let _ = crate::logging::init(&logging);
    let mut signals =
        signal_hook::iterator::Signals::new([signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT])
            .map_err(|e| Failure::new(format!("failed to handle signals: {e}")))?;
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
            url = running.url
        ));
    }
    crate::outcome::print(&text)?;
    signals.forever().next();
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
            Long("restored") => options.is_restored = true,
            Long("behind-proxy") => options.behind_proxy = true,
            Long("public-url") => options.public_url = Some(parser.value()?.string()?),
            Long("orbs") => options.orbs.use_folder(parser.value()?.into()),
            Long("allow-orb-url") => {
                options.orbs.allow(&parser.value()?.string()?).map_err(Failure::usage)?;
            }
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
