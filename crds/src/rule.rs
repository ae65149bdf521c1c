//! CEL rules that occur in several kinds, each with a sentence that says what to change.

use kube::core::{Message, Rule};

/// A union's `kind` cannot do without its `member`.
pub(crate) fn needs_member(kind: &str, member: &str) -> Rule {
    Rule::new(format!("self.type != '{kind}' || has(self.{member})"))
        .message(Message::Message(format!("type {kind} needs its settings: add the field {member}")))
}

/// A union's `member` is refused beside any other type.
pub(crate) fn only_with(kind: &str, member: &str) -> Rule {
    Rule::new(format!("self.type == '{kind}' || !has(self.{member})")).message(Message::Message(format!(
        "{member} is read with type {kind} only: remove {member}, or set type to {kind}"
    )))
}

/// The object's name becomes a part of other objects' names and of URL paths.
pub(crate) fn short_name() -> Rule {
    Rule::new("self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message(
            "metadata.name must have at most 40 characters, begin with a lower-case letter, end with a letter or digit, \
             and hold only lower-case letters, digits and '-', because other objects are named after it",
        )
}
