//! Log lines: lager's JSON, one object per line, because that is what a Garden operator's tools
//! read and what a plugin's caller relogs at its own level.
//!
//! `{"timestamp":"2026-01-02T03:04:05.123456789Z","level":"info","source":"netsetup","message":
//! "netsetup.up","data":{…}}`. Secrets never reach this module: callers log names, not values.

use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Level {
    /// Commands run and their answers.
    Debug,
    /// Changes of state.
    Info,
    /// Something failed.
    Error,
    /// The program can't go on.
    Fatal,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Error => "error",
            Self::Fatal => "fatal",
        }
    }
}

static SOURCE: OnceLock<&'static str> = OnceLock::new();
static TO_STDOUT: OnceLock<()> = OnceLock::new();
static MINIMUM: AtomicU8 = AtomicU8::new(Level::Error as u8);

/// Names this program in its log lines; lines go to stderr.
pub fn init(source: &'static str) {
    let _ = SOURCE.set(source);
}

/// Sends lines to stdout, where Garden's operators expect the server's log.
pub fn to_stdout() {
    let _ = TO_STDOUT.set(());
}

/// Drops lines below `level` from now on.
pub fn set_level(level: Level) {
    MINIMUM.store(level as u8, Ordering::Relaxed);
}

/// Writes a debug line.
pub fn debug(action: &str, data: &Value) {
    line(Level::Debug, action, data);
}

/// Writes an info line.
pub fn info(action: &str, data: &Value) {
    line(Level::Info, action, data);
}

/// Writes an error line.
pub fn error(action: &str, data: &Value) {
    line(Level::Error, action, data);
}

/// Writes one line, unless its level is below the minimum. `action` is prefixed by the source.
pub fn line(level: Level, action: &str, data: &Value) {
    if (level as u8) < MINIMUM.load(Ordering::Relaxed) {
        return;
    }
    let source = SOURCE.get().copied().unwrap_or("guardian");
    let object = json!({
        "timestamp": timestamp(SystemTime::now()),
        "level": level.name(),
        "source": source,
        "message": format!("{source}.{action}"),
        "data": data,
    });
    let text = format!("{object}\n");
    // A log that can't be written must not stop the work it tells of.
    let _ = if TO_STDOUT.get().is_some() {
        std::io::stdout().lock().write_all(text.as_bytes())
    } else {
        std::io::stderr().lock().write_all(text.as_bytes())
    };
}

/// Returns the time as RFC 3339 in UTC with nine fraction digits.
pub fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, nanos) = (since.as_secs(), since.subsec_nanos());
    let (year, month, day) = civil_from_days(seconds / 86400);
    let of_day = seconds % 86400;
    let (hour, minute, second) = (of_day / 3600, of_day % 3600 / 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// Returns year, month and day of a day counted from 1970-01-01 (Howard Hinnant's
/// `civil_from_days`, which shifts the year to begin in March so that leap days come last).
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn timestamps_are_rfc_3339() {
        for (seconds, want) in [
            (0, "1970-01-01T00:00:00.000000007Z"),
            (951_782_400, "2000-02-29T00:00:00.000000007Z"),
            (1_767_323_045, "2026-01-02T03:04:05.000000007Z"),
        ] {
            assert_eq!(timestamp(UNIX_EPOCH + Duration::new(seconds, 7)), want);
        }
    }
}
