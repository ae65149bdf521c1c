//! Reading client JSON strictly: every field known, of its type, in its range; the refusal names the path.

use serde_json::{Map, Value};

use super::refusal::Refusal;

/// One JSON object and where it stands in the event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a> {
    path: &'a str,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// The object at `path`, having no fields but these.
    pub(super) fn of(value: &'a Value, path: &'a str, known: &[&str]) -> Result<Self, Refusal> {
        let map = value.as_object().ok_or_else(|| Refusal::invalid(path, "an object"))?;
        let fields = Self { path, map };
        match map.keys().find(|key| !known.contains(&key.as_str())) {
            Some(stranger) => Err(Refusal::unknown(fields.path_of(stranger))),
            None => Ok(fields),
        }
    }

    /// The full name of a field.
    pub(super) fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The raw value, `null` included.
    pub(super) fn value(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name)
    }

    /// The raw value, which must be there.
    pub(super) fn required(&self, name: &str) -> Result<&'a Value, Refusal> {
        self.map.get(name).ok_or_else(|| Refusal::missing(self.path_of(name)))
    }

    /// Text, absent or `null`.
    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, Refusal> {
        self.read(name, "a string", Value::as_str)
    }

    /// Text that must be there.
    pub(super) fn required_text(&self, name: &str) -> Result<&'a str, Refusal> {
        self.text(name)?.ok_or_else(|| Refusal::missing(self.path_of(name)))
    }

    /// One of a list of words.
    pub(super) fn word(&self, name: &str, words: &[&str]) -> Result<Option<&'a str>, Refusal> {
        match self.text(name)? {
            Some(text) if !words.contains(&text) => {
                Err(Refusal::invalid(self.path_of(name), &format!("one of {}", words.join(", "))))
            }
            found => Ok(found),
        }
    }

    /// A switch.
    pub(super) fn switch(&self, name: &str) -> Result<Option<bool>, Refusal> {
        self.read(name, "a boolean", Value::as_bool)
    }

    /// A whole number in a range.
    pub(super) fn whole(&self, name: &str, least: u64, most: u64) -> Result<Option<u64>, Refusal> {
        let expected = format!("an integer from {least} to {most}");
        self.read(name, &expected, |value| value.as_u64().filter(|n| (least..=most).contains(n)))
    }

    /// Any number in a range.
    pub(super) fn number(&self, name: &str, least: f64, most: f64) -> Result<Option<f64>, Refusal> {
        let expected = format!("a number from {least} to {most}");
        self.read(name, &expected, |value| value.as_f64().filter(|n| (least..=most).contains(n)))
    }

    /// A list.
    pub(super) fn list(&self, name: &str) -> Result<Option<&'a Vec<Value>>, Refusal> {
        self.read(name, "an array", Value::as_array)
    }

    fn read<T>(
        &self,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        match self.map.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                parse(value).map(Some).ok_or_else(|| Refusal::invalid(self.path_of(name), expected))
            }
        }
    }
}
