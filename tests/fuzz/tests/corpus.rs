//! Replays the committed corpus: what coverage found worth keeping, and every case that once failed.

use std::path::Path;

const LARGEST_CORPUS: u64 = 300 * 1024;

#[test]
fn every_file_of_the_corpus_holds_what_its_target_promises() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut size = 0;
    for target in fuzz::TARGETS {
        let files: Vec<_> = std::fs::read_dir(corpus.join(target.name)).expect("a corpus").collect();
        assert!(!files.is_empty(), "{} has no corpus", target.name);
        for file in files {
            let path = file.expect("a readable directory").path();
            let data = std::fs::read(&path).expect("a readable file");
            size += data.len() as u64;
            println!("{}", path.display()); // shown with the panic of the file that fails
            (target.run)(&data);
        }
    }
    assert!(size < LARGEST_CORPUS, "{size} bytes: the corpus must be made smaller");
}
