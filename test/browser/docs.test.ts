// Swagger UI in a real browser, under the content security policy that the service sends: what a newcomer does in the first
// minutes, and what they see when the service stops under their hands.
import t from "tap";
import { RawClient } from "../raw-client.js";
import { ServiceProcess } from "../service-process.js";
import { launch, missing, Watched } from "./browser.js";

/** Long enough for a browser to see it. */
const drainFlags = [
  "--drain-lame-duck-ms=60000",
  "--drain-body-grace-ms=60000",
  "--drain-soft-ms=65000",
  "--drain-hard-ms=70000",
];

t.test("the API's page", { skip: missing }, async (t) => {
  const service = await ServiceProcess.ready({ flags: [...drainFlags, "--allow-any-file-system"] });
  t.teardown(() => service.remove());
  const browser = await launch();
  t.teardown(() => browser.close());
  const origin = `http://127.0.0.1:${service.port}`;
  const watched = await Watched.open(browser, `${origin}/docs`, { viewport: { width: 1200, height: 1000 } });
  const { page } = watched;

  /** Opens an operation, if it is not open yet, and presses Execute. */
  async function execute(
    operation: string,
    fill: Readonly<Record<string, string>> = {},
    file?: Buffer,
  ): Promise<{ status: string; text: string }> {
    const block = page.locator(`[id$="-${operation}"].opblock`);
    if ((await block.locator(".execute").count()) === 0) await block.locator(".opblock-summary-control").click();
    for (const [name, value] of Object.entries(fill)) {
      await block.locator(`tr[data-param-name="${name}"] input`).fill(value);
    }
    if (file !== undefined) {
      await block
        .locator("input[type=file]")
        .setInputFiles({ name: "bytes", mimeType: "application/octet-stream", buffer: file });
    }
    if ((await block.locator(".btn-clear").count()) > 0) await block.locator(".btn-clear").click();
    const answered = page.waitForResponse((response) => !response.url().includes("/docs"));
    await block.locator(".execute").click();
    await answered;
    const row = block.locator(".live-responses-table tbody tr.response").first();
    await row.waitFor();
    const status = (await row.locator(".response-col_status").innerText()).trim().slice(0, 3);
    const text = (await row.locator(".response-col_description").textContent()) ?? "";
    await row.scrollIntoViewIfNeeded();
    await watched.picture(`docs-${operation}-${status}`);
    return { status, text };
  }

  await page.locator(".opblock").first().waitFor();
  await watched.picture("docs");
  t.equal((await execute("createRegion")).status, "201", "a region is created");
  const batch = await execute("commitBatch");
  t.equal(batch.status, "200", "a batch is written");
  t.match(batch.text, /"generation": 1\b/);
  const bytes = Buffer.alloc(4096);
  bytes.write("from a browser");
  t.equal((await execute("putContent", {}, bytes)).status, "204", "bytes are uploaded");
  t.equal((await execute("patchContent")).status, "204", "five of them are patched, by the example as it stands");
  const view = await execute("viewRegion");
  t.equal(view.status, "200", "the hexdump is read");
  t.match(view.text, /00000000 {2}48 65 6c 6c 6f 61 20 62 {2}72 6f 77 73 65 72 00 00 {2}\|Helloa browser\.\.\|/);

  watched.expect(/status of 404.*\/v1\/regions\/nope$/);
  const problem = await execute("getRegion", { region: "nope" });
  t.equal(problem.status, "404");
  const type = /"type": "([^"]+)"/.exec(problem.text)?.[1];
  t.equal(type, "/problems/region-not-found");
  const about = await page.context().newPage();
  await about.goto(new URL(type!, origin).href);
  t.match(
    await about.locator("body").innerText(),
    /No region of this name/,
    "a problem's link leads to a page about it",
  );
  await about.close();

  watched.expect(/status of 503.*\/v1\/regions\/demo\/batches$/);
  // A drain ends when no connection is open, and the browser may just have closed its own.
  const held = await RawClient.connect(service.port);
  service.kill("SIGTERM");
  await service.line("term");
  const refused = await execute("commitBatch");
  t.equal(refused.status, "503", "a batch is refused while the service drains");
  t.match(refused.text, /"code": "draining"/);
  t.match(refused.text, /retry-after: 1/);
  held.destroy();

  t.same(watched.errors, [], "nothing is reported to the console");
  t.same(watched.foreign, [], "nobody else is asked for anything");
});
