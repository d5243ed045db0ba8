//! Which rival, how it is configured, and with which command it starts: text in, text out.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::FrontError;

/// A rival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front {
    /// nginx in front of the plain program.
    Nginx,
    /// HAProxy in front of the plain program.
    HaProxy,
    /// Bytes are copied both ways, in front of the plain program.
    Floor,
    /// hyper's server and client, in front of the plain program.
    Hyper,
    /// Node's sticky-session.
    StickySession,
    /// Node's @socket.io/sticky.
    SocketIoSticky,
}

/// Where in a request the key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// In the header `x-key`.
    Header,
    /// In the cookie `session`.
    Cookie,
}

/// What `bench-front` is asked to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The rival.
    pub front: Front,
    /// What it goes by, if it can be told.
    pub key: Key,
    /// How many workers: programs behind the front, and the front's own processes or threads.
    pub workers: u16,
}

/// A program with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CommandLine {
    /// Looked for in `PATH`, if it is a name alone.
    pub(super) program: PathBuf,
    /// Its arguments.
    pub(super) arguments: Vec<String>,
}

impl Settings {
    /// From `BENCH_FRONT`, `BENCH_KEY` and `BENCH_WORKERS`, as `variable` has them.
    ///
    /// # Errors
    ///
    /// The first that is missing or unknown.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, FrontError> {
        let front = match variable("BENCH_FRONT").as_deref() {
            Some("nginx") => Front::Nginx,
            Some("haproxy") => Front::HaProxy,
            Some("floor") => Front::Floor,
            Some("hyper") => Front::Hyper,
            Some("sticky-session") => Front::StickySession,
            Some("socketio-sticky") => Front::SocketIoSticky,
            _ => return Err(FrontError::Setting { name: "BENCH_FRONT", allowed: Front::ALLOWED }),
        };
        let key = match variable("BENCH_KEY").as_deref() {
            Some("header") => Key::Header,
            Some("cookie") => Key::Cookie,
            _ => return Err(FrontError::Setting { name: "BENCH_KEY", allowed: "header or cookie" }),
        };
        let workers = variable("BENCH_WORKERS").and_then(|number| number.parse().ok()).filter(|&number| number > 0);
        let workers = workers.ok_or(FrontError::Setting { name: "BENCH_WORKERS", allowed: "a number above 0" })?;
        Ok(Self { front, key, workers })
    }

    /// The front's processes, itself included, once all have started.
    pub(super) fn processes(&self) -> usize {
        match self.front {
            Front::HaProxy | Front::Floor | Front::Hyper => 1,
            Front::Nginx | Front::StickySession | Front::SocketIoSticky => 1 + usize::from(self.workers),
        }
    }

    /// What goes into [`Front::config_file`]; nothing for a front that is configured by its environment.
    ///
    /// The public socket is inherited: as descriptor `listener`, at `port` of 127.0.0.1.
    pub(super) fn config(&self, folder: &Path, listener: i32, port: u16) -> Option<String> {
        match self.front {
            Front::Nginx => Some(self.nginx(folder, port)),
            Front::HaProxy => Some(self.haproxy(folder, listener)),
            Front::Floor | Front::Hyper | Front::StickySession | Front::SocketIoSticky => None,
        }
    }

    /// Limits on requests and connections are out of the way, logs are off, connections to the programs are kept: nginx as
    /// somebody would set it up who wants it fast.
    fn nginx(&self, folder: &Path, port: u16) -> String {
        let folder = folder.display();
        let key = match self.key {
            Key::Header => "$http_x_key",
            Key::Cookie => "$cookie_session",
        };
        // As root it would give its workers to a user who may not use the programs' sockets; as nobody else it only warns.
        let mut text =
            format!("user root;\nworker_processes {};\ndaemon off;\npid {folder}/nginx.pid;\n", self.workers);
        text += "error_log stderr error;\nevents {\n    worker_connections 16384;\n}\nhttp {\n    access_log off;\n";
        for directory in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            let _ = writeln!(text, "    {directory}_temp_path {folder}/{directory};");
        }
        let _ = writeln!(text, "    upstream programs {{\n        hash {key} consistent;");
        for worker in 0..self.workers {
            let _ = writeln!(text, "        server unix:{};", socket(worker));
        }
        text += "        keepalive 128;\n        keepalive_requests 1000000000;\n    }\n    server {\n";
        let _ = writeln!(text, "        listen 127.0.0.1:{port};\n        keepalive_requests 1000000000;");
        text += "        location / {\n            proxy_pass http://programs;\n            proxy_http_version 1.1;\n";
        text += "            proxy_set_header Connection \"\";\n            proxy_set_header Host $http_host;\n";
        text += "        }\n    }\n}\n";
        text.replace("unix:", &format!("unix:{folder}/"))
    }

    fn haproxy(&self, folder: &Path, listener: i32) -> String {
        let key = match self.key {
            Key::Header => "hdr(x-key)",
            Key::Cookie => "hash req.cook(session)",
        };
        let mut text = format!("global\n    nbthread {}\n    maxconn 16384\n\n", self.workers);
        text += "defaults\n    mode http\n    timeout connect 5s\n    timeout client 60s\n    timeout server 60s\n\n";
        let _ = writeln!(text, "listen public\n    bind fd@{listener}\n    balance {key}\n    hash-type consistent");
        text += "    http-reuse always\n";
        for worker in 0..self.workers {
            let path = folder.join(socket(worker));
            let _ = writeln!(text, "    server worker{worker} unix@{}", path.display());
        }
        text
    }
}

