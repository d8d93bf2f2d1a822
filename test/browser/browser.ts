// browser.ts - a real Chromium, as Debian ships it, and what a page may not do in it: fail, or ask anybody else for anything.
import { existsSync, mkdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { type Browser, type BrowserContextOptions, chromium, type Page } from "playwright-core";

const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
export const missing = existsSync(executablePath) ? false : 'no chromium: "apt-get install chromium"';

/** Of the repository; this file runs from dist/test/browser/. */
const pictures = fileURLToPath(new URL("../../../build/browser/", import.meta.url));

/** Flags that playwright has not set anyway: root has no sandbox, and nothing asks the network by itself. */
const flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"];

export function launch(): Promise<Browser> {
  return chromium.launch({ executablePath, args: flags });
}

/** A page and everything that went wrong in it. */
export class Watched {
  readonly errors: string[] = [];
  /** What else than its own server it asked. */
  readonly foreign: string[] = [];
  private readonly expected: RegExp[] = [];

  private constructor(
    readonly page: Page,
    private readonly origin: string,
  ) {
    page.on("console", (message) => {
      if (message.type() !== "error") return;
      this.fail(`${message.text()} at ${message.location().url}`);
    });
    page.on("pageerror", (error) => this.fail(String(error.stack ?? error)));
    page.on("request", (request) => {
      const url = request.url();
      if (!url.startsWith(`${this.origin}/`) && !/^(?:data|blob):/.test(url)) this.foreign.push(url);
    });
    page.setDefaultTimeout(60_000);
  }

  static async open(browser: Browser, url: string, options: BrowserContextOptions = {}): Promise<Watched> {
    const context = await browser.newContext(options);
    const watched = new Watched(await context.newPage(), new URL(url).origin);
    await watched.page.goto(url);
    return watched;
  }

  /** Chromium reports every answer of 400 and more, also those that the test asks for. `what` is like "503" or a part of a URL. */
  expect(what: RegExp): void {
    this.expected.push(what);
  }

  async picture(name: string): Promise<void> {
    mkdirSync(pictures, { recursive: true });
    await this.page.screenshot({ path: `${pictures}${name}.png` });
  }

  private fail(error: string): void {
    if (!this.expected.some((pattern) => pattern.test(error))) this.errors.push(error);
  }
}
