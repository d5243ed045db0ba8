// What the scripts share: clients that are closed at the end, waits that end, and cases by name.
import { io as io4 } from "socket.io-client";
import { io as io3 } from "socket.io-client-3";
import io2 from "socket.io-client-2";

const VERSIONS = { 2: io2, 3: io3, 4: io4 };

// No wait may be longer: a case that hangs fails with its name.
const PATIENCE = Number(process.env.PATIENCE ?? 20_000);

// A whole case may take so long on a busy machine.
const WHOLE = 280_000;

const open = new Set();

/** A client of its own connection manager. Settings are the client's; `version` is the client's, too. */
export function connect(url, { version = 4, ...settings } = {}) {
    const socket = VERSIONS[version](url, { forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 200, ...settings });
    open.add(socket);
    return socket;
}

/** Ends a client before the end of the case. */
export function close(socket) {
    socket.close();
    open.delete(socket);
}

/** The promise's value, unless it takes too long. */
export function soon(what, promise, patience = PATIENCE) {
    let timer;
    const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`${what}: nothing within ${patience} ms`)), patience);
    });
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** The arguments of the next event of this name. */
export function next(socket, event) {
    return soon(event, new Promise((resolve) => socket.once(event, (...all) => resolve(all))));
}

/** What the server acknowledges. */
export function ask(socket, event, ...all) {
    return soon(`the acknowledgement of ${event}`, new Promise((resolve) => socket.emit(event, ...all, resolve)));
}

/** A client that has its namespace. */
export async function connected(url, settings) {
    const socket = connect(url, settings);
    socket.on("connect_error", (error) => (socket.lastError = error));
    await next(socket, "connect").catch((late) => {
        throw socket.lastError ?? late;
    });
    return socket;
}

/** Clients until each worker has one, by worker. The others stay until then: new ones go where there are few. */
export async function oneOnEach(url, workers, settings) {
    const found = new Map();
    const others = [];
    while (found.size < workers) {
        if (others.length > 20 * workers) throw new Error(`only these workers answer: ${[...found.keys()]}`);
        const socket = await connected(url, settings);
        const worker = await ask(socket, "whoami");
        if (found.has(worker)) others.push(socket);
        else found.set(worker, socket);
    }
    others.forEach(close);
    return found;
}

/** Until it holds; looks again after a while. */
export async function until(what, holds, patience = PATIENCE) {
    const end = Date.now() + patience;
    while (!(await holds())) {
        if (Date.now() > end) throw new Error(`${what}: not within ${patience} ms`);
        await new Promise((resolve) => setTimeout(resolve, 10));
    }
}

/** Runs the case that the command line names; its arguments follow. Prints nothing unless it fails. */
export async function main(cases) {
    const [name, ...rest] = process.argv.slice(2);
    const test = cases[name];
    if (!test) throw new Error(`${name} is none of ${Object.keys(cases)}`);
    const watchdog = setTimeout(() => fail(new Error(`${name} takes too long`)), WHOLE);
    try {
        await test(...rest);
    } catch (error) {
        fail(error);
    }
    clearTimeout(watchdog);
    open.forEach((socket) => socket.close());
    // What a case leaves behind must not keep the process.
    process.exit(0);
}

function fail(error) {
    console.error(error);
    process.exit(1);
}
