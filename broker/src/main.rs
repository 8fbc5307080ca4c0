//! `leasehold-broker`: parses the command line, sets up logs, and runs what was asked for.

use anyhow::Context as _;
use clap::Parser as _;
use leasehold_broker::cli::{Cli, Command, LogCommand};
use leasehold_broker::loggers::Loggers;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Begins to log to stderr, with the levels of `LEASEHOLD_LOG` (`info,leasehold_broker::replica=debug`), as lines
/// of text or, with `LEASEHOLD_LOG_FORMAT=json`, of JSON.
fn logs() -> anyhow::Result<Loggers> {
    let wanted = std::env::var("LEASEHOLD_LOG").unwrap_or_else(|_| "info".to_owned());
    let mut targets: Targets = wanted
        .parse()
        .with_context(|| format!("LEASEHOLD_LOG={wanted:?} is no list of levels"))?;
    if targets.default_level().is_none() {
        targets = targets.with_default(LevelFilter::ERROR);
    }
    let (filter, handle) = reload::Layer::new(targets.clone());
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match std::env::var("LEASEHOLD_LOG_FORMAT").as_deref() {
        Ok("json") => registry.with(lines.json()).init(),
        _ => registry.with(lines.with_ansi(false)).init(),
    }
    Ok(Loggers::new(targets, move |targets| {
        handle.reload(targets).map_err(|error| error.to_string())
    }))
}

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let loggers = Arc::new(logs()?);
    match cli.command {
        Command::Run(args) => tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?
            .block_on(leasehold_broker::run::run(*args, loggers))?,
        // One thread: the children's parent-death signal is tied to the thread that started them.
        Command::Dev(args) => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let result = runtime.block_on(leasehold_broker::dev::dev(args));
            // A read of the terminal cannot be called off; do not wait for the user's next Enter.
            runtime.shutdown_background();
            result?;
        }
        Command::Recover(args) => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(leasehold_broker::dev::recover(args))?,
        Command::Reference => print!("{}", leasehold_broker::config::reference()),
        Command::Log(LogCommand::Inspect { dir }) => {
            let mut out = std::io::BufWriter::new(std::io::stdout().lock());
            let done = leasehold_broker::inspect::run(&dir, &mut out);
            let done = done.and_then(|code| out.flush().map(|()| code));
            // Whoever reads no further (`| head`) has not been told that all is sound.
            return Ok(done.unwrap_or(leasehold_broker::inspect::UNUSABLE).into());
        }
    }
    Ok(ExitCode::SUCCESS)
}
