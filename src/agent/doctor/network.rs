//! The way to the control plane: names, proxy, connections, trust, the token, clocks, and whether large calls arrive.

use crate::agent::settings::Settings;
use crate::agent::{calls, pace};
use crate::http::{Client, Error, check_url};
use crate::protocol::finding::{FindingLevel, Findings};
use crate::protocol::{AboutAnswer, RefusalCode, Secret, TaskId};
use crate::system::threads;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant, SystemTime};

/// Longest wait for a name, for each address, and for a call.
const NAME: Duration = Duration::from_secs(5);
const ADDRESS: Duration = Duration::from_secs(3);
const CALL: Duration = Duration::from_secs(8);
/// A look-up that takes longer has lost its first name server.
const SLOW_NAME: Duration = Duration::from_secs(2);
/// Addresses that are tried.
const MOST_ADDRESSES: usize = 4;
/// More than one packet holds, and than a proxy buffers by chance.
const PADDING_BYTES: usize = 64 * 1024;
/// Differences of clocks that are told, and those with which certificates and caches go wrong.
const SKEW: u64 = 30;
const MUCH_SKEW: u64 = 300;

pub(super) fn look(settings: &Settings, found: &mut Findings) {
    variables(found);
    let client = match Client::of_runner(&settings.endpoint) {
        Ok(client) => client,
        Err(error) => {
            return found.add("control_plane", FindingLevel::Fail, error.to_string(), "");
        }
    };
    match client.proxy() {
        Some(proxy) => found.fine("proxy", format!("calls go through {proxy}")),
        None => {
            found.fine("proxy", "calls go without a proxy");
            if !connect(&settings.endpoint.url, found) {
                // The call would say the same once more.
                return;
            }
        }
    }
    let started = Instant::now();
    match calls::about(&client, &settings.token, &settings.name, 0, CALL) {
        Ok(answer) => told(settings, &client, &answer, started.elapsed(), found),
        Err(error) => refused(settings, &client, &error, found),
    }
}

/// Looks for mistakes in the variables of proxies.
fn variables(found: &mut Findings) {
    for name in ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"] {
        let get = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (upper, lower) = (get(name), get(&name.to_ascii_lowercase()));
        if let (Some(upper), Some(lower)) = (&upper, &lower) {
            if upper != lower {
                let text = format!("{name} and {} differ", name.to_ascii_lowercase());
                found.add(
                    "proxy",
                    FindingLevel::Warn,
                    text,
                    "programs choose differently: give both one value",
                );
            }
        }
        let odd = |value: &String| {
            let rest = value.split_once("://").map_or(value.as_str(), |(_, rest)| rest);
            name != "NO_PROXY" && (rest.matches('@').count() > 1 || rest.contains('#'))
        };
        if upper.as_ref().or(lower.as_ref()).is_some_and(odd) {
            let text = format!("the login in {name} has an `@` or `#` as it is");
            found.add("proxy", FindingLevel::Warn, text, "write `@` as %40 and `#` as %23");
        }
    }
}

/// Looks the name up and opens a connection to each address. False when there is no address.
fn connect(url: &str, found: &mut Findings) -> bool {
    let Ok(uri) = check_url(url) else { return true };
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    let (name, started) = (host.clone(), Instant::now());
    // The system's look-up cannot be given a time.
    let look = move || (name.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<SocketAddr>>);
    let servers = || {
        let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let servers: Vec<&str> =
            text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")).collect();
        if servers.is_empty() { " none".to_owned() } else { servers.concat() }
    };
    let addresses = match threads::within("name", NAME, look) {
        Some(Ok(addresses)) if !addresses.is_empty() => addresses,
        Some(answer) => {
            let why = answer.err().map_or_else(|| "no address".to_owned(), |error| error.to_string());
            let text = format!("`{host}` cannot be looked up: {why} (name servers:{})", servers());
            found.add(
                "name",
                FindingLevel::Fail,
                text,
                "check api.url, /etc/hosts and /etc/resolv.conf; or set HTTPS_PROXY",
            );
            return false;
        }
        None => {
            let text =
                format!("no answer for `{host}` within {} s (name servers:{})", NAME.as_secs(), servers());
            found.add("name", FindingLevel::Fail, text, "check the name servers in /etc/resolv.conf");
            return false;
        }
    };
    let took = started.elapsed();
    let text = format!("`{host}` has {} addresses ({} ms)", addresses.len(), took.as_millis());
    match took > SLOW_NAME {
        true => found.add(
            "name",
            FindingLevel::Warn,
            text,
            "the first name server may be dead: see /etc/resolv.conf",
        ),
        false => found.fine("name", text),
    }
    let tried = addresses.iter().take(MOST_ADDRESSES);
    let failed: Vec<String> = tried
        .filter_map(|address| {
            let error = TcpStream::connect_timeout(address, ADDRESS).err()?;
            Some(format!("{address}: {error}"))
        })
        .collect();
    let text = failed.join("; ");
    match failed.len() {
        0 => found.fine("connection", "every address can be reached"),
        failed if failed == addresses.len().min(MOST_ADDRESSES) => {
            let advice = "check api.url and that something listens there, a firewall that lets this host out, or set HTTPS_PROXY";
            found.add("connection", FindingLevel::Fail, text, advice);
        }
        _ => found.add(
            "connection",
            FindingLevel::Warn,
            text,
            "calls start slowly: correct the route or the name",
        ),
    }
    true
}

