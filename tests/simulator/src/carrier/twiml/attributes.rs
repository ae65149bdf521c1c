//! Attributes, text and URLs of TwiML elements: each reader notes a problem and falls back to the documented default.

use roxmltree::Node;

use super::{Callback, Reader};
use crate::violations::{Refused, Rule};

/// The attributes of one element, for messages with its name.
pub(super) struct Attributes<'a, 'input> {
    node: Node<'a, 'input>,
}

impl<'a> Attributes<'a, '_> {
    pub(super) fn value(&self, name: &str) -> Option<&'a str> {
        self.node.attribute(name)
    }

    fn element(&self) -> &'a str {
        self.node.tag_name().name()
    }
}

impl Reader<'_> {
    /// The attributes of an element that has only these.
    pub(super) fn attributes<'a, 'input>(
        &mut self,
        node: Node<'a, 'input>,
        known: &[&str],
    ) -> Attributes<'a, 'input> {
        let element = node.tag_name().name();
        for attribute in node.attributes().filter(|attribute| !known.contains(&attribute.name())) {
            self.problem(format!("`{}` is not an attribute of <{element}>", attribute.name()));
        }
        Attributes { node }
    }

    /// The text of an element without children.
    pub(super) fn text(&mut self, node: Node<'_, '_>, what: &str) -> Option<String> {
        let element = node.tag_name().name();
        if let Some(child) = node.children().find(Node::is_element) {
            self.problem(format!("<{}> is not known inside <{element}>", child.tag_name().name()));
        }
        let text: String = node.children().filter(Node::is_text).filter_map(|node| node.text()).collect();
        let text = text.trim();
        if text.is_empty() {
            self.problem(format!("<{element}> needs {what}"));
            return None;
        }
        Some(text.to_owned())
    }

    /// Notes anything inside an element that must be empty.
    pub(super) fn empty(&mut self, node: Node<'_, '_>) {
        self.no_text(node);
        if let Some(child) = node.children().find(Node::is_element) {
            let (child, element) = (child.tag_name().name(), node.tag_name().name());
            self.problem(format!("<{child}> is not known inside <{element}>"));
        }
    }

    /// Notes text in an element that has only children.
    pub(super) fn no_text(&mut self, node: Node<'_, '_>) {
        let mut texts = node.children().filter(Node::is_text).filter_map(|node| node.text());
        if texts.any(|text| !text.trim().is_empty()) {
            self.problem(format!("<{}> has text", node.tag_name().name()));
        }
    }

    pub(super) fn one_of<'a>(
        &mut self,
        attributes: &Attributes<'a, '_>,
        name: &str,
        allowed: &[&str],
    ) -> Option<&'a str> {
        let value = attributes.value(name)?;
        if !allowed.contains(&value) {
            self.problem(format!("`{name}` of <{}> is not one of {allowed:?}", attributes.element()));
            return None;
        }
        Some(value)
    }

    pub(super) fn integer(&mut self, attributes: &Attributes<'_, '_>, name: &str, default: u32) -> u32 {
        let Some(value) = attributes.value(name) else { return default };
        value.parse().unwrap_or_else(|_| {
            self.problem(format!("`{name}` of <{}> is not a number", attributes.element()));
            default
        })
    }

    /// Whether the method is GET; the default is POST.
    pub(super) fn is_get(&mut self, attributes: &Attributes<'_, '_>, name: &str) -> bool {
        self.one_of(attributes, name, &["GET", "POST"]) == Some("GET")
    }

    /// Notes a relative URL where only an absolute one is documented.
    pub(super) fn absolute(&mut self, attributes: &Attributes<'_, '_>, name: &str) {
        if attributes.value(name).is_some_and(|url| !url.is_empty() && !url.contains("://")) {
            let detail = format!("`{name}` of <{}> is relative", attributes.element());
            self.problems.push(Refused::new(Rule::WebhookUrl, detail));
        }
    }

    pub(super) fn callback(
        &mut self,
        attributes: &Attributes<'_, '_>,
        url: &str,
        method: &str,
    ) -> Option<Callback> {
        let is_get = self.is_get(attributes, method);
        let text = attributes.value(url)?;
        if text.is_empty() {
            return None;
        }
        Some(Callback { url: self.http_url(text, url)?, is_get })
    }

    /// An absolute `http` or `https` URL as it stands (signatures know no normal form), or one resolved against the base.
    pub(super) fn http_url(&mut self, text: &str, of: &str) -> Option<String> {
        let parsed = match (reqwest::Url::parse(text), self.base) {
            (Ok(url), _) => Some((text.to_owned(), url)),
            (Err(_), Some(base)) => {
                let joined = reqwest::Url::parse(base).and_then(|base| base.join(text)).ok();
                joined.map(|url| (url.as_str().to_owned(), url))
            }
            (Err(_), None) => None,
        };
        match parsed {
            Some((text, url)) if matches!(url.scheme(), "http" | "https") && url.has_host() => Some(text),
            _ => {
                self.problems
                    .push(Refused::new(Rule::WebhookUrl, format!("`{of}` is not an http or https URL")));
                None
            }
        }
    }

    pub(super) fn problem(&mut self, detail: impl Into<String>) {
        self.problems.push(Refused::new(Rule::TwimlSchema, detail));
    }
}
