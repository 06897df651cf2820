//! Flags that have to do with registries.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use guardian_contract::fault::Fault;

use crate::config::Config;
use crate::registry::{Access, Credentials, DockerConfig, Mirror, Secret};

/// Longest password that a file may hold.
const MAX_PASSWORD: u64 = 64 << 10;

/// What holds for every registry; before or after the verb, because a server's plugin arguments
/// stand before it.
#[derive(Debug, Args)]
pub(super) struct Registries {
    /// Registry that may have a certificate of unknown origin or speak plain HTTP (repeatable)
    #[arg(long = "insecure-registry", value_name = "HOST[:PORT]", global = true)]
    insecure: Vec<String>,
    /// Server to be asked before a registry, "docker.io=https://mirror.example" (repeatable)
    #[arg(long = "registry-mirror", value_name = "HOST[:PORT]=URL", global = true)]
    mirrors: Vec<Mirror>,
    /// docker's configuration, with users and passwords of registries
    #[arg(long, value_name = "FILE", global = true)]
    docker_config: Option<PathBuf>,
}

/// Who asks.
#[derive(Debug, Args)]
pub(super) struct Login {
    /// User at the registry
    #[arg(long, value_name = "NAME", hide_default_value = true)]
    username: Option<String>,
    /// Password at the registry; everybody on this host can read it
    #[arg(long, value_name = "PASSWORD", hide_default_value = true)]
    password: Option<Secret>,
    /// File with the password at the registry; - is stdin
    #[arg(long, value_name = "FILE", conflicts_with = "password")]
    password_file: Option<PathBuf>,
}

impl Registries {
    /// Returns how registries may be talked to.
    ///
    /// # Errors
    /// When a file can't be read.
    pub(super) fn access(self, login: &Login, own: &Config) -> anyhow::Result<Access> {
        let config = self.docker_config.as_deref().map(DockerConfig::read).transpose()?;
        Ok(Access {
            credentials: login.credentials()?,
            config: config.unwrap_or_default(),
            insecure: [self.insecure, own.insecure_registries.clone()].concat(),
            mirrors: self.mirrors,
            skip_layer_validation: own.skip_layer_validation,
        })
    }
}

impl Login {
    /// What is missing is said on stdout like any mistake, as whoever asked may be behind a server.
    fn credentials(&self) -> anyhow::Result<Option<Credentials>> {
        let username = self.username.clone().filter(|name| !name.is_empty());
        let (username, password) = match (username, &self.password_file, &self.password) {
            (Some(username), Some(path), _) => (username, read_password(path)?),
            (Some(username), None, Some(password)) => (username, password.clone()),
            (Some(_), None, None) => {
                bail!(Fault::invalid("--username needs --password-file or --password"))
            }
            (None, Some(_), _) => bail!(Fault::invalid("--password-file needs --username")),
            // As in grootfs.
            (None, None, _) => return Ok(None),
        };
        Ok(Some(Credentials { username, password }))
    }
}

fn read_password(path: &Path) -> anyhow::Result<Secret> {
    let told = || format!("read password from {}", path.display());
    let file: Box<dyn Read> = match path.to_str() {
        Some("-") => Box::new(std::io::stdin().lock()),
        _ => Box::new(std::fs::File::open(path).with_context(told)?),
    };
    let mut text = String::new();
    file.take(MAX_PASSWORD + 1).read_to_string(&mut text).with_context(told)?;
    if text.len() as u64 > MAX_PASSWORD {
        bail!(Fault::invalid(format!("{} holds more than a password", path.display())));
    }
    Ok(text.trim_end_matches(['\r', '\n']).into())
}
