// A store opens what lies below its own directory, and never through a link: who can plant one there would otherwise choose
// which file of the machine is mapped, written and served.
import { mkdtempSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t from "tap";
import { Store } from "../../native/index.js";
import { loadConfig } from "../../service/config.js";

for (const [link, what] of [
  ["regions/demo/data", "a region's bytes"],
  ["regions/demo/control", "its control page"],
  ["regions/demo/meta", "its description"],
  ["regions/demo", "a region"],
  ["journal", "the journal"],
] as const) {
  t.test(`${what} behind a link: the start is refused`, async (t) => {
    const root = mkdtempSync(join(tmpdir(), "holdfast-test-"));
    t.teardown(() => rmSync(root, { recursive: true }));
    const dir = join(root, "store");
    const flags = [`--data-dir=${dir}`, "--allow-any-file-system", "--batch-bytes-max=256KiB", "--journal-bytes=2MiB"];
    const open = () => Store.open({ ...loadConfig(flags, {}), dir });
    const store = await open();
    await store.create({ name: "demo", size: 8, durability: "durable", labels: "{}", sparse: false });
    await store.close();
    const elsewhere = join(root, "elsewhere");
    renameSync(join(dir, link), elsewhere);
    symlinkSync(elsewhere, join(dir, link));
    await t.rejects(open(), { code: "io_error", message: /Too many levels of symbolic links/ });
    // As it was, the same store opens.
    rmSync(join(dir, link));
    renameSync(elsewhere, join(dir, link));
    const again = await open();
    t.same(again.names(), ["demo"]);
    await again.close();
  });
}

t.test("a link among the regions: what it leads to is no region", async (t) => {
  const root = mkdtempSync(join(tmpdir(), "holdfast-test-"));
  t.teardown(() => rmSync(root, { recursive: true }));
  const dir = join(root, "store");
  const flags = [`--data-dir=${dir}`, "--allow-any-file-system", "--batch-bytes-max=256KiB", "--journal-bytes=2MiB"];
  const store = await Store.open({ ...loadConfig(flags, {}), dir });
  const file = join(root, "file");
  writeFileSync(file, "an operator's");
  symlinkSync(file, join(dir, "regions/planted"));
  await t.rejects(store.create({ name: "planted", size: 8, durability: "fast", labels: "{}", sparse: false }));
  t.equal(store.info("planted"), undefined);
  t.equal(readFileSync(file, "utf8"), "an operator's");
  rmSync(join(dir, "regions/planted"));
  await store.close();
});
