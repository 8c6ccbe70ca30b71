//! Serves the data connections that other nodes open.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;

use super::messages::Purpose;
use super::{calls, forward, replica};
use crate::broker::Broker;
use crate::peer::{DataConnection, PeerListener};

/// Longest wait for the byte that says what a connection is for.
const PURPOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Accepts until the broker stops. What is under way then is cut off: the other node finds
/// somebody else.
pub async fn run(mut listener: PeerListener, broker: Arc<Broker>) {
    let mut connections = JoinSet::new();
    let stopped = broker.stopped();
    tokio::pin!(stopped);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Some(connection) => drop(connections.spawn(serve(Arc::clone(&broker), connection))),
                None => return stopped.await,
            },
            // Finished tasks are taken out as they finish, so that the set stays as small as it is.
            Some(_) = connections.join_next() => {}
            () = &mut stopped => return,
        }
    }
}

async fn serve(broker: Arc<Broker>, mut connection: DataConnection) {
    let byte = tokio::time::timeout(PURPOSE_TIMEOUT, connection.stream.read_u8()).await;
    let Ok(Ok(byte)) = byte else { return };
    let node = connection.node_id;
    let ended = match Purpose::from_byte(byte) {
        Some(Purpose::Replicate) => {
            // This run has forgotten its promises for segments of which nothing is left here. The
            // metadata show these as ended, but an earlier run's metadata may not yet.
            broker.metadata.was_ready().await;
            replica::serve(&broker, connection.stream).await
        }
        Some(Purpose::Call) => calls::serve(&broker, connection.stream).await,
        Some(Purpose::Forward) => {
            let sender = broker.forwards.senders.get(node, connection.run_id);
            forward::serve(&broker, &sender, connection.stream).await
        }
        None => Ok(()),
    };
    if let Err(error) = ended {
        tracing::info!(node, %error, "a connection of another node ended");
    }
}
