//! The generated definitions, in `yaml/` and in the chart, are what the types say.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn generated_files_are_current() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let files = crds::manifest::files().unwrap();
    for file in &files {
        let found = fs::read_to_string(repository.join(&file.path)).unwrap_or_default();
        assert!(found == file.content, "{} is stale: run `make generate` and commit the result", file.path);
    }
    let expected: BTreeSet<_> = files.into_iter().map(|file| file.path).collect();
    let mut found = BTreeSet::new();
    for folder in crds::manifest::FOLDERS {
        for entry in fs::read_dir(repository.join(folder)).unwrap() {
            found.insert(format!("{folder}/{}", entry.unwrap().file_name().into_string().unwrap()));
        }
    }
    assert_eq!(found, expected, "a folder of generated files holds some that nothing generates");
}
