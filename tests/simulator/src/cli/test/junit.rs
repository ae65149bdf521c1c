//! The report for continuous integration: JUnit's XML, as its consumers (Jenkins, GitLab, GitHub actions) read it.

use std::fmt::Write as _;
use std::time::Duration;

/// One case, as it went.
#[derive(Clone, Debug)]
pub(super) struct CaseReport {
    pub(super) name: String,
    pub(super) duration: Duration,
    /// Short message and the whole of it.
    pub(super) failure: Option<(String, String)>,
    pub(super) transcript: String,
}

/// The document.
pub(super) fn write(suite: &str, cases: &[CaseReport]) -> String {
    let failures = cases.iter().filter(|case| case.failure.is_some()).count();
    let seconds: f64 = cases.iter().map(|case| case.duration.as_secs_f64()).sum();
    let suite = escape(suite);
    let totals =
        format!("tests=\"{}\" failures=\"{failures}\" errors=\"0\" time=\"{seconds:.3}\"", cases.len());
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing to a String does not fail.
    let _ = writeln!(xml, "<testsuites {totals}>\n  <testsuite name=\"{suite}\" {totals} skipped=\"0\">");
    for case in cases {
        let name = escape(&case.name);
        let time = case.duration.as_secs_f64();
        let _ = writeln!(xml, "    <testcase classname=\"{suite}\" name=\"{name}\" time=\"{time:.3}\">");
        if let Some((message, text)) = &case.failure {
            let (message, text) = (escape(message), escape(text));
            let _ =
                writeln!(xml, "      <failure type=\"expectation\" message=\"{message}\">{text}</failure>");
        }
        let _ = writeln!(xml, "      <system-out>{}</system-out>\n    </testcase>", escape(&case.transcript));
    }
    xml.push_str("  </testsuite>\n</testsuites>\n");
    xml
}

/// Text for elements and attributes; what XML 1.0 cannot hold at all becomes U+FFFD.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push_str("&#10;"),
            '\t' => escaped.push(letter),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            _ => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_was_said_the_report_is_xml_that_says_the_same() {
        let cases = [
            CaseReport {
                name: "a <b> & \"c\"".to_owned(),
                duration: Duration::from_millis(1500),
                failure: Some(("expected \"x\"".to_owned(), "heard <y>\u{1}\nline two".to_owned())),
                transcript: "agent  ]]> Grüße\n".to_owned(),
            },
            CaseReport {
                name: "passes".to_owned(),
                duration: Duration::from_millis(500),
                failure: None,
                transcript: String::new(),
            },
        ];
        let xml = write("agent & co", &cases);
        let document = roxmltree::Document::parse(&xml).unwrap();
        let suite = document.root_element().first_element_child().unwrap();
        let attribute = |name: &str| suite.attribute(name).unwrap();
        assert_eq!((attribute("tests"), attribute("failures"), attribute("time")), ("2", "1", "2.000"));
        assert_eq!(attribute("name"), "agent & co");
        let cases: Vec<_> = suite.children().filter(|node| node.has_tag_name("testcase")).collect();
        assert_eq!(cases[0].attribute("name"), Some("a <b> & \"c\""));
        let failure = cases[0].first_element_child().unwrap();
        assert_eq!(failure.text(), Some("heard <y>\u{fffd}\nline two"));
        assert_eq!(cases[1].children().filter(|node| node.has_tag_name("failure")).count(), 0);
    }
}
