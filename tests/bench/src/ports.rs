//! Free loopback addresses for processes that must be told where to listen.

use std::net::{SocketAddr, TcpListener};

use anyhow::Context as _;

/// `N` different loopback addresses that were free a moment ago.
pub(crate) fn free_addresses<const N: usize>() -> anyhow::Result<[SocketAddr; N]> {
    // All are held until all are known, so that they differ.
    let listeners: Vec<TcpListener> =
        (0..N).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>().context("no free port")?;
    let mut addresses = [SocketAddr::from(([127, 0, 0, 1], 0)); N];
    for (address, listener) in addresses.iter_mut().zip(&listeners) {
        *address = listener.local_addr()?;
    }
    Ok(addresses)
}
