//! The files in `yaml/` are what the types say.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn generated_files_are_current() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("yaml");
    let files = crds::manifest::files().unwrap();
    for file in &files {
        let found = fs::read_to_string(directory.join(&file.name)).unwrap_or_default();
        assert!(
            found == file.content,
            "crds/yaml/{} is stale: run `cargo run -p crds --bin crdgen` and commit the result",
            file.name
        );
    }
    let expected: BTreeSet<_> = files.iter().map(|f| f.name.clone()).collect();
    let found: BTreeSet<_> =
        fs::read_dir(&directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(found, expected, "crds/yaml holds files that nothing generates");
}
