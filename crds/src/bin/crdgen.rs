//! Writes the custom resource definitions into `crds/yaml` and the chart: the only writer of those files.

use std::path::Path;
use std::{fs, io};

fn main() -> io::Result<()> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for folder in crds::manifest::FOLDERS {
        fs::create_dir_all(repository.join(folder))?;
    }
    for file in crds::manifest::files().map_err(io::Error::other)? {
        fs::write(repository.join(&file.path), file.content)?;
    }
    Ok(())
}
