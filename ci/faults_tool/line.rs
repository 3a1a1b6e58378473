//! A line between runners and a control plane that can be hurt: a proxy that knows where calls begin and end.

use crate::dice::Dice;
use crate::fault::{Call, Hurt};
use crate::wire::{self, Message};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A port of this host that nobody else gets, whether somebody listens on it or not.
pub(crate) struct Port {
    _socket: OwnedFd,
    pub(crate) address: SocketAddr,
}

impl Port {
    pub(crate) fn hold() -> io::Result<Self> {
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
        let address = getsockname(&socket)?.try_into().map_err(|_| io::Error::other("no address of IP"))?;
        Ok(Self { _socket: socket, address })
    }
}

/// State of a line as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Open,
    /// Connections are refused, since no socket listens.
    Refuse,
    /// Connections are taken, and nothing on them goes anywhere ever again.
    Vanish,
}

/// Calls that are hurt from now on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) call: Option<Call>,
    pub(crate) hurts: &'static [Hurt],
    pub(crate) percent: u64,
}

/// A call at which the whole line is cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub(crate) call: Call,
    /// How many calls of the kind pass before.
    pub(crate) skip: u64,
    pub(crate) place: Place,
    pub(crate) way: Way,
    pub(crate) length: Duration,
}

/// Place in a call at which the line is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The control plane does not hear of the call.
    Before,
    /// The control plane has answered; the answer is lost.
    Answered,
    /// The answer has arrived. Of claims, one with a task.
    Delivered,
}

struct State {
    way: Way,
    plan: Option<Plan>,
    cut: Option<Cut>,
    cut_at: Option<Instant>,
    seen: BTreeMap<Call, u64>,
    open: Vec<TcpStream>,
    over: bool,
}

struct Shared {
    upstream: SocketAddr,
    dice: Dice,
    state: Mutex<State>,
    hurt: AtomicU64,
}

/// The line; it ends with the value.
pub(crate) struct Line {
    shared: Arc<Shared>,
    port: Port,
}

impl Line {
    pub(crate) fn to(upstream: SocketAddr, dice: Dice) -> io::Result<Self> {
        let line = Self { shared: Arc::new(Shared::new(upstream, dice)), port: Port::hold()? };
        listen(&line.shared, line.port.address)?;
        Ok(line)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address
    }

    /// How many calls, or whole lines, were hurt.
    pub(crate) fn times(&self) -> u64 {
        self.shared.hurt.load(Ordering::Relaxed)
    }

    pub(crate) fn hurt(&self, plan: Option<Plan>) {
        self.shared.lock().plan = plan;
    }

    pub(crate) fn cut(&self, cut: Cut) {
        self.shared.lock().cut = Some(cut);
    }

    /// When the line was cut as it was told to.
    pub(crate) fn cut_at(&self) -> Option<Instant> {
        self.shared.lock().cut_at
    }

    /// Changes the line as a whole.
    pub(crate) fn turn(&self, way: Way) {
        self.shared.turn(way, self.port.address);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.over = true;
        for socket in state.open.drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
        drop(state);
        let _ = TcpStream::connect(self.port.address);
    }
}

