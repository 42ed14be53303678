//! A web service as a sink: rows are posted to it as lines of JSON.
//!
//! ```text
//!  rows of a checkpoint ─▶ bodies of bounded size ─▶ POST, one after the other ─▶ 2xx: the next   429, 5xx, no answer: again later   4xx: the end
//! ```
//!
//! # Invariants
//!
//! - 4\. Rows of a checkpoint are always cut into the same bodies, each under the same idempotency key, so that a service that keeps keys
//!   takes each once. What the service has accepted in this attempt isn't posted again.
//! - Nothing is posted before the time until which the service asked to be left alone.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use highwater_env::Env;
use highwater_runtime::connector::{Delivery, Lasting, PublisherContext, Sink};
use highwater_runtime::{BoxError, Data};

use super::IntoSink;
use super::staged_rows::{Destination, StagedRows};

/// So much of an answer is shown.
const ANSWER_MAX: usize = 300;

/// A service that asks to be left alone for longer is asked again after this time.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Posts rows to a web service as newline-delimited JSON: at least once, with a key by which the service can tell a repetition.
///
/// Rows are posted when the checkpoint that covers them is committed, in bodies of about a megabyte
/// ([`body_bytes`](Http::body_bytes)), one at a time, in order. Each has the header `Idempotency-Key:
/// <job id>-<uid>-<checkpoint>-<part>`; the same key always brings the same rows. A body counts as accepted with any 2xx. It is
/// posted again, later, after 408, 409 (which services answer while they deal with the same key), 425, 429, any 5xx, a lost
/// connection, or no answer [in time](Http::timeout), and not before a `Retry-After` says so. Any other status ends the job with the
/// service's answer; nothing is lost, and the next start posts it again.
///
/// With [`at_least_once`](super::at_least_once), or without checkpoints, rows are posted as they come, without a key.
///
/// The client speaks `http://` only; put a proxy in front of a service that wants TLS.
///
/// ```
/// use std::time::Duration;
/// use highwater::connectors::{Http, IntoSink};
///
/// let alerts = Http::post("http://localhost:8080/alerts").header("X-Team", "flights").timeout(Duration::from_secs(5));
/// let sink = IntoSink::<(String, u64)>::into_sink(alerts);
/// assert!(sink.check().is_ok());
/// ```
#[derive(Clone)]
pub struct Http {
    url: String,
    headers: Vec<(String, String)>,
    body_bytes: usize,
    timeout: Duration,
}

/// Without the values of headers, which may be secrets.
impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Http").field("url", &self.url).field("headers", &headers).finish()
    }
}

impl Http {
    /// Posts to `url`.
    ///
    /// ```
    /// use highwater::connectors::Http;
    /// let events = Http::post("http://localhost:8080/events");
    /// # let _ = events;
    /// ```
    #[must_use]
    pub fn post(url: impl Into<String>) -> Self {
        let timeout = Duration::from_secs(30);
        Http { url: url.into(), headers: Vec::new(), body_bytes: 1 << 20, timeout }
    }

    /// Adds a header to every request; its value is never logged.
    ///
    /// ```
    /// use highwater::connectors::Http;
    /// let events = Http::post("http://localhost:8080/events").header("Authorization", "Bearer ...");
    /// # let _ = events;
    /// ```
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// A body ends with the row that makes it this large; 1 MB if not said. If it is changed, rows that weren't accepted before the
    /// restart are cut differently, under keys that the service may know already: change it when everything is published.
    ///
    /// ```
    /// use highwater::connectors::Http;
    /// let events = Http::post("http://localhost:8080/events").body_bytes(64 << 10);
    /// # let _ = events;
    /// ```
    #[must_use]
    pub fn body_bytes(self, bytes: usize) -> Self {
        Http { body_bytes: bytes.max(1), ..self }
    }

    /// How long a request may take, answer included; 30 seconds if not said.
    ///
    /// ```
    /// use highwater::connectors::Http;
    /// use std::time::Duration;
    /// let events = Http::post("http://localhost:8080/events").timeout(Duration::from_secs(5));
    /// # let _ = events;
    /// ```
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Http { timeout, ..self }
    }
}

impl<T: Data> IntoSink<T> for Http {
    fn into_sink(self) -> Arc<dyn Sink> {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(self.timeout));
        let agent = ureq::Agent::from(config.build());
        StagedRows::<T, _>::sink(Service { http: self, agent, progress: Mutex::default() })
    }
}

/// A service, and how it stands.
struct Service {
    http: Http,
    agent: ureq::Agent,
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    /// The checkpoint that is being posted, and how many of its bodies were accepted.
    accepted: (u64, usize),
    /// By the environment's clock: nothing is to be posted before.
    not_before: Duration,
}