/// The file name of a program's socket.
pub(super) fn socket(worker: u16) -> String {
    format!("{worker}.sock")
}

impl Front {
    const ALLOWED: &'static str = "nginx, haproxy, floor, hyper, sticky-session or socketio-sticky";

    /// Whether it is in front of the plain program; else it has workers of its own.
    pub(super) fn has_programs(self) -> bool {
        matches!(self, Self::Nginx | Self::HaProxy | Self::Floor | Self::Hyper)
    }

    /// Whether it is a program of ours, which takes the public socket for its standard input.
    pub(super) fn is_ours(self) -> bool {
        matches!(self, Self::Floor | Self::Hyper)
    }

    /// The configuration's file in `folder`.
    pub(super) fn config_file(self, folder: &Path) -> PathBuf {
        folder.join("front.conf")
    }

    /// How it is started in the foreground; its scripts, if it has any, are in `scripts`, our own programs in `ours`.
    pub(super) fn command(self, folder: &Path, scripts: &Path, ours: &Path) -> CommandLine {
        let forward = |how: &str| (ours.join("bench-forward"), vec![how.to_owned(), folder.display().to_string()]);
        let config = self.config_file(folder).display().to_string();
        let script = |name| vec![scripts.join(name).display().to_string()];
        let (program, arguments) = match self {
            Self::Nginx => {
                let prefix = folder.display().to_string();
                ("nginx".into(), vec!["-e".into(), "stderr".into(), "-p".into(), prefix, "-c".into(), config])
            }
            Self::HaProxy => ("haproxy".into(), vec!["-db".into(), "-f".into(), config]),
            Self::Floor => forward("floor"),
            Self::Hyper => forward("hyper"),
            Self::StickySession => ("node".into(), script("sticky-session.js")),
            Self::SocketIoSticky => ("node".into(), script("socketio-sticky.js")),
        };
        CommandLine { program, arguments }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings = Settings { front: Front::Nginx, key: Key::Header, workers: 2 };

    fn has_line(text: &str, line: &str) -> bool {
        text.lines().any(|found| found.trim() == line)
    }

    #[test]
    fn nginx_hashes_the_key_over_kept_connections_to_every_program() {
        let text = SETTINGS.config(Path::new("/f"), 7, 8080).unwrap();
        let wanted = [
            "worker_processes 2;",
            "hash $http_x_key consistent;",
            "server unix:/f/0.sock;",
            "server unix:/f/1.sock;",
            "keepalive 128;",
            "listen 127.0.0.1:8080;",
            "proxy_http_version 1.1;",
            "proxy_set_header Connection \"\";",
        ];
        assert_eq!(wanted.map(|line| has_line(&text, line)), [true; 8], "{text}");
        assert_eq!(text.matches('{').count(), text.matches('}').count(), "{text}");
        let cookie = Settings { key: Key::Cookie, ..SETTINGS }.config(Path::new("/f"), 7, 8080).unwrap();
        assert!(has_line(&cookie, "hash $cookie_session consistent;"), "{cookie}");
    }

    #[test]
    fn haproxy_hashes_the_key_over_shared_connections_to_every_program() {
        let settings = Settings { front: Front::HaProxy, ..SETTINGS };
        let text = settings.config(Path::new("/f"), 7, 8080).unwrap();
        let wanted = [
            "nbthread 2",
            "bind fd@7",
            "balance hdr(x-key)",
            "hash-type consistent",
            "http-reuse always",
            "server worker0 unix@/f/0.sock",
            "server worker1 unix@/f/1.sock",
        ];
        assert_eq!(wanted.map(|line| has_line(&text, line)), [true; 7], "{text}");
        let cookie = Settings { key: Key::Cookie, ..settings }.config(Path::new("/f"), 7, 8080).unwrap();
        assert!(has_line(&cookie, "balance hash req.cook(session)"), "{cookie}");
    }

    #[test]
    fn node_is_configured_by_its_environment() {
        let settings = Settings { front: Front::StickySession, ..SETTINGS };
        assert_eq!(settings.config(Path::new("/f"), 7, 8080), None);
        let command = settings.front.command(Path::new("/f"), Path::new("/scripts"), Path::new("/ours"));
        assert_eq!(command.program, Path::new("node"));
        assert_eq!(command.arguments, ["/scripts/sticky-session.js"]);
    }

    #[test]
    fn settings_are_read_and_the_first_mistake_is_named() {
        let read = |variables: [Option<&str>; 3]| {
            let [front, key, workers] = variables.map(|text| text.map(str::to_owned));
            Settings::read(|name| match name {
                "BENCH_FRONT" => front.clone(),
                "BENCH_KEY" => key.clone(),
                _ => workers.clone(),
            })
        };
        let settings = read([Some("haproxy"), Some("cookie"), Some("4")]).unwrap();
        assert_eq!(settings, Settings { front: Front::HaProxy, key: Key::Cookie, workers: 4 });
        let mistake = |variables| read(variables).unwrap_err().to_string();
        assert!(mistake([None, Some("cookie"), Some("4")]).starts_with("BENCH_FRONT must be nginx, "));
        assert!(mistake([Some("nginx"), Some("body"), Some("4")]).starts_with("BENCH_KEY "));
        assert!(mistake([Some("nginx"), Some("header"), Some("0")]).starts_with("BENCH_WORKERS "));
    }
}
