//! A network namespace of our own, so that no link or rule of the host is touched.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;

use crate::host;

/// A named network namespace; deleted when dropped.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes the namespace, with an uplink that leads nowhere: a server wants an address of its
    /// own and a default route.
    ///
    /// # Errors
    /// When `ip` fails; what was made is unmade.
    pub fn create(name: &str) -> anyhow::Result<Self> {
        host::run(&["ip", "netns", "add", name])?;
        let netns = Self { name: name.into() };
        for command in [
            "link set lo up",
            "link add up0 type veth peer name up1",
            "addr add 192.0.2.2/24 dev up0",
            "link set up0 up",
            "link set up1 up",
            "route add default via 192.0.2.1",
        ] {
            netns.ip(command)?;
        }
        Ok(netns)
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the file that holds it open.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Returns `program` to be run inside. Not `ip netns exec`: that mounts a new /sys, without
    /// the cgroups.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Runs `ip` inside and returns what it printed.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn ip(&self, arguments: &str) -> anyhow::Result<String> {
        let words: Vec<&str> =
            ["ip", "-n", &self.name].into_iter().chain(arguments.split(' ')).collect();
        host::run(&words)
    }

    /// Returns the links that containers brought: all but our own three.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn links(&self) -> anyhow::Result<Vec<String>> {
        let text = self.ip("-o link")?;
        let names = text.lines().filter_map(|line| line.split(": ").nth(1));
        let names = names.map(|name| name.split('@').next().unwrap_or(name).to_owned());
        Ok(names.filter(|name| !["lo", "up0", "up1"].contains(&name.as_str())).collect())
    }

    /// Returns all firewall rules inside, as text.
    ///
    /// # Errors
    /// What `nft` said.
    pub fn rules(&self) -> anyhow::Result<String> {
        let nft = host::program("nft").context("nft is not installed")?;
        host::output(self.command(nft).args(["list", "ruleset"]))
    }

    /// Deletes it.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn delete(self) -> anyhow::Result<()> {
        host::run(&["ip", "netns", "delete", &self.name]).map(drop)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if self.path().exists() {
            let _ = host::run(&["ip", "netns", "delete", &self.name]);
        }
    }
}
