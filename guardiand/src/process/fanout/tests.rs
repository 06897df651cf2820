//! Readers of one stream, fast, slow and stalled.

use super::*;

async fn all(fanout: &Fanout, ticket: Ticket) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(chunk) = fanout.next(ticket).await {
        out.extend_from_slice(&chunk);
    }
    out
}

#[tokio::test]
async fn every_reader_gets_all_from_where_it_joined() {
    let fanout = Fanout::default();
    fanout.push(Bytes::from_static(b"nobody hears this"));
    let first = fanout.join();
    fanout.push(Bytes::from_static(b"one "));
    let second = fanout.join();
    fanout.push(Bytes::from_static(b"two"));
    fanout.end();
    assert_eq!(all(&fanout, first).await, b"one two");
    assert_eq!(all(&fanout, second).await, b"two");
    assert!(fanout.lock().chunks.is_empty());
}

#[tokio::test]
async fn a_stalled_reader_loses_the_oldest_and_the_others_nothing() {
    let fanout = Fanout::default();
    let (stalled, lively) = (fanout.join(), fanout.join());
    fanout.set_limit(stalled, 10);
    for digit in b'0'..=b'9' {
        fanout.push(Bytes::from(vec![digit; 4]));
        assert_eq!(fanout.next(lively).await.unwrap(), vec![digit; 4]);
    }
    fanout.end();
    assert_eq!(all(&fanout, stalled).await, b"7788889999");
    assert_eq!(fanout.leave(stalled), 30);
}

#[tokio::test]
async fn what_is_kept_for_the_first_reader_is_bounded() {
    let fanout = Fanout::keeping(false);
    for _ in 0..5 {
        fanout.push(Bytes::from(vec![0; IDLE_LIMIT_BYTES / 2]));
    }
    fanout.end();
    let ticket = fanout.join();
    assert_eq!(all(&fanout, ticket).await.len(), IDLE_LIMIT_BYTES);
}

#[tokio::test]
async fn scrollback_is_for_everybody_and_bounded() {
    let fanout = Fanout::keeping(true);
    fanout.push(Bytes::from(vec![b'a'; IDLE_LIMIT_BYTES]));
    let first = fanout.join();
    fanout.push(Bytes::from_static(b"bc"));
    let second = fanout.join();
    fanout.push(Bytes::from_static(b"d"));
    fanout.end();
    let (first, second) = (all(&fanout, first).await, all(&fanout, second).await);
    assert_eq!(first.len(), IDLE_LIMIT_BYTES + 3);
    assert_eq!(second.len(), IDLE_LIMIT_BYTES + 1);
    assert!(first.ends_with(b"abcd") && second.ends_with(b"abcd"));
    let kept = fanout.kept();
    assert!(kept.len() == IDLE_LIMIT_BYTES && kept.ends_with(b"abcd"));
}

#[tokio::test]
async fn output_in_single_bytes_is_kept_in_pieces() {
    let fanout = Fanout::keeping(false);
    let text: Vec<u8> = (0..10 * PIECE_BYTES).map(|at| (at % 251) as u8).collect();
    for byte in &text {
        fanout.push(Bytes::copy_from_slice(&[*byte]));
    }
    assert_eq!(fanout.lock().chunks.len(), 10);
    let ticket = fanout.join();
    fanout.end();
    assert_eq!(all(&fanout, ticket).await, text);
}

#[tokio::test(start_paused = true)]
async fn who_keeps_up_is_waited_for_and_gets_all() {
    let (fanout, chunk) = (Fanout::default(), Bytes::from(vec![0; 1 << 20]));
    let reader = fanout.join();
    let total = 4 * LIMIT_BYTES;
    let writing = async {
        for _ in 0..total / chunk.len() {
            fanout.push(chunk.clone());
            fanout.make_room().await;
        }
        fanout.end();
    };
    let reading = async {
        let mut length = 0;
        while let Some(chunk) = fanout.next(reader).await {
            length += chunk.len();
            tokio::time::sleep(PATIENCE / 2).await;
        }
        length
    };
    let ((), length) = tokio::join!(writing, reading);
    assert_eq!((length, fanout.leave(reader)), (total, 0));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_keep_up_holds_the_process_up_once() {
    let (fanout, chunk) = (Fanout::default(), Bytes::from(vec![0; 1 << 20]));
    let reader = fanout.join();
    fanout.push(chunk.clone());
    let _ = fanout.next(reader).await;
    let start = tokio::time::Instant::now();
    for _ in 0..2 * LIMIT_BYTES / chunk.len() {
        fanout.push(chunk.clone());
        fanout.make_room().await;
    }
    assert_eq!(start.elapsed(), PATIENCE);
    fanout.end();
    assert_eq!(all(&fanout, reader).await.len(), LIMIT_BYTES);
    // It has caught up, and is waited for again.
    assert!(!fanout.lock().readers[&reader].is_slow);
}

#[tokio::test]
async fn a_finished_reader_ends_while_the_stream_goes_on() {
    let fanout = Fanout::default();
    let ticket = fanout.join();
    fanout.push(Bytes::from_static(b"x"));
    fanout.finish(ticket);
    assert_eq!(all(&fanout, ticket).await, b"x");
}
