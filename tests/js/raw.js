// A program that writes its answers itself, as no framework does. PORT and STICKY_WORKER_ID come from `sticky run`.
import net from "node:net";

// Requests by path, over all connections.
const seen = {};

const ok = (body) => `HTTP/1.1 200 OK\r\ncontent-length: ${body.length}\r\n\r\n${body}`;

// What is written, and whether the connection is closed behind it.
function answer(path, onConnection) {
  switch (path) {
    case "/early":
      return ["HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n" + ok("hinted"), false];
    case "/hinting":
      return ["HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </b.css>\r\n\r\n", false];
    case "/old":
      return ["HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nold", true];
    case "/unframed":
      return ["HTTP/1.0 200 OK\r\nserver: raw\r\n\r\nuntil the end", true];
    case "/feeds":
      return ["HTTP/1.1 200 OK\ncontent-length: 5\n\nfeeds", false];
    case "/silent":
      return ["", true];
    case "/extra":
      return [ok("extra") + ok("not asked for"), false];
    default:
      return [ok(path.startsWith("/seen/") ? String(seen[path.slice(5)] ?? 0) : `request ${onConnection}`), false];
  }
}

const server = net.createServer((socket) => {
  let received = "";
  let requests = 0;
  socket.on("error", () => {});
  socket.on("data", (data) => {
    received += data.toString("latin1");
    // The body of the one request that has one ends so; its response comes only then.
    if (received.startsWith("the end of it")) {
      received = received.slice("the end of it".length);
      socket.write(ok("all of it"));
    }
    for (let end; (end = received.indexOf("\r\n\r\n")) >= 0; received = received.slice(end + 4)) {
      const path = received.split(" ")[1];
      seen[path] = (seen[path] ?? 0) + 1;
      requests += 1;
      const [written, closes] = answer(path, requests);
      closes ? socket.end(written) : socket.write(written);
    }
  });
});

server.listen(Number(process.env.PORT), "127.0.0.1");
process.on("SIGTERM", () => process.exit(0));
