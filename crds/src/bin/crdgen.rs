//! Writes `crds/yaml`: the only writer of those files.

use std::path::Path;
use std::{fs, io};

fn main() -> io::Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("yaml");
    fs::create_dir_all(&directory)?;
    for file in crds::manifest::files().map_err(io::Error::other)? {
        fs::write(directory.join(&file.name), file.content)?;
    }
    Ok(())
}
