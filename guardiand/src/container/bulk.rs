//! Measuring many containers and peas at once: the image plugin is asked once for all of them, while
//! their control groups are read.

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
        let mut measured = Measured::new();
        let mut subjects = Vec::new();
        for name in names {
            match self.subject(name) {
                Some(subject) => subjects.push((name.to_owned(), subject)),
                None => {
                    drop(measured.insert(name.into(), Err(ApiError::container_not_found(name))))
                }
            }
        }
        let images: Vec<Handle> =
            subjects.iter().filter_map(|(_, subject)| subject.image().cloned()).collect();
        let (reader, read) = (Arc::clone(self), subjects.clone());
        // Some hundred small files are read: no work for a thread that has others waiting.
        let groups = tokio::task::spawn_blocking(move || {
            read.iter().map(|(_, subject)| reader.read(subject)).collect::<Vec<_>>()
        });
        let (groups, mut disks) = tokio::join!(groups, self.settings.images.bulk_stats(images));
        let groups = groups.unwrap_or_default();
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

    /// Finds what has this name; a process only as long as it runs.
    fn subject(&self, name: &str) -> Option<Subject> {
        if let Ok(container) = self.find(name) {
            return Some(Subject::Container(container));
        }
        let id: Handle = name.parse().ok()?;
        let mut all = self.all().into_iter();
        let container = all.find(|container| container.processes().contains_key(&id))?;
        let dir = container.bundle.process(&id);
        let is_pea = pea::is_pea(&dir);
        pea::has_own_group(&dir).then_some(Subject::Process { id, container, is_pea })
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

fn stat(disk: &DiskUsage) -> DiskStat {
    DiskStat {
        total_bytes_used: disk.total_bytes_used,
        exclusive_bytes_used: disk.exclusive_bytes_used,
        ..DiskStat::default()
    }
}
