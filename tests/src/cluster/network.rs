//! The cluster's addresses, and the interface that carries the node's.
//!
//! They are the same in every cluster, because every cluster has a network namespace of its own.

use std::{net::Ipv4Addr, process::Command};

use anyhow::Result;

use crate::process::run;

/// The node, the API server, and whatever the tests run beside the cluster.
pub(crate) const NODE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 240, 0, 1);
/// The first address of [`SERVICE_RANGE`]: the API server takes it for the Service `kubernetes`.
pub(crate) const API_SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
pub(crate) const SERVICE_RANGE: &str = "10.96.0.0/16";
/// All nodes' pods.
pub(crate) const CLUSTER_RANGE: &str = "10.244.0.0/16";
/// This node's pods.
pub(crate) const POD_RANGE: &str = "10.244.1.0/24";

/// Brings the namespace's interfaces up.
pub(crate) fn set_up() -> Result<()> {
    ip(&["link", "set", "lo", "up"])?;
    // A bridge with nothing on it, since not every kernel has dummy interfaces. The kubelet refuses a loopback address.
    ip(&["link", "add", "node", "type", "bridge"])?;
    ip(&["address", "add", &format!("{NODE_ADDRESS}/24"), "dev", "node"])?;
    ip(&["link", "set", "node", "up"])?;
    // Components ask for the default route to find out which address is theirs.
    ip(&["route", "add", "default", "dev", "node"])?;
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    Ok(())
}

fn ip(arguments: &[&str]) -> Result<()> {
    run(Command::new("ip").args(arguments)).map(drop)
}
