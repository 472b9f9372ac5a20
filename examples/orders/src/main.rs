//! The example services as a process of their own: `cargo run -p trestle-example-orders -- http://127.0.0.1:9090`.

use anyhow::Context as _;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let endpoint = std::env::args().nth(1).context("usage: trestle-example-orders http://HOST:PORT")?;
    trestle_example_orders::run(endpoint, stop_signal()).await?;
    Ok(())
}

/// Waits for SIGINT, or SIGTERM where there is such a thing.
async fn stop_signal() {
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated() => {}
    }
}

#[cfg(unix)]
async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminated) => drop(terminated.recv().await),
        Err(_) => std::future::pending().await,
    }
}

#[cfg(not(unix))]
async fn terminated() {
    std::future::pending().await
}
