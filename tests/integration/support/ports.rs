//! Ports that nobody else gets between being chosen and being used.

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;

/// A port of 127.0.0.1 on which nobody listens, until somebody who was told its number does.
///
/// A socket is bound to it as long as the value lives, and so the system gives it to nobody who asks for any
/// port, neither for listening nor for connecting. The socket does not listen: connections are refused.
/// Linux lets another socket listen there all the same when both allow the address to be reused, as the
/// listeners of std, of tokio and of `git daemon --reuseaddr` do; again and again, as they end.
pub(crate) struct Held {
    _socket: OwnedFd,
    address: SocketAddr,
}

/// Takes a port of the system's choice.
pub(crate) fn hold() -> Held {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    sockopt::set_socket_reuseaddr(&socket, true).unwrap();
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = getsockname(&socket).unwrap().try_into().unwrap();
    Held { _socket: socket, address }
}

impl Held {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

#[test]
fn a_held_port_refuses_and_can_be_listened_on_again_and_again() {
    let held = hold();
    for _ in 0..3 {
        // A process that another test forks holds the last listener until it is the program that it becomes.
        super::poll("the end of the last listener", || {
            match std::net::TcpStream::connect(held.address()).map_err(|error| error.kind()) {
                Err(std::io::ErrorKind::ConnectionRefused) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        let listener = std::net::TcpListener::bind(held.address()).unwrap();
        std::net::TcpStream::connect(held.address()).unwrap();
        drop(listener);
    }
}
