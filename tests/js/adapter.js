// What reaches whom across workers: `node adapter.js CASE URL WORKERS`, PARSER=msgpack for the other parser.
import assert from "node:assert/strict";
import msgpack from "socket.io-msgpack-parser";
import { ask, close, connected, main, next, oneOnEach, soon, until } from "./lib/client.js";

const parser = process.env.PARSER === "msgpack" ? msgpack : undefined;
const settings = { parser, transports: ["websocket"] };

/** Longer than any answer takes that is on its way; shorter than what nobody answers. */
const AT_ONCE = 1_500;

/** Two clients on each worker, all of which note what they hear. */
async function everybody(url, workers, path = "") {
    const first = await oneOnEach(url, workers, settings);
    const second = await oneOnEach(url, workers, settings);
    const all = [];
    for (const worker of first.keys()) {
        for (const socket of [first.get(worker), second.get(worker)]) all.push(await member(socket, worker, path));
    }
    return all;
}

async function member(socket, worker, path) {
    const there = path ? socket.io.socket(path, {}) : socket;
    if (path) await next(there, "connect");
    const found = { socket: there, worker, id: there.id, heard: [] };
    there.on("news", (...args) => found.heard.push(args));
    there.on("question", (value, answer) => found.answer?.(value, answer));
    return found;
}

/** Has the server of this client do something; answers what came of it. */
async function run(member, { data = null, ...command }) {
    const done = await ask(member.socket, "do", command, data);
    assert.equal(done.error, undefined, `${JSON.stringify(command)}: ${done.error}`);
    return done;
}

const join = (member, ...rooms) => ask(member.socket, "join", rooms);

/** Everything on its way to anybody has arrived: each worker emits one more thing to all, which comes after it. */
async function settled(all) {
    const workers = new Map(all.map((member) => [member.worker, member]));
    const expected = workers.size;
    const marks = all.map(({ socket }) => {
        let count = 0;
        return soon("a mark", new Promise((resolve) => {
            const hear = () => ++count === expected && (socket.off("mark", hear), resolve());
            socket.on("mark", hear);
        }));
    });
    for (const member of workers.values()) await run(member, { act: "emit", event: "mark" });
    await Promise.all(marks);
}

/** Asserts that exactly these have heard exactly this, once. */
async function heard(all, who, ...args) {
    await settled(all);
    const wrong = all.filter((member) => {
        const expected = who.includes(member) ? [args] : [];
        try {
            assert.deepEqual(member.heard.map((one) => one.map(plain)), expected.map((one) => one.map(plain)));
            return false;
        } catch {
            return true;
        }
    });
    const say = (member) => `${all.indexOf(member)} (worker ${member.worker}) has heard ${JSON.stringify(member.heard)}`;
    assert.deepEqual(wrong.map(say), [], `meant for ${who.map((member) => all.indexOf(member))}`);
    all.forEach((member) => (member.heard = []));
}

/** Bytes as numbers, wherever they are. */
function plain(value) {
    if (value instanceof Uint8Array || value instanceof ArrayBuffer) return [...new Uint8Array(value)];
    if (Array.isArray(value)) return value.map(plain);
    if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, plain(one)]));
    return value;
}

const ids = (members) => members.map(({ id }) => id).sort();
const found = (done) => done.sockets.map(({ id }) => id).sort();

