//! The fields of a step, and how it fails.

use std::fmt;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use warmline::Error;

/// Why a step failed.
pub enum Failure {
    Step(String),
    Call(Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Step(text) => out.write_str(text),
            Failure::Call(error) => error.fmt(out),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Call(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::Step(error.to_string())
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Failure::Step(error.to_string())
    }
}

pub fn step(text: impl Into<String>) -> Failure {
    Failure::Step(text.into())
}

/// The fields of an object; every one must be taken.
pub struct Fields(pub Map<String, Value>);

impl Fields {
    pub fn new(fields: Map<String, Value>) -> Self {
        Self(fields)
    }

    /// A field, `None` when it is left out.
    pub fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, Failure> {
        let value = self.0.remove(name).map(serde_json::from_value).transpose();
        value.map_err(|error| step(format!("{name}: {error}")))
    }

    pub fn need<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, Failure> {
        self.take(name)?.ok_or_else(|| step(format!("{name} is missing")))
    }

    /// The value of an enum's name in lower case.
    pub fn mode<T>(&mut self, name: &str, prefix: &str, of: fn(&str) -> Option<T>) -> Result<Option<T>, Failure> {
        let Some(value) = self.take::<String>(name)? else { return Ok(None) };
        let full = format!("{prefix}{}", value.to_uppercase());
        of(&full).map(Some).ok_or_else(|| step(format!("no {full}")))
    }

    pub fn seconds(&mut self, name: &str) -> Result<Option<Duration>, Failure> {
        Ok(self.take(name)?.map(Duration::from_secs_f64))
    }

    pub fn finish(self) -> Result<(), Failure> {
        match self.0.keys().next() {
            Some(name) => Err(step(format!("unknown field {name}"))),
            None => Ok(()),
        }
    }
}
