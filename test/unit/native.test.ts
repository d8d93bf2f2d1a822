// The storage core's own test programs (test/native/*_test.cc): each point they print is reported as one of tap's.
import { spawn } from "node:child_process";
import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import t from "tap";

const root = new URL("../../../", import.meta.url);
// asan finds what the others only suffer from; release is the code that is shipped, as its optimizer left it.
const variants = ["debug", "release", "asan"];
// What is made to be looked at by ThreadSanitizer; the others fork, or have one thread.
const threaded = "store_threads_test";
const endsWithinMs = 240_000;

interface Ended {
  stdout: string;
  stderr: string;
  how: string;
}

function runToEnd(path: URL): Promise<Ended> {
  return new Promise((resolve) => {
    const child = spawn(fileURLToPath(path), [], { cwd: root, timeout: endsWithinMs, killSignal: "SIGKILL" });
    const ended: Ended = { stdout: "", stderr: "", how: "" };
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      ended.stdout += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      ended.stderr += text;
    });
    child.on("error", (error) => resolve({ ...ended, how: error.message }));
    child.on("close", (code, signal) => resolve({ ...ended, how: signal ?? `exit code ${code}` }));
  });
}

const programs = readdirSync(new URL("test/native/", root))
  .filter((file) => file.endsWith("_test.cc"))
  .map((file) => file.slice(0, -".cc".length))
  .sort();

// Much of their time they wait, for the disk and for processes that they have killed.
t.jobs = 2;
for (const program of programs) {
  for (const variant of program === threaded ? [...variants, "tsan"] : variants) {
    t.test(`${program} (${variant})`, { buffered: true }, async (t) => {
      const { stdout, stderr, how } = await runToEnd(new URL(`build/test-native/${variant}/${program}`, root));
      let points = 0;
      let failed = 0;
      let planned = -1;
      let comments: string[] = [];
      for (const line of stdout.split("\n")) {
        const point = /^(not )?ok \d+ - (.*?)(?: # SKIP (.*))?$/.exec(line);
        const plan = /^1\.\.(\d+)$/.exec(line);
        if (plan) planned = Number(plan[1]);
        else if (line.startsWith("# ")) comments.push(line.slice(2));
        if (!point) continue;
        points += 1;
        if (point[1]) {
          failed += 1;
          t.fail(`${point[2]}`, { said: comments });
        } else {
          t.pass(`${point[2]}`, point[3] === undefined ? {} : { skip: point[3] });
          // A seed, a count: worth seeing although all is well.
          for (const comment of comments) t.comment(comment);
        }
        comments = [];
      }
      t.equal(planned, points, "it printed as many points as it planned", {
        stderr: stderr.slice(-4000),
        said: comments,
      });
      t.equal(how, failed === 0 ? "exit code 0" : "exit code 1", "it ended as its points say", {
        stderr: stderr.slice(-4000),
      });
    });
  }
}
t.ok(programs.length > 0, "there are programs to run");
