//! The `tollgate` program: reads the command line, starts the log, serves until told to stop.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tollgate::cli::{self, Command};
use tollgate::config::Config;
use tollgate::log;
use tollgate::server::Server;
use tracing::{error, info, warn};

fn main() -> ExitCode {
    match cli::parse(std::env::args_os().skip(1)) {
        Ok(Command::Run(config)) => run(*config),
        Ok(Command::CheckConfig(report)) => print(&report),
        Ok(Command::Help) => print(cli::HELP),
        Ok(Command::Version) => print(&format!("{}\n", cli::VERSION)),
        Err(text) => {
            complain(&text);
            ExitCode::from(2)
        }
    }
}

fn print(text: &str) -> ExitCode {
    // Whoever reads it may have read enough: `tollgate --help | head -1` is no failure.
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// Says what keeps the program from its start. Unlike `eprintln!`, which panics then, it does not mind that nobody
/// listens.
fn complain(text: &dyn Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn run(config: Config) -> ExitCode {
    // Lives until the end, where it writes what it still holds.
    let _log = match log::start(&config.log) {
        Ok(log) => log,
        Err(error) => {
            complain(&format_args!("cannot start the log: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let behind = if config.embedded.enabled { "embedded".to_owned() } else { config.redis.addr.to_string() };
    let grace_ms = config.shutdown.grace.as_millis();
    let server = match Server::bind(config) {
        Ok(server) => server,
        Err(text) => {
            error!("{text}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = tokio::runtime::Builder::new_current_thread().enable_all().build().and_then(|runtime| {
        runtime.block_on(async {
            let stop = stop_on_signal()?;
            reload_on_signal(server.reloader())?;
            for (addr, tls) in server.addresses() {
                info!(%addr, tls, store = behind, version = env!("CARGO_PKG_VERSION"), "listening");
            }
            server.run(stop).await
        })
    });
    match outcome {
        Ok(true) => {
            info!("stopped");
            ExitCode::SUCCESS
        }
        Ok(false) => {
            warn!(grace_ms, "stopped with clients still connected");
            ExitCode::SUCCESS
        }
        Err(error) => {
            error!(%error, "cannot serve");
            ExitCode::FAILURE
        }
    }
}

/// A token that SIGTERM and SIGINT cancel.
fn stop_on_signal() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let cancel = stop.clone();
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        info!(signal = name, "stopping");
        cancel.cancel();
    });
    Ok(stop)
}

/// Reads the certificates again at each SIGHUP.
fn reload_on_signal(reload: impl Fn() -> Result<(), String> + Send + 'static) -> std::io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            match reload() {
                Ok(()) => info!("certificates read again"),
                Err(error) => error!(error, "certificates cannot be read: those from before stay"),
            }
        }
    });
    Ok(())
}
