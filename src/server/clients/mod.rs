//! Clients that are connected: how many may be without having shown a token, how long they may take, from where they
//! come, and what follows when a token is refused.
//!
//! A connection is unknown until a token that it shows is accepted. All limits are on unknown ones: whatever strangers
//! do behind the address of a proxy, runners behind the same address are not kept out.

mod addresses;
mod connections;
mod refusals;

pub use addresses::{BadProxy, Proxies, Proxy};
pub use connections::{AcceptedConnection, Admission, BusyConnection, ConnectionLimits, Connections};
pub use refusals::Refusals;
