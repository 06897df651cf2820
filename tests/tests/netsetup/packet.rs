//! Packets: a responder that tells whom it saw, and probes that ask it.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::world::inside;

const PATIENCE: Duration = Duration::from_secs(2);

/// Answers on one TCP and UDP port of a namespace, with the asker's address as text. UDP is bound
/// to each address, else the answer might come from another than was asked.
pub(crate) struct Responder {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Responder {
    pub(crate) fn start(netns: &Path, addresses: &[&str], port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (tcp, udp) = inside(netns, || {
            let any = if addresses[0].contains(':') { "::" } else { "0.0.0.0" };
            let tcp = TcpListener::bind((any, port)).unwrap();
            tcp.set_nonblocking(true).unwrap();
            let udp = addresses.iter().map(|address| UdpSocket::bind((*address, port)).unwrap());
            (tcp, udp.collect::<Vec<_>>())
        });
        let stop_tcp = stop.clone();
        let tcp = std::thread::spawn(move || {
            while !stop_tcp.load(Ordering::Relaxed) {
                match tcp.accept() {
                    Ok((mut stream, peer)) => {
                        drop(stream.write_all(peer.ip().to_string().as_bytes()))
                    }
                    Err(e) if e.kind() == ErrorKind::WouldBlock => {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    Err(_) => {}
                }
            }
        });
        let mut threads = vec![tcp];
        threads.extend(udp.into_iter().map(|socket| {
            let stop = stop.clone();
            std::thread::spawn(move || answer_udp(&socket, &stop))
        }));
        Self { stop, threads }
    }
}

fn answer_udp(socket: &UdpSocket, stop: &AtomicBool) {
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut buffer = [0; 64];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(peer.ip().to_string().as_bytes(), peer);
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// Asks by TCP, and returns who the responder says asked.
pub(crate) fn tcp(netns: &Path, address: &str, port: u16) -> Option<String> {
    let to = SocketAddr::new(address.parse().unwrap(), port);
    inside(netns, || {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).ok().map(|_| text)
    })
}

/// Asks by UDP, and returns who the responder says asked.
pub(crate) fn udp(netns: &Path, address: &str, port: u16) -> Option<String> {
    let any = if address.contains(':') { "::" } else { "0.0.0.0" };
    udp_from(netns, any, address, port)
}

/// Like [`udp`], with the source address chosen.
pub(crate) fn udp_from(netns: &Path, source: &str, address: &str, port: u16) -> Option<String> {
    inside(netns, || {
        let socket = UdpSocket::bind((source, 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect((address, port)).ok()?;
        socket.send(b"who?").ok()?;
        let mut buffer = [0; 64];
        let size = socket.recv(&mut buffer).ok()?;
        String::from_utf8(buffer[..size].to_vec()).ok()
    })
}

/// Sends one ICMP echo request.
pub(crate) fn ping(netns: &Path, address: &str) -> bool {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", netns.display())).args(["ping", "-c1", "-W1", address]);
    command.output().unwrap().status.success()
}
