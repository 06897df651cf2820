//! A small HTTP server that answers as a test wants it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use guardian_tests::netns::Netns;
use nix::sched::{CloneFlags, setns};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::identity::Identity;
use crate::bench::Bench;

/// A network namespace for this test.
pub(crate) fn namespace(bench: &Bench) -> Netns {
    // Links have short names, but namespaces need not.
    Netns::create(&bench.tag).unwrap()
}

/// A request as it came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Path and query.
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
    pub(crate) range: Option<String>,
    /// Whether only the head of the answer is wanted.
    pub(crate) is_head: bool,
}

/// What to answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Lines without their ends.
    pub(crate) headers: Vec<String>,
    pub(crate) body: Vec<u8>,
    /// After how many bytes of the body the connection breaks off.
    pub(crate) cut: Option<usize>,
    /// Whether it stays open without a word instead.
    pub(crate) stalls: bool,
}

impl Reply {
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, headers: Vec::new(), body: body.into(), cut: None, stalls: false }
    }

    pub(crate) fn status(status: u16) -> Self {
        Self { status, ..Self::ok("") }
    }

    pub(crate) fn header(mut self, line: impl Into<String>) -> Self {
        self.headers.push(line.into());
        self
    }

    pub(crate) fn cut(mut self, at: usize) -> Self {
        self.cut = Some(at);
        self
    }

    pub(crate) fn stall(self, at: usize) -> Self {
        Self { stalls: true, ..self.cut(at) }
    }

    fn send(&self, stream: &mut impl Stream, is_head: bool) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} x\r\nConnection: close\r\n", self.status);
        for line in &self.headers {
            head.push_str(&format!("{line}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", self.body.len()));
        stream.write_all(head.as_bytes())?;
        if is_head {
            return stream.flush();
        }
        stream.write_all(&self.body[..self.cut.unwrap_or(self.body.len())])?;
        stream.flush()?;
        if self.stalls {
            // Until the other side has enough.
            std::io::copy(stream, &mut std::io::sink())?;
        }
        Ok(())
    }
}

/// The server; it lives as long as the test's process, unreachable once its namespace is gone.
pub(crate) struct Fake {
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Fake {
    /// Listens at `address` inside `netns`.
    pub(crate) fn start(
        netns: &Netns,
        address: &'static str,
        answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::serve(netns, address, None, answer)
    }

    /// The same with TLS.
    pub(crate) fn start_tls(
        netns: &Netns,
        address: &'static str,
        identity: &Identity,
        answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::serve(netns, address, Some(identity.server()), answer)
    }

    fn serve(
        netns: &Netns,
        address: &'static str,
        tls: Option<Arc<ServerConfig>>,
        answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let path = netns.path();
        // A socket stays in the namespace in which it was made.
        let listener = std::thread::spawn(move || {
            setns(File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            TcpListener::bind(address).unwrap()
        });
        let listener = listener.join().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (seen.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, tls) = (stream.unwrap(), tls.clone());
                let (log, answer) = (log.clone(), answer.clone());
                std::thread::spawn(move || match tls {
                    Some(tls) => {
                        let mut stream =
                            StreamOwned::new(ServerConnection::new(tls).unwrap(), stream);
                        converse(&mut stream, &log, &*answer);
                        stream.conn.send_close_notify();
                        let _ = stream.flush();
                    }
                    None => converse(&mut &stream, &log, &*answer),
                });
            }
        });
        Self { seen }
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Those whose path holds `part`.
    pub(crate) fn asked(&self, part: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.path.contains(part)).collect()
    }
}

trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

fn converse(stream: &mut impl Stream, log: &Mutex<Vec<Seen>>, answer: &dyn Fn(&Seen) -> Reply) {
    let Some(request) = read(stream) else {
        // Not HTTP: somebody who asks for TLS. Servers answer that in plain text.
        let _ = Reply::status(400).send(stream, false);
        return;
    };
    let (reply, is_head) = (answer(&request), request.is_head);
    log.lock().unwrap().push(request);
    let _ = reply.send(stream, is_head);
}

fn read(stream: &mut impl Stream) -> Option<Seen> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let (method, path) =
        first.split_once(' ').filter(|(method, _)| ["GET", "HEAD"].contains(method))?;
    let path = path.split(' ').next()?.to_owned();
    let mut seen = Seen { path, is_head: method == "HEAD", ..Seen::default() };
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => seen.authorization = Some(value.trim().to_owned()),
            "range" => seen.range = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    Some(seen)
}
