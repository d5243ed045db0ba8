//! What is answered to whom.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Method, Response, StatusCode, Uri};
use serde::Serialize;

use super::access::{Caller, Denial};
use super::body::AnswerBody;
use super::lines::Lines;
use super::merge::Merged;
use super::mirror::{Control, Mirror};
use super::snapshot::seconds;
use super::{metrics, text};
use crate::admin::{ClusterState, Command, Progress, Status, now_ms};
use crate::config::Config;
use crate::control::FromWorker;
use crate::id::WorkerId;

type Answer = Response<AnswerBody>;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const JSON_LINES: &str = "application/x-ndjson";
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How long the supervisor has to say its first word about a command: it has other work, but none that takes long.
const FIRST_WORD_TIME: Duration = Duration::from_secs(5);

/// What is known, what is shown of the configuration, and the way to the supervisor.
pub(super) struct Desk {
    mirror: Arc<Mirror>,
    dispatch: String,
    affinity: String,
    supervisor: u32,
    control: Mutex<Option<Arc<Control>>>,
}

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Metrics,
    Status,
    Health,
    Readiness,
    Events,
    Command(Command),
}

impl Question {
    fn of(path: &str) -> Option<Self> {
        let words: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        let worker = |number: &str| {
            let is_plain = number.bytes().all(|byte| byte.is_ascii_digit());
            number.parse().ok().filter(|_| is_plain).map(WorkerId::new)
        };
        Some(match words[..] {
            ["metrics"] => Self::Metrics,
            ["status"] => Self::Status,
            ["healthz"] => Self::Health,
            ["readyz"] => Self::Readiness,
            ["events"] => Self::Events,
            ["reload"] => Self::Command(Command::Reload),
            ["workers", number, "restart"] => Self::Command(Command::Restart { worker: worker(number)? }),
            ["workers", number, "drain"] => Self::Command(Command::Drain { worker: worker(number)? }),
            ["reexec"] => Self::Command(Command::Reexec),
            ["scale", number] => Self::Command(Command::Scale { workers: worker(number)?.get() }),
            _ => return None,
        })
    }

    fn allows(self, method: &Method) -> Result<(), &'static str> {
        match self {
            Self::Command(_) if method == Method::POST => Ok(()),
            Self::Command(_) => Err("POST"),
            _ if method == Method::GET || method == Method::HEAD => Ok(()),
            _ => Err("GET, HEAD"),
        }
    }
}

impl Desk {
    pub(super) fn new(mirror: Arc<Mirror>, config: &Config) -> Self {
        let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
        Self {
            mirror,
            dispatch: config.dispatch.to_string(),
            affinity: config.affinity.to_string(),
            supervisor: parent.unwrap_or_default(),
            control: Mutex::new(None),
        }
    }

    pub(super) fn mirror(&self) -> &Arc<Mirror> {
        &self.mirror
    }

    /// Commands go to the supervisor by this.
    pub(super) fn speak_by(&self, control: Arc<Control>) {
        *self.control.lock().unwrap_or_else(PoisonError::into_inner) = Some(control);
    }

