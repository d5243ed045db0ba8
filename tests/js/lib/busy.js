// Clients that always have something under way, whatever becomes of their connections.
import assert from "node:assert/strict";
import { connected } from "./client.js";

// How often each says something.
const PAUSE = 20;

// The client's own: an event is sent again when it is connected anew, or has no acknowledgement for so long.
const INSIST = { retries: 1_000, ackTimeout: 10_000 };

/** A client that counts, aloud: each number is an event, to be acknowledged by itself. */
export class Busy {
    static async connected(url, settings) {
        const busy = new Busy();
        busy.socket = await connected(url, { ...settings, ...INSIST });
        busy.listen();
        busy.say();
        return busy;
    }

    said = 0;
    acknowledged = [];
    reasons = new Set();
    refused = [];
    /** How many of its sessions have ended, and what it was told of those that it asked for after that. */
    ended = 0;
    told = [];
    done = false;

    listen() {
        const { socket } = this;
        socket.on("disconnect", (reason) => this.reasons.add(reason));
        socket.on("connect_error", ({ message, context }) => this.refused.push(context?.responseText || message));
        socket.io.on("reconnect_failed", () => this.refused.push("it has given up"));
        socket.io.on("open", () => this.follow(socket.io.engine));
        this.follow(socket.io.engine);
    }

    follow(engine) {
        engine.on("close", (_, error) => {
            this.ended += 1;
            if (error?.context?.responseText) this.told.push(error.context.responseText);
        });
    }

    say() {
        if (this.done) return;
        const number = this.said++;
        this.socket.emit("message-with-ack", number, (error, ...back) => {
            this.acknowledged.push(error ?? back[0]);
            setTimeout(() => this.say(), PAUSE);
        });
    }

    /** Whether all that it has said is acknowledged. */
    get isHeard() {
        return this.acknowledged.length === this.said;
    }

    check() {
        assert.deepEqual(this.acknowledged, Array.from({ length: this.said }, (_, number) => number));
        // Told by the server to go, a client would not come back by itself.
        assert.deepEqual([...this.reasons].filter((reason) => !["transport close", "transport error"].includes(reason)), []);
        assert.deepEqual(this.refused, [], "whoever connects anew is let in at once");
    }
}
