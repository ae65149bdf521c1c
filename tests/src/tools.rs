//! The programs a cluster is made of, as `tests/cluster/build-tools.sh` finds or builds them.
//!
//! The script owns the search order, the cache and the versions; this runs it (at once done when all is there) and
//! reads the `name=path` lines it prints.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

/// A program that only some tests need (`helm`, `promtool`, …), found or built by the script.
///
/// # Errors
/// When it is not one of those, or cannot be built.
pub fn optional_tool(name: &str) -> Result<PathBuf> {
    Tools::found_or_built(&[name])?.path(name).map(Path::to_owned)
}

/// Where each program is.
#[derive(Debug)]
pub(crate) struct Tools {
    paths: BTreeMap<String, PathBuf>,
}

impl Tools {
    /// Finds them, and builds what is missing: minutes on a machine that never had them.
    pub(crate) fn locate() -> Result<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster");
        let missing: Vec<&str> =
            FROM_PACKAGES.iter().copied().filter(|program| which(program).is_none()).collect();
        ensure!(
            missing.is_empty(),
            "the cluster needs {}; run {}",
            missing.join(", "),
            folder.join("install-packages.sh").display()
        );
        Self::found_or_built(&[])
    }

    fn found_or_built(names: &[&str]) -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster/build-tools.sh");
        let output = Command::new(&script)
            .args(names)
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("{} cannot be run", script.display()))?;
        ensure!(output.status.success(), "{} failed ({})", script.display(), output.status);
        Ok(Self { paths: parse(&String::from_utf8_lossy(&output.stdout)) })
    }

    /// The path of one of them.
    pub(crate) fn path(&self, name: &str) -> Result<&Path> {
        self.paths
            .get(name)
            .map(PathBuf::as_path)
            .with_context(|| format!("build-tools.sh did not name {name}"))
    }

    /// A command that runs one of them.
    pub(crate) fn command(&self, name: &str) -> Result<Command> {
        self.path(name).map(Command::new)
    }
}

/// What comes from the distribution and is found on the PATH. The CNI plugins are checked by containerd itself.
const FROM_PACKAGES: [&str; 9] =
    ["conntrack", "containerd", "ctr", "etcd", "ip", "iptables", "nsenter", "runc", "setpriv"];

fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|candidate| candidate.is_file())
}

fn parse(lines: &str) -> BTreeMap<String, PathBuf> {
    lines
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, path)| (name.to_owned(), path.into()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_may_contain_an_equals_sign() {
        let paths = parse("kubelet=/a/b=c/kubelet\nkubectl=/d\n");
        assert_eq!(paths["kubelet"], Path::new("/a/b=c/kubelet"));
        assert_eq!(paths["kubectl"], Path::new("/d"));
        assert_eq!(paths.len(), 2);
    }
}
