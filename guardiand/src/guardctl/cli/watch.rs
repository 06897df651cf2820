//! What looks on: events, stats, top.

use std::time::Duration;

use clap::Args;

use super::parse;

/// `events`
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Only of these containers; of all when none is named
    #[arg(value_name = "HANDLE")]
    pub(crate) handles: Vec<String>,
}

/// `stats`
#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// Print one table and end
    #[arg(long)]
    pub(crate) once: bool,
    /// Time between two looks, over which processor use is measured
    #[arg(long, default_value = "1s", value_parser = interval, value_name = "DURATION")]
    pub(crate) interval: Duration,
    /// Only these containers, or processes with metrics of their own; all when none is named
    #[arg(value_name = "HANDLE")]
    pub(crate) handles: Vec<String>,
}

fn interval(text: &str) -> Result<Duration, String> {
    let duration = parse::duration(text)?;
    match duration.is_zero() {
        true => Err("must be longer than nothing".into()),
        false => Ok(duration),
    }
}
