//! `leasehold-broker`: parses the command line, sets up logs, and runs what was asked for.

use clap::Parser as _;
use leasehold_broker::cli::{Cli, Command, LogCommand};
use std::io::Write as _;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let filter =
        EnvFilter::try_from_env("LEASEHOLD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match std::env::var("LEASEHOLD_LOG_FORMAT").as_deref() {
        Ok("json") => logs.json().init(),
        _ => logs.with_ansi(false).init(),
    }
    match cli.command {
        Command::Run(args) => tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?
            .block_on(leasehold_broker::run::run(*args))?,
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
