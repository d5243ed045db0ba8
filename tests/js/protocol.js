// The rules of Engine.IO and Socket.IO from outside, by hand: `node protocol.js CASE URL WORKERS keep-alive|close`.
// The server pings after 300 ms, waits 5 s for the answer, and 1 s for the first namespace.
import assert from "node:assert/strict";
import http from "node:http";
import WebSocket from "ws";
import { main, soon } from "./lib/client.js";
import { request } from "./lib/engine.js";

const PING = 300;
const PONG = 5_000;
const agent = new http.Agent({ keepAlive: process.argv[5] === "keep-alive" });

/** A target below the engine's path, and requests to it. */
const target = (url, path, query) => `${url}${path}?EIO=4&${query}`;
const get = (url) => request(url, { agent });
const post = (url, body) => request(url, { method: "POST", body, agent, headers: { "content-type": "text/plain;charset=UTF-8" } });

/** A polling session: its URL. */
async function open(url, path) {
    const answer = await get(target(url, path, "transport=polling"));
    assert.equal(answer.status, 200);
    const handshake = JSON.parse(answer.text.slice(1));
    const session = { ...handshake, url: target(url, path, `transport=polling&sid=${handshake.sid}`) };
    // The first ping comes at once.
    assert.equal((await get(session.url)).text, "2");
    await post(session.url, "3");
    return session;
}

/** A WebSocket that notes what comes. */
async function websocket(url, path, sid) {
    const query = `transport=websocket${sid ? `&sid=${sid}` : ""}`;
    const socket = new WebSocket(target(url.replace("http", "ws"), path, query), { agent: new http.Agent() });
    const [came, waiting] = [[], []];
    socket.on("message", (data, isBinary) => {
        const message = isBinary ? data : data.toString();
        if (message === "2" && socket.answersPings) return socket.send("3");
        waiting.length ? waiting.shift()(message) : came.push(message);
    });
    socket.answersPings = true;
    socket.closed = new Promise((resolve) => socket.on("close", resolve));
    socket.on("error", () => {});
    socket.next = () => soon("a message", came.length ? Promise.resolve(came.shift()) : new Promise((resolve) => waiting.push(resolve)));
    await soon("a WebSocket", new Promise((resolve, reject) => socket.on("open", resolve).on("error", reject)));
    return socket;
}

const closes = (socket) => soon("the end of the WebSocket", socket.closed);

/** The packets of one poll that are no pings; pings are answered. */
async function poll(session) {
    for (;;) {
        const { status, text } = await get(session.url);
        assert.equal(status, 200, text);
        const packets = text.split("\x1e");
        if (packets.includes("2")) await post(session.url, "3");
        const others = packets.filter((packet) => packet !== "2");
        if (others.length) return others;
    }
}

/** Asserts that nobody knows this session any more. */
async function unknown(session) {
    for (const answer of [await get(session.url), await post(session.url, "4x")]) {
        assert.equal(answer.status, 400);
        assert.equal(JSON.parse(answer.text).message, "Session ID unknown");
    }
}

const E = "/engine.io/";
const S = "/socket.io/";

