//! Where guardiand listens, and a connection to it.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;

/// gdn's default, and guardiand's.
pub(crate) const DEFAULT: &str = "unix:/tmp/garden.sock";

/// The Go client gives a dial as long.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);

/// An address as typed: `unix:PATH`, `/path` or `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// A unix socket.
    Unix(PathBuf),
    /// Host and port.
    Tcp(String),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path {
                "" => Err("the path of the unix socket is missing".into()),
                path => Ok(Self::Unix(path.into())),
            };
        }
        if text.starts_with('/') {
            return Ok(Self::Unix(text.into()));
        }
        let (host, port) = text.rsplit_once(':').unwrap_or_default();
        match port.parse::<u16>() {
            Ok(_) if !host.is_empty() => Ok(Self::Tcp(text.into())),
            _ => Err("not unix:PATH, /PATH or HOST:PORT".into()),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => f.write_str(address),
        }
    }
}

impl Target {
    /// Opens a connection.
    ///
    /// # Errors
    /// With the address and the reason.
    pub(crate) fn connect(&self) -> anyhow::Result<Stream> {
        let stream = match self {
            Self::Unix(path) => UnixStream::connect(path).map(Stream::Unix),
            Self::Tcp(address) => dial(address).map(Stream::Tcp),
        };
        stream.with_context(|| format!("can't reach guardiand at {self}"))
    }
}

/// Tries every address behind the name; the last failure is the one told.
fn dial(address: &str) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, DIAL_TIMEOUT) {
            // Keystrokes are small messages that must not wait for company.
            Ok(stream) => return stream.set_nodelay(true).map(|()| stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// A connection of either kind.
#[derive(Debug)]
pub(crate) enum Stream {
    /// To a unix socket.
    Unix(UnixStream),
    /// To a host and port.
    Tcp(TcpStream),
}

impl Stream {
    /// Returns a second owner of the same connection.
    ///
    /// # Errors
    /// When descriptors have run out.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Unix(stream) => stream.try_clone().map(Self::Unix),
            Self::Tcp(stream) => stream.try_clone().map(Self::Tcp),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(buffer),
            Self::Tcp(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_paths_or_ports() {
        for (text, want) in [
            ("unix:/run/g.sock", Target::Unix("/run/g.sock".into())),
            ("unix:///run/g.sock", Target::Unix("/run/g.sock".into())),
            ("unix:g.sock", Target::Unix("g.sock".into())),
            ("/run/g.sock", Target::Unix("/run/g.sock".into())),
            ("127.0.0.1:7777", Target::Tcp("127.0.0.1:7777".into())),
            ("[::1]:7777", Target::Tcp("[::1]:7777".into())),
        ] {
            assert_eq!(text.parse::<Target>().unwrap(), want, "{text}");
        }
        for wrong in ["", "unix:", "localhost", ":7777", "host:", "host:99999"] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_absent_server_is_named() {
        let target = Target::Unix("/nowhere/garden.sock".into());
        let message = format!("{:#}", target.connect().unwrap_err());
        assert!(message.contains("unix:/nowhere/garden.sock"), "{message}");
    }
}
