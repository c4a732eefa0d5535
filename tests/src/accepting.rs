//! Serves every connection of a listener, and ends them all with the task that runs it.

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Runs `connection` for each that comes. It owns the connections, so that ending it ends them.
pub(crate) async fn serve_each<F>(listener: TcpListener, connection: impl Fn(TcpStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(connection(stream));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}
