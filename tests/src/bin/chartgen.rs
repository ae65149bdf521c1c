//! Writes what is generated from the chart: `manifests/install.yaml` and the table in the chart's manual.

use std::fs;

use e2e::chart::{Chart, INSTALL, README};
use e2e::installation::repository;

fn main() -> anyhow::Result<()> {
    let repository = repository();
    fs::write(repository.join(README), Chart::readme()?)?;
    fs::write(repository.join(INSTALL), Chart::open()?.install_manifest()?)?;
    Ok(())
}
