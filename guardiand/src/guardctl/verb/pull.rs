//! pull: an image into the server's store, with a bar for each layer.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, IsTerminal};

use anyhow::{Context, bail};
use guardian_contract::garden::ApiError;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::Value;

use crate::cli::PullArgs;
use crate::client::Client;
use crate::stdio;

/// One line of the answer.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Line {
    /// How far a layer is.
    Layer { layer: String, state: String, bytes: u64, size: u64 },
    /// What there is now.
    Pulled { pulled: Value },
    /// Why there is nothing.
    Failed { failed: ApiError },
}

/// Pulls an image; with `json`, prints what the server tells as it comes.
pub(super) fn pull(client: &Client, args: &PullArgs, json: bool) -> anyhow::Result<()> {
    let mut body = BufReader::new(client.pull(&args.image()?, args.privileged)?);
    let mut bars = Bars::default();
    let mut text = String::new();
    while body.read_line(&mut text).context("the server is gone")? > 0 {
        let line = serde_json::from_str(&text).context("the answer is not what was expected")?;
        match line {
            Line::Failed { failed } => return Err(failed.into()),
            Line::Pulled { .. } if json => return stdio::line(text.trim_end()),
            Line::Pulled { pulled } => {
                bars.clear();
                let number = |key: &str| pulled[key].as_u64().unwrap_or_default();
                let (layers, known, bytes) = (number("layers"), number("known"), number("bytes"));
                return stdio::line(&format!(
                    "{layers} layers, {known} known before, {bytes} bytes"
                ));
            }
            Line::Layer { .. } if json => stdio::line(text.trim_end())?,
            Line::Layer { layer, state, bytes, size } => bars.show(&layer, state, bytes, size),
        }
        text.clear();
    }
    bail!("the server ended the pull")
}

/// A bar for each layer, on a terminal.
#[derive(Debug, Default)]
struct Bars {
    screen: MultiProgress,
    bars: HashMap<String, ProgressBar>,
}

impl Bars {
    fn show(&mut self, layer: &str, state: String, bytes: u64, size: u64) {
        if !std::io::stderr().is_terminal() {
            return;
        }
        let bar = self.bars.entry(layer.to_owned()).or_insert_with(|| {
            // The template is a constant; without it there is indicatif's own style.
            let style =
                ProgressStyle::with_template("{prefix} {bar:30} {bytes}/{total_bytes} {msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_bar());
            let digits = layer.trim_start_matches("sha256:").chars().take(12).collect::<String>();
            self.screen.add(ProgressBar::new(size).with_style(style).with_prefix(digits))
        });
        bar.set_position(bytes);
        match state.as_str() {
            "done" => bar.finish_with_message("done"),
            _ => bar.set_message(state),
        }
    }

    fn clear(&self) {
        let _ = self.screen.clear();
    }
}