/// The control plane knows the token.
fn told(settings: &Settings, client: &Client, answer: &AboutAnswer, took: Duration, found: &mut Findings) {
    let AboutAnswer { resource_class: class, version, .. } = answer;
    let url = client.url();
    found.fine(
        "control_plane",
        format!("`{url}` is a control plane, version {version} ({} ms)", took.as_millis()),
    );
    match settings.resource_class.as_ref().filter(|wanted| *wanted != class) {
        Some(wanted) => {
            let text =
                format!("the token is of the class `{class}`, but CIRCLECI_RESOURCE_CLASS is `{wanted}`");
            found.add(
                "token",
                FindingLevel::Fail,
                text,
                "use a token of that class, or correct the variable",
            );
        }
        None => {
            let nickname = match answer.token_nickname.as_str() {
                "" => String::new(),
                name => format!(" (token `{name}`)"),
            };
            let text = format!("the control plane at `{url}` accepts the token: class `{class}`{nickname}");
            found.fine("token", text);
        }
    }
    let own = crate::system::os::host_name();
    if let Some(seen) = answer.seen.as_ref().filter(|seen| seen.hostname != own && seen.seconds_ago < 120) {
        let text = format!(
            "a runner named `{}` on `{}` asked for work {} s ago",
            settings.name, seen.hostname, seen.seconds_ago
        );
        found.add("name_clash", FindingLevel::Warn, text, "give each runner a runner.name of its own");
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let theirs = Duration::from_millis(answer.time_ms) + took / 2;
    let skew = now.abs_diff(theirs).as_secs();
    let text = format!("the clock here is {skew} s off that of the control plane");
    match skew {
        MUCH_SKEW.. => {
            found.add("clock", FindingLevel::Fail, text, "set the clock: chrony or systemd-timesyncd")
        }
        SKEW.. => found.add("clock", FindingLevel::Warn, text, "set the clock: chrony or systemd-timesyncd"),
        _ => found.fine("clock", text),
    }
    match calls::about(client, &settings.token, &settings.name, PADDING_BYTES, CALL) {
        Ok(answer) if answer.padding.len() == PADDING_BYTES => {
            found.fine("large_calls", "64 KiB go there and back");
        }
        Ok(_) => found.add(
            "large_calls",
            FindingLevel::Fail,
            "what came back was cut",
            "look at proxies on the way",
        ),
        Err(error) => {
            let advice = "small calls pass: a proxy may limit sizes; or packets are too large for the way (a VPN): lower the MTU, and let ICMP `too big` through";
            found.add("large_calls", FindingLevel::Fail, error.to_string(), advice);
        }
    }
}

/// The call failed, on the way or there.
fn refused(settings: &Settings, client: &Client, error: &Error, found: &mut Findings) {
    match error {
        Error::Refused { status: 404 | 405, refusal, .. } => {
            match refusal.is_some().then(|| knows_token(settings, client)) {
                Some(Ok(true)) => {
                    let text = format!(
                        "the control plane at `{}` accepts the token; it is older than this runner",
                        client.url()
                    );
                    found.add("token", FindingLevel::Note, text, "upgrade the control plane first");
                }
                Some(Ok(false)) => refused_token(error, found),
                _ => {
                    let advice = "is api.url the address of a Runlet control plane, without a path that it does not serve?";
                    found.add("control_plane", FindingLevel::Fail, pace::advice(error), advice);
                }
            }
        }
        Error::Refused { status: 401 | 403, .. } => refused_token(error, found),
        Error::Refused { .. } if error.code() == Some(RefusalCode::ProtocolMismatch) => {
            let advice = "a control plane serves runners of its own version and the one before";
            found.add("protocol", FindingLevel::Fail, error.to_string(), advice);
        }
        Error::Refused { .. } => {
            found.add("control_plane", FindingLevel::Fail, error.to_string(), "try again later")
        }
        _ => found.add("control_plane", FindingLevel::Fail, pace::advice(error), ""),
    }
}

fn refused_token(error: &Error, found: &mut Findings) {
    found.add("token", FindingLevel::Fail, pace::advice(error), "`runlet admin token create` makes one");
}

/// Asks a control plane that does not know the call of [`calls::about`]. One looks at the token before it looks at the
/// task; a path that it does not serve is not there whatever the token.
fn knows_token(settings: &Settings, client: &Client) -> Result<bool, Error> {
    let Ok(none) = TaskId::new("00000000-0000-0000-0000-000000000000") else { return Ok(false) };
    let status = |token: &Secret| match calls::lost(client, token, &none, None, "runlet doctor") {
        Err(Error::Refused { status, .. }) => Ok(status),
        Ok(()) => Ok(200),
        Err(error) => Err(error),
    };
    if status(&Secret::new("no token"))? != 401 {
        return Err(Error::Undecodable("whatever the token is, the answer is the same".to_owned()));
    }
    Ok(status(&settings.token)? == 404)
}
