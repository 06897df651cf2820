//! Command line of `rootfs`: grootfs' names where grootfs has them.

mod grootfs;
mod login;
mod resize;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use guardian_contract::depot::Handle;
use guardian_contract::fault::Fault;
use guardian_contract::file::{read_json, replace_json};
use guardian_contract::ids::{IdMapping, IdMaps};
use guardian_contract::image::Capacity;
use guardian_contract::log::{self, Level};
use guardian_contract::run::{Answer, request};

use crate::config::{Config, disk_limit};
use crate::create::{self, Limit, Show};
use crate::image::{self, Image};
use crate::maps;
use crate::overlay::Way;
use crate::progress::Style;
use crate::pull;
use crate::registry::{self, Access, download};
use crate::source::{self, Source};
use crate::stats;
use crate::store::{self, Store};
use crate::{bulk_stats, clean, commit, df, disk, fsck, prune, trash, userns};
use login::{Login, Registries};
use resize::Resize;

/// Where images are unless someone says otherwise.
const STORE: &str = "/var/lib/guardian/rootfs";

/// Make root filesystems for containers out of images
#[derive(Debug, Parser)]
#[command(name = "rootfs", version)]
pub struct Cli {
    /// Directory that holds layers and images; made when it is missing
    /// [default: /var/lib/guardian/rootfs]
    #[arg(long, value_name = "DIR", global = true)]
    store: Option<PathBuf>,
    /// Show users of the image through this map (repeatable); none makes a privileged image, unless
    /// init-store was given one
    #[arg(long = "uid-mapping", value_name = "CONTAINER:HOST:SIZE", global = true)]
    uid_mappings: Vec<IdMapping>,
    /// Show groups of the image through this map (repeatable)
    #[arg(long = "gid-mapping", value_name = "CONTAINER:HOST:SIZE", global = true)]
    gid_mappings: Vec<IdMapping>,
    #[command(flatten)]
    registries: Registries,
    /// Most bytes that one layer may unpack to, against decompression bombs; 0 is no limit
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 30, global = true)]
    max_layer_bytes: u64,
    /// Configuration file of grootfs; flags win over it
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Log lines below this level are dropped [default: error]
    #[arg(long, value_enum, value_name = "LEVEL", global = true, ignore_case = true)]
    log_level: Option<Level>,
    /// Append log lines to this file instead of writing them to stderr
    #[arg(long, value_name = "FILE", global = true)]
    log_file: Option<PathBuf>,
    /// Show owners in this way only, instead of in the best one that works
    #[arg(long, value_enum, value_name = "WAY", global = true)]
    overlay: Option<Way>,
    #[command(flatten)]
    _helpers: grootfs::Helpers,
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
    /// Change the limits of an image whose container may be running; what is not given stays
    Resize(Resize),
    /// Print how much room an image takes
    Stats {
        /// Id or path of the image
        image: String,
    },
    /// Print how much room the images take whose ids are in the JSON list on stdin
    BulkStats,
    /// Print the paths of all images
    List,
    /// Print the size of the store's filesystem
    Capacity,
    /// Remove unused layers when the store takes more than a threshold
    Clean {
        /// Bytes of layers and of disk limits from which on it is done; 0 is always
        #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
        threshold_bytes: Option<i64>,
    },
    /// Write an image, with what its container has changed, as an OCI image layout
    Commit {
        /// Id or path of the image
        image: String,
        /// Directory of the layout, made when it is missing, and the tag [default: latest]
        #[arg(value_name = "DIR[:TAG]")]
        target: String,
    },
    /// Send an image of an OCI image layout, as `commit` writes one, to a registry
    Push(Push),
    /// Check that the store is whole; exit 3 when it is not, or when dead processes left something
    Fsck {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print what the store takes, what for, and what could go
    Df {
        /// Print JSON, all in bytes
        #[arg(long)]
        json: bool,
    },
    /// Remove all unused layers and what dead processes left
    Prune {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make the store; id mappings given here hold for every create without any
    InitStore {
        /// Bytes that the store is said to have; 0 is what its filesystem has
        #[arg(long, value_name = "BYTES", default_value_t = 0)]
        store_size_bytes: u64,
        /// grootfs' loop device had this
        #[arg(long, hide = true)]
        with_direct_io: bool,
    },
    /// Remove the store with all its images
    DeleteStore,
    #[command(name = userns::VERB, hide = true)]
    HoldUserNamespace,
}

#[derive(Debug, Args)]
struct Create {
    /// Most bytes the container may use; 0 is no limit
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    disk_limit_size_bytes: Option<i64>,
    /// Most files, directories and so on the container may have; 0 is no limit
    #[arg(long, value_name = "N", default_value_t = 0)]
    inode_limit: u64,
    /// Hold limits in this way only, instead of in the best one that works
    #[arg(long, value_enum, value_name = "WAY")]
    quota: Option<disk::Way>,
    /// Count only the container's own writes, not its image
    #[arg(long)]
    exclude_image_from_quota: bool,
    /// Remove unused layers in the background afterwards, as `clean` does
    #[arg(long)]
    with_clean: bool,
    /// Don't, even if the configuration file says so
    #[arg(long)]
    without_clean: bool,
    /// Bytes from which on unused layers are removed; 0 is always
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    threshold_bytes: Option<i64>,
    /// Append what the cleaning has to say to this file
    #[arg(long, value_name = "FILE")]
    clean_log_file: Option<PathBuf>,
    /// Take layers of an image layout without a look at their digests
    #[arg(long)]
    skip_layer_validation: bool,
    #[command(flatten)]
    _mounting: grootfs::Mounting,
    #[command(flatten)]
    login: Login,
    /// Path of a tar file, file:///FILE, oci:///DIRECTORY[:TAG], docker://[HOST]/NAME[:TAG],
    /// preloaded+layer:///FILE?layer=URL&layer_path=DIR&layer_digest=HEX or raw:///DIRECTORY
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

#[derive(Debug, Args)]
struct Push {
    /// How progress is told
    #[arg(long, value_enum, value_name = "STYLE", default_value_t)]
    progress: Style,
    #[command(flatten)]
    login: Login,
    /// oci:///DIRECTORY[:TAG], or as in commit
    source: String,
    /// docker://[HOST]/NAME[:TAG]
    target: String,
}

/// Runs the verb.
///
/// # Errors
/// Whatever the verb says.
pub fn run(cli: Cli) -> anyhow::Result<Answer> {
    let config = cli.config.as_deref().map(Config::read).transpose()?.unwrap_or_default();
    if let Some(file) = cli.log_file.as_deref().or(config.log_file.as_deref()) {
        log_to(file)?;
    }
    log::set_level(cli.log_level.or(config.log_level).unwrap_or(Level::Error));
    config.tell_unknown();
    let store = cli.store.as_deref().or(config.store.as_deref());
    let store = Store::at(store.unwrap_or(Path::new(STORE)))?;
    let maps = IdMaps { uid: cli.uid_mappings, gid: cli.gid_mappings };
    let layer_bytes = cli.max_layer_bytes;
    match cli.verb {
        Verb::Create(request) => {
            let mut access = cli.registries.access(&request.login, &config)?;
            access.skip_layer_validation |= request.skip_layer_validation;
            let show = maps::choose(&store, Show { maps, way: cli.overlay })?;
            run_create(&store, &show, &config, layer_bytes, &request, &access)
        }
        Verb::Pull(request) => {
            let access = cli.registries.access(&request.login, &config)?;
            let source = Source::parse(&request.uri)?;
            let room = Limit { layer_bytes, ..Limit::default() };
            Answer::json(&pull::pull(&store, &source, &access, room, &request.progress.into())?)
        }
        Verb::Delete { image } => delete(&store, &image),
        Verb::Resize(request) => request.run(&store),
        Verb::Stats { image } => Answer::json(&stats::stats(&store, &known(&store, &image)?)?),
        Verb::BulkStats => Answer::json(&bulk_stats::bulk_stats(&store, request()?)),
        Verb::List => list(&store),
        Verb::Capacity => capacity(&store, config.store_size_bytes),
        Verb::Clean { threshold_bytes } => {
            clean::clean(&store, threshold(threshold_bytes, &config)?)
        }
        Verb::Commit { image, target } => {
            let id = known(&store, &image)?;
            Answer::json(&commit::commit(&store, &id, &target)?)
        }
        Verb::Push(request) => {
            let access = cli.registries.access(&request.login, &config)?;
            push(&request, &access)
        }
        Verb::Fsck { json } => fsck::fsck(&store)?.answer(json),
        Verb::Df { json: true } => Answer::json(&df::df(&store)?),
        Verb::Df { json: false } => Ok(Answer::Text(df::df(&store)?.table())),
        Verb::Prune { json: true } => Answer::json(&prune::prune(&store)?),
        Verb::Prune { json: false } => Ok(Answer::Text(prune::prune(&store)?.to_string())),
        Verb::InitStore { store_size_bytes, with_direct_io: _ } => {
            store.create()?;
            maps::record(&store, &maps)?;
            if store_size_bytes > 0 {
                replace_json(&store.size(), &store_size_bytes)?;
            }
            Ok(Answer::Silent)
        }
        Verb::DeleteStore => image::delete_store(&store).map(|()| Answer::Silent),
        Verb::HoldUserNamespace => userns::hold().map(|()| Answer::Silent),
    }
}

fn known(store: &Store, image: &str) -> anyhow::Result<Handle> {
    let id = store.id(image)?;
    id.ok_or_else(|| Fault::not_found(format!("path `{image}` is outside store path")).into())
}

fn push(request: &Push, access: &Access) -> anyhow::Result<Answer> {
    let source = match request.source.contains("://") {
        true => Source::parse(&request.source)?,
        false => source::split_tag(&request.source),
    };
    match (source, Source::parse(&request.target)?) {
        (Source::Layout(directory, tag), Source::Registry(to)) => {
            let progress = request.progress.into();
            Answer::json(&registry::push::push(&directory, tag.as_deref(), &to, access, &progress)?)
        }
        _ => Err(Fault::invalid("push takes an OCI image layout and a docker:// URI").into()),
    }
}

/// Sends what goes to stderr to a file.
fn log_to(path: &Path) -> anyhow::Result<()> {
    let file = OpenOptions::new().create(true).append(true).mode(0o644).open(path);
    let file = file.with_context(|| format!("open log file {}", path.display()))?;
    rustix::stdio::dup2_stderr(&file).context("write the log to a file")
}

fn run_create(
    store: &Store,
    show: &Show,
    config: &Config,
    layer_bytes: u64,
    request: &Create,
    access: &Access,
) -> anyhow::Result<Answer> {
    if request.with_clean && request.without_clean {
        let text = "with-clean and without-clean cannot be used together";
        return Err(Fault::invalid(text).into());
    }
    let id = store::parse_id(&request.id)?;
    let source = Source::parse(&request.uri)?;
    let threshold = threshold(request.threshold_bytes, config)?;
    let bytes = request.disk_limit_size_bytes.map(disk_limit).transpose()?;
    let limit = Limit {
        bytes: bytes.unwrap_or(config.disk_limit_bytes),
        inodes: request.inode_limit,
        way: request.quota,
        is_exclusive: request.exclude_image_from_quota || config.exclude_image_from_quota,
        layer_bytes,
    };
    let answer = Answer::json(&create::create(store, &source, &id, show, limit, access)?);
    if (request.with_clean || config.with_clean) && !request.without_clean {
        let log_file = request.clean_log_file.as_deref().or(config.clean_log_file.as_deref());
        clean::in_background(store, threshold, log_file);
    }
    answer
}

fn threshold(flag: Option<i64>, config: &Config) -> anyhow::Result<u64> {
    flag.map_or(Ok(config.clean_threshold_bytes), clean::threshold)
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
    trash::sweep(store)?;
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

/// The operator's word, as in grootfs, or else what the filesystem says; also before there is a store,
/// because a server is asked for its capacity before the first image is made.
fn capacity(store: &Store, configured: u64) -> anyhow::Result<Answer> {
    let recorded = read_json(&store.size())?.unwrap_or_default();
    if let Some(capacity) = [configured, recorded].into_iter().find(|size| *size > 0) {
        return Answer::json(&Capacity { capacity });
    }
    let place = store.root().ancestors().find(|place| place.exists()).unwrap_or(store.root());
    let filesystem = rustix::fs::statvfs(place)
        .with_context(|| format!("look at the filesystem of {}", store.root().display()))?;
    Answer::json(&Capacity { capacity: filesystem.f_blocks * filesystem.f_frsize })
}
