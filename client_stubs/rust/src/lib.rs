#![doc = include_str!("../README.md")]
//!
//! # Where things are
//!
//! [`Client::builder`] says how the server is reached; [`Client::session`] opens a session; [`Session::turn`] makes a
//! turn. A [`Turn`] is a stream of the contract's events, and dropping it stops what still runs, here and at the
//! provider. Every failure is an [`Error`]. The contract's messages are in [`v1`], its stubs are given by
//! [`Client::sessions`], [`Client::turns`] and [`Client::traces`].
//!
//! Everything runs on tokio.

mod carrier;
mod client;
mod errors;
mod items;
mod json;
mod options;
mod progress;
mod result;
mod retry;
mod session;
mod status;
mod tracing;
mod turn;
mod turn_builder;

/// The contract, as it is generated from `protos/warmline/v1`.
pub mod v1 {
    #![allow(missing_docs, clippy::all)]
    tonic::include_proto!("warmline.v1");
}

pub use carrier::Carrier;
pub use client::{Client, ClientBuilder, DEFAULT_MAX_MESSAGE_BYTES};
pub use errors::{Error, ErrorFacts, ErrorKind, FieldViolation, QuotaViolation};
pub use result::{CustomToolCall, Ending, FunctionCall, TurnResult};
pub use retry::Retry;
pub use session::{Session, SessionBuilder};
pub use tonic;
pub use tonic::transport::{Certificate, ClientTlsConfig, Identity};
pub use turn::{Text, Turn};
pub use turn_builder::TurnBuilder;
pub use v1::Item;

/// A failure of something that the caller brought along.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
