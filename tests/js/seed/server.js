// The application of sticky-socket-cluster's demonstration: express and socket.io on the port that it is given.
import express from "express";
import { createServer } from "node:http";
import { Server } from "socket.io";

const worker = process.env.STICKY_WORKER_ID;
const app = express();
app.set("trust proxy", "loopback");
app.get("/", (request, response) => response.json({ worker, pid: process.pid, ip: request.ip, port: process.env.PORT }));
app.get("/crash", () => process.exit(3));
app.get("/slow", (request, response) => setTimeout(() => response.json({ worker, pid: process.pid }), 300));
app.get("/login", (request, response) => response.cookie("sid", `${worker}-${Date.now()}-${Math.random()}`).json({ worker }));

const server = createServer(app);
const io = new Server(server);
io.on("connection", (socket) => {
  socket.on("who", (answer) => answer({ worker, pid: process.pid, address: socket.handshake.headers["x-forwarded-for"] }));
  socket.on("echo", (payload, answer) => answer(payload));
});

// What it does with SIGTERM shows that it is asked to end, and not killed.
process.on("SIGTERM", () => {
  console.log(`worker ${worker} says goodbye`);
  process.exit(0);
});
server.listen(Number(process.env.PORT), "127.0.0.1", () => console.log(`listens on ${process.env.PORT}`));