const cases = {
    async handshake(url) {
        const { sid, upgrades, pingInterval, pingTimeout, maxPayload } = await open(url, E);
        assert.equal(typeof sid, "string");
        assert.deepEqual({ upgrades, pingInterval, pingTimeout, maxPayload }, { upgrades: ["websocket"], pingInterval: PING, pingTimeout: PONG, maxPayload: 1_000_000 });
        const socket = await websocket(url, E);
        const opened = JSON.parse((await socket.next()).slice(1));
        assert.deepEqual(opened.upgrades, []);
        assert.match(opened.sid, /^[A-Za-z0-9_-]{16}$/, "nothing will be asked for by it");
        socket.close();
    },

    async wrong_handshakes(url) {
        for (const [query, method, code] of [
            ["transport=polling", "GET", 5],
            ["EIO=abc&transport=polling", "GET", 5],
            ["EIO=4", "GET", 0],
            ["EIO=4&transport=abc", "GET", 0],
            ["EIO=4&transport=polling", "POST", 2],
            ["EIO=4&transport=polling", "PUT", 2],
        ]) {
            const answer = await request(`${url}${E}?${query}`, { method, agent });
            assert.equal(answer.status, 400, `${method} ${query}`);
            assert.equal(Number(JSON.parse(answer.text).code), code, `${method} ${query}`);
        }
    },

    async payloads(url) {
        const session = await open(url, E);
        assert.equal((await post(session.url, "4hello")).text, "ok");
        assert.deepEqual(await poll(session), ["4hello"]);
        await post(session.url, ["4one", "4", "4ü\u{1f600}"].join("\x1e"));
        const came = [];
        while (came.length < 3) came.push(...(await poll(session)));
        assert.deepEqual(came, ["4one", "4", "4ü\u{1f600}"]);
        await post(session.url, "bAQIDBA==");
        assert.deepEqual(await poll(session), ["bAQIDBA=="]);
        await post(session.url, `4${"x".repeat(900_000)}`);
        assert.equal((await poll(session))[0].length, 900_001);
    },

    async wrong_payloads(url) {
        for (const body of ["abc", "0", "5", ""]) {
            const session = await open(url, E);
            const answer = await post(session.url, body);
            assert.ok(answer.status === 400 || answer.status === 200, `${answer.status}`);
            const after = await get(session.url);
            // Whatever is made of it, the session has not become another's.
            assert.ok([200, 400].includes(after.status));
        }
        const session = await open(url, E);
        const large = await post(session.url, `4${"x".repeat(1_100_000)}`).catch(() => ({ status: 413 }));
        assert.ok([400, 413].includes(large.status), `${large.status}`);
        assert.equal((await request(session.url, { method: "DELETE", agent })).status, 400);
    },

    async heartbeat(url) {
        const session = await open(url, E);
        for (let pings = 0; pings < 3; pings++) {
            assert.equal((await get(session.url)).text, "2");
            assert.equal((await post(session.url, "3")).text, "ok");
        }
        const socket = await websocket(url, E);
        socket.answersPings = false;
        await socket.next();
        for (let pings = 0; pings < 3; pings++) {
            assert.equal(await socket.next(), "2");
            socket.send("3");
        }
        // Who does not answer is gone.
        await closes(socket);
        for (let polls = 0; polls < 20 && (await get(session.url)).status === 200; polls++);
        await unknown(session);
    },

    async close(url) {
        const session = await open(url, E);
        const [polled] = await Promise.all([get(session.url), post(session.url, "1")]);
        assert.ok(["6", ""].includes(polled.text) || polled.status === 400, polled.text);
        await unknown(session);
        const socket = await websocket(url, E);
        await socket.next();
        socket.send("1");
        await closes(socket);
    },

    // Of two polls of one session at once, one is wrong, and so is the session.
    async two_polls(url) {
        const session = await open(url, E);
        const statuses = (await Promise.all([get(session.url), get(session.url)])).map(({ status }) => status);
        assert.deepEqual(statuses.sort(), [200, 400]);
        await unknown(session);
    },

    async websocket(url) {
        const socket = await websocket(url, E);
        assert.equal((await socket.next())[0], "0");
        socket.send("4hello");
        assert.equal(await socket.next(), "4hello");
        socket.send(Buffer.from([1, 2, 3]));
        assert.deepEqual([...(await socket.next())], [1, 2, 3]);
        socket.send("abc");
        await closes(socket);
    },

    async upgrade(url) {
        const session = await open(url, E);
        const polled = get(session.url);
        const socket = await websocket(url, E, session.sid);
        socket.send("2probe");
        assert.equal(await socket.next(), "3probe");
        // The poll that waits is let go.
        assert.equal((await polled).text, "6");
        socket.send("5");
        socket.send("4hello");
        assert.equal(await socket.next(), "4hello");
        // From now on the session is the WebSocket's.
        assert.equal((await get(session.url)).status, 400);
        assert.equal((await post(session.url, "4x")).status, 400);
        const second = await websocket(url, E, session.sid);
        await closes(second);
        socket.send("4still here");
        assert.equal(await socket.next(), "4still here");
    },

    async upgrade_of_nobody(url) {
        for (const sid of ["AAAAAAAAAAAAAAHs", "AAAAAAAAAAAAAAHs.1"]) {
            const socket = await websocket(url, E, sid);
            await closes(socket);
        }
    },

    async connect(url) {
        const session = await open(url, S);
        await post(session.url, '40{"token":"123"}');
        const packets = [];
        while (packets.length < 2) packets.push(...(await poll(session)));
        assert.match(packets[0], /^40\{"sid":"[^"]+"\}$/);
        assert.equal(packets[1], '42["auth",{"token":"123"}]');
        await post(session.url, "40/custom,");
        const custom = [];
        while (custom.length < 2) custom.push(...(await poll(session)));
        assert.match(custom[0], /^40\/custom,\{"sid":"[^"]+"\}$/);
        assert.equal(custom[1], '42/custom,["auth",{}]');
        await post(session.url, "40/random,");
        assert.deepEqual(await poll(session), ['44/random,{"message":"Invalid namespace"}']);
    },

    async events(url) {
        const socket = await websocket(url, S);
        await socket.next();
        socket.send("40");
        await socket.next();
        assert.equal(await socket.next(), '42["auth",{}]');
        socket.send('42["message",1,"2",{"3":[true]}]');
        assert.equal(await socket.next(), '42["message-back",1,"2",{"3":[true]}]');
        socket.send('42456["message-with-ack",1,"2",{"3":[false]}]');
        assert.equal(await socket.next(), '43456[1,"2",{"3":[false]}]');
        socket.send('452-["message",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]');
        socket.send(Buffer.from([1, 2, 3]));
        socket.send(Buffer.from([4, 5, 6]));
        assert.equal(await socket.next(), '452-["message-back",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]');
        assert.deepEqual([...(await socket.next())], [1, 2, 3]);
        assert.deepEqual([...(await socket.next())], [4, 5, 6]);
        socket.send("41");
        // The engine's session goes on without the namespace's.
        socket.answersPings = false;
        assert.equal(await socket.next(), "2");
    },

    async nobody_connects(url) {
        const socket = await websocket(url, S);
        await socket.next();
        await closes(socket);
    },

    async wrong_packets(url) {
        for (const packet of ["4abc", "49", '42["message"']) {
            const socket = await websocket(url, S);
            await socket.next();
            socket.send(packet);
            await closes(socket);
        }
    },
};

await main(cases);
