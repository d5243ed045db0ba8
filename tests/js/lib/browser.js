// Chromium without a window, driven by playwright.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

// Nothing but what the page asks for goes over the network.
const ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
];

export const DESK = { width: 1280, height: 800 };
export const PHONE = { width: 390, height: 844 };

/** Gives a browser with an empty profile to `use`, and ends it. */
export async function withBrowser(use) {
    const profile = mkdtempSync(join(tmpdir(), "sticky-chromium-"));
    const browser = await chromium.launchPersistentContext(profile, { executablePath: "/usr/bin/chromium", args: ARGUMENTS });
    try {
        return await use(browser.browser() ?? browser);
    } finally {
        await browser.close();
        rmSync(profile, { recursive: true, force: true });
    }
}

/** Another person's browser: cookies and storage of its own. */
export async function person(browser, viewport, settings = {}) {
    const context = await browser.newContext({ viewport, ...settings });
    context.setDefaultTimeout(20_000);
    return context;
}
