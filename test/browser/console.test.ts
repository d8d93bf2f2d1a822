// The console in a real browser: on a desk and on a phone, in light and dark, with a token, through a stop and the next run.
import { execFileSync } from "node:child_process";
import t, { type Test } from "tap";
import { RawClient } from "../raw-client.js";
import { freshDir, ServiceProcess } from "../service-process.js";
import { launch, missing, Watched } from "./browser.js";

const token = "a-token-of-the-test";
const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
/** Long enough for a browser to see each state. */
const flags = [
  `--auth-token=${token}`,
  "--drain-lame-duck-ms=5000",
  "--drain-body-grace-ms=5000",
  "--drain-soft-ms=10000",
  "--drain-hard-ms=12000",
  "--allow-any-file-system",
  "--log-requests",
];

/** Runs in the page: how many pixels of a canvas are close to this colour of its style. */
const pixelsOf = (canvas: string, color: string) => `(() => {
  const canvas = document.getElementById(${JSON.stringify(canvas)});
  const probe = new OffscreenCanvas(1, 1).getContext("2d");
  probe.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(${JSON.stringify(color)}).trim();
  probe.fillRect(0, 0, 1, 1);
  const wanted = probe.getImageData(0, 0, 1, 1).data;
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let found = 0;
  for (let at = 0; at < data.length; at += 4) {
    if (data[at + 3] > 128 && [0, 1, 2].every((part) => Math.abs(data[at + part] - wanted[part]) < 40)) found++;
  }
  return found;
})()`;

/** Runs in the page: the style's colours that the corner and the middle of a square of the heat map have. */
const squareOf = (square: number) => `(() => {
  const canvas = document.getElementById("heat-map");
  const [columns, side, gap] = ["columns", "side", "gap"].map((name) => Number(canvas.dataset[name]));
  const left = (${square} % columns) * (side + gap);
  const top = Math.floor(${square} / columns) * (side + gap);
  const ratio = canvas.width / canvas.clientWidth;
  const probe = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const distances = (pixel) =>
    ["hole", "data", "resident", "hot"].map((name) => {
      probe.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
      probe.fillRect(0, 0, 1, 1);
      const color = probe.getImageData(0, 0, 1, 1).data;
      return { name, distance: Math.hypot(...[0, 1, 2].map((part) => color[part] - pixel[part])) };
    });
  const nearest = (x, y) => {
    const pixel = canvas.getContext("2d").getImageData(Math.floor(x * ratio), Math.floor(y * ratio), 1, 1).data;
    return distances(pixel).sort((a, b) => a.distance - b.distance)[0].name;
  };
  return {
    edge: nearest(left + 0.5, top + 0.5),
    middle: nearest(left + side / 2, top + side / 2),
    x: left + side / 2,
    y: top + side / 2,
  };
})()`;

