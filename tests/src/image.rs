//! Container images without a registry or a builder: a scratch layer with static binaries, as an OCI image archive.
//!
//! The archive is a tar file with the image layout of the OCI Image Format Specification ("Image Layout", "Image
//! Manifest", "Image Configuration"), which `ctr images import` reads. Tar is written by hand: regular files and folders
//! of the ustar format are all there is. Same input, same bytes: no times, no owners.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// An image to be given to a cluster, see [`crate::Cluster::import_image`].
#[derive(Debug, Clone)]
pub struct OciImage {
    reference: String,
    entrypoint: String,
    files: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    /// Absolute, in the image.
    path: String,
    mode: u32,
    content: Vec<u8>,
}

impl OciImage {
    /// An image of one static binary at `/<its name>`, which is the entrypoint, run as a user without rights (65532,
    /// "nonroot" by convention).
    ///
    /// # Errors
    /// When the binary cannot be read.
    pub fn of_binary(reference: &str, binary: &Path) -> Result<Self> {
        let name = binary.file_name().and_then(|name| name.to_str()).context("a binary has a name")?;
        let content = fs::read(binary).with_context(|| format!("{} cannot be read", binary.display()))?;
        let entrypoint = format!("/{name}");
        let files = vec![Entry { path: entrypoint.clone(), mode: 0o755, content }];
        Ok(Self { reference: reference.to_owned(), entrypoint, files })
    }

    /// The same with one more file.
    #[must_use]
    pub fn with_file(mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) -> Self {
        self.files.push(Entry { path: path.to_owned(), mode, content: content.into() });
        self
    }

    /// The same with this machine's certificate authorities, for calls out over TLS.
    ///
    /// # Errors
    /// When it has none (package `ca-certificates`).
    pub fn with_authorities(self) -> Result<Self> {
        const PATH: &str = "/etc/ssl/certs/ca-certificates.crt";
        let bundle = fs::read(PATH).with_context(|| format!("{PATH} cannot be read"))?;
        Ok(self.with_file(PATH, 0o644, bundle))
    }

    /// The name that pods call it by.
    #[must_use]
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// When the file cannot be written, or a path is longer than tar's 100 bytes.
    pub fn write_archive(&self, path: &Path) -> Result<()> {
        let file = File::create(path).with_context(|| format!("{} cannot be created", path.display()))?;
        let mut archive = Tar { output: BufWriter::new(file) };
        for (name, content) in self.layout()? {
            archive.file(&name, 0o644, &content)?;
        }
        archive.finish()?.flush()?;
        Ok(())
    }

    /// The archive's files.
    fn layout(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let layer = Blob::new("application/vnd.oci.image.layer.v1.tar", self.layer()?);
        let config = Blob::json(
            "application/vnd.oci.image.config.v1+json",
            &json!({
                "architecture": architecture(),
                "os": "linux",
                "config": {"Entrypoint": [self.entrypoint], "User": "65532:65532", "WorkingDir": "/"},
                "rootfs": {"type": "layers", "diff_ids": [layer.digest()]},
            }),
        );
        let manifest = Blob::json(
            "application/vnd.oci.image.manifest.v1+json",
            &json!({
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": config.descriptor(),
                "layers": [layer.descriptor()],
            }),
        );
        let mut named = manifest.descriptor();
        // The first is what containerd goes by, the second what the specification says.
        named["annotations"] = json!({
            "io.containerd.image.name": self.reference,
            "org.opencontainers.image.ref.name": self.reference,
        });
        let index = json!({"schemaVersion": 2, "manifests": [named]});

        let mut files = vec![
            ("oci-layout".to_owned(), json!({"imageLayoutVersion": "1.0.0"}).to_string().into_bytes()),
            ("index.json".to_owned(), index.to_string().into_bytes()),
        ];
        files.extend(
            [layer, config, manifest].map(|blob| (format!("blobs/sha256/{}", blob.hash), blob.content)),
        );
        Ok(files)
    }

    fn layer(&self) -> Result<Vec<u8>> {
        let mut tar = Tar { output: Vec::new() };
        let mut folders = BTreeSet::new();
        for Entry { path, mode, content } in &self.files {
            let path = path.strip_prefix('/').with_context(|| format!("{path} is not an absolute path"))?;
            for (end, _) in path.match_indices('/') {
                if folders.insert(&path[..end]) {
                    tar.folder(&path[..end])?;
                }
            }
            tar.file(path, *mode, content)?;
        }
        tar.finish()
    }
}

/// Content and what refers to it.
struct Blob {
    media_type: &'static str,
    hash: String,
    content: Vec<u8>,
}

impl Blob {
    fn new(media_type: &'static str, content: Vec<u8>) -> Self {
        Self { media_type, hash: hex::encode(Sha256::digest(&content)), content }
    }

