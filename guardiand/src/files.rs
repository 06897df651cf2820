//! Files in and out of a container: a tar stream through nstar, which does the work as the
//! container's own user in its namespaces.

use std::ffi::OsString;
use std::process::Stdio;

use anyhow::Context as _;
use bytes::BytesMut;
use guardian_contract::garden::ApiError;
use guardian_contract::log;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use crate::connection::{Context, Request};
use crate::container::Container;
use crate::container::grace::Hold;
use crate::guardian::{Guardian, api_error};
use crate::http::body::Body;
use crate::http::reply::{Reply, send_chunked_head, send_last_chunk};
use crate::http::wire::Wire;
use crate::invoke::Outcome;

/// One read of an outgoing archive.
const CHUNK_BYTES: usize = 256 * 1024;

/// Extracts the request's body in a container.
pub(crate) async fn stream_in(
    context: &Context,
    request: &Request,
    body: &mut Body,
    wire: &mut Wire,
) -> Reply {
    let guardian = &context.guardian;
    let container = match guardian.find(request.value(0)) {
        Ok(container) => container,
        Err(error) => return Reply::error(&error),
    };
    let _hold = Hold::new(guardian, &container);
    match extract(guardian, &container, request, (body, wire)).await {
        Ok(()) => Reply::empty(),
        Err(error) => Reply::error(&api_error(&error.context("stream-in"))),
    }
}

async fn extract(
    guardian: &Guardian,
    container: &Container,
    request: &Request,
    (body, wire): (&mut Body, &mut Wire),
) -> anyhow::Result<()> {
    let place = [OsString::from(request.parameter("destination"))];
    let mut child = nstar(guardian, container, request.parameter("user"), &place)?
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("nstar: error streaming in")?;
    let mut stdin = child.stdin.take().context("nstar has no stdin")?;
    let mut complaint = Vec::new();
    let mut stderr = child.stderr.take().context("nstar has no stderr")?;
    let feed = async {
        while let Some(piece) = body.next(&mut wire.reader).await.context("read request body")? {
            if stdin.write_all(&piece).await.is_err() {
                // It has had enough, for better (a trailer it ignores) or worse; its exit tells.
                break;
            }
        }
        drop(stdin);
        Ok::<(), anyhow::Error>(())
    };
    let (fed, read) = tokio::join!(feed, stderr.read_to_end(&mut complaint));
    fed?;
    read?;
    let outcome = Outcome { status: child.wait().await?, stdout: complaint, stderr: Vec::new() };
    if outcome.status.success() {
        // What follows the archive's end is padding; the next request comes behind it.
        while body.next(&mut wire.reader).await?.is_some() {}
        return Ok(());
    }
    anyhow::bail!(
        "nstar: error streaming in: {}. Output: {}",
        outcome.exit_text(),
        String::from_utf8_lossy(&outcome.stdout)
    )
}

/// Sends an archive of something in a container.
///
/// # Errors
/// Before the first byte only: then there is still an answer to give. Later the body is cut off
/// without its end, which no client takes for a whole archive.
pub(crate) async fn stream_out(
    context: &Context,
    request: &Request,
    wire: &mut Wire,
) -> Result<(), ApiError> {
    let guardian = &context.guardian;
    let container = guardian.find(request.value(0))?;
    let _hold = Hold::new(guardian, &container);
    let failed = |error: anyhow::Error| api_error(&error.context("stream-out"));
    let mut child = archive(guardian, &container, request).map_err(failed)?;
    let no_pipe = || ApiError::other("stream-out: nstar has no stdout");
    let mut stdout = child.stdout.take().ok_or_else(no_pipe)?;
    let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
    let first = stdout.read_buf(&mut chunk).await.map_err(|error| failed(error.into()))?;
    if first == 0 {
        let output = child.wait_with_output().await.map_err(|error| failed(error.into()))?;
        let outcome = Outcome { status: output.status, stdout: output.stderr, stderr: Vec::new() };
        let text = String::from_utf8_lossy(&outcome.stdout).into_owned();
        let exit = outcome.exit_text();
        let text = format!("stream-out: nstar: error streaming out: {exit}. Output: {text}");
        return Err(ApiError::other(text));
    }
    if let Err(error) = send(&mut child, stdout, chunk, wire).await {
        let data = json!({"handle": request.value(0), "error": format!("{error:#}")});
        log::error("stream-out.cut-off", &data);
    }
    Ok(())
}

fn archive(guardian: &Guardian, container: &Container, request: &Request) -> anyhow::Result<Child> {
    let place = split_source(request.parameter("source"));
    nstar(guardian, container, request.parameter("user"), &place)?
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("nstar: error streaming out")
}

async fn send(
    child: &mut Child,
    mut stdout: tokio::process::ChildStdout,
    mut chunk: BytesMut,
    wire: &mut Wire,
) -> anyhow::Result<()> {
    send_chunked_head(&mut wire.writer, "application/x-tar").await?;
    while !chunk.is_empty() {
        wire.writer.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).await?;
        chunk.extend_from_slice(b"\r\n");
        wire.writer.write_all(&chunk).await?;
        chunk.clear();
        chunk.reserve(CHUNK_BYTES);
        stdout.read_buf(&mut chunk).await?;
    }
    let status = child.wait().await?;
    anyhow::ensure!(status.success(), "nstar: {status}");
    send_last_chunk(&mut wire.writer).await?;
    Ok(())
}

/// Makes a directory and its parents in a container, the user's own: nothing is streamed in, but
/// the place for it is made.
///
/// # Errors
/// With nstar's words.
pub(crate) async fn make_dir(
    guardian: &Guardian,
    container: &Container,
    user: &str,
    dir: &str,
) -> anyhow::Result<()> {
    let mut nstar = nstar(guardian, container, user, &[dir.into()])?;
    let output = nstar.stdin(Stdio::null()).output().await.context("exec nstar")?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "make working directory {dir}: {}", said.trim());
    Ok(())
}

/// With a trailing slash, what is in the directory is meant; without, the thing itself.
fn split_source(source: &str) -> [OsString; 2] {
    if source.ends_with('/') {
        return [source.into(), ".".into()];
    }
    match source.rsplit_once('/') {
        Some(("", name)) => ["/".into(), name.into()],
        Some((dir, name)) => [dir.into(), name.into()],
        None => [".".into(), source.into()],
    }
}

fn nstar(
    guardian: &Guardian,
    container: &Container,
    user: &str,
    place: &[OsString],
) -> anyhow::Result<Command> {
    let init = container.init().context("pid not found for container")?;
    let user = if user.is_empty() { "root" } else { user };
    let mut command = Command::new(&guardian.settings.nstar);
    command
        .arg(&guardian.settings.flags.tools.tar_bin)
        .arg(init.pid.to_string())
        .arg(user)
        .args(place)
        .process_group(0)
        .kill_on_drop(true);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_split_as_gdn_splits_it() {
        for (source, dir, what) in [
            ("/a/b/dir", "/a/b", "dir"),
            ("/a/b/", "/a/b/", "."),
            ("/file", "/", "file"),
            ("file", ".", "file"),
            ("dir/", "dir/", "."),
            ("/", "/", "."),
        ] {
            assert_eq!(split_source(source), [OsString::from(dir), what.into()], "{source}");
        }
    }
}
