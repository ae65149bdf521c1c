//! The end-to-end tests' harness: a real Kubernetes cluster on this machine, from package registries alone.
//!
//! [`sandbox::run`] takes the calling program into namespaces of its own; [`Cluster::up`] brings a control plane and
//! a node up in there. Nothing of it is visible outside, and nothing remains when the program ends, however it ends.
//!
//! ```no_run
//! use e2e::{Cluster, ClusterOptions, sandbox};
//!
//! fn main() -> std::process::ExitCode {
//!     sandbox::run(|sandbox| {
//!         let cluster = sandbox.block_on(Cluster::up(&sandbox, ClusterOptions::default()))?;
//!         println!("{}", sandbox.block_on(cluster.kubectl(&["get", "nodes"]))?);
//!         Ok(std::process::ExitCode::SUCCESS)
//!     })
//! }
//! ```

pub mod audit;
pub mod caller;
pub mod chart;
mod cluster;
pub mod dashboards;
pub mod demo;
pub mod edge;
mod image;
pub mod installation;
mod monitoring;
pub mod operator;
pub mod operator_bench;
mod process;
pub mod sandbox;
mod simulator;
mod tools;
mod wait;

pub use cluster::{Cluster, ClusterOptions};
pub use edge::Edge;
pub use image::OciImage;
pub use installation::{Installation, binary};
pub use monitoring::{Monitoring, sample};
pub use process::Guard;
pub use sandbox::Sandbox;
pub use simulator::Simulator;
pub use tools::optional_tool;
pub use wait::{end_of, wait_for};
