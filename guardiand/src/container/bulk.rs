//! Measuring many containers and peas at once: the image plugin is asked once for all of them, while
//! their control groups are read.

use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use guardian_contract::depot::Handle;
use guardian_contract::garden::{ApiError, DiskStat, Metrics};
use guardian_contract::image::DiskUsage;

use super::metrics::{age_nanoseconds, measure};
use super::{Container, pea};
use crate::cgroup::{Cgroups, leaf};
use crate::guardian::{Guardian, api_error};

/// Fewer than this are read before another thread has begun.
const SMALLEST_SHARE: usize = 16;

/// Metrics by name, or why there are none.
pub(crate) type Measured = BTreeMap<String, Result<Metrics, ApiError>>;

/// What is measured.
#[derive(Clone)]
enum Subject {
    Container(Arc<Container>),
    /// A process with a control group of its own: a pea, or one that counts with its descendants.
    /// Only a pea has a disk of its own.
    Process {
        id: Handle,
        container: Arc<Container>,
        is_pea: bool,
    },
}

impl Subject {
    /// Returns the name of its root filesystem, if it has one.
    fn image(&self) -> Option<&Handle> {
        match self {
            Self::Container(container) => Some(container.handle()),
            Self::Process { id, is_pea, .. } => is_pea.then_some(id),
        }
    }
}

impl Guardian {
    /// Measures the containers and processes of these names.
    pub(crate) async fn bulk_metrics(
        self: &Arc<Self>,
        names: impl Iterator<Item = &str>,
    ) -> Measured {
        let (subjects, mut measured) = self.subjects(names);
        let images: Vec<Handle> =
            subjects.iter().filter_map(|(_, subject)| subject.image().cloned()).collect();
        let read = self.read_all(&subjects);
        let (groups, mut disks) = tokio::join!(read, self.settings.images.bulk_stats(images));
        for ((name, subject), metrics) in subjects.into_iter().zip(groups) {
            let disk = match subject.image() {
                Some(image) => disks.remove(image).context("not measured").and_then(|disk| disk),
                None => Ok(DiskUsage::default()),
            };
            let whole =
                metrics.and_then(|metrics| Ok(Metrics { disk_stat: stat(&disk?), ..metrics }));
            measured.insert(name, whole.map_err(|error| api_error(&error)));
        }
        measured
    }

    /// Finds what has these names, and says of the others that there is nothing.
    fn subjects<'a>(
        &self,
        names: impl Iterator<Item = &'a str>,
    ) -> (Vec<(String, Subject)>, Measured) {
        let owners = LazyCell::new(|| self.owners());
        let (mut found, mut unknown) = (Vec::new(), Measured::new());
        for name in names {
            let container = self.find(name).ok().map(Subject::Container);
            match container.or_else(|| process(&owners, name)) {
                Some(subject) => found.push((name.to_owned(), subject)),
                None => drop(unknown.insert(name.into(), Err(ApiError::container_not_found(name)))),
            }
        }
        (found, unknown)
    }

    /// Returns the containers of all processes that run.
    fn owners(&self) -> BTreeMap<Handle, Arc<Container>> {
        let mut owners = BTreeMap::new();
        for container in self.all() {
            let processes = container.processes();
            owners.extend(processes.keys().map(|id| (id.clone(), Arc::clone(&container))));
        }
        owners
    }

    /// Reads all but the disks, in the order of the subjects. Some thousand small files are read, so it
    /// is no work for a thread that has others waiting, and each processor does a share.
    async fn read_all(
        self: &Arc<Self>,
        subjects: &[(String, Subject)],
    ) -> Vec<anyhow::Result<Metrics>> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let share = subjects.len().div_ceil(processors).max(SMALLEST_SHARE);
        let shares = subjects.chunks(share).map(|subjects| {
            let (reader, subjects) = (Arc::clone(self), subjects.to_vec());
            tokio::task::spawn_blocking(move || {
                subjects.iter().map(|(_, subject)| reader.read(subject)).collect::<Vec<_>>()
            })
        });
        let mut all = Vec::with_capacity(subjects.len());
        for share in shares.collect::<Vec<_>>() {
            all.extend(share.await.unwrap_or_default());
        }
        all
    }

    /// Reads all but the disk.
    fn read(&self, subject: &Subject) -> anyhow::Result<Metrics> {
        match subject {
            Subject::Container(container) => self.container_metrics(container),
            Subject::Process { id, container, .. } => {
                let dir = container.bundle.process(id);
                let groups = match std::fs::read_to_string(dir.cgroup()) {
                    Ok(watched) => leaf::groups(Path::new(&watched))?,
                    Err(_) => {
                        let pid = std::fs::read_to_string(dir.pidfile()).context("runC stats")?;
                        Cgroups::of(pid.trim().parse()?)?
                    }
                };
                measure(&groups, age_nanoseconds(&dir.pidfile()))
            }
        }
    }
}

/// Finds a process that runs and has a control group of its own.
fn process(owners: &BTreeMap<Handle, Arc<Container>>, name: &str) -> Option<Subject> {
    let id: Handle = name.parse().ok()?;
    let container = Arc::clone(owners.get(&id)?);
    let dir = container.bundle.process(&id);
    let is_pea = pea::is_pea(&dir);
    pea::has_own_group(&dir).then_some(Subject::Process { id, container, is_pea })
}

fn stat(disk: &DiskUsage) -> DiskStat {
    DiskStat {
        total_bytes_used: disk.total_bytes_used,
        exclusive_bytes_used: disk.exclusive_bytes_used,
        ..DiskStat::default()
    }
}
