//! The way from the carrier to the pods, as a Kubernetes Service is one: connections, not requests, go to a pod.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;

/// A listener that leads each new connection to the pod that is chosen then.
pub(crate) struct Service {
    address: SocketAddr,
    target: Arc<Mutex<Option<SocketAddr>>>,
    stop: Arc<Notify>,
}

impl Service {
    pub(crate) fn open() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _inside = runtime.enter();
            let socket = small_socket()?;
            socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
            socket.listen(1024)?
        };
        let address = listener.local_addr()?;
        let target = Arc::new(Mutex::new(None));
        let (chosen, stop) = (target.clone(), Arc::new(Notify::new()));
        let stopped = stop.clone();
        // A thread of its own: whatever a trial does, the way to its pods is open.
        std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = stopped.notified() => {}
                    () = serve(listener, chosen) => {}
                }
            });
        });
        Ok(Self { address, target, stop })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// New connections go there from now on.
    pub(crate) fn lead_to(&self, pod: SocketAddr) {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = Some(pod);
    }
}

/// Little fits on the way: who does not read is noticed by who writes.
fn small_socket() -> std::io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(64 * 1024)?;
    socket.set_send_buffer_size(64 * 1024)?;
    Ok(socket)
}

async fn connect(pod: SocketAddr) -> std::io::Result<TcpStream> {
    small_socket()?.connect(pod).await
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.notify_one();
    }
}

async fn serve(listener: TcpListener, target: Arc<Mutex<Option<SocketAddr>>>) {
    while let Ok((mut outside, _)) = listener.accept().await {
        let Some(pod) = *target.lock().unwrap_or_else(PoisonError::into_inner) else { continue };
        tokio::spawn(async move {
            let Ok(mut inside) = connect(pod).await else { return };
            // How it ends is between its two ends.
            let _ = inside.set_nodelay(true).and_then(|()| outside.set_nodelay(true));
            let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
        });
    }
}
