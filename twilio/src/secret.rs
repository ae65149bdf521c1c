//! Secrets by type: auth tokens, key secrets. They cannot be printed, compared by accident or serialised.

/// A secret text. It has neither `Debug` nor `Display` nor `PartialEq`; reading it takes a visible
/// [`Secret::expose`].
#[derive(Clone)]
pub struct Secret(Box<str>);

impl Secret {
    /// Marks a text as secret.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The text, for the places that must have it: a key, an `Authorization` header.
    pub fn expose(&self) -> &str {
        &self.0
    }
}
