//! What guardctl itself says: JSON or tables on standard output, one line on standard error.

use std::io::{self, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::Value;

/// Nobody reads our standard output any more; no failure, for `head` does that when it has enough.
#[derive(Debug)]
pub(crate) struct ReaderGone;

impl std::fmt::Display for ReaderGone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nobody reads standard output")
    }
}

impl std::error::Error for ReaderGone {}

/// Prints a line.
///
/// # Errors
/// The reader's.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    written(writeln!(stdout, "{text}").and_then(|()| stdout.flush()))
}

/// Tells a reader that has left from other failures to write standard output.
///
/// # Errors
/// The one given.
pub(crate) fn written<T>(result: io::Result<T>) -> anyhow::Result<T> {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => ReaderGone.into(),
        _ => anyhow::Error::from(error).context("write standard output"),
    })
}

/// Prints JSON, indented for people; programs don't mind.
///
/// # Errors
/// The reader's.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

/// Prints aligned columns without borders.
///
/// # Errors
/// The reader's.
pub(crate) fn table(headings: &[&str], rows: Vec<Vec<String>>) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if !headings.is_empty() {
        table.set_header(headings);
    }
    for row in rows {
        table.add_row(row.into_iter().map(|cell| printable(&cell)));
    }
    for line in table.lines() {
        self::line(line.trim())?;
    }
    Ok(())
}

/// Prints one line on standard error.
pub(crate) fn complain(text: &str) {
    let text = text.lines().map(str::trim).collect::<Vec<_>>().join("; ");
    // When nobody listens there is nobody else to tell.
    let _ = writeln!(io::stderr().lock(), "guardctl: {}", printable(&text));
}

/// Returns the text with what could drive a terminal made visible: containers and other clients
/// choose property values and error texts.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => shown.extend(character.escape_default()),
            false => shown.push(character),
        }
    }
    shown
}

/// Returns a JSON scalar as a person writes it; missing things are a dash.
pub(crate) fn plain(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".into(),
        Some(Value::String(text)) if text.is_empty() => "-".into(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_could_drive_a_terminal_is_made_visible() {
        assert_eq!(printable("a\u{1b}[2Jé"), "a\\u{1b}[2Jé");
    }

    #[test]
    fn missing_values_are_dashes() {
        assert_eq!(plain(None), "-");
        assert_eq!(plain(Some(&json!(""))), "-");
        assert_eq!(plain(Some(&json!(3))), "3");
    }
}
