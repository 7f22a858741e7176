//! `--listen-metrics-urls`: metrics and health on ports of their own, for those who must not reach the client port.

use std::io;
use std::net::SocketAddr;

use holdfast_env::{RealSpawn, Spawn, TaskHandle};
use holdfast_tls::{Incoming, ServerStream};
use tokio_util::sync::CancellationToken;

use crate::config::MemberUrl;
use crate::error::ServerError;
use crate::listener;
use crate::tls::Tls;

/// Ports that are taken and not served yet.
pub struct Bound(Vec<listener::Bound>);

/// Ports that are served. Stop them with [`Serving::stop`].
pub struct Serving {
    stop: CancellationToken,
    tasks: Vec<TaskHandle>,
}

/// Takes the ports. Before a member starts, so that a start that is refused for them has changed nothing.
///
/// Errors: as [`listener::bind`].
pub async fn bind(urls: &[MemberUrl]) -> Result<Bound, ServerError> {
    listener::bind("listen-metrics-urls", urls).await.map(Bound)
}

impl Bound {
    /// Serves the routes on all of them.
    pub fn serve(self, routes: &axum::Router, tls: &Tls) -> Serving {
        let spawn = RealSpawn::new(tokio::runtime::Handle::current());
        let stop = CancellationToken::new();
        let serve = |bound: listener::Bound| {
            let (routes, stop) = (routes.clone(), stop.clone());
            let acceptor = tls.acceptor(&tls.ports.metrics, bound.is_tls);
            let connections = Connections(Incoming::new(bound.socket, acceptor));
            let serve = async move {
                tokio::select! {
                    // Answers under way are cut off: whoever scrapes asks again.
                    () = stop.cancelled() => {}
                    ended = axum::serve(connections, routes) => {
                        if let Err(error) = ended {
                            tracing::error!(%error, "serving metrics ended; the client port still has them");
                        }
                    }
                }
            };
            spawn.task("metrics", Box::pin(serve))
        };
        let tasks = self.0.into_iter().map(serve).collect();
        Serving { stop, tasks }
    }
}

/// Connections as axum takes them.
struct Connections(Incoming);

impl axum::serve::Listener for Connections {
    type Io = ServerStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (ServerStream, SocketAddr) {
        let accepted = self.0.next().await;
        (accepted.stream, accepted.peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Serving {
    /// Closes the ports.
    pub async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            task.join().await;
        }
    }
}
