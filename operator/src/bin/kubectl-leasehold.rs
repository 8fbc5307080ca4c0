//! `kubectl leasehold`: kubectl finds this program by its name on the PATH.

use clap::Parser as _;
use leasehold_operator::plugin::{self, Cli};

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let text = runtime.block_on(plugin::run(cli))?;
    println!("{}", text.trim_end());
    Ok(())
}