const cases = {
    async emit_to_all(url, workers) {
        const all = await everybody(url, workers);
        for (const from of [all[0], all.at(-1)]) {
            await run(from, { act: "emit", event: "news", data: "hello" });
            await heard(all, all, "hello");
            await run(from, { act: "emit", event: "news", data: "hello", others: true });
            await heard(all, all.filter((other) => other !== from), "hello");
        }
    },

    async emit_to_a_namespace(url, workers) {
        const all = await everybody(url, workers);
        const custom = await everybody(url, workers, "/custom");
        await run(all[0], { act: "emit", event: "news", data: 1 });
        await heard([...all], all, 1);
        await heard([...custom], []);
        await run(custom[1], { act: "emit", event: "news", data: 2 });
        await heard([...custom], custom, 2);
        await heard([...all], []);
        assert.deepEqual(found(await run(custom[0], { act: "fetch" })), ids(custom));
    },

    async emit_to_rooms(url, workers) {
        const all = await everybody(url, workers);
        const [a, b, c, d] = all;
        await join(a, "one", "two");
        await join(c, "one");
        await join(d, "two");
        await run(b, { act: "emit", to: ["one"], event: "news", data: "x" });
        await heard(all, [a, c], "x");
        await run(b, { act: "emit", to: ["one", "two"], event: "news", data: "x" });
        await heard(all, [a, c, d], "x");
        await run(a, { act: "emit", to: ["one"], event: "news", data: "x", others: true });
        await heard(all, [c], "x");
        await run(a, { act: "emit", to: ["nobody"], event: "news", data: "x" });
        await heard(all, []);
    },

    async emit_except_rooms(url, workers) {
        const all = await everybody(url, workers);
        const [a, b, c, d] = all;
        await join(a, "one", "two");
        await join(c, "one");
        await join(d, "two");
        const without = (...some) => all.filter((member) => !some.includes(member));
        await run(b, { act: "emit", except: ["one"], event: "news", data: 1 });
        await heard(all, without(a, c), 1);
        await run(b, { act: "emit", except: ["one", "two"], event: "news", data: 1 });
        await heard(all, without(a, c, d), 1);
        await run(c, { act: "emit", to: ["one"], except: ["two"], event: "news", data: 1 });
        await heard(all, [c], 1);
    },

    async emit_locally(url, workers) {
        const all = await everybody(url, workers);
        for (const from of all) {
            await run(from, { act: "emit", local: true, event: "news", data: "here" });
            await heard(all, all.filter(({ worker }) => worker === from.worker), "here");
        }
        assert.deepEqual(found(await run(all[0], { act: "fetch", local: true })), ids(all.slice(0, 2)));
    },

    async emit_volatile(url, workers) {
        const all = await everybody(url, workers);
        await run(all[0], { act: "emit", volatile: true, event: "news", data: "may be lost" });
        await heard(all, all, "may be lost");
    },

    async emit_binary(url, workers) {
        const all = await everybody(url, workers);
        const bytes = Buffer.from(Array.from({ length: 256 }, (_, index) => index));
        const data = { whole: bytes, parts: [Buffer.from([1]), "text", { deep: Buffer.from([0, 255]) }] };
        await run(all[1], { act: "emit", event: "news", data });
        await heard(all, all, data);
        await run(all[1], { act: "emit", event: "news", data: "ü\u{1f600}".repeat(1000) });
        await heard(all, all, "ü\u{1f600}".repeat(1000));
    },

    // One after the other, and each once, from each worker.
    async order(url, workers) {
        const all = await everybody(url, workers);
        const froms = [...new Map(all.map((member) => [member.worker, member])).values()];
        const count = 100;
        await Promise.all(froms.map(async (from) => {
            for (let number = 0; number < count; number++) {
                await run(from, { act: "emit", event: "news", data: [from.worker, number] });
            }
        }));
        await settled(all);
        for (const member of all) {
            for (const from of froms) {
                const numbers = member.heard.map(([said]) => said).filter(([worker]) => worker === from.worker).map(([, number]) => number);
                assert.deepEqual(numbers, Array.from({ length: count }, (_, index) => index));
            }
        }
    },

    async acks_of_many(url, workers) {
        const all = await everybody(url, workers);
        all.forEach((member) => (member.answer = (value, answer) => answer([member.id, value])));
        const { acks } = await run(all[0], { act: "ack", event: "question", data: 7, timeout: 15_000 });
        const expected = ids(all).map((id) => ({ id, value: [id, 7] }));
        assert.deepEqual(acks.toSorted((a, b) => (a.id < b.id ? -1 : 1)), expected);
        const bytes = Buffer.from([1, 2, 255]);
        all.forEach((member) => (member.answer = (value, answer) => answer(value)));
        const done = await run(all[3], { act: "ack", event: "question", data: bytes, others: true, timeout: 15_000 });
        assert.equal(done.acks.length, all.length - 1);
        done.acks.forEach(({ value }) => assert.deepEqual(plain(value), [1, 2, 255]));
    },

    async acks_of_none(url, workers) {
        const all = await everybody(url, workers);
        const begun = Date.now();
        const { acks } = await run(all[0], { act: "ack", to: ["nobody"], event: "question", timeout: 15_000 });
        assert.deepEqual(acks, []);
        assert.ok(Date.now() - begun < AT_ONCE, "nobody is waited for");
    },

    async acks_of_some(url, workers) {
        const all = await everybody(url, workers);
        const silent = [all[1], all.at(-1)];
        all.forEach((member) => (member.answer = (value, answer) => silent.includes(member) || answer("yes")));
        const { acks } = await run(all[0], { act: "ack", event: "question", timeout: 300 });
        const answered = acks.filter(({ value }) => value === "yes").map(({ id }) => id).sort();
        assert.deepEqual(answered, ids(all.filter((member) => !silent.includes(member))));
        assert.deepEqual(acks.filter(({ error }) => error).map(({ id }) => id).sort(), ids(silent));
    },

    async fetch(url, workers) {
        const all = await everybody(url, workers);
        const [a, b, , d] = all;
        await join(a, "one");
        await join(d, "one", "two");
        const done = await run(b, { act: "fetch" });
        assert.deepEqual(found(done), ids(all));
        assert.equal(new Set(done.sockets.map(({ server }) => server)).size, Number(workers));
        assert.deepEqual(found(await run(b, { act: "fetch", to: ["one"] })), ids([a, d]));
        assert.deepEqual(found(await run(b, { act: "fetch", to: ["one"], except: ["two"] })), ids([a]));
        assert.deepEqual(found(await run(b, { act: "fetch", to: ["nobody"] })), []);
        assert.deepEqual((await run(b, { act: "rooms" })).rooms.filter((room) => ["one", "two"].includes(room)).sort(), ["one", "two"]);
    },

    async join_and_leave(url, workers) {
        const all = await everybody(url, workers);
        const there = async (room) => found(await run(all[0], { act: "fetch", to: [room] }));
        await run(all[2], { act: "join", rooms: ["a", "b"] });
        await until("all are in", async () => (await there("a")).length === all.length);
        assert.deepEqual(await there("b"), ids(all));
        await join(all[1], "x");
        await join(all[4], "x");
        await run(all[3], { act: "join", to: ["x"], rooms: ["c"] });
        await until("those are in", async () => (await there("c")).length === 2);
        assert.deepEqual(await there("c"), ids([all[1], all[4]]));
        await run(all[5], { act: "leave", to: ["x"], rooms: ["a"] });
        await until("they have left", async () => (await there("a")).length === all.length - 2);
        await run(all[5], { act: "leave", rooms: ["b"] });
        await until("all have left", async () => (await there("b")).length === 0);
        await run(all[0], { act: "emit", to: ["c"], event: "news", data: 1 });
        await heard(all, [all[1], all[4]], 1);
    },

    async disconnect(url, workers) {
        const all = await everybody(url, workers);
        await join(all[1], "x");
        await join(all[4], "x");
        const gone = [all[1], all[4]].map(({ socket }) => next(socket, "disconnect"));
        await run(all[0], { act: "disconnect", to: ["x"] });
        for (const [reason] of await Promise.all(gone)) assert.equal(reason, "io server disconnect");
        const left = all.filter((member) => ![all[1], all[4]].includes(member));
        await until("they are gone", async () => found(await run(all[0], { act: "fetch" })).length === left.length);
        const rest = left.slice(1).map(({ socket }) => next(socket, "disconnect"));
        await run(all[0], { act: "disconnect", others: true });
        await Promise.all(rest);
        await until("only one is left", async () => found(await run(all[0], { act: "fetch" })).length === 1);
        assert.deepEqual(found(await run(all[0], { act: "fetch" })), [all[0].id]);
    },

    // One socket, wherever it is, by what fetch has told of it.
    async remote_socket(url, workers) {
        const all = await everybody(url, workers);
        for (const there of [all.at(-1), all[1]]) {
            const remote = there.id;
            await run(all[0], { act: "emit", remote, event: "news", data: "for you" });
            await heard(all, [there], "for you");
            there.answer = (value, answer) => answer(value + 1);
            assert.deepEqual((await run(all[0], { act: "ack", remote, event: "question", data: 1 })).acks, [{ id: remote, value: 2 }]);
            await run(all[0], { act: "join", remote, rooms: ["mine"] });
            const rooms = async () => (await run(all[0], { act: "rooms", remote })).rooms;
            await until("it has joined", async () => (await rooms()).includes("mine"));
            await run(all[0], { act: "emit", to: ["mine"], event: "news", data: "in your room" });
            await heard(all, [there], "in your room");
            await run(all[0], { act: "leave", remote, rooms: ["mine"] });
            await until("it has left", async () => !(await rooms()).includes("mine"));
            const gone = next(there.socket, "disconnect");
            await run(all[0], { act: "disconnect", remote });
            assert.deepEqual(await gone.then(([reason]) => reason), "io server disconnect");
            const done = await ask(all[0].socket, "do", { act: "emit", remote, event: "news" }, null);
            assert.ok(done.error === "no such socket" || done.error === undefined);
            all.splice(all.indexOf(there), 1);
        }
        await heard(all, []);
    },

    // Right after a worker's death nobody waits for its answer, and its sockets are not among those found.
    async fetch_after_a_death(url, workers) {
        const times = [];
        for (let tries = 0; tries < 3; tries++) {
            const all = await everybody(url, workers);
            const victim = all[0].worker;
            const left = all.filter(({ worker }) => worker !== victim);
            const pid = await ask(all[0].socket, "pid");
            all.filter(({ worker }) => worker === victim).forEach(({ socket }) => socket.io.reconnection(false));
            const died = Date.now();
            process.kill(pid, "SIGKILL");
            for (;;) {
                const asked = Date.now();
                const ids_found = found(await run(left[0], { act: "fetch" }));
                assert.ok(Date.now() - asked < AT_ONCE, "nobody waits for the dead");
                if (JSON.stringify(ids_found) === JSON.stringify(ids(left))) break;
                assert.ok(Date.now() - died < AT_ONCE, `${ids_found} are not ${ids(left)}`);
            }
            times.push(Date.now() - died);
            all.forEach(({ socket }) => close(socket));
            await until("it is there again", async () => {
                const some = await oneOnEach(url, workers, settings).catch(() => null);
                some?.forEach((socket) => close(socket));
                return some !== null;
            });
        }
        // The best of several: the others may have met a busy machine.
        assert.ok(Math.min(...times) <= 100, `right only after ${times} ms`);
    },

    // A worker that does not answer is not waited for any longer once it dies.
    async death_while_others_wait(url, workers) {
        const all = await everybody(url, workers);
        const victim = all[0].worker;
        const [left, lost] = [all.filter(({ worker }) => worker !== victim), all.filter(({ worker }) => worker === victim)];
        const pid = await ask(all[0].socket, "pid");
        lost.forEach(({ socket }) => socket.io.reconnection(false));
        // Its clients have the question and do not answer; those of the others do.
        all.forEach((member) => (member.answer = (value, answer) => lost.includes(member) || answer("yes")));
        const asked = lost.map(({ socket }) => next(socket, "question"));
        const acks = run(left[0], { act: "ack", event: "question", timeout: 15_000 });
        await Promise.all(asked);
        // What that worker answers to this comes after the number of acknowledgements that it owes.
        assert.deepEqual(found(await run(left[1], { act: "fetch" })), ids(all));
        process.kill(pid, "SIGSTOP");
        const fetched = run(left[1], { act: "fetch" });
        const died = Date.now();
        process.kill(pid, "SIGKILL");
        assert.deepEqual(found(await fetched), ids(left));
        const done = await acks;
        assert.ok(Date.now() - died < AT_ONCE, `${Date.now() - died} ms`);
        assert.deepEqual(done.acks.filter(({ value }) => value === "yes").map(({ id }) => id).sort(), ids(left));
        assert.equal(done.acks.filter(({ error }) => error).length, lost.length, "what is lost is said");
    },

    // After everything between the servers was gone for a while.
    async heard_again(url, workers) {
        const all = await everybody(url, workers);
        await until("everybody hears again", async () => {
            await ask(all[0].socket, "do", { act: "emit", event: "news" }, "again");
            return all.every(({ heard }) => heard.length > 0);
        });
    },

    // What a server tells the others reaches each of them once, in order, and not itself.
    async server_side(url, workers) {
        const all = [...(await oneOnEach(url, Number(workers), settings))].map(([worker, socket]) => ({ worker, socket, heard: [] }));
        for (const { socket, heard } of all) socket.on("noted", (from, what) => heard.push([from, what]));
        const said = (what) => all.map(({ worker }) => [worker, what]);
        for (const what of [1, { text: "two", bytes: [3] }]) {
            for (const { socket } of all) assert.equal(await ask(socket, "tell-servers", what), true);
        }
        for (const { worker, heard } of all) {
            const others = [...said(1), ...said({ text: "two", bytes: [3] })].filter(([from]) => from !== worker);
            await until("every server has been told", () => heard.length >= others.length);
            // Each in its order; those of different servers in any.
            for (const { worker: from } of all) {
                const of = (notes) => notes.filter(([by]) => by === from);
                assert.deepEqual(of(heard), of(others));
            }
        }
    },

    // Another application on the same Redis, of which nothing is to be heard here.
    async apart(url, workers, other) {
        const [here, there] = [await everybody(url, workers), await everybody(other, workers)];
        for (const all of [here, there]) {
            assert.deepEqual(found(await run(all[0], { act: "fetch" })), ids(all));
            await run(all[0], { act: "emit", event: "news", data: "ours" });
            await heard(all, all, "ours");
        }
        await heard(here, []);
    },

    // A worker that is there and does not answer is waited for, but not for ever.
    async silence(url, workers) {
        const all = await everybody(url, workers);
        const victim = all[0].worker;
        const left = all.filter(({ worker }) => worker !== victim);
        const pid = await ask(all[0].socket, "pid");
        process.kill(pid, "SIGSTOP");
        const asked = Date.now();
        assert.deepEqual(found(await run(left[0], { act: "fetch" })), ids(left));
        assert.ok(Date.now() - asked < 5_000, `${Date.now() - asked} ms`);
        process.kill(pid, "SIGCONT");
        await until("it is heard again", async () => found(await run(left[0], { act: "fetch" })).length === all.length);
    },
};

await main(cases);
