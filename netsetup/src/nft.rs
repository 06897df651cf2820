//! Running `nft`, and asking the kernel without it whether our table is there.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::process::{Command, Output, Stdio};

use anyhow::Context;
use guardian_contract::fault::Fault;
use guardian_contract::log;
use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;

use crate::netlink::Socket;

/// Runs `script` as one transaction: either all of it happens or nothing.
///
/// `lock` is what keeps others from the same rules. nft gets it as its stdout, where it has nothing
/// to say, so that the lock holds as long as nft lives even when we are killed before.
///
/// # Errors
/// With nft's own words; a [`Fault`] of kind exists when something to be added is there already.
pub(crate) fn run(script: &str, lock: &File) -> anyhow::Result<()> {
    let lock = lock.try_clone().context("share a lock with nft")?;
    log::debug("nft", &serde_json::json!({"script": script}));
    let spawned = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(lock)
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.map_err(not_started)?;
    // Closes its stdin at the end, which is what nft waits for. If nft died before it had read
    // everything, its exit status and stderr say more than our broken pipe.
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(script.as_bytes()));
    let output = child.wait_with_output().context("wait for nft")?;
    if output.status.success() {
        return written.context("write to nft");
    }
    Err(refusal(&output, "take the rules"))
}

/// Returns our table as nft writes it: numbers, not names, and no counters.
///
/// # Errors
/// With nft's own words.
pub(crate) fn list(table: &str) -> anyhow::Result<String> {
    let output = Command::new("nft")
        .args(["-s", "-n", "list", "table", "inet", table])
        .stdin(Stdio::null())
        .output()
        .map_err(not_started)?;
    if !output.status.success() {
        return Err(refusal(&output, "list the table"));
    }
    String::from_utf8(output.stdout).context("read what nft has listed")
}

fn not_started(error: std::io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::NotFound => {
            Fault::unsupported("the program nft (nftables) is not on PATH").into()
        }
        _ => anyhow::Error::new(error).context("start nft"),
    }
}

fn refusal(output: &Output, what: &str) -> anyhow::Error {
    let text = String::from_utf8_lossy(&output.stderr);
    let reason = text.lines().find(|line| line.contains("Error")).unwrap_or("no reason given");
    let message = format!("nft refused to {what} ({}): {reason}", output.status);
    match reason {
        _ if reason.contains("File exists") => Fault::exists(message).into(),
        _ if reason.contains("not supported") => Fault::unsupported(message).into(),
        _ => anyhow::anyhow!(message),
    }
}

/// Asks the kernel whether the table `name` of the inet family exists.
///
/// # Errors
/// With a [`Fault`] of kind unsupported when the kernel has no nf_tables.
pub(crate) fn has_table(name: &str) -> anyhow::Result<bool> {
    let missing = || Fault::unsupported("this kernel has no nf_tables (module nf_tables)");
    let mut socket = Socket::open(NETLINK_NETFILTER).with_context(missing)?;
    match socket.query(GetTable { name: name.to_owned() }, 0) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(false),
        Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => {
            Err(error).with_context(missing)
        }
        Err(error) => Err(error).context("ask for our nftables table"),
    }
}

/// NFT_MSG_GETTABLE of linux/netfilter/nf_tables.h. Of the answer we only want that there is one.
#[derive(Debug)]
struct GetTable {
    name: String,
}

impl NetlinkSerializable for GetTable {
    fn message_type(&self) -> u16 {
        const NFNL_SUBSYS_NFTABLES: u16 = 10;
        const NFT_MSG_GETTABLE: u16 = 1;
        NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE
    }

    fn buffer_len(&self) -> usize {
        // struct nfgenmsg, then one attribute: its head, the name, a NUL, padding.
        4 + (4 + self.name.len() + 1).next_multiple_of(4)
    }

    fn serialize(&self, buffer: &mut [u8]) {
        const NFPROTO_INET: u8 = 1;
        const NFTA_TABLE_NAME: u16 = 1;
        let length = u16::try_from(4 + self.name.len() + 1).unwrap_or(u16::MAX);
        buffer[0] = NFPROTO_INET;
        buffer[4..6].copy_from_slice(&length.to_ne_bytes());
        buffer[6..8].copy_from_slice(&NFTA_TABLE_NAME.to_ne_bytes());
        buffer[8..8 + self.name.len()].copy_from_slice(self.name.as_bytes());
    }
}

impl NetlinkDeserializable for GetTable {
    type Error = std::convert::Infallible;

    fn deserialize(_: &NetlinkHeader, _: &[u8]) -> Result<Self, Self::Error> {
        Ok(Self { name: String::new() })
    }
}