    fn json(media_type: &'static str, content: &Value) -> Self {
        Self::new(media_type, content.to_string().into_bytes())
    }

    fn digest(&self) -> String {
        format!("sha256:{}", self.hash)
    }

    fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest(), "size": self.content.len()})
    }
}

/// The name that Go, and so an image's configuration, has for this machine.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A writer of ustar archives (POSIX.1-1988).
struct Tar<W> {
    output: W,
}

impl<W: Write> Tar<W> {
    fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.header(path, mode, content.len(), b'0')?;
        self.output.write_all(content)?;
        let padding = content.len().next_multiple_of(BLOCK) - content.len();
        self.output.write_all(&[0; BLOCK][..padding])?;
        Ok(())
    }

    fn folder(&mut self, path: &str) -> Result<()> {
        self.header(&format!("{path}/"), 0o755, 0, b'5')
    }

    fn finish(mut self) -> Result<W> {
        self.output.write_all(&[0; 2 * BLOCK])?;
        Ok(self.output)
    }

    fn header(&mut self, path: &str, mode: u32, size: usize, kind: u8) -> Result<()> {
        ensure!(path.len() <= 100, "{path} is too long for tar");
        let mut header = [0; BLOCK];
        let mut field = |at: usize, value: &[u8]| header[at..at + value.len()].copy_from_slice(value);
        field(0, path.as_bytes());
        field(100, format!("{mode:07o}\0").as_bytes());
        field(108, b"0000000\0"); // owner
        field(116, b"0000000\0"); // group
        field(124, format!("{size:011o}\0").as_bytes());
        field(136, b"00000000000\0"); // time
        field(148, b"        "); // the checksum counts itself as spaces
        field(156, &[kind]);
        field(257, b"ustar\x0000");
        let sum: u32 = header.iter().copied().map(u32::from).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.output.write_all(&header)?;
        Ok(())
    }
}

const BLOCK: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> OciImage {
        OciImage {
            reference: "switchboard.test/thing:1".to_owned(),
            entrypoint: "/thing".to_owned(),
            files: vec![Entry { path: "/thing".to_owned(), mode: 0o755, content: b"binary".to_vec() }],
        }
        .with_file("/etc/ssl/one", 0o644, "1")
        .with_file("/etc/ssl/two", 0o644, "2")
    }

    #[test]
    fn every_descriptor_leads_to_a_blob_of_that_size_and_hash() {
        let files = image().layout().expect("paths are short");
        let blob = |descriptor: &Value| -> Vec<u8> {
            let hash = descriptor["digest"]
                .as_str()
                .and_then(|digest| digest.strip_prefix("sha256:"))
                .expect("sha256");
            let (_, content) = files
                .iter()
                .find(|(name, _)| *name == format!("blobs/sha256/{hash}"))
                .expect("a blob of that name");
            assert_eq!(descriptor["size"], content.len());
            assert_eq!(hex::encode(Sha256::digest(content)), hash);
            content.clone()
        };
        let parse = |content: Vec<u8>| -> Value { serde_json::from_slice(&content).expect("JSON") };

        assert_eq!(files[0], ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
        let index = parse(files[1].1.clone());
        let named = &index["manifests"][0];
        assert_eq!(named["annotations"]["io.containerd.image.name"], "switchboard.test/thing:1");
        let manifest = parse(blob(named));
        let config = parse(blob(&manifest["config"]));
        assert_eq!(config["config"]["Entrypoint"], json!(["/thing"]));
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        blob(&manifest["layers"][0]);
        assert_eq!(files.len(), 5);
    }

    #[test]
    fn tar_itself_reads_the_layer() {
        use std::process::{Command, Stdio};
        let mut tar = Command::new("tar")
            .args(["--list", "--verbose", "--numeric-owner", "--full-time", "--utc"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("tar can be run");
        let layer = image().layer().expect("paths are short");
        tar.stdin.take().expect("piped").write_all(&layer).expect("tar reads it");
        let listed = tar.wait_with_output().expect("tar ends");
        assert!(listed.status.success());
        let listed = String::from_utf8(listed.stdout).expect("UTF-8");
        let entries: Vec<(&str, &str)> = listed
            .lines()
            .map(|line| {
                (line.split(' ').next().unwrap_or_default(), line.rsplit(' ').next().unwrap_or_default())
            })
            .collect();
        assert_eq!(
            entries,
            [
                ("-rwxr-xr-x", "thing"),
                ("drwxr-xr-x", "etc/"),
                ("drwxr-xr-x", "etc/ssl/"),
                ("-rw-r--r--", "etc/ssl/one"),
                ("-rw-r--r--", "etc/ssl/two"),
            ]
        );
    }
}
