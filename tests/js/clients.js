// The official client against a cluster: `node clients.js CASE URL WORKERS VERSION`.
import assert from "node:assert/strict";
import { Busy } from "./lib/busy.js";
import { ask, close, connect, connected, main, next, oneOnEach, soon, until } from "./lib/client.js";
import { request } from "./lib/engine.js";

const POLLING = { transports: ["polling"] };
const WEBSOCKET = { transports: ["websocket"] };

/** Everything an application does with one socket. */
async function talk(socket) {
    await text(socket);
    await binary(socket);
}

async function text(socket) {
    for (const args of [[], ["a"], [1, "2", { 3: [true, null] }], ["ü\u{1f600}\x1e"]]) {
        const back = next(socket, "message-back");
        socket.emit("message", ...args);
        assert.deepEqual(await back, args);
    }
    const acknowledged = new Promise((resolve) => socket.emit("message-with-ack", 1, { a: "b" }, (...all) => resolve(all)));
    assert.deepEqual(await soon("an acknowledgement", acknowledged), [1, { a: "b" }]);
}

async function binary(socket) {
    const bytes = Buffer.from(Array.from({ length: 256 }, (_, index) => index));
    const back = next(socket, "message-back");
    socket.emit("message", bytes, { inside: Buffer.from([1, 2, 3]) }, "text");
    const [whole, { inside }, text] = await back;
    assert.deepEqual(Buffer.from(whole), bytes);
    assert.deepEqual([...Buffer.from(inside)], [1, 2, 3]);
    assert.equal(text, "text");
    const acknowledged = await ask(socket, "message-with-ack", bytes);
    assert.deepEqual(Buffer.from(acknowledged), bytes);
}

const engineOf = (socket) => socket.io.engine;
const transportOf = (socket) => engineOf(socket).transport.name;

/** Clients side by side, more of them than workers. */
function burst(url, workers, settings) {
    return Promise.all(Array.from({ length: 4 * workers }, () => connected(url, settings)));
}

/** The same, on every worker. That holds for the first ones: later ones may leave out who has more connections. */
async function several(url, workers, settings) {
    // A worker takes part in this placement once it has its place, which for the last one is a moment after the start.
    const first = await oneOnEach(url, Number(workers), settings);
    const sockets = await burst(url, workers, settings);
    first.forEach((socket) => close(socket));
    const places = new Set();
    for (const socket of sockets) places.add(await ask(socket, "whoami"));
    assert.equal(places.size, Number(workers), `a burst of clients on these workers alone: ${[...places]}`);
    return sockets;
}

/** Has a cluster replace all of its workers, by its admin process; returns once it has. */
async function reload(admin) {
    const { status, text } = await request("http://sticky/reload?wait", { method: "POST", socketPath: admin });
    const last = JSON.parse(text.trim().split("\n").at(-1));
    assert.deepEqual([status, last.progress], [200, "done"], text);
}

