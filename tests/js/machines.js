// Two clusters behind a balancer: `node machines.js CASE URL WORKERS PIDS PIDS`, the workers' pids of each.
import assert from "node:assert/strict";
import http from "node:http";
import { ask, connected, main, next, until } from "./lib/client.js";

/** A client from an address of its own. */
function from(url, number, transports) {
    const agent = new http.Agent({ keepAlive: true, localAddress: `127.0.0.${number}` });
    return connected(url, { transports, agent, localAddress: `127.0.0.${number}` });
}

const cases = {
    async rooms_span_machines(url, workers, ...machines) {
        const pids = machines.map((list) => list.split(",").map(Number));
        for (const transports of [["polling"], ["websocket"], undefined]) {
            const members = [];
            const missing = () => pids.some((all) => members.filter(({ pid }) => all.includes(pid)).length < 2);
            for (let number = 2; missing(); number++) {
                assert.ok(number < 200, "every client is on one machine");
                const socket = await from(url, number, transports);
                const member = { socket, pid: await ask(socket, "pid"), heard: [] };
                assert.ok(pids.flat().includes(member.pid));
                socket.on("news", (said) => member.heard.push(said));
                members.push(member);
            }
            await Promise.all(members.map(({ socket }) => ask(socket, "join", ["room"])));
            for (const { socket } of members) {
                const done = await ask(socket, "do", { act: "emit", to: ["room"], event: "news" }, socket.id);
                assert.equal(done.error, undefined);
            }
            const all = members.map(({ socket }) => socket.id).sort();
            await until("everybody has heard everybody", () => members.every(({ heard }) => heard.length >= all.length));
            members.forEach(({ heard }) => assert.deepEqual(heard.toSorted(), all));
            const { sockets } = await ask(members[0].socket, "do", { act: "fetch", to: ["room"] }, null);
            assert.deepEqual(sockets.map(({ id }) => id).sort(), all);
            const { acks } = await (async () => {
                members.forEach(({ socket }) => socket.once("question", (_, answer) => answer(socket.id)));
                return ask(members[0].socket, "do", { act: "ack", to: ["room"], event: "question", timeout: 10_000 }, null);
            })();
            assert.deepEqual(acks.map(({ value }) => value).sort(), all);
            const gone = members.map(({ socket }) => next(socket, "disconnect"));
            await ask(members[0].socket, "do", { act: "disconnect", to: ["room"], others: true }, null);
            await Promise.all(gone.slice(1));
            members.forEach(({ socket }) => socket.close());
        }
    },
};

await main(cases);
