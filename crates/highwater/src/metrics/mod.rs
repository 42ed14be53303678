//! Prometheus metrics of a running job, over HTTP: `GET /metrics` in the text exposition format 0.0.4.
//!
//! - [`table`] says which metrics there are; a test holds `docs/metrics.md` against it. - [`text`] writes them.

mod table;
mod text;

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use crate::control::server::Asked;

/// The format, as Prometheus wants it named.
const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whoever asks says so within this time, and reads the answer within as much.
const PATIENCE: Duration = Duration::from_secs(10);

/// Listens at an address such as `127.0.0.1:9464`, `:9464` or `9464` (which mean this machine alone).
///
/// # Errors
///
/// If the address makes no sense or can't be used.
pub(crate) fn listen(address: &str) -> io::Result<TcpListener> {
    let port = address.strip_prefix(':').unwrap_or(address);
    let full = match port.parse::<u16>() {
        Ok(port) => format!("127.0.0.1:{port}"),
        Err(_) => address.to_owned(),
    };
    let listener = TcpListener::bind(&full).map_err(|error| {
        let text = format!("metrics can't be served at `{address}` (--metrics): {error}");
        io::Error::new(error.kind(), text)
    })?;
    listener.set_nonblocking(true)?;
    if let Ok(address) = listener.local_addr() {
        tracing::info!(target: "highwater::job", "metrics at http://{address}/metrics");
    }
    Ok(listener)
}

/// Answers one connection.
pub(crate) async fn serve(stream: TcpStream, asked: Arc<Asked>) {
    let answer = service_fn(move |request| {
        let response = answer(&request, &asked);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE).keep_alive(false);
    let served = http.serve_connection(TokioIo::new(stream), answer);
    match tokio::time::timeout(PATIENCE * 2, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "metrics were asked for in a wrong way"),
        Err(_) => tracing::debug!("whoever asked for metrics is too slow"),
    }
}

fn answer(request: &Request<Incoming>, asked: &Asked) -> Response<String> {
    let plain = |status: StatusCode, text: &str| {
        let mut response = Response::new(text.to_owned());
        *response.status_mut() = status;
        response
    };
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "metrics are at /metrics\n");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "metrics can only be read\n");
        response.headers_mut().insert(ALLOW, "GET, HEAD".parse().expect("these are letters"));
        return response;
    }
    let Some(control) = asked.control() else {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "the job is starting\n");
    };
    let text = text::render(&control.status(), control.env().wall_clock_ms());
    let mut response = plain(StatusCode::OK, &text);
    response.headers_mut().insert(CONTENT_TYPE, FORMAT.parse().expect("these are letters"));
    response
}