impl Shared {
    fn new(upstream: SocketAddr, dice: Dice) -> Self {
        let state = State {
            way: Way::Open,
            plan: None,
            cut: None,
            cut_at: None,
            seen: BTreeMap::new(),
            open: Vec::new(),
            over: false,
        };
        Self { upstream, dice, state: Mutex::new(state), hurt: AtomicU64::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn way(&self) -> Way {
        self.lock().way
    }

    fn turn(self: &Arc<Self>, way: Way, address: SocketAddr) {
        let before = {
            let mut state = self.lock();
            if way == Way::Refuse {
                for socket in state.open.drain(..) {
                    let _ = socket.shutdown(Shutdown::Both);
                }
            }
            std::mem::replace(&mut state.way, way)
        };
        if way != Way::Open {
            self.hurt.fetch_add(1, Ordering::Relaxed);
        }
        if way == Way::Refuse && before != Way::Refuse {
            // Wakes the thread that accepts, which closes the listener.
            let _ = TcpStream::connect(address);
        }
        if before == Way::Refuse && way != Way::Refuse {
            while let Err(error) = listen(self, address) {
                eprintln!("faults: cannot listen on {address} again yet: {error}");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }

    /// Decides about this call; returns its number among those of its kind, and a roll, as well. Of one kind the first
    /// call is hurt whatever the dice say: where such calls are rare there may be no other.
    fn decide(&self, call: Call) -> (u64, Option<Hurt>, u64) {
        let mut state = self.lock();
        let seen = state.seen.entry(call).or_default();
        let number = *seen;
        *seen += 1;
        let dice = self.dice.part(&format!("{call:?}"));
        let roll = dice.roll(3 * number + 2);
        let Some(plan) = state.plan.filter(|plan| plan.call.is_none_or(|only| only == call)) else {
            return (number, None, roll);
        };
        let is_first = plan.call.is_some() && self.hurt.load(Ordering::Relaxed) == 0;
        if !is_first && dice.between(3 * number, 0, 100) >= plan.percent {
            return (number, None, roll);
        }
        self.hurt.fetch_add(1, Ordering::Relaxed);
        let which = dice.between(3 * number + 1, 0, plan.hurts.len() as u64);
        // An odd one loses the answer, which is worse than the call.
        (number, plan.hurts.get(which as usize).copied(), roll | u64::from(is_first))
    }

    /// Cuts the line if it is to be cut here.
    fn cut_here(self: &Arc<Self>, call: Call, number: u64, place: Place, address: SocketAddr) {
        let here = |cut: &Cut| cut.call == call && cut.place == place && number >= cut.skip;
        let Some(cut) = self.lock().cut.take_if(|cut| here(cut)) else { return };
        self.lock().cut_at = Some(Instant::now());
        self.turn(cut.way, address);
        let shared = self.clone();
        std::thread::spawn(move || {
            std::thread::sleep(cut.length);
            shared.turn(Way::Open, address);
        });
    }
}

fn listen(shared: &Arc<Shared>, address: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    let shared = shared.clone();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            {
                let mut state = shared.lock();
                if state.over || state.way == Way::Refuse {
                    return;
                }
                if let Ok(kept) = client.as_ref().map_err(|_| ()).and_then(|c| c.try_clone().map_err(|_| ()))
                {
                    // Connections that have ended are let go now and then.
                    if state.open.len() > 200 {
                        state.open.retain(|socket| socket.peer_addr().is_ok());
                    }
                    state.open.push(kept);
                }
            }
            let (Ok(client), shared) = (client, shared.clone()) else { continue };
            std::thread::spawn(move || {
                let mut carrier = Carrier { client, shared, address, is_reset: false };
                // A line that breaks is what this is for.
                let _ = carrier.serve();
                if !carrier.is_reset {
                    let _ = carrier.client.shutdown(Shutdown::Both);
                }
            });
        }
    });
    Ok(())
}

struct Carrier {
    client: TcpStream,
    shared: Arc<Shared>,
    address: SocketAddr,
    is_reset: bool,
}

impl Carrier {
    fn serve(&mut self) -> io::Result<()> {
        self.client.set_nodelay(true)?;
        let mut rest = Vec::new();
        loop {
            let Some(request) = wire::read(&mut self.client, &mut rest)? else { return Ok(()) };
            let call = Call::of(request.first_line().get(1).copied().unwrap_or_default());
            let (number, hurt, roll) = self.shared.decide(call);
            self.shared.cut_here(call, number, Place::Before, self.address);
            if self.is_cut()? || !self.carry(&request, call, number, hurt, roll)? {
                return Ok(());
            }
        }
    }

