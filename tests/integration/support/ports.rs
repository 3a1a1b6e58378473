//! Ports that stay free until somebody takes them on purpose.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Where searching begins and ends; below the ports that the system gives away by default.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// A port of 127.0.0.1 that nobody listens on, and that the system gives to nobody who asks for any port:
/// one that was given away and is free again would sooner or later be another test's.
pub(crate) fn unused() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let given = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut given = given.split_ascii_whitespace().filter_map(|number| number.parse::<u16>().ok());
    let given = given.next().unwrap_or(PORTS.end)..=given.next().unwrap_or(u16::MAX);
    let count = PORTS.end - PORTS.start;
    // Test programs that run at the same time begin at different places.
    let first = (std::process::id() % u32::from(count)) as u16;
    for _ in 0..count {
        let step = NEXT.fetch_add(7, Ordering::Relaxed);
        let port =
            PORTS.start + (u32::from(first) * 131 + u32::from(step)).rem_euclid(u32::from(count)) as u16;
        if !given.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    // The system gives every port away: one of its own choice is as good as any.
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
