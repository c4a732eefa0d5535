//! A TCP proxy in front of a dependency, to take the dependency away and to give it back.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::accepting::serve_each;

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is carried to the target.
    Pass,
    /// It is accepted and closed.
    Refuse,
    /// It is accepted and nothing is ever said on it.
    Hang,
    /// It is accepted and reset.
    Reset,
}

/// The proxy. Its port stays the same for as long as it lives; dropping it cuts everything.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    settings: watch::Sender<Settings>,
    serving: JoinHandle<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Settings {
    mode: Mode,
    target: SocketAddr,
}

impl FaultProxy {
    /// Starts it in [`Mode::Pass`] on a port that the system picks.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("binding the proxy")?;
        let address = listener.local_addr()?;
        let (settings, seen) = watch::channel(Settings { mode: Mode::Pass, target });
        let serving = tokio::spawn(serve_each(listener, move |stream| connection(stream, seen.clone())));
        Ok(Self { address, settings, serving })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Changes the mode; connections that exist are cut, by a reset if that is the new mode.
    pub fn set_mode(&self, mode: Mode) {
        self.change(|settings| settings.mode = mode);
    }

    /// Changes the target; connections to the old one are cut.
    pub fn retarget(&self, target: SocketAddr) {
        self.change(|settings| settings.target = target);
    }

    fn change(&self, change: impl FnOnce(&mut Settings)) {
        self.settings.send_if_modified(|settings| {
            let before = *settings;
            change(settings);
            *settings != before
        });
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn connection(mut client: TcpStream, mut settings: watch::Receiver<Settings>) {
    let Settings { mode, target } = *settings.borrow_and_update();
    let lived = async {
        match mode {
            Mode::Pass => {
                if let Ok(mut server) = TcpStream::connect(target).await {
                    // However it ends, both sides are closed when they are dropped.
                    copy_bidirectional(&mut client, &mut server).await.ok();
                }
            }
            Mode::Hang => std::future::pending().await,
            Mode::Refuse | Mode::Reset => {}
        }
    };
    tokio::select! {
        () = lived => {}
        _ = settings.changed() => {}
    }
    if settings.borrow().mode == Mode::Reset {
        // Closing with nothing to linger for sends a reset.
        client.set_zero_linger().ok();
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::client::Client;
    use crate::upstream::Upstream;

    async fn ask(client: &Client, proxy: &FaultProxy) -> Result<u16> {
        client.get(&format!("http://{}/", proxy.addr())).send().await.map(|response| response.status)
    }

    #[tokio::test]
    async fn each_mode_is_what_it_says_and_passing_comes_back() {
        let upstream = Upstream::start().await.unwrap();
        let proxy = FaultProxy::start(upstream.addr()).await.unwrap();
        let client = Client::new().timeout(Duration::from_millis(500));
        assert_eq!(ask(&client, &proxy).await.unwrap(), 200);

        proxy.set_mode(Mode::Refuse);
        ask(&client, &proxy).await.unwrap_err();
        proxy.set_mode(Mode::Hang);
        let hung = format!("{:#}", ask(&client, &proxy).await.unwrap_err());
        assert!(hung.contains("no answer within"), "{hung}");
        assert_eq!(upstream.requests(), 1);
        proxy.set_mode(Mode::Pass);
        assert_eq!(ask(&client, &proxy).await.unwrap(), 200);
    }

    #[tokio::test]
    async fn reset_reaches_a_connection_that_exists() {
        let upstream = Upstream::start().await.unwrap();
        let proxy = FaultProxy::start(upstream.addr()).await.unwrap();
        let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        proxy.set_mode(Mode::Reset);
        assert_eq!(stream.read(&mut [0; 4096]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn port_stays_when_the_target_moves() {
        let (first, second) = (Upstream::start().await.unwrap(), Upstream::start().await.unwrap());
        let proxy = FaultProxy::start(first.addr()).await.unwrap();
        let client = Client::fresh_connections();
        ask(&client, &proxy).await.unwrap();
        proxy.retarget(second.addr());
        ask(&client, &proxy).await.unwrap();
        assert_eq!((first.requests(), second.requests()), (1, 1));
    }
}
