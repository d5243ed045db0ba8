//! The page, and the official client that it loads.

use std::path::{Path, PathBuf};

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::routing::get;
use sticky_socketio::sticky_core::BoxError;

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The page and everything it loads.
pub(crate) fn routes() -> Result<Router, BoxError> {
    let client = client()?;
    let file = |kind: &'static str, body: String| {
        get(move || async move { ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-cache")], body) })
    };
    Ok(Router::new()
        .route("/", file("text/html; charset=utf-8", include_str!("../page/index.html").to_owned()))
        .route("/chat.css", file("text/css; charset=utf-8", include_str!("../page/chat.css").to_owned()))
        .route("/chat.js", file(SCRIPT, include_str!("../page/chat.js").to_owned()))
        .route("/socket.io-client.js", file(SCRIPT, client)))
}

/// The official client as npm has installed it: it is not ours to copy.
fn client() -> Result<String, BoxError> {
    let folder = std::env::var_os("CHAT_CLIENT").map_or_else(default_folder, PathBuf::from);
    let path = folder.join("socket.io.esm.min.js");
    std::fs::read_to_string(&path)
        .map_err(|error| format!("{}: {error}; `examples/chat/run` installs it", path.display()).into())
}

fn default_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("node_modules/socket.io-client/dist")
}
