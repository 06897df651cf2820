//! The pull route: an image into the store, and how far that is, one JSON object per line.
//!
//! Lines are those of `rootfs pull --progress json`; the last one is `{"pulled":…}` or `{"failed":…}`.
//! A client that leaves ends the pull; what has been downloaded is there for the next one.

use guardian_contract::garden::{ApiError, ImageRef, decode};
use guardian_contract::image::plugin_uri;
use guardian_contract::log;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Child;

use crate::connection::Context;
use crate::event::stream::gone;
use crate::guardian::api_error;
use crate::http::reply::{send_chunked_head, send_last_chunk, send_line};
use crate::http::wire::{Wire, Writer};

/// What is asked.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Ask {
    #[serde(flatten)]
    image: ImageRef,
    /// Whether it is for privileged containers, which may have another plugin.
    privileged: bool,
}

/// A pull that has begun.
#[derive(Debug)]
pub(crate) struct Pull(Child);

/// Begins to pull what a request's body names.
///
/// # Errors
/// When it names nothing, or there is no plugin that can.
pub(crate) async fn begin(context: &Context, body: &[u8]) -> Result<Pull, ApiError> {
    let mut ask: Ask = decode(body).map_err(ApiError::other)?;
    if ask.image.uri.is_empty() {
        return Err(ApiError::other("no image to pull: uri is empty"));
    }
    ask.image.uri = plugin_uri(&ask.image.uri);
    let images = &context.guardian.settings.images;
    let begun = images.pull(&ask.image, ask.privileged).await;
    begun.map(Pull).map_err(|error| api_error(&error))
}

impl Pull {
    /// Tells the client how it goes, to the end.
    pub(crate) async fn serve(mut self, context: &Context, mut wire: Wire) {
        if send_chunked_head(&mut wire.writer, "application/x-ndjson").await.is_err() {
            return;
        }
        let told = tokio::select! {
            told = tell(&mut self.0, &mut wire.writer) => told,
            () = gone(&mut wire.reader) => return,
            () = context.stopped() => return,
        };
        match told {
            Ok(()) if send_last_chunk(&mut wire.writer).await.is_ok() => wire.linger().await,
            Ok(()) => {}
            Err(error) => log::info("pull.cut-off", &json!({"error": format!("{error:#}")})),
        }
    }
}

async fn tell(child: &mut Child, writer: &mut Writer) -> anyhow::Result<()> {
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        anyhow::bail!("the image plugin has no pipes");
    };
    let mut answer = String::new();
    let mut lines = BufReader::new(stderr).lines();
    let progress = async {
        while let Some(line) = lines.next_line().await? {
            match serde_json::from_str::<Value>(&line) {
                Ok(value) if value.get("layer").is_some() => {
                    send_line(writer, line.into_bytes()).await?;
                }
                _ => log::info("image-plugin-pull", &json!({"output": line})),
            }
        }
        Ok::<(), anyhow::Error>(())
    };
    // A failure's text is not long.
    let mut stdout = stdout.take(1 << 20);
    let (told, read) = tokio::join!(progress, stdout.read_to_string(&mut answer));
    told?;
    read?;
    let last = match (child.wait().await?.success(), serde_json::from_str::<Value>(&answer)) {
        (true, Ok(pulled)) => json!({"pulled": pulled}),
        _ => json!({"failed": ApiError::other(answer.trim())}),
    };
    send_line(writer, serde_json::to_vec(&last)?).await?;
    Ok(())
}