    /// Whether the line is cut as a whole; one whose packets vanish is silent until the other side has enough.
    fn is_cut(&mut self) -> io::Result<bool> {
        match self.shared.way() {
            Way::Open => Ok(false),
            Way::Refuse => Ok(true),
            Way::Vanish => self.silence().map(|()| true),
        }
    }

    fn silence(&mut self) -> io::Result<()> {
        io::copy(&mut self.client, &mut io::sink()).map(drop)
    }

    fn reset(&mut self) -> io::Result<bool> {
        sockopt::set_socket_linger(&self.client, Some(Duration::ZERO))?;
        // The copy that is kept for cutting the line would keep the connection.
        let peer = self.client.peer_addr().ok();
        self.shared.lock().open.retain(|socket| socket.peer_addr().ok() != peer);
        self.is_reset = true;
        Ok(false)
    }

    /// Passes a call on, hurt or not. Returns whether the connection goes on.
    fn carry(
        &mut self,
        request: &Message,
        call: Call,
        number: u64,
        hurt: Option<Hurt>,
        roll: u64,
    ) -> io::Result<bool> {
        match hurt {
            None => {}
            Some(Hurt::Delay) => std::thread::sleep(Duration::from_millis(100 + roll % 2_400)),
            Some(Hurt::ResetBefore) => return self.reset(),
            Some(Hurt::HalfRequest) => {
                let half = request.bytes.len() / 2;
                let mut server = self.upstream()?;
                server.write_all(&request.bytes[..half])?;
                std::thread::sleep(Duration::from_millis(roll % 50));
                return Ok(false);
            }
            Some(Hurt::Lost) if roll % 2 == 0 => return Ok(false),
            Some(Hurt::Swallow) => return self.silence().map(|()| false),
            Some(Hurt::Status(status)) => {
                return self.say(status, "application/json", "{\"message\":\"not now\"}", roll % 2 == 0);
            }
            Some(Hurt::Html) => {
                return self.say(200, "text/html", "<html><body>Log in to go on</body></html>", false);
            }
            Some(Hurt::Foreign(status)) => {
                return self.say(
                    status,
                    "application/json",
                    "{\"message\":\"no\",\"code\":\"task_ended\"}",
                    false,
                );
            }
            Some(Hurt::Truncate | Hurt::Stall | Hurt::Duplicate | Hurt::ResetAfter | Hurt::Lost) => {}
        }
        let mut servers = vec![self.upstream()?];
        if hurt == Some(Hurt::Duplicate) {
            servers.push(self.upstream()?);
        }
        for server in &mut servers {
            server.write_all(&request.bytes)?;
        }
        let Some(answer) = self.first_answer(&mut servers)? else { return Ok(false) };
        if hurt == Some(Hurt::Duplicate) {
            // The other call is let through to its end.
            std::thread::spawn(move || {
                servers.iter_mut().for_each(|server| drop(io::copy(server, &mut io::sink())))
            });
        }
        let has_task = call != Call::Claim || answer.first_line().get(1) == Some(&"200");
        if has_task {
            self.shared.cut_here(call, number, Place::Answered, self.address);
        }
        if self.is_cut()? {
            return Ok(false);
        }
        // Somewhere in the head or in the body.
        let part = match roll % 3 {
            0 => 1 + answer.head / 2,
            1 => answer.head,
            _ => answer.head + (answer.bytes.len() - answer.head) / 2,
        };
        match hurt {
            Some(Hurt::ResetAfter) => return self.reset(),
            Some(Hurt::Lost) => return Ok(false),
            Some(Hurt::Truncate) => {
                self.client.write_all(&answer.bytes[..part.min(answer.bytes.len() - 1)])?;
                return Ok(false);
            }
            Some(Hurt::Stall) => {
                self.client.write_all(&answer.bytes[..part.min(answer.bytes.len() - 1)])?;
                self.silence()?;
                return Ok(false);
            }
            _ => self.client.write_all(&answer.bytes)?,
        }
        if has_task {
            self.shared.cut_here(call, number, Place::Delivered, self.address);
        }
        Ok(true)
    }

