//! The sandboxes of this machine, live and left over, by their state folders.
//!
//! A folder's lock file is locked for as long as its guardian lives, so that "is it alive?" needs no process id, which
//! another process may have by now. One more lock, on the parent folder, covers creating and sweeping: without it a
//! folder not yet locked would look left over.

use std::{
    env,
    fs::{self, File, TryLockError},
    io::ErrorKind,
    path::{Path, PathBuf},
    process,
    time::Duration,
};

use anyhow::{Context, Error, Result, bail};

use crate::{process::send_signal, wait::wait_for};

/// A sandbox's state folder, held by its guardian.
#[derive(Debug)]
pub(crate) struct State {
    directory: PathBuf,
    _lock: File,
}

/// What [`sweep`] did.
#[derive(Debug, Default)]
pub struct Swept {
    /// Names of what was removed.
    pub removed: Vec<String>,
    /// What could not be removed, and why.
    pub failed: Vec<(String, Error)>,
}

/// One sandbox on this machine.
#[derive(Debug)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Its state folder.
    pub directory: PathBuf,
    /// Whether its guardian lives.
    pub is_alive: bool,
}

/// All sandboxes on this machine.
///
/// # Errors
/// When the folder of state folders cannot be read.
pub fn list() -> Result<Vec<Found>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(base()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error).context("the folder of sandboxes cannot be read"),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(PREFIX) {
            let directory = entry.path();
            let is_alive = is_alive(&directory)?;
            found.push(Found { name, directory, is_alive });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Removes what crashed runs left; live sandboxes are not touched.
///
/// # Errors
/// When the sandboxes cannot be listed. What cannot be removed is in the answer.
pub fn sweep() -> Result<Swept> {
    let _others_wait = lock_base()?;
    let mut swept = Swept::default();
    for found in list()?.into_iter().filter(|found| !found.is_alive) {
        match remove(&found.directory) {
            Ok(()) => swept.removed.push(found.name),
            Err(error) => swept.failed.push((found.name, error)),
        }
    }
    Ok(swept)
}

/// Ends a live sandbox, and returns when nothing of it is left.
///
/// # Errors
/// When there is none of this name, or it does not end.
pub async fn stop(name: &str) -> Result<()> {
    let Some(found) = list()?.into_iter().find(|found| found.name == name && found.is_alive) else {
        bail!("no sandbox named {name} is running");
    };
    let guardian = read_id(&found.directory.join(GUARDIAN))?;
    send_signal("TERM", guardian)?;
    wait_for(&format!("the end of {name}"), Duration::from_secs(30), async || {
        Ok((!found.directory.exists()).then_some(()))
    })
    .await
}

impl State {
    pub(crate) fn create() -> Result<Self> {
        let _others_wait = lock_base()?;
        let base = base();
        // The process id reads well; the counter is for containers that share the folder but not the ids.
        for attempt in 0..100 {
            let name = match attempt {
                0 => format!("{PREFIX}{}", process::id()),
                _ => format!("{PREFIX}{}-{attempt}", process::id()),
            };
            let directory = base.join(name);
            match fs::create_dir(&directory) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error).with_context(|| directory.display().to_string()),
            }
            let lock =
                File::create(directory.join(LOCK)).context("a state folder's lock cannot be created")?;
            lock.lock().context("a state folder cannot be locked")?;
            fs::write(directory.join(GUARDIAN), process::id().to_string())?;
            return Ok(Self { directory, _lock: lock });
        }
        bail!("no free name for a sandbox in {}", base.display())
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Keeps the process id, as seen from outside, by which the sandbox's namespaces can be entered.
    pub(crate) fn record_init(&self, id: u32) -> Result<()> {
        fs::write(self.directory.join(INIT), id.to_string()).context("the state folder cannot be written to")
    }

    pub(crate) fn remove(self) -> Result<()> {
        let _others_wait = lock_base()?;
        remove(&self.directory)
    }
}

/// State folders' names start with this.
const PREFIX: &str = "switchboard-";
const LOCK: &str = "lock";
const GUARDIAN: &str = "guardian.pid";
/// File with the id of the sandbox's first process, as seen from outside.
pub(crate) const INIT: &str = "init.pid";

/// Where state folders are. Short on purpose: a Unix socket's path has 107 bytes at most.
fn base() -> PathBuf {
    env::temp_dir().join("switchboard-sandboxes")
}

fn lock_base() -> Result<File> {
    let base = base();
    fs::create_dir_all(&base).with_context(|| format!("{} cannot be created", base.display()))?;
    let lock = File::create(base.join(LOCK)).context("the folder of sandboxes cannot be written to")?;
    lock.lock().context("the folder of sandboxes cannot be locked")?;
    Ok(lock)
}

fn is_alive(directory: &Path) -> Result<bool> {
    let lock = match File::open(directory.join(LOCK)) {
        Ok(lock) => lock,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).with_context(|| directory.display().to_string()),
    };
    match lock.try_lock() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error).context("a state folder's lock cannot be tested"),
    }
}

fn read_id(file: &Path) -> Result<u32> {
    let text = fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    text.trim().parse().with_context(|| format!("{} has no process id", file.display()))
}

/// Removes a dead sandbox's control groups and state folder. Its mounts went with its mount namespace.
fn remove(directory: &Path) -> Result<()> {
    let name = directory.file_name().context("a state folder has a name")?;
    for hierarchy in super::cgroup::hierarchies()? {
        super::cgroup::remove(&hierarchy.join(name))?;
    }
    fs::remove_dir_all(directory).with_context(|| format!("{} cannot be removed", directory.display()))
}
