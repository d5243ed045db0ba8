//! One request as the bytes that are sent.

/// A request. Nothing in it is checked, so that hostile ones can be made too.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<String>,
    body: Body,
}

#[derive(Clone, Debug)]
enum Body {
    None,
    Sized(Vec<u8>),
    Chunked { data: Vec<u8>, piece: usize, trailers: Vec<String> },
}

impl Request {
    /// A request without a body, with nothing but a Host header.
    pub fn new(method: &str, target: impl Into<String>) -> Self {
        let (method, target) = (method.to_owned(), target.into());
        Self { method, target, headers: vec!["host: test".to_owned()], body: Body::None }
    }

    /// A GET.
    pub fn get(target: impl Into<String>) -> Self {
        Self::new("GET", target)
    }

    /// A POST with this body and its length.
    pub fn post(target: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        let mut request = Self::new("POST", target);
        request.body = Body::Sized(body.into());
        request
    }

    /// A POST with this body in chunks of that many bytes, and these trailers (lines without line ends).
    pub fn post_chunked(target: impl Into<String>, body: impl Into<Vec<u8>>, piece: usize, trailers: &[&str]) -> Self {
        let mut request = Self::new("POST", target);
        let trailers = trailers.iter().map(|&line| line.to_owned()).collect();
        request.body = Body::Chunked { data: body.into(), piece, trailers };
        request
    }

    /// Adds a header.
    #[must_use]
    pub fn header(self, name: &str, value: &str) -> Self {
        self.line(format!("{name}: {value}"))
    }

    /// Adds a header line, without its line end.
    #[must_use]
    pub fn line(mut self, line: impl Into<String>) -> Self {
        self.headers.push(line.into());
        self
    }

    /// The same request of another target.
    #[must_use]
    pub fn to(mut self, target: impl Into<String>) -> Self {
        self.target = target.into();
        self
    }

    /// The method: the answer's framing depends on it.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The target.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The head, up to and including its empty line.
    pub fn head(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for line in &self.headers {
            head.push_str(line);
            head.push_str("\r\n");
        }
        match &self.body {
            Body::None => {}
            Body::Sized(body) => head.push_str(&format!("content-length: {}\r\n", body.len())),
            Body::Chunked { .. } => head.push_str("transfer-encoding: chunked\r\n"),
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// The body as it is sent.
    pub fn body(&self) -> Vec<u8> {
        match &self.body {
            Body::None => Vec::new(),
            Body::Sized(body) => body.clone(),
            Body::Chunked { data, piece, trailers } => chunked(data, *piece, trailers),
        }
    }

    /// All of it.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head();
        bytes.extend(self.body());
        bytes
    }
}

fn chunked(data: &[u8], piece: usize, trailers: &[String]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(data.len() + data.len() / piece * 10 + 64);
    for chunk in data.chunks(piece) {
        bytes.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n");
    for line in trailers {
        bytes.extend_from_slice(line.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}
