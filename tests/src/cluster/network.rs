//! The cluster's addresses, and the interfaces that carry the nodes'.
//!
//! They are the same in every cluster, because every cluster has a network namespace of its own. The first node is in
//! it, with the control plane and whatever runs beside the cluster; each further node has a namespace below it, joined
//! to the first node's bridge by a veth pair. Setting the near end down is a partition.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use super::node::NodeId;
use crate::process::run;

/// The first node, the API server, and whatever the tests run beside the cluster.
pub(crate) const NODE_ADDRESS: Ipv4Addr = NodeId::FIRST.address();
/// The first address of [`SERVICE_RANGE`]: the API server takes it for the Service `kubernetes`.
pub(crate) const API_SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// Where the API server listens.
pub(crate) const API_PORT: u16 = 6443;
pub(crate) const SERVICE_RANGE: &str = "10.96.0.0/16";
/// All nodes' pods.
pub(crate) const CLUSTER_RANGE: &str = "10.244.0.0/16";
/// The bridge that carries the first node's address.
const BRIDGE: &str = "node";
/// A further node's end of its veth pair.
const UPLINK: &str = "uplink";

/// Brings the first node's interfaces up.
pub(crate) fn set_up() -> Result<()> {
    ip(&["link", "set", "lo", "up"])?;
    // A bridge, since not every kernel has dummy interfaces. The kubelet refuses a loopback address.
    ip(&["link", "add", BRIDGE, "type", "bridge"])?;
    ip(&["address", "add", &format!("{NODE_ADDRESS}/24"), "dev", BRIDGE])?;
    ip(&["link", "set", BRIDGE, "up"])?;
    // Components ask for the default route to find out which address is theirs.
    ip(&["route", "add", "default", "dev", BRIDGE])?;
    std::fs::write(FORWARDING, "1")?;
    Ok(())
}

/// Makes a further node's namespace and joins it to the others.
pub(crate) fn join(node: NodeId) -> Result<()> {
    let (near, name) = (near_end(node), node.name());
    ip(&["netns", "add", &name])?;
    ip(&["link", "add", &near, "type", "veth", "peer", "name", UPLINK, "netns", &name])?;
    ip(&["link", "set", &near, "master", BRIDGE, "up"])?;
    let inside = |arguments: &[&str]| run(node.command(Path::new("ip")).args(arguments)).map(drop);
    inside(&["link", "set", "lo", "up"])?;
    inside(&["address", "add", &format!("{}/24", node.address()), "dev", UPLINK])?;
    inside(&["link", "set", UPLINK, "up"])?;
    inside(&["route", "add", "default", "via", &NODE_ADDRESS.to_string()])?;
    run(node.command(Path::new("sh")).args(["-c", &format!("echo 1 > {FORWARDING}")]))?;
    ip(&["route", "add", &node.pod_range(), "via", &node.address().to_string()])?;
    for other in node.earlier().filter(|other| *other != NodeId::FIRST) {
        inside(&["route", "add", &other.pod_range(), "via", &other.address().to_string()])?;
        let route = ["route", "add", &node.pod_range(), "via", &node.address().to_string()];
        run(other.command(Path::new("ip")).args(route))?;
    }
    Ok(())
}

/// Cuts a further node off from all others, or joins it again.
pub(crate) fn set_link(node: NodeId, link: Link) -> Result<()> {
    let state = match link {
        Link::Up => "up",
        Link::Down => "down",
    };
    ip(&["link", "set", &near_end(node), state])
}

/// Whether a node's packets reach the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Up,
    Down,
}

/// Keeps what a further node and its pods send to the API server from arriving, or lets it again. Everything else does
/// arrive, also what the API server sends.
pub(crate) fn set_voice(node: NodeId, voice: Voice) -> Result<()> {
    let change = match voice {
        Voice::Unheard => "--append",
        Voice::Heard => "--delete",
    };
    // Behind the translation of the Service's address, for the node's programs and its pods alike.
    let (api, port) = (NODE_ADDRESS.to_string(), API_PORT.to_string());
    let rule = ["-p", "tcp", "-d", &api, "--dport", &port, "-j", "DROP"];
    let place = ["--wait", "--table", "mangle", change, "POSTROUTING"];
    run(node.command(Path::new("iptables")).args(place).args(rule)).map(drop)
}

/// Whether the API server hears a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Voice {
    Heard,
    Unheard,
}

/// The file of a further node's network namespace.
pub(crate) fn namespace(node: NodeId) -> PathBuf {
    Path::new("/run/netns").join(node.name())
}

/// Per namespace, whichever process asks.
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

fn near_end(node: NodeId) -> String {
    format!("to-{}", node.name())
}

fn ip(arguments: &[&str]) -> Result<()> {
    run(Command::new("ip").args(arguments)).map(drop)
}
