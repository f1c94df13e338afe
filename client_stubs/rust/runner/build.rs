//! Tells the runner which versions it is made of.

fn main() {
    println!("cargo::rerun-if-changed=../Cargo.lock");
    let lock = std::fs::read_to_string("../Cargo.lock").expect("the workspace has a lock");
    let mut lines = lock.lines().skip_while(|line| *line != r#"name = "tonic""#);
    let version = lines.nth(1).expect("tonic is locked").trim_start_matches("version = ").trim_matches('"');
    println!("cargo::rustc-env=TONIC_VERSION={version}");
    let rustc =
        std::process::Command::new(std::env::var_os("RUSTC").expect("cargo says which")).arg("--version").output();
    let said = String::from_utf8(rustc.expect("rustc runs").stdout).expect("rustc speaks UTF-8");
    println!("cargo::rustc-env=RUSTC_VERSION={}", said.split(' ').nth(1).expect("rustc says its version"));
}
