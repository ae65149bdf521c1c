//! `docs/session.md` maps each invariant and protocol rule to its test: every test it names exists.
#![expect(
    clippy::disallowed_methods,
    reason = "the page and the sources are files; the session itself reads none"
)]

use std::fs;
use std::path::Path;

#[test]
fn every_test_that_the_page_names_exists() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(package.join("../../docs/session.md")).expect("the page");
    let mut sources = String::new();
    let rooms = ["src", "tests", "../src", "../tests", "../../twilio/src", "../../operator/src"];
    let simulator = ["../../tests/simulator/src", "../../tests/simulator/tests"];
    for folder in rooms.into_iter().chain(simulator) {
        read_all(&package.join(folder), &mut sources);
    }
    let mut trials = String::new();
    read_all(&package.join("../../tests/tests/faults"), &mut trials);
    let tables = page.split_once("| invariant | test |").expect("the tables").1;
    let mut named = 0;
    for quoted in tables.split('`').skip(1).step_by(2) {
        let trial = ["fault: ", "hostile: ", "bug: ", "log: ", "fleet: "].iter().find_map(|prefix| {
            // A row of the table of faults is named without its prefix.
            if *prefix == "fault: " {
                quoted.strip_prefix(prefix)
            } else {
                quoted.starts_with(prefix).then_some(quoted)
            }
        });
        if let Some(trial) = trial {
            named += 1;
            assert!(trials.contains(&format!("\"{trial}\"")), "{quoted} is on the page and nowhere else");
        }
        let Some(name) = quoted.rsplit_once("::") else { continue };
        named += 1;
        let exists = match name {
            (module, "*") => sources.contains(&format!("mod {module};")),
            (_, test) => sources.contains(&format!("fn {test}(")),
        };
        assert!(exists, "{}::{} is on the page and nowhere else", name.0, name.1);
    }
    assert!(named > 250, "the tables are read: {named}");
}

fn read_all(folder: &Path, sources: &mut String) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            read_all(&path, sources);
        } else {
            sources.push_str(&fs::read_to_string(path).expect("a source file"));
        }
    }
}
