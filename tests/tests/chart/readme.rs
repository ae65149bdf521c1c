//! The front page's commands: those for a cluster are run on one, as they stand and in their order; of the others it is
//! checked that what they name exists.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use e2e::chart::{Chart, output_of};
use e2e::installation::repository;
use e2e::{Cluster, optional_tool};

use crate::Ctx;

/// What a line of a shell block is.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    /// Run here.
    OnCluster(&'a str),
    /// A target of the Makefile.
    Make(&'a str),
    /// An image is built; nothing here has docker.
    Build(&'a str),
    /// Another tool's, not run here.
    Foreign,
}

/// Every command is of a kind that is looked after, and names what exists.
pub(crate) fn known(_: &Chart) -> Result<()> {
    let makefile = fs::read_to_string(repository().join("Makefile"))?;
    let readme = fs::read_to_string(repository().join("README.md"))?;
    let mut on_cluster = 0;
    for line in lines(&readme)? {
        match line {
            Line::OnCluster(_) => on_cluster += 1,
            Line::Make(target) => {
                ensure!(makefile.contains(&format!("\n{target}: ")), "the Makefile has no target {target}");
            }
            Line::Build(file) => ensure!(repository().join(file).exists(), "there is no {file}"),
            Line::Foreign => {}
        }
    }
    ensure!(on_cluster >= 5, "the front page has {on_cluster} commands for a cluster");
    Ok(())
}

/// Those for a cluster do what they say, on one where nothing of it is installed.
pub(crate) async fn commands(ctx: &Ctx) -> Result<()> {
    let readme = fs::read_to_string(repository().join("README.md"))?;
    for line in lines(&readme)? {
        let Line::OnCluster(command) = line else { continue };
        let shell = shell(&ctx.cluster, command)?;
        let said = tokio::task::spawn_blocking(move || output_of(shell)).await?;
        said.with_context(|| format!("README.md: {command}"))?;
    }
    Ok(())
}

/// A shell with the programs that people have, in the repository, on this cluster.
fn shell(cluster: &Cluster, command: &str) -> Result<Command> {
    let helm = optional_tool("helm")?;
    let path = std::env::var("PATH").unwrap_or_default();
    let folder =
        |program: &Path| program.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
    let mut shell = Command::new("sh");
    shell.args(["-ec", command]).current_dir(repository());
    shell.env("KUBECONFIG", cluster.kubeconfig_path()).env("HOME", cluster.state_dir());
    shell.env("PATH", format!("{}:{}:{path}", folder(&helm), folder(cluster.kubectl_path()?)));
    Ok(shell)
}

/// The lines of the shell blocks, without their comments.
fn lines(readme: &str) -> Result<Vec<Line<'_>>> {
    let blocks = readme.split("```sh\n").skip(1).filter_map(|rest| rest.split_once("```"));
    let lines = blocks.flat_map(|(block, _)| block.lines());
    let commands = lines.map(|line| line.split(" #").next().unwrap_or_default().trim());
    commands.filter(|command| !command.is_empty()).map(kind_of).collect()
}

fn kind_of(command: &str) -> Result<Line<'_>> {
    let words: Vec<&str> = command.split_whitespace().collect();
    Ok(match words.as_slice() {
        ["helm" | "kubectl", ..] => Line::OnCluster(command),
        ["make", target, ..] | ["sudo", "make", target, ..] => Line::Make(target),
        ["docker", "build", "-f", file, ..] => Line::Build(file),
        ["kind" | "git", ..] => Line::Foreign,
        _ => bail!("README.md has a command that nobody looks after: {command}"),
    })
}
