//! Generates the stubs from `proto/`, without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = ["errors", "session_service", "trace_service", "turn_service", "types"];
    let descriptors = protox::compile(files.map(|name| format!("warmline/v1/{name}.proto")), ["proto"])?;
    tonic_prost_build::configure().build_server(false).build_transport(false).compile_fds(descriptors)?;
    Ok(())
}
