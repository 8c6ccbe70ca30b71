//! The admin port: what a node shows to people and to monitoring, over HTTP.
//!
//! | path | what |
//! |---|---|
//! | `/` | a page that shows the cluster, live |
//! | `/status.json` | the same as data |
//! | `/metrics` | counters and gauges in Prometheus' text format |
//! | `/healthz` | 200 while the process serves |
//! | `/readyz` | 200 while the node takes requests, else 503 and the reason |
//!
//! Read-only, without authentication: it listens on loopback unless `--admin-host` says otherwise.

mod cluster;
mod prometheus;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;

use self::cluster::ClusterView;
use crate::broker::Broker;
use crate::net::{TcpListener, TcpStream};
use crate::status;

/// Connections served at once; further ones wait in the backlog.
const CONNECTIONS_MAX: usize = 64;
/// Longest wait for the head of a request, and so for the next request of an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection is closed after this long, whatever it does (a client that does not take its reply).
const CONNECTION_TIMEOUT: Duration = Duration::from_mins(10);
/// Most bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Pause after a failed `accept` (out of descriptors): the next one would fail as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const PAGE: &str = include_str!("page.html");
/// The page needs its own style and script and this node's data; nothing else may run or load.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                           connect-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'";

type Reply = Response<Full<Bytes>>;

/// Opens the admin port.
pub async fn listen(host: &str, port: u16) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((host, port)).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Serves until the broker stops altogether, so that a stop that waits for clients can be seen. What
/// is being answered then is not waited for.
pub async fn run(listener: TcpListener, broker: Arc<Broker>) {
    let admin = Arc::new(Admin { cluster: ClusterView::new(Arc::clone(&broker)), broker });
    let stopped = admin.broker.stopped();
    tokio::select! {
        () = accept(listener, &admin) => {}
        () = stopped => {}
    }
}

async fn accept(listener: TcpListener, admin: &Arc<Admin>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // The semaphore is never closed; if it were, there would be nothing left to serve.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let admin = Arc::clone(admin);
                tokio::spawn(async move {
                    serve(stream, admin).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "an admin connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, admin: Arc<Admin>) {
    let answer = |request: Request<Incoming>| {
        let admin = Arc::clone(&admin);
        async move { Ok::<_, Infallible>(admin.answer(&request).await) }
    };
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service_fn(answer));
    tokio::select! {
        // How it ended is the client's business: a bad request was answered, a lost one is gone.
        _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection) => {}
        () = admin.broker.stopped() => {}
    }
}

struct Admin {
    broker: Arc<Broker>,
    cluster: ClusterView,
}

impl Admin {
    async fn answer(&self, request: &Request<Incoming>) -> Reply {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return with_header(
                text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n"),
                header::ALLOW,
                "GET, HEAD",
            );
        }
        match request.uri().path() {
            "/" => page(),
            "/status.json" => reply(StatusCode::OK, "application/json", self.cluster.json().await),
            "/metrics" => {
                let metrics = prometheus::render(&status::metrics_value(&self.broker));
                reply(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics.into())
            }
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => match status::not_ready(&self.broker) {
                None => text(StatusCode::OK, "ready\n"),
                Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
            },
            _ => text(StatusCode::NOT_FOUND, "there is /, /status.json, /metrics, /healthz and /readyz\n"),
        }
    }
}

fn page() -> Reply {
    let page = reply(StatusCode::OK, "text/html; charset=utf-8", Bytes::from_static(PAGE.as_bytes()));
    with_header(page, header::CONTENT_SECURITY_POLICY, PAGE_POLICY)
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Reply {
    reply(status, "text/plain; charset=utf-8", text.into())
}

fn reply(status: StatusCode, content_type: &'static str, body: Bytes) -> Reply {
    let mut reply = Response::new(Full::new(body));
    *reply.status_mut() = status;
    let reply = with_header(reply, header::CONTENT_TYPE, content_type);
    let reply = with_header(reply, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    with_header(reply, header::CACHE_CONTROL, "no-store")
}

fn with_header(mut reply: Reply, name: header::HeaderName, value: &'static str) -> Reply {
    reply.headers_mut().insert(name, HeaderValue::from_static(value));
    reply
}
