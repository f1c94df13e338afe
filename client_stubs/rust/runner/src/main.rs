//! Plays one scenario through the Rust client: see client_stubs/scenarios/README.md.

mod fields;
mod objects;
mod steps;

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Map, Value, json};
use warmline::{Certificate, Client, ClientTlsConfig, Identity, Retry};

use fields::{Failure, Fields};
use steps::Runner;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let given: HashMap<&str, &str> =
        arguments.chunks_exact(2).map(|pair| (pair[0].as_str(), pair[1].as_str())).collect();
    let (turns, played) = play(given["--address"], given["--scenario"], given["--control"]).await;
    let language = concat!("Rust ", env!("RUSTC_VERSION"), ", tonic ", env!("TONIC_VERSION"));
    let failure = played.err().map(|failure| failure.to_string());
    println!("{}", json!({"ok": failure.is_none(), "failure": failure, "language": language, "turns": turns}));
}

/// Plays the scenario: the result objects of all turns, and what went wrong in the first step that did.
async fn play(address: &str, file: &str, control: &str) -> (Map<String, Value>, Result<(), Failure>) {
    let (client, steps) = match open(address, file) {
        Ok(opened) => opened,
        Err(failure) => return (Map::new(), Err(failure)),
    };
    let mut runner = Runner::new(client, control);
    let played = runner.play(steps).await;
    let results = runner.results();
    runner.close().await;
    (results, played)
}

fn open(address: &str, file: &str) -> Result<(Client, Vec<Map<String, Value>>), Failure> {
    let mut scenario = Fields::new(serde_json::from_str(&std::fs::read_to_string(file)?)?);
    let mut settings = Fields::new(scenario.take("client")?.unwrap_or_default());
    let steps = scenario.take("steps")?.unwrap_or_default();
    let _name: Option<String> = scenario.take("name")?;
    scenario.finish()?;
    let mut builder = Client::builder(address);
    if let Some(max_tries) = settings.take("max_tries")? {
        builder = builder.retry(Retry { max_tries, ..Retry::default() });
    }
    if let Some(token) = settings.take::<String>("token")? {
        builder = builder.token(token);
    }
    if let Some(bytes) = settings.take("max_message_bytes")? {
        builder = builder.max_message_bytes(bytes);
    }
    let keepalive = (settings.take::<u64>("keepalive_s")?, settings.take::<u64>("keepalive_timeout_s")?);
    if let (Some(interval), Some(timeout)) = keepalive {
        builder = builder.keepalive(Duration::from_secs(interval), Duration::from_secs(timeout));
    }
    if let Some(tls) = settings.take("tls")? {
        builder = builder.tls(tls_config(Fields::new(tls))?);
    }
    settings.finish()?;
    Ok((builder.build()?, steps))
}

fn tls_config(mut files: Fields) -> Result<ClientTlsConfig, Failure> {
    let read = |path: String| std::fs::read(path);
    let mut config = ClientTlsConfig::new();
    if let Some(ca) = files.take("ca")? {
        config = config.ca_certificate(Certificate::from_pem(read(ca)?));
    }
    if let (Some(cert), Some(key)) = (files.take("cert")?, files.take("key")?) {
        config = config.identity(Identity::from_pem(read(cert)?, read(key)?));
    }
    if let Some(name) = files.take::<String>("server_name")? {
        config = config.domain_name(name);
    }
    files.finish()?;
    Ok(config)
}
