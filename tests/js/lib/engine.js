// Engine.IO by hand: one request at a time, so that it is known on which connection each went.
import http from "node:http";

// Longer than any answer takes, a poll's too: the server pings.
const PATIENCE = 40_000;

/** An agent that keeps one connection, or one that keeps none. */
export const oneConnection = () => new http.Agent({ keepAlive: true, maxSockets: 1 });
export const newConnections = () => new http.Agent({ keepAlive: false });

/** One request; answers status, headers, body and the connection it went on. A unix socket takes the place of the host. */
export function request(url, { method = "GET", body, agent, headers = {}, socketPath } = {}) {
    return new Promise((resolve, reject) => {
        const sent = http.request(url, { method, agent, headers, socketPath }, (response) => {
            const socket = response.socket;
            let text = "";
            response.setEncoding("utf8");
            response.on("data", (part) => (text += part));
            response.on("end", () => resolve({ status: response.statusCode, headers: response.headers, text, socket }));
            response.on("error", reject);
        });
        sent.on("error", reject);
        sent.setTimeout(PATIENCE, () => sent.destroy(new Error(`${method} ${url}: no answer within ${PATIENCE} ms`)));
        sent.end(body);
    });
}

/** A polling session by hand. */
export class Session {
    constructor(base, agent, path = "/socket.io/") {
        this.base = `${base}${path}?EIO=4&transport=polling`;
        this.agent = agent;
        this.answers = [];
    }

    async open() {
        const answer = await this.checked(request(this.base, { agent: this.agent }));
        if (!answer.text.startsWith("0{")) throw new Error(`no handshake: ${answer.text}`);
        this.handshake = JSON.parse(answer.text.slice(1));
        this.sid = this.handshake.sid;
        return this;
    }

    get url() {
        return `${this.base}&sid=${encodeURIComponent(this.sid)}`;
    }

    async post(packet) {
        const answer = await this.checked(request(this.url, { method: "POST", body: packet, agent: this.agent }));
        if (answer.text !== "ok") throw new Error(`POST: ${answer.text}`);
    }

    /** The packets of the next poll. */
    async poll() {
        return (await this.checked(request(this.url, { agent: this.agent }))).text.split("\x1e");
    }

    /** Polls until there is such a packet, and returns it. Answers pings meanwhile: without that a slow session ends. */
    async find(wanted) {
        for (let polls = 0; polls < 20; polls++) {
            const packets = await this.poll();
            if (packets.includes("2")) await this.post("3");
            const found = packets.find((packet) => packet.startsWith(wanted));
            if (found) return found;
        }
        throw new Error(`no ${wanted} came`);
    }

    async checked(promise) {
        const answer = await promise;
        this.answers.push(answer);
        if (answer.status !== 200) throw new Error(`${answer.status}: ${answer.text}`);
        return answer;
    }
}
