//! The event route: one JSON object per line, in chunks, until somebody has enough.

use std::io;

use guardian_contract::log;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::Event;
use crate::connection::{Context, Request};
use crate::http::reply::{send_chunked_head, send_last_chunk, send_line};
use crate::http::wire::{Reader, Wire, Writer};
use crate::telemetry;

/// Sends events from now on: all, or those of the containers in `handles`, a comma list. Ends with
/// the client, and with the server in good order.
pub(crate) async fn serve(context: &Context, request: &Request, mut wire: Wire) {
    let mut events = context.guardian.events.listen();
    let handles = request.parameter("handles");
    let is_wanted = |event: &Event| {
        handles.is_empty() || handles.split(',').any(|handle| handle == event.handle)
    };
    if send_chunked_head(&mut wire.writer, "application/x-ndjson").await.is_err() {
        return;
    }
    let sent = tokio::select! {
        sent = send(&mut events, is_wanted, &mut wire.writer) => sent,
        () = gone(&mut wire.reader) => return,
        () = context.stopped() => Ok(()),
    };
    if sent.is_ok() && send_last_chunk(&mut wire.writer).await.is_ok() {
        wire.linger().await;
    }
}

/// Sends until the client no longer takes it. One that is slow hears of what it missed.
async fn send(
    events: &mut Receiver<Event>,
    is_wanted: impl Fn(&Event) -> bool,
    writer: &mut Writer,
) -> io::Result<()> {
    loop {
        let line = match events.recv().await {
            Ok(event) if !is_wanted(&event) => continue,
            Ok(event) => serde_json::to_vec(&event)?,
            Err(RecvError::Lagged(count)) => {
                telemetry::EVENTS_LOST.add(count);
                let time = log::timestamp(std::time::SystemTime::now());
                serde_json::to_vec(&json!({"time": time, "event": "lost", "count": count}))?
            }
            Err(RecvError::Closed) => return Ok(()),
        };
        send_line(writer, line).await?;
    }
}

/// Returns when the client is gone; whatever else it says is ignored.
pub(crate) async fn gone(reader: &mut Reader) {
    let mut waste = [0; 256];
    while matches!(reader.read(&mut waste).await, Ok(length) if length > 0) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Events, Kind};
    use tokio::io::AsyncWriteExt;

    /// Returns the lines of a chunked body.
    fn lines(body: &str) -> Vec<serde_json::Value> {
        let lines = body.lines().filter(|line| line.starts_with('{'));
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[tokio::test]
    async fn who_is_slow_loses_the_oldest_and_is_told_how_many() {
        let (client, server) = tokio::io::duplex(64);
        let Wire { mut writer, .. } = Wire::new(Box::new(server));
        let hub = Events::default();
        let mut events = hub.listen();
        let handle = "h".parse().unwrap();
        for number in 0..5000 {
            hub.tell(Event::new(Kind::Start, &handle).pid(Some(number)));
        }
        drop(hub);
        let (mut reader, _writer) = tokio::io::split(client);
        let reading = tokio::spawn(async move {
            let mut body = String::new();
            reader.read_to_string(&mut body).await.unwrap();
            body
        });
        send(&mut events, |_| true, &mut writer).await.unwrap();
        writer.shutdown().await.unwrap();
        let lines = lines(&reading.await.unwrap());
        assert_eq!(lines[0]["event"], "lost");
        let lost = lines[0]["count"].as_i64().unwrap();
        assert_eq!(lines[1]["pid"].as_i64(), Some(lost), "the oldest are lost");
        assert_eq!(lines.last().unwrap()["pid"], 4999);
        assert_eq!(lines.len() as i64 - 1 + lost, 5000);
    }
}
