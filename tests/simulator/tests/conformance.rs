//! Every rule that the simulator enforces stands in `docs/session.md`, beside the test in which a peer breaks it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::fs;
use std::path::Path;

use simulator::violations::Rule;

const HEAD: &str = "| § | rule | kept | broken |\n| --- | --- | --- | --- |\n";

#[test]
fn every_rule_has_its_row_and_is_broken_in_the_tests_that_the_row_names() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(package.join("../../docs/session.md")).unwrap();
    let rows = page.split_once(HEAD).expect("the table").1.lines().take_while(|line| line.starts_with('|'));
    let rows: Vec<Vec<&str>> = rows.map(|row| row.split(" | ").collect()).collect();
    let listed: Vec<_> = rows.iter().map(|row| (row[0].replace("| ", "§"), quoted(row[1])[0])).collect();
    let enforced: Vec<_> = Rule::ALL.iter().map(|rule| (rule.section().to_owned(), rule.id())).collect();
    assert_eq!(listed, enforced);

    let mut sources = Vec::new();
    read_all(&package.join("src"), &mut sources);
    read_all(&package.join("tests"), &mut sources);
    for (rule, row) in Rule::ALL.iter().zip(rows) {
        assert!(!quoted(row[2]).is_empty(), "nothing shows that {rule:?} is kept");
        let tests = quoted(row[3]);
        assert!(!tests.is_empty(), "nothing shows that a breach of {rule:?} is noticed");
        for test in tests {
            let name = test.rsplit("::").next().unwrap();
            let body = sources.iter().find_map(|source| body_of(source, name));
            let body = body.unwrap_or_else(|| panic!("{test} is on the page and nowhere else"));
            assert!(body.contains(&format!("Rule::{rule:?}")), "{test} does not break {rule:?}");
        }
    }
}

fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// A test's text, up to the next one.
fn body_of<'a>(source: &'a str, name: &str) -> Option<&'a str> {
    let (_, body) = source.split_once(&format!("fn {name}("))?;
    body.split("#[test]").next()?.split("#[tokio::test]").next()
}

fn read_all(folder: &Path, sources: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(&path, sources);
        } else {
            sources.push(fs::read_to_string(path).unwrap());
        }
    }
}
