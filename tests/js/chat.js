// The chat in browsers: `node chat.js CASE URL WORKERS`. With SHOTS it leaves pictures in that folder.
import assert from "node:assert/strict";
import { main } from "./lib/client.js";
import { DESK, PHONE, person, withBrowser } from "./lib/browser.js";

const SHOTS = process.env.SHOTS;

/** Somebody in the chat: the page, once the room has been joined. */
async function guest(context, url, name, query = "", room = "lobby") {
    const page = await context.newPage();
    page.on("pageerror", (error) => (page.lastError = error));
    await page.goto(`${url}/?name=${name}${query}#${room}`);
    await page.waitForSelector('#status[data-state="on"]');
    return page;
}

const workerOf = async (page) => Number((await page.textContent("#state")).match(/worker (\d+)/)[1]);

/** Two people in browsers of their own, on different workers. */
async function two(browser, url, query = "") {
    const ada = await guest(await person(browser, DESK), url, "Ada", query);
    for (let tries = 0; tries < 20; tries++) {
        const bob = await guest(await person(browser, PHONE), url, "Bob", query);
        if ((await workerOf(bob)) !== (await workerOf(ada))) return { ada, bob };
        await bob.context().close();
    }
    throw new Error("everybody is on one worker");
}

async function say(page, text) {
    await page.fill("#text", text);
    await page.press("#text", "Enter");
}

/** The message with this text: who said it, and by which worker, as the page shows it. */
async function heard(page, text) {
    const item = page.locator("#messages li:not(.note)", { hasText: text });
    await item.first().waitFor();
    assert.equal(await item.count(), 1, `${text} is there once`);
    return { name: await item.locator(".name").textContent(), chip: await item.locator(".worker").textContent() };
}