    fn upstream(&self) -> io::Result<TcpStream> {
        let server = TcpStream::connect(self.shared.upstream)?;
        server.set_nodelay(true)?;
        Ok(server)
    }

    /// The answer that comes first; `None` when the client leaves before.
    fn first_answer(&self, servers: &mut Vec<TcpStream>) -> io::Result<Option<Message>> {
        loop {
            let mut sockets: Vec<PollFd<'_>> = servers
                .iter()
                .chain([&self.client])
                .map(|socket| PollFd::new(socket, PollFlags::IN))
                .collect();
            poll(&mut sockets, None)?;
            let ready: Vec<bool> = sockets.iter().map(|socket| !socket.revents().is_empty()).collect();
            if let Some(first) = ready[..servers.len()].iter().position(|ready| *ready) {
                let mut server = servers.remove(first);
                match wire::read(&mut server, &mut Vec::new()) {
                    Ok(Some(answer)) => return Ok(Some(answer)),
                    _ if servers.is_empty() => return Ok(None),
                    _ => continue,
                }
            }
            // Clients of this protocol say nothing before they are answered: this one has left.
            return Ok(None);
        }
    }

    fn say(&mut self, status: u16, kind: &str, body: &str, ours: bool) -> io::Result<bool> {
        let ours = if ours { "Runlet-Protocol: 2\r\n" } else { "" };
        let more = match status {
            429 | 503 => "Retry-After: 1\r\n",
            300..400 => "Location: https://login.example.com/\r\n",
            _ => "",
        };
        let length = body.len();
        let text = format!(
            "HTTP/1.1 {status} Said\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{ours}{more}\r\n{body}"
        );
        self.client.write_all(text.as_bytes())?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HURTS: &[Hurt] = &[Hurt::Delay, Hurt::Truncate, Hurt::Lost];

    /// Deeds to these calls, in the order in which they come.
    fn deeds(seed: u64, plan: Plan, calls: &[Call]) -> Vec<(u64, Option<Hurt>, u64)> {
        let shared = Shared::new(SocketAddr::from(([127, 0, 0, 1], 0)), Dice::new(seed, "row").part("line"));
        shared.lock().plan = Some(plan);
        calls.iter().map(|call| shared.decide(*call)).collect()
    }

    #[test]
    fn a_seed_repeats_what_happens_to_the_calls_of_a_row() {
        let plan = Plan { call: None, hurts: HURTS, percent: 50 };
        let claims = [Call::Claim; 12];
        let first = deeds(7, plan, &claims);
        let kinds: String = first
            .iter()
            .map(|(_, hurt, _)| match hurt {
                None => '.',
                Some(Hurt::Delay) => 'd',
                Some(Hurt::Truncate) => 't',
                Some(_) => 'l',
            })
            .collect();
        assert_eq!(kinds, "..d..t..tl..");
        assert_eq!(deeds(7, plan, &claims), first);
        assert_ne!(deeds(8, plan, &claims), first);
        // Calls of another kind in between change nothing: threads of a run come in another order each time.
        let mixed = [Call::Claim, Call::Output, Call::Output].repeat(12);
        let mixed: Vec<_> = deeds(7, plan, &mixed).into_iter().step_by(3).collect();
        assert_eq!(mixed, first);
    }

    #[test]
    fn the_first_call_of_a_kind_that_may_be_rare_is_hurt_and_other_kinds_are_not() {
        let plan = Plan { call: Some(Call::Rest), hurts: HURTS, percent: 0 };
        let found = deeds(7, plan, &[Call::Output, Call::Rest, Call::Rest]);
        let hurt: Vec<bool> = found.iter().map(|(_, hurt, _)| hurt.is_some()).collect();
        assert_eq!(hurt, [false, true, false]);
        // The answer is lost, not the call.
        assert_eq!(found[1].2 % 2, 1);
    }
}
