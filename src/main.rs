//! The `tollgate` program: reads the command line, starts the log, serves until told to stop.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;
use tokio::pin;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tollgate::cli::{self, Command};
use tollgate::config::Config;
use tollgate::healthcheck;
use tollgate::limiter::preflight;
use tollgate::listen::{self, Listener};
use tollgate::log;
use tollgate::server::Server;
use tracing::{error, info, warn};

fn main() -> ExitCode {
    match cli::parse(std::env::args_os().skip(1)) {
        Ok(Command::Run(config, warnings)) => run(*config, &warnings),
        Ok(Command::Print(text)) => print(&text),
        Ok(Command::CheckConnection(report, config)) => check_connection(&report, &config),
        Ok(Command::Health(config)) => check_health(&config),
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

/// Says how the Redis of the configuration does. What is said of it stands in the report, so the log stays off.
fn check_connection(report: &str, config: &Config) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.map_err(|error| error.to_string());
    match outcome.and_then(|runtime| runtime.block_on(preflight::report(config))) {
        Ok((lines, is_well)) => {
            print(&format!("{report}\n{lines}"));
            if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(text) => {
            complain(&text);
            ExitCode::FAILURE
        }
    }
}

/// Says whether the Tollgate of the configuration answers.
fn check_health(config: &Config) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (is_healthy, line) = match runtime {
        Ok(runtime) => runtime.block_on(healthcheck::check(config)),
        Err(error) => (false, error.to_string()),
    };
    print(&format!("{line}\n"));
    if is_healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(config: Config, warnings: &[String]) -> ExitCode {
    // Lives until the end, where it writes what it still holds.
    let _log = match log::start(&config.log) {
        Ok(log) => log,
        Err(error) => {
            complain(&format_args!("cannot start the log: {error}"));
            return ExitCode::FAILURE;
        }
    };
    for warning in warnings {
        warn!("{warning}");
    }
    let behind = if config.embedded.enabled { "embedded".to_owned() } else { config.redis.addr.to_string() };
    let grace_ms = config.shutdown.grace.as_millis();
    let server = match listen::inherited().and_then(|inherited| Server::bind(config, inherited)) {
        Ok(server) => server,
        Err(text) => {
            error!("{text}");
            return ExitCode::FAILURE;
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(serve(server, &behind, grace_ms))) {
        Ok(status) => status,
        Err(error) => {
            error!(%error, "cannot serve");
            ExitCode::FAILURE
        }
    }
}

/// Serves until SIGTERM or SIGINT, and then until what was received is answered, the grace is over, or another of these
/// signals says that nobody waits for it.
async fn serve(server: Server, behind: &str, grace_ms: u128) -> io::Result<ExitCode> {
    let mut stop_signals = StopSignals::listen()?;
    answer_other_signals(server.reloader(), server.policy_loader())?;
    for (Listener { socket, is_inherited }, tls) in server.listeners() {
        let (addr, inherited) = (socket.local_addr()?, *is_inherited);
        info!(%addr, tls, inherited, store = behind, version = env!("CARGO_PKG_VERSION"), "listening");
    }
    for addr in server.http_addresses() {
        info!(%addr, "serving http");
    }
    let stop = CancellationToken::new();
    let serving = server.run(stop.clone());
    pin!(serving);
    tokio::select! {
        // By itself it only fails.
        outcome = &mut serving => return outcome.map(|_| ExitCode::FAILURE),
        signal = stop_signals.next() => info!(signal, "stopping"),
    }
    stop.cancel();
    tokio::select! {
        all_done = &mut serving => {
            match all_done? {
                true => info!("stopped"),
                false => warn!(grace_ms, "stopped with clients still connected"),
            }
            Ok(ExitCode::SUCCESS)
        }
        signal = stop_signals.next() => {
            warn!(signal, "stopped at once, by a second signal");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// SIGTERM and SIGINT.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The name of the next one.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Reads the certificates and the policies again at each SIGHUP, and keeps SIGUSR1 and SIGUSR2 from ending the process, as
/// they would if nobody listened for them.
fn answer_other_signals(
    reload: impl Fn() -> Result<bool, String> + Send + 'static,
    load_policies: impl Fn() -> bool + Send + 'static,
) -> io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut user1 = signal(SignalKind::user_defined1())?;
    let mut user2 = signal(SignalKind::user_defined2())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = hangup.recv() => match (reload(), load_policies()) {
                    (Ok(true), _) => info!("certificates reloaded"),
                    (Ok(false), true) => {}
                    (Ok(false), false) => {
                        info!(signal = "SIGHUP", "nothing to reload: there is no [tls], and no configuration file");
                    }
                    (Err(error), _) => error!(error, "certificates cannot be read: keeping the previous ones"),
                },
                _ = user1.recv() => info!(signal = "SIGUSR1", "nothing is bound to this signal"),
                _ = user2.recv() => info!(signal = "SIGUSR2", "nothing is bound to this signal"),
            }
        }
    });
    Ok(())
}
