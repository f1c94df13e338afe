//! The client against a server that does what the test says.

mod client;
mod fake;
mod turn;
