// A drill that was ended by Ctrl-C said "pass" and exited with 0, whatever had not been run.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";

const drill = join(import.meta.dirname, "../../docker/drill/main.js");

t.test("an interrupted drill can't tell, and says why", { timeout: 120_000 }, async (t) => {
  const out = t.testdir();
  const flags = ["--scenario=stop-idle", "--cycles=1000", "--slack=20", `--out=${out}`];
  const child = spawn(process.execPath, [drill, ...flags], { stdio: ["ignore", "pipe", "inherit"] });
  let said = "";
  child.stdout.setEncoding("utf8").on("data", (more: string) => {
    if (said === "") child.kill("SIGINT");
    said += more;
  });
  const [code, signal] = await once(child, "close");
  t.strictSame([code, signal], [2, null], said);
  t.match(said, /^pass +stop-idle on process: 1 cycles, /m, "the cycle under way was ended and judged");
  t.match(said, /^drill: unknown: 1 cycles, 0 failed, 1 could not be told; it was interrupted, /m);
  t.match(said, /^1 passed, 1 failed$/m);
  t.match(readFileSync(join(out, "report.html"), "utf8"), /Skipped: it was interrupted/);
});