const cases = {
    async polling(url, workers, version) {
        const sockets = await several(url, workers, { ...POLLING, version });
        await Promise.all(sockets.map((socket) => talk(socket)));
        sockets.forEach((socket) => assert.equal(transportOf(socket), "polling"));
    },

    async upgrade(url, workers, version) {
        const sockets = await several(url, workers, { version });
        await until("every client has upgraded", () => sockets.every((socket) => transportOf(socket) === "websocket"));
        const before = sockets.map((socket) => socket.id);
        await Promise.all(sockets.map((socket) => talk(socket)));
        assert.deepEqual(sockets.map((socket) => socket.id), before, "nobody has connected anew");
    },

    async websocket(url, workers, version) {
        const sockets = await several(url, workers, { ...WEBSOCKET, version });
        await Promise.all(sockets.map((socket) => talk(socket)));
    },

    // Messages sent while the transport changes arrive once, and in order.
    async order(url, workers, version) {
        const sockets = await several(url, workers, { version });
        const all = Array.from({ length: 300 }, (_, index) => index);
        const received = sockets.map((socket) => {
            const numbers = [];
            socket.on("message-back", (number) => numbers.push(number));
            return numbers;
        });
        for (const number of all) {
            sockets.forEach((socket) => socket.emit("message", number));
            if (number % 20 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
        }
        await until("everything is back", () => received.every((numbers) => numbers.length >= all.length));
        received.forEach((numbers) => assert.deepEqual(numbers, all));
    },

    async namespaces(url, workers, version) {
        const auth = { token: "123" };
        for (const settings of [{}, POLLING, WEBSOCKET]) {
            const socket = connect(url, { ...settings, version, auth });
            const custom = socket.io.socket("/custom", { auth });
            assert.deepEqual(await Promise.all([next(socket, "auth"), next(custom, "auth")]), [[auth], [auth]]);
            const unknown = socket.io.socket("/unknown", {});
            const [error] = await next(unknown, "connect_error");
            assert.match(error.message, /Invalid namespace/);
            const without = connect(url, { ...settings, version });
            assert.deepEqual(await next(without, "auth"), [{}]);
        }
    },

    async large(url, workers, version) {
        const text = "x".repeat(400_000);
        for (const settings of [POLLING, WEBSOCKET]) {
            const socket = await connected(url, { ...settings, version });
            const back = next(socket, "message-back");
            socket.emit("message", text, Buffer.alloc(300_000, 7));
            const [same, bytes] = await back;
            assert.equal(same, text);
            assert.equal(Buffer.from(bytes).length, 300_000);
        }
    },

    async broadcast(url, workers, version) {
        const everyone = await oneOnEach(url, Number(workers), { version });
        for (const [worker, socket] of everyone) {
            const heard = Promise.all([...everyone.values()].map((other) => next(other, "hello")));
            socket.emit("broadcast");
            assert.deepEqual(await heard, Array(everyone.size).fill([worker]));
        }
    },

    // A worker dies under its clients: they connect anew by themselves, the others notice nothing, and all hear each other.
    async killed(url, workers, version) {
        for (const settings of [{}, POLLING]) {
            const everyone = await oneOnEach(url, Number(workers), { ...settings, version });
            const [[, victim], ...others] = everyone;
            const before = others.map(([, socket]) => socket.id);
            const pid = await ask(victim, "pid");
            const gone = next(victim, "disconnect");
            process.kill(pid, "SIGKILL");
            const [reason] = await gone;
            assert.ok(["transport close", "transport error"].includes(reason), reason);
            await next(victim, "connect");
            assert.notEqual(await ask(victim, "pid"), pid);
            assert.deepEqual(others.map(([, socket]) => socket.id), before);
            const heard = Promise.all([...everyone.values()].map((other) => next(other, "hello")));
            victim.emit("broadcast");
            await heard;
            for (const socket of everyone.values()) close(socket);
        }
    },

    // Every worker is replaced under its clients: each is let go, connects anew by itself, and hears everybody afterwards.
    async reloaded(url, workers, version, supervisor) {
        const sockets = [];
        for (const settings of [POLLING, WEBSOCKET, {}]) sockets.push(...(await burst(url, workers, { ...settings, version })));
        const [old, now, reasons, refused] = [new Set(), new Map(), new Set(), []];
        for (const socket of sockets) old.add(await ask(socket, "pid"));
        assert.equal(old.size, Number(workers));
        for (const socket of sockets) {
            socket.on("disconnect", (reason) => reasons.add(reason));
            socket.on("connect_error", ({ message, context }) => refused.push(context?.responseText || message));
            socket.on("connect", () => socket.emit("pid", (pid) => now.set(socket, pid)));
        }
        process.kill(Number(supervisor), "SIGHUP");
        const isServedAnew = (socket) => socket.connected && now.has(socket) && !old.has(now.get(socket));
        await until("every client is served by a new worker", () => sockets.every(isServedAnew), 100_000);
        // Told by the server to go, a client would not come back by itself.
        assert.deepEqual([...reasons].filter((reason) => !["transport close", "transport error"].includes(reason)), []);
        assert.deepEqual(refused, [], "whoever connects anew is let in at once");
        const heard = Promise.all(sockets.map((socket) => next(socket, "hello")));
        sockets[0].emit("broadcast");
        await heard;
        for (const socket of sockets) await text(socket);
    },

    // Reload after reload. What is promised: whatever a client sends again until it is acknowledged arrives; a session ends with its
    // worker and not without; who is let go comes back by itself, at once, and never gives up. Who polls may ask for its session
    // just after that has ended, and hears then that it is unknown, once: that tells it to begin another.
    async reloaded_often(url, workers, version, admin, reloads) {
        const kinds = [POLLING, WEBSOCKET, {}].map((settings) =>
            Promise.all(Array.from({ length: 2 * workers }, () => Busy.connected(url, { ...settings, version }))),
        );
        const [polling, websocket, upgraded] = await Promise.all(kinds);
        const clients = [...polling, ...websocket, ...upgraded];
        for (let round = 0; round < reloads; round++) {
            await reload(admin);
            const said = clients.map((client) => client.said);
            const hasGoneOn = (client, index) => client.acknowledged.length > said[index];
            await until(`all go on after reload ${round + 1}`, () => clients.every(hasGoneOn), 100_000);
        }
        clients.forEach((client) => (client.done = true));
        await until("everything is acknowledged", () => clients.every((client) => client.isHeard), 100_000);
        await until("all have upgraded again", () => upgraded.every(({ socket }) => transportOf(socket) === "websocket"));
        for (const client of clients) {
            client.check();
            assert.ok(client.ended >= reloads / workers && client.ended <= reloads * workers, `${client.ended} sessions have ended`);
            assert.ok(client.told.length <= client.ended);
            for (const text of client.told) assert.equal(JSON.parse(text).message, "Session ID unknown");
        }
        assert.deepEqual(websocket.flatMap((client) => client.told), [], "who does not poll asks for nothing that has ended");
        for (const { socket } of clients) assert.ok(socket.connected);
    },

    // The last worker is taken out under its clients: they connect anew by themselves, the others notice nothing, and all hear
    // each other.
    async scaled(url, workers, version, supervisor) {
        const everyone = [];
        for (const settings of [POLLING, WEBSOCKET, {}]) {
            everyone.push(...(await oneOnEach(url, Number(workers), { ...settings, version })));
        }
        const isLast = ([worker]) => worker === Number(workers) - 1;
        const others = everyone.filter((one) => !isLast(one)).map(([, socket]) => socket);
        const before = others.map((socket) => socket.id);
        const anew = everyone.filter(isLast).map(async ([, socket]) => {
            const [reason] = await next(socket, "disconnect");
            assert.ok(["transport close", "transport error"].includes(reason), reason);
            await next(socket, "connect");
        });
        assert.equal(anew.length, 3);
        process.kill(Number(supervisor), "SIGTTOU");
        await Promise.all(anew);
        assert.deepEqual(others.map((socket) => socket.id), before);
        const heard = Promise.all(everyone.map(([, socket]) => next(socket, "hello")));
        others[0].emit("broadcast");
        await heard;
        for (const [, socket] of everyone) await text(socket);
    },

    // The cluster ends under its clients: each is let go in a way after which it connects anew by itself.
    async drained(url, workers, version, supervisor) {
        const sockets = [];
        for (const settings of [POLLING, WEBSOCKET, {}]) sockets.push(...(await burst(url, workers, { ...settings, version })));
        const reasons = sockets.map((socket) => next(socket, "disconnect").then(([reason]) => reason));
        process.kill(Number(supervisor), "SIGTERM");
        for (const reason of await Promise.all(reasons)) {
            assert.ok(["transport close", "transport error"].includes(reason), reason);
        }
        sockets.forEach((socket) => assert.ok(socket.active ?? socket.io._reconnecting, "it is about to connect anew"));
    },

    // Version 3 of Engine.IO: no tags, so the address says where a client belongs.
    async version3(url) {
        const sockets = await Promise.all(
            [{}, POLLING, WEBSOCKET, {}, POLLING].map((settings) => connected(url, { ...settings, version: 2 })),
        );
        const places = new Set();
        for (const socket of sockets) {
            // With polling, socketioxide's binary packets of this version are not what this client reads.
            await text(socket);
            if (transportOf(socket) === "websocket") await binary(socket);
            places.add(await ask(socket, "whoami"));
            assert.ok(!socket.id.includes("."), "ids of version 3 are the clients'");
        }
        assert.equal(places.size, 1, "one address, one worker");
    },
};

await main(cases);
