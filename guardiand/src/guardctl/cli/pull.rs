//! What can be typed to get an image ahead of its containers.

use std::io::Read;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use guardian_contract::garden::ImageRef;

/// Longest password that a file may hold.
const MAX_PASSWORD: u64 = 64 << 10;

/// `pull`
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// For privileged containers, where those have an image plugin of their own
    #[arg(long)]
    pub(crate) privileged: bool,
    /// User at the registry
    #[arg(long, value_name = "NAME", requires = "password_file")]
    username: Option<String>,
    /// File with the password at the registry; - is standard input
    #[arg(long, value_name = "FILE", requires = "username")]
    password_file: Option<PathBuf>,
    /// The image, as in create
    image: String,
}

impl PullArgs {
    /// Returns the image and who pulls it.
    ///
    /// # Errors
    /// When the password can't be read.
    pub(crate) fn image(&self) -> anyhow::Result<ImageRef> {
        let password = self.password_file.as_deref().map(read).transpose()?.unwrap_or_default();
        let username = self.username.clone().unwrap_or_default();
        Ok(ImageRef { uri: self.image.clone(), username, password })
    }
}

fn read(path: &std::path::Path) -> anyhow::Result<String> {
    let told = || format!("read the password from {}", path.display());
    let file: Box<dyn Read> = match path.to_str() {
        Some("-") => Box::new(std::io::stdin().lock()),
        _ => Box::new(std::fs::File::open(path).with_context(told)?),
    };
    let mut text = String::new();
    file.take(MAX_PASSWORD).read_to_string(&mut text).with_context(told)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
