// Programs that know nothing of this service read, resume and write a region with what HTTP gives them.
import { spawn, spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t, { type Test } from "tap";
import { ServiceProcess } from "../service-process.js";

// Longer than what is read at one point in time, so that whole reads are streamed and have a weak entity tag.
const bytes = randomBytes(12 * 1024 * 1024 + 512);
const readBytesMax = "8MiB";
/** Where the interrupted transfers broke off. */
const had = 5_000_001;

const digest = (of: Uint8Array) => createHash("sha256").update(of).digest("hex");
const without = (program: string): string | false =>
  spawnSync(program, ["--version"]).error === undefined ? false : `no ${program}`;

/** What the program printed. @throws when it does not exit 0 */
async function run(program: string, args: readonly string[]): Promise<Buffer> {
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
  const out: Buffer[] = [];
  let errors = "";
  child.stdout.on("data", (chunk: Buffer) => out.push(chunk));
  child.stderr.on("data", (chunk: Buffer) => {
    errors += chunk;
  });
  const [code] = await once(child, "close");
  if (code !== 0) throw new Error(`${program} ${args.join(" ")}: exit code ${code}\n${errors}${Buffer.concat(out)}`);
  return Buffer.concat(out);
}

let service: ServiceProcess;
let url = "";
const folder = mkdtempSync(join(tmpdir(), "holdfast-clients-"));
const at = (name: string) => join(folder, name);

t.before(async () => {
  service = await ServiceProcess.ready({
    flags: ["--allow-any-file-system", "--log-requests", `--read-bytes-max=${readBytesMax}`],
  });
  url = `http://127.0.0.1:${service.port}/v1/regions/disk/content`;
});
t.teardown(async () => {
  await service.stop();
  await service.remove();
  rmSync(folder, { recursive: true, force: true });
});

let marks = 0;

/** How many lines the service had logged when everything before this call was answered, and this call's own request. */
async function mark(): Promise<number> {
  const path = `/v1/regions/mark-${++marks}`;
  await run("curl", ["--silent", "--output", "/dev/null", new URL(path, url).href]);
  // Lines come in the order of their requests' ends, and this one is the last.
  return service.when("the line of the mark", () => {
    const found = service.lines.findIndex((line) => line.path === path);
    return found < 0 ? undefined : found + 1;
  });
}

/** What the service answered to GETs of the region while `work` ran, as its access log has it. */
async function answers(work: () => Promise<unknown>): Promise<unknown[]> {
  const path = new URL(url).pathname;
  const from = await mark();
  await work();
  return service.lines
    .slice(from, await mark())
    .filter((line) => line.message === "request" && line.method === "GET" && line.path === path)
    .map(({ status }) => status);
}

function same(t: Test, name: string): void {
  t.equal(digest(readFileSync(at(name))), digest(bytes), `${name}: every byte is there`);
}

t.test("curl", { skip: without("curl") }, async (t) => {
  const curl = (...args: string[]) => run("curl", ["--silent", "--show-error", "--fail", ...args]);
  writeFileSync(at("original"), bytes);
  await curl("--upload-file", at("original"), "--header", "If-None-Match: *", url);
  await curl("--output", at("whole"), url);
  same(t, "whole");
  t.same(await curl("--range", "100-299", url), bytes.subarray(100, 300), "a range");
  t.same(await curl("--range", "-16", url), bytes.subarray(-16), "the last bytes");
  const parts = await curl("--range", "0-1,4096-4097", url);
  t.equal(parts.toString("latin1").match(/^Content-Range: bytes /gim)?.length, 2, "two ranges");
  writeFileSync(at("resumed"), bytes.subarray(0, had));
  const resumed = () => curl("--continue-at", "-", "--output", at("resumed"), url);
  t.same(await answers(resumed), [206], "what is missing is asked for, not all of it");
  same(t, "resumed");
  // A part of the region is replaced in place.
  bytes.write("from curl", 4096);
  writeFileSync(at("part"), bytes.subarray(4096, 4105));
  await curl("--upload-file", at("part"), "--header", "Content-Range: bytes 4096-4104/*", url);
  t.equal((await curl("--range", "4096-4104", url)).toString(), "from curl");
});

t.test("the access log", { skip: without("curl") }, async (t) => {
  const agent = ["--silent", "--range", "0-0", "--output", "/dev/null"];
  await run("curl", [...agent, url]);
  const line = await service.when("a line about the range", () =>
    service.lines.findLast(({ message, status }) => message === "request" && status === 206),
  );
  const { level, time, message, ...fields } = line;
  t.same(
    { level, message, time: Number.isNaN(Date.parse(String(time))) },
    { level: "info", message: "request", time: false },
  );
  t.same(
    Object.keys(fields),
    ["requestId", "method", "path", "status", "complete", "ms", "from"],
    "as the README lists them",
  );
  t.match(fields, { method: "GET", path: new URL(url).pathname, complete: true, ms: Number, from: "127.0.0.1" });
});

t.test("wget", { skip: without("wget") }, async (t) => {
  writeFileSync(at("wget"), bytes.subarray(0, had));
  const resumed = () => run("wget", ["--quiet", "--tries=1", "--continue", `--output-document=${at("wget")}`, url]);
  t.same(await answers(resumed), [206], "what is missing is asked for, not all of it");
  same(t, "wget");
});

t.test("aria2c", { skip: without("aria2c") }, async (t) => {
  const connections = ["--split=8", "--max-connection-per-server=8", "--min-split-size=1M"];
  const fetched = () => run("aria2c", ["--no-conf", "--quiet", ...connections, `--dir=${folder}`, "--out=aria2", url]);
  const parts = await answers(fetched);
  t.ok(parts.filter((status) => status === 206).length > 2, `it came in parts: ${parts}`);
  same(t, "aria2");
});

t.test("the region is a disk", { skip: without("nbdkit") || without("nbdcopy") || without("qemu-img") }, async (t) => {
  // nbdkit names its socket in $uri.
  const disk = (command: string) => run("nbdkit", ["--unix=-", "--readonly", "curl", `url=${url}`, "--run", command]);
  await disk(`nbdcopy "$uri" ${at("nbd")}`);
  same(t, "nbd");
  await disk(`qemu-img convert -f raw -O qcow2 "$uri" ${at("qcow2")}`);
  const compared = await disk(`qemu-img compare -f raw -F qcow2 "$uri" ${at("qcow2")}`);
  t.match(compared.toString(), /Images are identical/, "a virtual machine's image of it is the same");
});
