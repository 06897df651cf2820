//! Telling how far a pull is: bars for a person, JSON lines on stderr for a program.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::json;

/// Between two lines for one layer.
const PAUSE: Duration = Duration::from_millis(250);

/// How progress is to be told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Style {
    /// Bars on a terminal, nothing elsewhere.
    #[default]
    Auto,
    /// One JSON object per line on stderr.
    Json,
    /// Not at all.
    None,
}

/// Where progress is told.
#[derive(Debug, Default)]
pub(crate) enum Progress {
    /// Nowhere.
    #[default]
    Silent,
    /// As JSON lines.
    Lines,
    /// As bars, by the digests of the layers' archives.
    Bars(MultiProgress, Mutex<HashMap<String, ProgressBar>>),
}

impl From<Style> for Progress {
    fn from(style: Style) -> Self {
        match style {
            Style::Auto if std::io::stderr().is_terminal() => {
                Self::Bars(MultiProgress::new(), Mutex::default())
            }
            Style::Json => Self::Lines,
            Style::Auto | Style::None => Self::Silent,
        }
    }
}

impl Progress {
    /// Begins to tell of a layer, by the digits of its archive's digest; `size` is the archive's
    /// in bytes.
    pub(crate) fn layer(&self, digest: &str, size: u64) -> Told {
        let how = match self {
            Self::Silent => How::Silent,
            Self::Lines => How::Line(None),
            Self::Bars(screen, bars) => {
                let mut bars = bars.lock().unwrap_or_else(PoisonError::into_inner);
                let bar =
                    bars.entry(digest.into()).or_insert_with(|| screen.add(bar(digest, size)));
                How::Bar(bar.clone())
            }
        };
        Told { digest: digest.to_owned(), size, how }
    }
}

/// What happens to a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Its archive comes.
    Download,
    /// Its archive goes.
    Upload,
    /// Its archive becomes files.
    Unpack,
    /// The store has it.
    Done,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Download => "download",
            Self::Upload => "upload",
            Self::Unpack => "unpack",
            Self::Done => "done",
        }
    }
}

/// One layer that is told of.
#[derive(Debug)]
pub(crate) struct Told {
    digest: String,
    size: u64,
    how: How,
}

#[derive(Debug)]
enum How {
    Silent,
    /// With the time of the last line.
    Line(Option<Instant>),
    Bar(ProgressBar),
}

impl Told {
    /// Tells that the layer is in this state with so many bytes of its archive.
    pub(crate) fn is(&mut self, state: State, bytes: u64) {
        let is_end = bytes == self.size || state != State::Download;
        match &mut self.how {
            How::Silent => {}
            How::Line(last) => {
                if is_end || last.is_none_or(|last| last.elapsed() >= PAUSE) {
                    *last = Some(Instant::now());
                    let line = json!({"layer": format!("sha256:{}", self.digest),
                        "state": state.name(), "bytes": bytes, "size": self.size});
                    // Nobody may be reading any more; the work goes on.
                    let _ = writeln!(std::io::stderr(), "{line}");
                }
            }
            How::Bar(bar) => {
                bar.set_position(bytes);
                bar.set_message(state.name());
                if state == State::Done {
                    bar.finish();
                }
            }
        }
    }
}

fn bar(digest: &str, size: u64) -> ProgressBar {
    let short = digest.get(..12).unwrap_or(digest).to_owned();
    // The template is a constant; without it there is indicatif's own style.
    let style = ProgressStyle::with_template("{prefix} {bar:30} {bytes}/{total_bytes} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(size).with_style(style).with_prefix(short)
}