    /// Answers who may ask.
    pub(super) async fn answer(&self, method: &Method, uri: &Uri, headers: &HeaderMap, caller: Caller) -> Answer {
        let Some(question) = Question::of(uri.path()) else {
            return plain(StatusCode::NOT_FOUND, "there is nothing here");
        };
        if let Err(allowed) = question.allows(method) {
            let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "not by this method");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            return answer;
        }
        match question {
            Question::Metrics => self.metrics(headers).await,
            Question::Status => json(StatusCode::OK, &self.status()),
            Question::Health => plain(StatusCode::OK, "ok"),
            Question::Readiness => self.readiness(),
            Question::Events => self.events(method, caller),
            Question::Command(command) => self.command(command, uri.query() == Some("wait")).await,
        }
    }

    async fn metrics(&self, headers: &HeaderMap) -> Answer {
        let uptime = seconds(now_ms().saturating_sub(self.mirror.started_ms()));
        let snapshot = self.mirror.snapshot();
        let workers = snapshot.workers();
        let mut shown = metrics::encode(snapshot, uptime);
        shown.push_str(&self.exported(&workers).await);
        let mut asked = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        if asked.any(|value| value.contains("application/openmetrics-text")) {
            shown.push_str(text::END);
            return whole(StatusCode::OK, OPENMETRICS, shown);
        }
        whole(StatusCode::OK, CLASSIC, text::classic(&shown))
    }

    /// The application's own.
    async fn exported(&self, workers: &[(String, u64)]) -> String {
        let processes: Vec<u64> = workers.iter().map(|(_, process)| *process).collect();
        let told = self.mirror.exporters().ask(&processes).await;
        let mut merged = Merged::default();
        for (worker, text) in workers.iter().filter_map(|(worker, process)| Some((worker, told.get(process)?))) {
            merged.add(worker, text);
        }
        merged.text()
    }

    fn status(&self) -> Status {
        let now = now_ms();
        let snapshot = self.mirror.snapshot();
        Status {
            version: snapshot.cluster.version,
            pid: self.supervisor,
            uptime_seconds: seconds(now.saturating_sub(self.mirror.started_ms())),
            reexecs: snapshot.cluster.reexecs,
            state: snapshot.cluster.state,
            reload: snapshot.cluster.reload,
            dispatch: self.dispatch.clone(),
            affinity: self.affinity.clone(),
            leader: snapshot.cluster.leader,
            slots: snapshot.slots.iter().map(|slot| slot.status(now)).collect(),
        }
    }

    fn readiness(&self) -> Answer {
        let snapshot = self.mirror.snapshot();
        match snapshot.cluster.state {
            ClusterState::Running if snapshot.is_serving() => plain(StatusCode::OK, "ready"),
            ClusterState::Running => plain(StatusCode::SERVICE_UNAVAILABLE, "no worker is ready"),
            state => plain(StatusCode::SERVICE_UNAVAILABLE, &state.to_string()),
        }
    }

    fn events(&self, method: &Method, caller: Caller) -> Answer {
        if caller == Caller::Remote {
            return plain(StatusCode::FORBIDDEN, "events are told on unix sockets only");
        }
        match self.mirror.listen() {
            _ if method == Method::HEAD => whole(StatusCode::OK, JSON_LINES, ""),
            Some((events, seat)) => lines(Lines::of_events(events, seat)),
            None => plain(StatusCode::SERVICE_UNAVAILABLE, "as many listen as may"),
        }
    }

    async fn command(&self, command: Command, waits: bool) -> Answer {
        let (number, mut words) = self.mirror.expect_words();
        let first = match self.say(number, command) {
            Ok(()) => tokio::time::timeout(FIRST_WORD_TIME, words.recv()).await.ok().flatten(),
            Err(_) => None,
        };
        match first {
            Some(refused @ Progress::Refused { .. }) => json(StatusCode::CONFLICT, &refused),
            Some(first) if waits => lines(Lines::of_command(first, words)),
            Some(first) => json(StatusCode::ACCEPTED, &first),
            None => {
                self.mirror.forget(number);
                plain(StatusCode::SERVICE_UNAVAILABLE, "the supervisor does not answer")
            }
        }
    }

    fn say(&self, number: u64, command: Command) -> std::io::Result<()> {
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let control = control.as_ref().ok_or(std::io::ErrorKind::NotConnected)?;
        control.send(&FromWorker::Command { number, command }, &[])
    }
}

/// The answer to who may not ask.
pub(super) fn denied(denial: Denial) -> Answer {
    plain(denial.status, denial.why)
}

fn plain(status: StatusCode, line: &str) -> Answer {
    whole(status, TEXT, format!("{line}\n"))
}

fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.push(b'\n');
    whole(status, JSON, text)
}

fn lines(lines: Lines) -> Answer {
    answer(StatusCode::OK, JSON_LINES, AnswerBody::Lines(Box::pin(lines)))
}

fn whole(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    answer(status, kind, AnswerBody::Whole(body.into()))
}

fn answer(status: StatusCode, kind: &'static str, body: AnswerBody) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_exact() {
        let worker = WorkerId::new(12);
        for (path, question) in [
            ("/metrics", Some(Question::Metrics)),
            ("/status", Some(Question::Status)),
            ("/workers/12/restart", Some(Question::Command(Command::Restart { worker }))),
            ("/workers/12/drain", Some(Question::Command(Command::Drain { worker }))),
            ("/scale/12", Some(Question::Command(Command::Scale { workers: 12 }))),
            ("/scale/-1", None),
            ("/reexec", Some(Question::Command(Command::Reexec))),
            ("/reload", Some(Question::Command(Command::Reload))),
            ("/", None),
            ("*", None),
            ("/metrics/", None),
            ("//metrics", None),
            ("/workers/12", None),
            ("/workers/+12/drain", None),
            ("/workers/-1/drain", None),
            ("/workers/99999/drain", None),
            ("/workers//drain", None),
        ] {
            assert_eq!(Question::of(path), question, "{path}");
        }
    }

    #[test]
    fn commands_are_posted_and_everything_else_is_got() {
        assert_eq!(Question::Command(Command::Reload).allows(&Method::GET), Err("POST"));
        assert_eq!(Question::Command(Command::Reload).allows(&Method::POST), Ok(()));
        assert_eq!(Question::Metrics.allows(&Method::HEAD), Ok(()));
        assert_eq!(Question::Metrics.allows(&Method::POST), Err("GET, HEAD"));
    }
}
