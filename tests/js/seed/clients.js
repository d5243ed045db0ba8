// The official client against the demonstration: `node clients.js CASE URL WORKERS`.
import assert from "node:assert/strict";
import { io } from "socket.io-client";

const [name, url, workers] = process.argv.slice(2);

function client(transports, cookie) {
  const extraHeaders = cookie === undefined ? {} : { cookie };
  return io(url, { transports, extraHeaders, forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 200 });
}

function connected(socket) {
  return new Promise((resolve, reject) => {
    socket.once("connect", resolve);
    socket.once("connect_error", reject);
  });
}

const ask = (socket, ...message) => socket.timeout(10_000).emitWithAck(...message);

// As many clients as it takes for every worker to have some; each stays where it is, by every transport.
async function sessions() {
  const seen = new Set();
  for (const transports of [["polling"], ["websocket"], ["polling", "websocket"]]) {
    for (let number = 0; number < 24; number++) {
      const socket = client(transports, `sid=client-${number}`);
      await connected(socket);
      const first = await ask(socket, "who");
      for (let round = 0; round < 5; round++) {
        assert.equal((await ask(socket, "who")).pid, first.pid);
        const payload = { round, bytes: Buffer.alloc(1000 * round, round) };
        assert.deepEqual(await ask(socket, "echo", payload), payload);
      }
      assert.equal(first.address, "127.0.0.1");
      seen.add(first.worker);
      socket.disconnect();
    }
  }
  assert.equal(seen.size, Number(workers));
}

// A worker that dies: its clients come back to it, the others notice nothing.
async function crash() {
  const sockets = [];
  for (let number = 0; number < 16; number++) {
    const socket = client(["websocket"], `sid=client-${number}`);
    await connected(socket);
    sockets.push([socket, `sid=client-${number}`, await ask(socket, "who")]);
  }
  const [, cookie, victim] = sockets[0];
  const disconnected = new Promise((resolve) => sockets[0][0].once("disconnect", resolve));
  await fetch(`${url}/crash`, { headers: { cookie } }).catch(() => {});
  await disconnected;
  for (const [socket, , before] of sockets) {
    if (!socket.connected) await connected(socket);
    const now = await ask(socket, "who");
    assert.equal(now.worker, before.worker);
    assert.equal(now.pid === before.pid, before.pid !== victim.pid);
    socket.disconnect();
  }
}

// Requests for WebSockets are refused with words, and polling works.
async function no_sockets() {
  const socket = client(["websocket"], "sid=a");
  await assert.rejects(connected(socket));
  socket.disconnect();
  const polling = client(["polling"], "sid=a");
  await connected(polling);
  assert.ok((await ask(polling, "who")).worker);
  polling.disconnect();
}

await { sessions, crash, no_sockets }[name]();
process.exit(0);
