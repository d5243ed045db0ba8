// Polling sessions by hand: `node sessions.js CASE URL WORKERS`.
import assert from "node:assert/strict";
import { main } from "./lib/client.js";
import { newConnections, oneConnection, request, Session } from "./lib/engine.js";

const SESSIONS = 300;
const ROUNDS = 10;

/** So many at once as a crowd of clients would be; each counts its own failures. */
async function crowd(count, atOnce, act) {
    let started = 0;
    const failures = [];
    const one = async () => {
        while (started < count) {
            const number = started++;
            await act(number).catch((error) => failures.push(error.message));
        }
    };
    await Promise.all(Array.from({ length: atOnce }, one));
    return failures;
}

/** A handshake, and at once what follows it: the worker must not have to hear of the session first. */
async function handshakeAndPost(url, agent) {
    const session = await new Session(url, agent).open();
    await session.post("40");
    await session.find('40{"sid":"');
    return session;
}

async function race(url, agentOf) {
    for (let round = 0; round < ROUNDS; round++) {
        const failures = await crowd(SESSIONS, 30, async (number) => {
            const session = await handshakeAndPost(url, agentOf(number));
            await session.post("41");
            await session.post("1");
        });
        assert.deepEqual(failures, [], `${failures.length} of ${SESSIONS} in round ${round}`);
    }
}

/** The slot that a tagged id names. */
const slotOf = (session) => Number(session.sid.split(".")[1]);

const cases = {
    // The application's own routes, and what goes around all of them.
    async beside(url) {
        const agent = newConnections();
        assert.match((await request(`${url}/`, { agent })).text, /^worker: \d+$/);
        assert.equal((await request(`${url}/socket.io-admin/`, { agent })).status, 404);
        const polling = `${url}/socket.io/?EIO=4&transport=polling`;
        const origin = "http://elsewhere.test";
        const answer = await request(polling, { agent, headers: { origin } });
        assert.equal(answer.headers["access-control-allow-origin"], origin);
        const asked = { origin, "access-control-request-method": "POST", "access-control-request-headers": "content-type" };
        const allowed = await request(polling, { agent, method: "OPTIONS", headers: asked });
        assert.equal(allowed.status, 200);
        assert.match(allowed.headers["access-control-allow-methods"], /POST/);
        assert.match(allowed.headers["access-control-allow-headers"], /content-type/i);
        const session = await handshakeAndPost(url, agent);
        const tooMuch = await request(session.url, { agent, method: "POST", body: `4${"x".repeat(1_000_000)}` });
        assert.equal(tooMuch.status, 413);
    },

    async race_over_new_connections(url) {
        const agent = newConnections();
        await race(url, () => agent);
    },

    async race_over_shared_connections(url) {
        // A dozen kept-alive connections that carry everybody's requests as they come.
        const agents = Array.from({ length: 12 }, oneConnection);
        await race(url, (number) => agents[number % agents.length]);
        agents.forEach((agent) => agent.destroy());
    },

    // Several sessions of different workers, request by request in turn on one connection, which nobody closes.
    async one_connection(url, workers) {
        const agent = oneConnection();
        const sessions = [];
        for (let number = 0; number < 3 * workers; number++) sessions.push(await handshakeAndPost(url, agent));
        assert.equal(new Set(sessions.map(slotOf)).size, Number(workers), "on every worker");
        for (let round = 0; round < 20; round++) {
            for (const [number, session] of sessions.entries()) {
                await session.post(`42["message",${round},${number}]`);
                assert.equal(await session.find('42["message-back"'), `42["message-back",${round},${number}]`);
                await session.post('420["whoami"]');
                assert.equal(await session.find("430"), `430[${slotOf(session)}]`);
            }
        }
        const answers = sessions.flatMap((session) => session.answers);
        assert.equal(new Set(answers.map(({ socket }) => socket)).size, 1, "one connection from the first to the last");
        answers.forEach(({ headers }) => assert.notEqual(headers.connection, "close"));
        agent.destroy();
    },

    // What nobody can have a session by gets Socket.IO's own answer, from whoever it reaches.
    async unknown_ids(url, workers) {
        const agent = newConnections();
        const session = await handshakeAndPost(url, agent);
        const [id] = session.sid.split(".");
        const other = (slotOf(session) + 1) % workers;
        const elsewhere = `${id}.${other}`;
        const never = ["AAAAAAAAAAAAAAHs", "AAAAAAAAAAAAAAHs.0", "AAAAAAAAAAAAAAHs.255", "AAAAAAAAAAAAAAHs.x", ".", "", "x".repeat(300)];
        for (const sid of [elsewhere, ...never]) {
            for (const method of ["GET", "POST"]) {
                const target = `${url}/socket.io/?EIO=4&transport=polling&sid=${encodeURIComponent(sid)}`;
                const answer = await request(target, { method, body: method === "POST" ? "40" : undefined, agent });
                assert.equal(answer.status, 400, `${method} ${sid}: ${answer.text}`);
                assert.deepEqual(JSON.parse(answer.text), { code: "1", message: "Session ID unknown" }, sid);
            }
        }
        // Look-alikes lead nobody astray.
        for (const query of [`mysid=AAAAAAAAAAAAAAHs.${other}&sid=${session.sid}`, `sid=${session.sid}&sid=AAAAAAAAAAAAAAHs.${other}`]) {
            const target = `${url}/socket.io/?EIO=4&transport=polling&${query}`;
            const answer = await request(target, { method: "POST", body: '42["message","x"]', agent });
            assert.equal(answer.text, "ok", query);
        }
        await session.find('42["message-back"');
    },

    // Only the handshake of a polling session says an id with a tag, and what it says is well formed.
    async tags(url, workers) {
        const agent = newConnections();
        for (let number = 0; number < 20; number++) {
            const answer = await request(`${url}/socket.io/?EIO=4&transport=polling`, { agent });
            assert.equal(answer.headers["content-length"], String(Buffer.byteLength(answer.text)));
            const { sid, ...rest } = JSON.parse(answer.text.slice(1));
            assert.match(sid, /^[A-Za-z0-9_-]{16}\.\d+$/);
            assert.ok(Number(sid.split(".")[1]) < workers);
            assert.deepEqual(Object.keys(rest).sort(), ["maxPayload", "pingInterval", "pingTimeout", "upgrades"]);
        }
        const old = await request(`${url}/socket.io/?EIO=3&transport=polling`, { agent });
        assert.match(JSON.parse(old.text.slice(old.text.indexOf("{"), old.text.lastIndexOf("}") + 1)).sid, /^[A-Za-z0-9_-]{16}$/);
        const head = await request(`${url}/socket.io/?EIO=4&transport=polling`, { method: "POST", agent });
        assert.equal(head.status, 400);
    },
};

await main(cases);
