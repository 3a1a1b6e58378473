//! Pieces that the APIs of every version share: refusals and their shape, input, lookups, acts of people,
//! pages, words, addresses, ranges, streams. No version imports another; they meet here.

pub mod acts;
pub mod callers;
pub mod definition;
pub mod download;
pub mod failure;
pub mod input;
pub mod link;
pub mod lookup;
pub mod output;
pub mod paging;
pub mod range;
pub mod shape;
pub mod slug;
pub mod speaker;
pub mod stream;
pub mod unread;
pub mod uses;
pub mod variables;
pub mod vocabulary;