async function noOverflow(page) {
    const { wide, there } = await page.evaluate(() => ({
        wide: document.documentElement.scrollWidth,
        there: document.documentElement.clientWidth,
    }));
    assert.ok(wide <= there, `${wide} px in ${there}`);
    const outside = await page.evaluate(() =>
        [...document.querySelectorAll(".room *")]
            .filter((element) => element.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
            .map((element) => element.className || element.tagName),
    );
    assert.deepEqual(outside, [], "beyond the right edge");
}

async function shot(page, name) {
    if (SHOTS) await page.screenshot({ path: `${SHOTS}/${name}.png` });
}

function noErrors(...pages) {
    pages.forEach((page) => assert.equal(page.lastError, undefined));
}

/** Two people talk, and see who is there, who types and which worker serves whom. */
async function talk(browser, url, query = "") {
    const { ada, bob } = await two(browser, url, query);
    const [first, second] = [await workerOf(ada), await workerOf(bob)];
    await say(ada, "Hello from the first worker");
    assert.deepEqual(await heard(bob, "Hello from the first worker"), { name: "Ada", chip: `worker ${first}` });
    await bob.fill("#text", "I am");
    await ada.waitForFunction(() => document.querySelector("#typing").textContent === "Bob is typing …");
    await say(bob, "Hello from the second");
    assert.deepEqual(await heard(ada, "Hello from the second"), { name: "Bob", chip: `worker ${second}` });
    for (const page of [ada, bob]) {
        await page.waitForFunction(() => document.querySelector("#count").textContent === "2");
        assert.deepEqual(await page.locator("#people .worker").allTextContents(), [`worker ${first}`, `worker ${second}`]);
    }
    return { ada, bob };
}

/** A worker dies under Ada: Bob notices nothing, and she has missed nothing. */
async function kill({ ada, bob }, shots) {
    const before = await workerOf(bob);
    await bob.evaluate(() => (document.querySelector("#status").dataset.since = "before"));
    await ada.click("#kill");
    await ada.locator(".note", { hasText: "dies" }).waitFor();
    await say(bob, "Ada, are you still there?");
    await ada.waitForSelector('#status[data-state="on"]');
    await heard(ada, "Ada, are you still there?");
    await say(ada, "Yes. Nothing was lost.");
    await heard(bob, "Yes. Nothing was lost.");
    await heard(ada, "Hello from the second");
    assert.equal(await workerOf(bob), before);
    for (const page of [ada, bob]) await page.waitForFunction(() => document.querySelector("#count").textContent === "2");
    if (shots) {
        await shot(ada, "desk-after-a-crash");
        await shot(bob, "phone-after-a-crash");
    }
    noErrors(ada, bob);
}

const cases = {
    async two_browsers(url) {
        await withBrowser(async (browser) => {
            const pages = await talk(browser, url);
            assert.match(await pages.ada.textContent("#state"), /websocket/);
            await kill(pages, true);
        });
    },

    async by_polling_only(url) {
        await withBrowser(async (browser) => {
            const pages = await talk(browser, url, "&transport=polling");
            await kill(pages);
            for (const page of Object.values(pages)) assert.match(await page.textContent("#state"), /polling/);
        });
    },

    async by_websocket_only(url) {
        await withBrowser(async (browser) => kill(await talk(browser, url, "&transport=websocket")));
    },

    // Whoever comes later sees what was said, from whichever worker.
    async rooms(url, workers) {
        await withBrowser(async (browser) => {
            const { ada, bob } = await two(browser, url);
            await say(ada, "only in the lobby");
            await heard(bob, "only in the lobby");
            await ada.click('#rooms button:has-text("#rust")');
            await ada.waitForFunction(() => document.querySelector("#title").textContent === "#rust");
            await bob.waitForFunction(() => document.querySelector("#count").textContent === "1");
            await say(ada, "only in rust");
            await heard(ada, "only in rust");
            assert.equal(await bob.locator("#messages li", { hasText: "only in rust" }).count(), 0);
            for (let number = 0; number < 2 * workers; number++) {
                const late = await guest(await person(browser, DESK), url, `Guest${number}`, "", "rust");
                await heard(late, "only in rust");
                assert.equal(await late.locator("#messages li", { hasText: "lobby" }).count(), 0);
            }
            await ada.waitForFunction((people) => document.querySelector("#count").textContent === people, `${2 * workers + 1}`);
            noErrors(ada, bob);
        });
    },

    // A phone and a desk, with everything that could make a page too wide.
    async layout(url) {
        await withBrowser(async (browser) => {
            const { ada, bob } = await two(browser, url);
            await say(ada, `A very long word: ${"x".repeat(300)}`);
            await say(bob, `https://example.org/${"a-long-path/".repeat(20)}`);
            await say(ada, "Rooms span all workers: what one says, everybody hears, whichever worker serves them.");
            await say(bob, "And when one of them dies?");
            await say(ada, "Its people connect anew, somewhere else, and have missed nothing.");
            await heard(ada, "And when one of them dies?");
            await heard(bob, "missed nothing");
            await shot(ada, "desk");
            await shot(bob, "phone");
            for (const page of [ada, bob]) {
                await noOverflow(page);
                for (const size of [DESK, PHONE, { width: 320, height: 568 }]) {
                    await page.setViewportSize(size);
                    await noOverflow(page);
                }
            }
            await bob.setViewportSize(PHONE);
            await bob.click("#menu");
            await bob.waitForFunction(() => document.querySelector("#side").getBoundingClientRect().left >= 0);
            await noOverflow(bob);
            await shot(bob, "phone-menu");
            await bob.mouse.click(PHONE.width - 10, 400);
            await ada.setViewportSize(DESK);
            await ada.emulateMedia({ colorScheme: "dark" });
            await shot(ada, "desk-dark");
            noErrors(ada, bob);
        });
    },

    // Three tabs of one browser, by polling, without a cookie: they share its connections, and are on different workers.
    async three_tabs(url) {
        await withBrowser(async (browser) => {
            const context = await person(browser, DESK);
            const failures = [];
            context.on("response", (response) => {
                if (response.status() >= 400) failures.push(`${response.status()} ${response.url()}`);
                response.headerValue("connection").then((value) => value === "close" && failures.push(response.url()), () => {});
            });
            const tabs = [];
            for (const name of ["One", "Two", "Three"]) tabs.push(await guest(context, url, name, "&transport=polling"));
            const places = await Promise.all(tabs.map(workerOf));
            assert.ok(new Set(places).size > 1, `on one worker: ${places}`);
            for (let round = 0; round < 10; round++) {
                for (const [number, tab] of tabs.entries()) {
                    await say(tab, `round ${round} of tab ${number}.`);
                    for (const other of tabs) await heard(other, `round ${round} of tab ${number}.`);
                }
            }
            assert.deepEqual(await Promise.all(tabs.map(workerOf)), places);
            assert.deepEqual(failures, []);
            noErrors(...tabs);
        });
    },
};

await main(cases);
