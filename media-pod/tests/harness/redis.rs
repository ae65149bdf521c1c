//! A real Redis for pods that share one.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use media_pod::config::Config;

use super::{Pod, SIMULATED};

/// A Redis server on a unix socket, gone with the value.
pub struct Redis {
    directory: PathBuf,
    process: Child,
}

impl Redis {
    pub fn start(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("switchboard-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let mut process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(Self::socket(&directory))
            .arg("--dir")
            .arg(&directory)
            .stdout(Stdio::piped())
            .spawn()
            .expect("this test needs `redis-server` on the PATH (Debian: apt-get install redis-server)");
        let mut said = BufReader::new(process.stdout.take().unwrap()).lines();
        assert!(said.any(|line| line.is_ok_and(|line| line.contains("eady to accept connections"))));
        std::thread::spawn(move || said.for_each(drop)); // so that it never waits for a full pipe
        Self { directory, process }
    }

    /// Ends it without a word.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn socket(directory: &Path) -> PathBuf {
        directory.join("redis.sock")
    }

    /// A pod of this name that keeps its state here.
    pub async fn pod(&self, name: &str) -> Pod {
        self.pod_with(name, |_| {}).await
    }

    /// The same, with another configuration of the process.
    pub async fn pod_with(&self, name: &str, change: impl FnOnce(&mut Config)) -> Pod {
        let store = "store: {type: Redis, redis: {url: {name: redis, key: url}}}\n";
        let url = format!("unix://{}", Self::socket(&self.directory).display());
        Pod::start_with(&format!("{SIMULATED}{store}"), |config| {
            config.pod_name = name.to_owned();
            std::fs::create_dir_all(config.secrets_dir.join("redis")).unwrap();
            std::fs::write(config.secrets_dir.join("redis/url"), url).unwrap();
            change(config);
        })
        .await
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