t.test("the console", { skip: missing }, async (t) => {
  const dir = freshDir();
  let service = await ServiceProcess.ready({ dir, flags });
  t.teardown(() => service.remove());
  const browser = await launch();
  t.teardown(() => browser.close());
  const { port } = service;
  const origin = `http://127.0.0.1:${port}`;

  async function post(path: string, body: object): Promise<void> {
    const response = await fetch(`${origin}${path}`, { method: "POST", headers, body: JSON.stringify(body) });
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
  }
  const write = (offset: number, data: string) =>
    post("/v1/regions/demo/batches", { ops: [{ op: "write", offset, data, encoding: "utf8" }] });

  await post("/v1/regions", { name: "demo", size: 1 << 20 });
  await post("/v1/regions", { name: "scores", size: 4096, durability: "fast" });
  await write(32, "before");

  const desk = await Watched.open(browser, `${origin}/ui`, { viewport: { width: 1280, height: 900 } });
  const { page } = desk;
  desk.expect(/status of 401/);
  await page.locator("#ask[open]").waitFor();
  await page.locator("#token").fill("wrong");
  await page.locator("#ask button").click();
  await page.getByText("That token is not valid.").waitFor();
  await page.locator("#token").fill(token);
  await page.locator("#ask button").click();
  await page.locator("#region-list button").nth(1).waitFor();
  t.match(await page.locator("#region-list").innerText(), /demo\s+durable\s+1 MiB\s+1\s+scores\s+fast\s+4 KiB\s+0/);
  await page.locator("#dump", { hasText: "before" }).waitFor();
  t.equal(await page.locator("#dump .fresh").count(), 0, "nothing is fresh before something changes");

  await write(64, "Hello");
  await page.locator("#dump", { hasText: "Hello" }).waitFor();
  t.same(
    await page.locator("#dump b.fresh").allInnerTexts(),
    [..."Hello"].map((sign) => sign.charCodeAt(0).toString(16)),
    "exactly the bytes that the batch wrote stand out",
  );
  t.match(await page.locator("#batches").innerText(), /2 \w+ 0x40\+5/);
  t.ok(Number(await page.evaluate(pixelsOf("heat-map", "--hot"))) > 10, "the map is hot where it was written to");
  await write(512 * 1024, "elsewhere");
  await page.locator("#batches", { hasText: "0x80000+9" }).waitFor();
  await page.locator("#offset").fill("0x80000");
  await page.locator("#offset").press("Enter");
  await page.locator("#dump", { hasText: "elsewhere" }).waitFor();
  await page.locator("#generation", { hasText: "3" }).waitFor();
  for (const plot of ["plot-generation", "plot-journal", "plot-in-flight"]) {
    // A sample comes each quarter of a second. The page's policy allows no waiting in the page, which would need eval.
    let drawn = 0;
    for (let tries = 0; drawn <= 10 && tries < 100; tries++) {
      drawn = Number(await page.evaluate(pixelsOf(plot, "--accent")));
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    t.ok(drawn > 10, `${plot} is drawn`);
  }
  await desk.picture("console-light");
  await heatMap(t, desk, origin, dir);

  const phone = await Watched.open(browser, `${origin}/ui#token=${token}`, {
    viewport: { width: 390, height: 844 },
    deviceScaleFactor: 2,
    isMobile: true,
    hasTouch: true,
    colorScheme: "dark",
  });
  await phone.page.locator("#dump", { hasText: "before" }).waitFor();
  t.notMatch(phone.page.url(), /token/, "the token leaves the address");
  await phone.page.locator("#region-list button", { hasText: "scores" }).tap();
  await phone.page.locator("#region-name", { hasText: "scores" }).waitFor();
  const [wide, view] = (await phone.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")) as number[];
  t.ok(wide! <= view!, `nothing is wider than the phone: ${wide} of ${view}`);
  await phone.picture("console-phone-dark");
  const background = await phone.page.evaluate("getComputedStyle(document.body).backgroundColor");
  t.not(background, await page.evaluate("getComputedStyle(document.body).backgroundColor"), "dark is not light");
  t.same(phone.errors, []);
  t.same(phone.foreign, []);
  await phone.page.context().close();

  desk.expect(/ERR_CONNECTION_REFUSED|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET/);
  desk.expect(/status of 503/);
  t.ok(service.lines.filter(({ message }) => message === "request").length > 10, "requests are logged");
  t.notMatch(JSON.stringify(service.lines) + service.stderr, token, "and no token with them");
  // A lame duck ends early when no connection is open, as between two questions of the page.
  const held = await RawClient.connect(port);
  service.kill("SIGTERM");
  await page.locator("#drain li.now", { hasText: "lame duck" }).waitFor();
  t.match(await page.locator("#drain-text").innerText(), /TERM .* ago: .* in flight, .* answered, .* refused with 503/);
  await desk.picture("console-drain");
  held.destroy();
  await page.locator("#drain-text", { hasText: "It said goodbye and stopped" }).waitFor();
  t.match(await page.locator("#state").innerText(), /stopped/);
  t.equal((await service.ended).code, 0, "a page that is open does not hold the service up");

  service = await ServiceProcess.ready({ dir, flags: [...flags, `--port=${port}`] });
  await page.locator("#drain-text", { hasText: "Back after" }).waitFor();
  t.match(await page.locator("#drain-text").innerText(), /ended with code 0 .* Every region is at the generation/s);

  service.kill("SIGKILL");
  await service.ended;
  await page.locator("#drain-text", { hasText: "nobody said goodbye" }).waitFor();
  service = await ServiceProcess.ready({ dir, flags: [...flags, `--port=${port}`] });
  await page.locator("#drain-text", { hasText: "The last run was killed" }).waitFor();
  await write(512 * 1024, "again");
  await page.locator("#dump", { hasText: "again" }).waitFor();
  await desk.picture("console-back");

  const change = async (method: string, body?: string) => {
    const { authorization, "content-type": json } = headers;
    const sent = { authorization, "if-match": "*", ...(body && { "content-type": json }) };
    const response = await fetch(`${origin}/v1/regions/demo`, { method, headers: sent, ...(body && { body }) });
    if (!response.ok) throw new Error(`${method}: ${response.status} ${await response.text()}`);
  };
  await change("PATCH", JSON.stringify({ size: 4096 }));
  await page.locator("#window-text", { hasText: "16 of 4,096 bytes" }).waitFor();
  desk.expect(/status of 404/);
  await change("DELETE");
  await page.locator("#region-name", { hasText: "scores" }).waitFor();

  t.same(desk.errors, [], "nothing else is reported to the console");
  t.same(desk.foreign, [], "nobody else is asked for anything");
});

interface Square {
  edge: string;
  middle: string;
  x: number;
  y: number;
}

/** Squares of every kind in one region. */
async function heatMap(t: Test, desk: Watched, origin: string, dir: string): Promise<void> {
  const { page } = desk;
  const [squareBytes, all] = [64 << 10, 64 << 20];
  const call = async (method: string, path: string, more: Record<string, string> = {}, body?: Buffer | string) => {
    const { authorization } = headers;
    const sent = { method, headers: { authorization, ...more }, ...(body !== undefined && { body }) };
    const response = await fetch(`${origin}/v1/regions/map${path}`, sent);
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
    return response;
  };
  const json = { "content-type": "application/json" };
  await call(
    "PUT",
    "/content",
    { "if-none-match": "*", "content-type": "application/octet-stream" },
    Buffer.alloc(4 << 20, "x"),
  );
  await call("PATCH", "", { "if-match": "*", ...json }, JSON.stringify({ size: all }));
  // With nothing to copy, "dd" asks the kernel to forget a file's pages, those that nobody has mapped and that are on the disk.
  const drop = ["conv=notrunc,fdatasync", "oflag=nocache", "count=0", "status=none"];
  execFileSync("dd", ["if=/dev/null", `of=${dir}/regions/map/data`, ...drop]);
  const answer = await call("GET", `/extents?granularity=${squareBytes}&limit=64`);
  const { items } = (await answer.json()) as { items: { offset: number; residentBytes: number }[] };
  // Far from the first bytes, which the console reads.
  const cold = items.reverse().find(({ residentBytes }) => residentBytes === 0);
  if (cold === undefined) throw new Error("nothing of the region was dropped from memory");

  await page.locator("#region-list button", { hasText: "map" }).click();
  await page.locator("#region-name", { hasText: "map" }).waitFor();
  /** The map is asked for what it shows every two seconds. */
  async function becomes(offset: number, edge: string, middle: string, text: RegExp, why: string): Promise<void> {
    const square = offset / squareBytes;
    let seen: Square | undefined;
    for (let tries = 0; tries < 200; tries++) {
      seen = (await page.evaluate(squareOf(square))) as Square;
      if (seen.edge === edge && seen.middle === middle) break;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    t.match(seen, { edge, middle }, why);
    await page.locator("#heat-map").hover({ position: { x: seen!.x, y: seen!.y } });
    const said = await page.locator("#heat-text").innerText();
    t.match(said, text, why);
    t.match(said, new RegExp(`a square is 16 pages; 0x${offset.toString(16)}: `), why);
  }
  await becomes(48 << 20, "hole", "hole", /0 bytes of data, 0 bytes in memory$/, "what nobody touched is a hole");
  await becomes(cold.offset, "data", "data", /64 KiB of data, 0 bytes in memory$/, "what was dropped still holds data");
  await call("GET", "/content", { range: `bytes=${cold.offset}-${cold.offset + squareBytes - 1}` });
  await becomes(cold.offset, "data", "resident", /64 KiB of data, 64 KiB in memory$/, "a read brings it into memory");
  const op = { op: "fill", offset: 32 << 20, length: squareBytes, pattern: "ab" };
  await call("POST", "/batches", json, JSON.stringify({ ops: [op] }));
  await becomes(
    op.offset,
    "hot",
    "resident",
    / data, .* in memory, written \d+ s ago$/,
    "a batch is hot, and in memory",
  );
  await becomes(48 << 20, "hole", "hole", /0 bytes of data, 0 bytes in memory$/, "elsewhere nothing has changed");
  t.match(
    await page.locator("#heat-legend").innerText(),
    /hole\s+allocated: holds data \d+\.?\d* MiB\s+in memory \d+\.?\d* \wi?B\s+just written/,
  );
  await desk.picture("console-heat-map");
  await page.locator("#region-list button", { hasText: "demo" }).click();
  await page.locator("#region-name", { hasText: "demo" }).waitFor();
  await call("DELETE", "", { "if-match": "*" });
  // Another choice begins at the first byte.
  await page.locator("#offset").fill("0x80000");
  await page.locator("#offset").press("Enter");
  await page.locator("#dump", { hasText: "elsewhere" }).waitFor();
}