impl Service {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Posts one body.
    fn post(&self, env: &dyn Env, body: &[u8], key: Option<&str>) -> Result<(), BoxError> {
        let url = &self.http.url;
        let left = self.progress().not_before.saturating_sub(env.monotonic());
        if !left.is_zero() {
            return Err(format!("{url} asked to be left alone for {left:.1?} more").into());
        }
        let mut request = self.agent.post(url).header("Content-Type", "application/x-ndjson");
        for (name, value) in &self.http.headers {
            request = request.header(name, value);
        }
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let mut response = request.send(body).map_err(|error| format!("{url}: {error}"))?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let retry_after = response.headers().get("retry-after");
        let wait = retry_after.and_then(|value| retry_after_of(value.to_str().ok()?, env));
        let answer = response.body_mut().with_config().limit(64 << 10).read_to_string();
        let answer: String = answer.unwrap_or_default().trim().chars().take(ANSWER_MAX).collect();
        let says = if answer.is_empty() { String::new() } else { format!(", and says: {answer}") };
        if status.is_server_error() || matches!(status.as_u16(), 408 | 409 | 425 | 429) {
            if let Some(wait) = wait {
                self.progress().not_before = env.monotonic() + wait.min(RETRY_AFTER_MAX);
            }
            return Err(format!("{url} answers {status}{says}").into());
        }
        let what = match response.headers().get("location").and_then(|to| to.to_str().ok()) {
            Some(to) if status.is_redirection() => format!("post to {to} instead"),
            _ => {
                "change the job or the service, and start the job again; nothing is lost".to_owned()
            }
        };
        Err(Lasting(format!("{url} refuses rows: it answers {status}{says}; {what}")).into())
    }
}

/// What `Retry-After` says: seconds, or a time of day.
fn retry_after_of(value: &str, env: &dyn Env) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    let now = std::time::UNIX_EPOCH + Duration::from_millis(env.wall_clock_ms());
    Some(at.duration_since(now).unwrap_or_default())
}

/// Cuts rows into bodies, each of which ends with the row that makes it `bytes` large.
fn bodies<T: Data>(rows: &[T], bytes: usize) -> impl Iterator<Item = Result<Vec<u8>, BoxError>> {
    let mut rows = rows.iter().peekable();
    std::iter::from_fn(move || {
        rows.peek()?;
        let mut body = Vec::new();
        while body.len() < bytes
            && let Some(row) = rows.next()
        {
            if let Err(error) = serde_json::to_writer(&mut body, row) {
                let text = format!(
                    "a row can't be written as JSON ({error}); change its type or leave it out"
                );
                return Some(Err(Lasting(text).into()));
            }
            body.push(b'\n');
        }
        Some(Ok(body))
    })
}

impl<T: Data> Destination<T> for Service {
    fn delivery(&self) -> Delivery {
        Delivery::AtLeastOnce
    }

    fn check(&self) -> Result<(), String> {
        let url = &self.http.url;
        match url.split_once("://") {
            Some(("http", rest)) if !rest.is_empty() => {}
            Some(("https", _)) => {
                return Err(format!(
                    "{url:?} wants TLS, which isn't built in; post to a proxy in front of it by http://"
                ));
            }
            _ => {
                return Err(format!(
                    "{url:?} is no URL that rows can be posted to; it begins with http://"
                ));
            }
        }
        let request = self
            .http
            .headers
            .iter()
            .fold(self.agent.post(url), |request, (name, value)| request.header(name, value));
        match request.headers_ref() {
            Some(_) => Ok(()),
            None => Err(format!("the URL {url:?} or one of the headers is malformed")),
        }
    }

    fn only_by_checkpoint(&self) -> Option<&'static str> {
        None
    }

    fn deliver(
        &self,
        from: &PublisherContext,
        checkpoint: u64,
        rows: Vec<T>,
    ) -> Result<(), BoxError> {
        let PublisherContext { job_id, uid, env, .. } = from;
        let (last, accepted) = self.progress().accepted;
        let accepted = if last == checkpoint { accepted } else { 0 };
        for (part, body) in bodies(&rows, self.http.body_bytes).enumerate().skip(accepted) {
            let key = format!("{job_id}-{uid}-{checkpoint}-{part}");
            self.post(env.as_ref(), &body?, Some(&key))?;
            self.progress().accepted = (checkpoint, part + 1);
        }
        Ok(())
    }

    fn deliver_directly(&self, env: &dyn Env, rows: &[T]) -> Result<(), BoxError> {
        // What fails is given again whole: so it is one body.
        bodies(rows, usize::MAX).try_for_each(|body| self.post(env, &body?, None))
    }
}
