//! Command line of `rootfs`: grootfs' names where grootfs has them.

mod registry;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use guardian_contract::fault::Fault;
use guardian_contract::file::private_dir;
use guardian_contract::ids::{IdMapping, IdMaps};
use guardian_contract::image::Capacity;
use guardian_contract::log::{self, Level};
use guardian_contract::run::Answer;

use crate::create::{self, Limit, Show};
use crate::image::{self, Image};
use crate::overlay::Way;
use crate::progress::Style;
use crate::pull;
use crate::registry::{Access, download};
use crate::source::Source;
use crate::stats;
use crate::store::{self, Store};
use crate::userns;
use registry::{Login, Registries};

/// Make root filesystems for containers out of images
#[derive(Debug, Parser)]
#[command(name = "rootfs", version)]
pub struct Cli {
    /// Directory that holds layers and images; made when it is missing
    #[arg(long, value_name = "DIR", default_value = "/var/lib/guardian/rootfs", global = true)]
    store: PathBuf,
    /// Show users of the image through this map (repeatable); none makes a privileged image
    #[arg(long = "uid-mapping", value_name = "CONTAINER:HOST:SIZE", global = true)]
    uid_mappings: Vec<IdMapping>,
    /// Show groups of the image through this map (repeatable)
    #[arg(long = "gid-mapping", value_name = "CONTAINER:HOST:SIZE", global = true)]
    gid_mappings: Vec<IdMapping>,
    #[command(flatten)]
    registries: Registries,
    /// Configuration file of grootfs; not supported yet
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Log lines below this level are dropped
    #[arg(long, value_enum, value_name = "LEVEL", default_value = "error", global = true)]
    log_level: Level,
    /// Show owners in this way only, instead of in the best one that works
    #[arg(long, value_enum, value_name = "WAY", hide = true, global = true)]
    overlay: Option<Way>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make an image and mount it; prints what its container needs of it
    Create(Create),
    /// Get an image's layers into the store, and make no image yet
    Pull(Pull),
    /// Unmount and remove an image; an unknown one is fine
    Delete {
        /// Id or path of the image
        image: String,
    },
    /// Print how much room an image takes
    Stats {
        /// Id or path of the image
        image: String,
    },
    /// Print the paths of all images
    List,
    /// Print the size of the store's filesystem
    Capacity,
    /// Make the store
    InitStore,
    /// Remove the store with all its images
    DeleteStore,
    #[command(name = userns::VERB, hide = true)]
    HoldUserNamespace,
}

#[derive(Debug, Args)]
struct Create {
    /// Most bytes the container may use; 0 is no limit
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    disk_limit_size_bytes: u64,
    /// Count only the container's own writes, not its image
    #[arg(long)]
    exclude_image_from_quota: bool,
    #[command(flatten)]
    login: Login,
    /// Path of a tar file, file:///FILE, oci:///DIRECTORY[:TAG], docker://[HOST]/NAME[:TAG] or
    /// raw:///DIRECTORY
    uri: String,
    /// Name of the new image
    id: String,
}

#[derive(Debug, Args)]
struct Pull {
    /// How progress is told
    #[arg(long, value_enum, value_name = "STYLE", default_value_t)]
    progress: Style,
    #[command(flatten)]
    login: Login,
    /// As in create
    uri: String,
}

/// Runs the verb.
///
/// # Errors
/// Whatever the verb says.
pub fn run(cli: Cli) -> anyhow::Result<Answer> {
    log::set_level(cli.log_level);
    if cli.config.is_some() {
        return Err(
            Fault::unsupported("--config: configuration files are not supported yet").into()
        );
    }
    let store = Store::at(&cli.store)?;
    let maps = IdMaps { uid: cli.uid_mappings, gid: cli.gid_mappings };
    let show = Show { maps, way: cli.overlay };
    match cli.verb {
        Verb::Create(request) => {
            let access = cli.registries.access(&request.login)?;
            run_create(&store, &show, &request, &access)
        }
        Verb::Pull(request) => {
            let access = cli.registries.access(&request.login)?;
            let source = Source::parse(&request.uri)?;
            Answer::json(&pull::pull(&store, &source, &access, &request.progress.into())?)
        }
        Verb::Delete { image } => delete(&store, &image),
        Verb::Stats { image } => match store.id(&image)? {
            Some(id) => Answer::json(&stats::stats(&store, &id)?),
            None => Err(Fault::not_found(format!("path `{image}` is outside store path")).into()),
        },
        Verb::List => list(&store),
        Verb::Capacity => capacity(&store),
        Verb::InitStore => store.create().map(|()| Answer::Silent),
        Verb::DeleteStore => image::delete_store(&store).map(|()| Answer::Silent),
        Verb::HoldUserNamespace => userns::hold().map(|()| Answer::Silent),
    }
}

fn run_create(
    store: &Store,
    show: &Show,
    request: &Create,
    access: &Access,
) -> anyhow::Result<Answer> {
    let id = store::parse_id(&request.id)?;
    let source = Source::parse(&request.uri)?;
    let limit = Limit {
        bytes: request.disk_limit_size_bytes,
        is_exclusive: request.exclude_image_from_quota,
    };
    Answer::json(&create::create(store, &source, &id, show, limit, access)?)
}

/// The texts are grootfs'.
fn delete(store: &Store, image: &str) -> anyhow::Result<Answer> {
    let Some(id) = store.id(image)? else {
        return Ok(Answer::Text(format!("path `{image}` is outside store path Skipping delete.")));
    };
    let text = match Image::find(store, &id)? {
        Some(image) => {
            image.delete(store)?;
            format!("Image {id} deleted")
        }
        None => format!("Image `{id}` not found. Skipping delete."),
    };
    image::sweep(store)?;
    download::sweep(store)?;
    Ok(Answer::Text(text))
}

fn list(store: &Store) -> anyhow::Result<Answer> {
    let paths = store.list()?;
    if paths.is_empty() {
        return Ok(Answer::Text("Store empty".into()));
    }
    let lines: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    Ok(Answer::Text(lines.join("\n")))
}

fn capacity(store: &Store) -> anyhow::Result<Answer> {
    private_dir(store.root())?;
    let filesystem = rustix::fs::statvfs(store.root())?;
    Answer::json(&Capacity { capacity: filesystem.f_blocks * filesystem.f_frsize })
}
