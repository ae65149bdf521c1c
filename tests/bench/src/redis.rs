//! A Redis of our own, for a pod that keeps its calls' state where it does in a cluster.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::ports::free_addresses;
use crate::process::Process;

/// Until it accepts connections.
const START_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// The server and its directory; both end when dropped.
pub(crate) struct Redis {
    address: SocketAddr,
    _process: Process,
    _directory: TempDir,
}

impl Redis {
    /// Starts one that writes nothing to disk.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let [address] = free_addresses()?;
        let directory = tempfile::Builder::new().prefix("switchboard-redis-").tempdir()?;
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string()]);
        command.args(["--save", "", "--appendonly", "no", "--dir"]).arg(directory.path());
        let mut process = Process::beside("redis-server", &mut command, directory.path().join("log"))?;
        let is_open = async || TcpStream::connect(address).await.ok();
        process.wait_for("its port", START_LIMIT, POLL, is_open).await?;
        Ok(Self { address, _process: process, _directory: directory })
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }
}
