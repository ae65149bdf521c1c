//! Secrets as files below one directory: `<secrets>/<name>/<key>`, as the operator mounts them.
//!
//! A secret is read when it is needed, so a rotation takes effect with the next use and nothing has to be watched. The
//! files are few, tiny and in memory (a projected volume is a tmpfs), so reading one does not block a worker noticeably.
//!
//! Must never: print a secret, follow a reference out of the directory.

use std::io::Read as _;
use std::path::PathBuf;

use call_session::agent_file::SecretRef;

pub use twilio::Secret;

/// No secret mounted here is longer (a Realtime key has about 170 characters).
const LARGEST_SECRET: u64 = 64 * 1024;

/// A secret cannot be had. Names are those of the resource, no content.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file is not there, or may not be read.
    #[error("the secret {name}, key {key}, cannot be read: {source}")]
    Read {
        /// Name of the Secret.
        name: String,
        /// Key in it.
        key: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file is empty, too large or not text.
    #[error("the secret {name}, key {key}, holds no usable text")]
    Content {
        /// Name of the Secret.
        name: String,
        /// Key in it.
        key: String,
    },
    /// The reference would leave the directory.
    #[error("a secret reference may not contain path separators or be empty")]
    Reference,
}

/// The secrets directory.
#[derive(Clone, Debug)]
pub struct Secrets {
    directory: PathBuf,
}

impl Secrets {
    /// Secrets below `directory`.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// The secret as it is now, without surrounding white space (editors and `echo` leave a newline).
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn read(&self, reference: &SecretRef) -> Result<Secret, SecretError> {
        let SecretRef { name, key } = reference;
        if !is_file_name(name) || !is_file_name(key) {
            return Err(SecretError::Reference);
        }
        let unreadable = |source| SecretError::Read { name: name.clone(), key: key.clone(), source };
        let unusable = || SecretError::Content { name: name.clone(), key: key.clone() };
        let file = std::fs::File::open(self.directory.join(name).join(key)).map_err(unreadable)?;
        let mut bytes = Vec::new();
        file.take(LARGEST_SECRET + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > LARGEST_SECRET {
            return Err(unusable());
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| unusable())?.trim();
        if text.is_empty() { Err(unusable()) } else { Ok(Secret::new(text)) }
    }
}

fn is_file_name(part: &str) -> bool {
    !part.is_empty() && !matches!(part, "." | "..") && !part.contains(['/', '\\', '\0'])
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// A directory that is gone with the value.
    pub(crate) struct Directory(PathBuf);

    impl Directory {
        pub(crate) fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("switchboard-{}-{number}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        pub(crate) fn path(&self) -> &Path {
            &self.0
        }

        pub(crate) fn with_secret(self, name: &str, key: &str, text: &str) -> Self {
            self.write(name, key, text);
            self
        }

        pub(crate) fn write(&self, name: &str, key: &str, text: &str) {
            std::fs::create_dir_all(self.0.join(name)).unwrap();
            std::fs::write(self.0.join(name).join(key), text).unwrap();
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn reference(name: &str, key: &str) -> SecretRef {
        SecretRef { name: name.to_owned(), key: key.to_owned() }
    }

    #[test]
    fn a_secret_is_read_trimmed_and_anew_each_time() {
        let directory = Directory::new().with_secret("twilio", "token", "12345\n");
        let secrets = Secrets::new(directory.path());
        assert_eq!(secrets.read(&reference("twilio", "token")).unwrap().expose(), "12345");
        directory.write("twilio", "token", " 67890 ");
        assert_eq!(secrets.read(&reference("twilio", "token")).unwrap().expose(), "67890");
    }

    #[test]
    fn what_is_missing_empty_or_elsewhere_is_an_error_without_content() {
        let directory = Directory::new().with_secret("twilio", "empty", " \n");
        let secrets = Secrets::new(directory.path());
        let error = |name: &str, key: &str| secrets.read(&reference(name, key)).err().unwrap().to_string();
        assert!(error("twilio", "token").starts_with("the secret twilio, key token, cannot be read"));
        assert_eq!(error("twilio", "empty"), "the secret twilio, key empty, holds no usable text");
        for (name, key) in [("..", "x"), ("x", ".."), ("a/b", "c"), ("", "c"), ("a", "/etc/passwd")] {
            assert_eq!(error(name, key), "a secret reference may not contain path separators or be empty");
        }
    }
}
