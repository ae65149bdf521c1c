//! The control groups of a sandbox: one subtree per hierarchy, named after it, made for the kubelets and removed after.
//!
//! Both layouts occur: version 1 has a hierarchy per controller below `/sys/fs/cgroup`, version 2 is one hierarchy.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

const ROOT: &str = "/sys/fs/cgroup";

/// Makes the group `path` in every hierarchy, and those above it that are not there yet.
pub(crate) fn create(path: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let mut parent = hierarchy;
        for name in path.split('/') {
            let group = parent.join(name);
            create_below(&parent, &group)
                .with_context(|| format!("{} cannot be created", group.display()))?;
            parent = group;
        }
    }
    Ok(())
}

fn create_below(parent: &Path, group: &Path) -> Result<()> {
    if parent.join("cgroup.controllers").exists() {
        delegate(parent);
    }
    match fs::create_dir(group) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        result => result?,
    }
    // In version 1 these are empty in a new group, and nothing can run in it until they are set.
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let inherited = parent.join(file);
        if inherited.exists() {
            fs::write(group.join(file), fs::read(inherited)?)?;
        }
    }
    Ok(())
}

/// Removes a group and all below it; one that does not exist is removed already.
pub(crate) fn remove(group: &Path) -> Result<()> {
    let entries = match fs::read_dir(group) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| group.display().to_string()),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    // The files in it are the kernel's and go with the folder. It counts as busy until the last process that died in it
    // has been cleared away, which after a guardian's SIGKILL nobody waits for.
    let mut attempts = 0;
    loop {
        match fs::remove_dir(group) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy && attempts < 250 => attempts += 1,
            result => return result.with_context(|| format!("{} cannot be removed", group.display())),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Where groups can be made.
pub(crate) fn hierarchies() -> Result<Vec<PathBuf>> {
    let root = PathBuf::from(ROOT);
    if root.join("cgroup.procs").exists() {
        return Ok(vec![root]);
    }
    let mut hierarchies = Vec::new();
    for entry in fs::read_dir(&root).context("control groups are not mounted")? {
        let entry = entry?;
        // Controllers mounted together have one folder and a link for each name.
        if entry.file_type()?.is_dir() && entry.path().join("cgroup.procs").exists() {
            hierarchies.push(entry.path());
        }
    }
    Ok(hierarchies)
}

/// Version 2: passes each controller on to the groups below. One that cannot be (a hybrid machine has it in version 1)
/// is none of the kubelet's either, and if it is, the kubelet says so.
fn delegate(hierarchy: &Path) {
    let available = fs::read_to_string(hierarchy.join("cgroup.controllers")).unwrap_or_default();
    for controller in available.split_whitespace() {
        let _ = fs::write(hierarchy.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}
