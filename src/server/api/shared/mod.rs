//! Pieces that the APIs of every version share: input, lookups, the shape of refusals, words.

pub mod input;
pub mod shape;
pub mod slug;
pub mod speaker;
pub mod unread;
pub mod vocabulary;
