// The README's tour: a real file becomes a region in place, clients change it while a C program maps it, the service is
// killed under their load and started again, and every answered batch is there.
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdtempSync, openSync, readdirSync, readFileSync, readSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import tap from "tap";

const root = join(import.meta.dirname, "../../..");
const clients = 8;
const kills = 5;
/** Each client's stamp stands at these places of its own part of the file, 256 KiB apart, far across pages. */
const places = [8, 4096 - 8, 65536, 200_000];
const partBytes = 256 * 1024;

interface Stamped {
  sent: number;
  answered: number;
}

/** Some megabytes of real text: what this machine has of licences and its package list. */
function realText(bytesMin: number): Buffer {
  const licences = "/usr/share/common-licenses";
  const texts = [...readdirSync(licences).map((name) => join(licences, name)), "/var/lib/dpkg/status"];
  const parts: Buffer[] = [];
  for (let bytes = 0; bytes < bytesMin; ) {
    for (const path of texts) {
      const text = readFileSync(path);
      parts.push(text);
      bytes += text.length;
    }
  }
  return Buffer.concat(parts);
}

async function start(directory: string, file: string): Promise<{ child: ChildProcess; url: string }> {
  const args = ["scripts/start.mjs", "--port", "0", "--data-dir", join(directory, "store"), "--map", `words=${file}`];
  const child = spawn(process.execPath, args, { cwd: root, stdio: ["ignore", "pipe", "inherit"] });
  let text = "";
  const port = await new Promise<number>((resolve, reject) => {
    child.once("exit", (code) => reject(new Error(`the service ended with ${code}: ${text}`)));
    child.stdout?.on("data", (chunk: Buffer) => {
      text += chunk;
      const found = /"event":"listening".*"port":(\d+)/.exec(text);
      if (found && text.includes('"event":"ready"')) resolve(Number(found[1]));
    });
  });
  return { child, url: `http://127.0.0.1:${port}` };
}

const ended = (child: ChildProcess): Promise<unknown> => new Promise((resolve) => child.once("exit", resolve));

function stampOf(client: number, count: number): Buffer {
  return Buffer.from(`${client}${String(count).padStart(7, "0")}`);
}

/** Batches one after the other until the service is gone. */
async function client(url: string, index: number, ledger: Stamped): Promise<void> {
  for (;;) {
    ledger.sent += 1;
    const data = stampOf(index, ledger.sent).toString("utf8");
    const ops = places.map((place) => ({ op: "write", offset: index * partBytes + place, data, encoding: "utf8" }));
    try {
      const response = await fetch(`${url}/v1/regions/words/batches`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ ops }),
      });
      if (response.status !== 200) throw new Error(`answered ${response.status}: ${await response.text()}`);
      await response.arrayBuffer();
      ledger.answered = ledger.sent;
    } catch (error) {
      if ((error as { cause?: { code?: string } }).cause === undefined) throw error;
      return;
    }
  }
}

tap.test("the tour with a real file", { timeout: 180_000 }, async (t) => {
  const directory = mkdtempSync("/var/tmp/holdfast-tour-");
  t.teardown(() => rmSync(directory, { recursive: true }));
  const file = join(directory, "words.txt");
  const text = realText(clients * partBytes);
  writeFileSync(file, text);
  const reader = join(directory, "reader");
  execFileSync("cc", ["-O2", "-Inative", "-o", reader, "native/examples/reader.c"], { cwd: root });

  let { child, url } = await start(directory, file);
  const range = await fetch(`${url}/v1/regions/words/content`, { headers: { range: "bytes=100-163" } });
  t.equal(range.status, 206);
  t.same(Buffer.from(await range.arrayBuffer()), text.subarray(100, 164), "a range is the file's own bytes");

  const ledgers: Stamped[] = Array.from({ length: clients }, () => ({ sent: 0, answered: 0 }));
  let snapshots = 0;
  for (let kill = 0; kill < kills; kill++) {
    const watched = kill % clients;
    // Before its first batch the words of a client differ: they are the file's text.
    for (const [index, ledger] of ledgers.entries()) {
      if (ledger.answered > 0) continue;
      const ops = places.map((place) => ({
        op: "write",
        offset: index * partBytes + place,
        data: stampOf(index, 0).toString("utf8"),
        encoding: "utf8",
      }));
      await fetch(`${url}/v1/regions/words/batches`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ ops }),
      });
    }
    const offsets = places.map((place) => String(watched * partBytes + place));
    const watcher = spawn(
      reader,
      [file, join(directory, "store/regions/words/control"), "--watch", "900", ...offsets],
      { stdio: ["ignore", "pipe", "inherit"] },
    );
    let seen = "";
    watcher.stdout?.on("data", (chunk: Buffer) => {
      seen += chunk;
    });
    const watching = ended(watcher);
    const load = ledgers.map((ledger, index) => client(url, index, ledger));
    await new Promise((resolve) => setTimeout(resolve, 300 + 100 * kill));
    const gone = ended(child);
    child.kill("SIGKILL");
    await Promise.all([gone, ...load]);
    // Beside the reader that still looks: it must not see the recovery's steps either.
    ({ child, url } = await start(directory, file));
    t.equal(await watching, 0, `the C reader saw whole batches only: ${seen.trim()}`);
    const settled = Number(/settled (\d+)/.exec(seen)?.[1]);
    const generations = Number(/generations (\d+)/.exec(seen)?.[1]);
    t.ok(settled > 0 && generations > 1, `it saw batches come: ${settled} snapshots, ${generations} generations`);
    snapshots += settled;

    const descriptor = openSync(file, "r");
    for (const [index, ledger] of ledgers.entries()) {
      const words = places.map((place) => {
        const word = Buffer.alloc(8);
        readSync(descriptor, word, 0, 8, index * partBytes + place);
        return word.toString("utf8");
      });
      t.ok(
        words.every((word) => word === words[0]),
        `client ${index}: whole after kill ${kill + 1}`,
      );
      const found = Number(words[0]?.slice(1));
      t.ok(
        found >= ledger.answered && found <= ledger.sent,
        `client ${index}: batch ${found} stands, ${ledger.answered} was answered`,
      );
    }
  }
  t.comment(
    `${kills} kills, ${ledgers.reduce((sum, l) => sum + l.answered, 0)} batches answered, ${snapshots} snapshots by the C reader`,
  );

  const gone = ended(child);
  child.kill("SIGTERM");
  t.equal(await gone, 0, "TERM ends it with 0");
  const after = readFileSync(file);
  t.equal(after.length, text.length);
  for (let at = 0; at < text.length; at++) {
    const part = Math.floor(at / partBytes);
    if (part < clients && places.some((place) => at >= part * partBytes + place && at < part * partBytes + place + 8))
      continue;
    if (after[at] !== text[at]) {
      t.fail(`byte ${at} changed that nobody wrote`);
      break;
    }
  }
});
