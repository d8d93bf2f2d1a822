// One list of problems: the storage core's codes, the service's table, its document and its API say the same.
import { readFileSync } from "node:fs";
import t from "tap";
import { codes, StoreError, sentences } from "../../native/index.js";
import { pathOf } from "../../openapi/export.js";
import {
  Problem,
  problemBody,
  problemCodes,
  problemKinds,
  problemOfStoreCode,
  toProblem,
} from "../../service/errors.js";
import { Refused } from "../../service/store/failure.js";

const header = readFileSync(new URL("../../../native/status.h", import.meta.url), "utf8");

t.test("every code of the storage core becomes one problem, and no other does", async (t) => {
  const inHeader = [...header.matchAll(/^\s+X\((\w+), (\d+),/gm)].map(
    ([, name, number]) => [name!, Number(number)] as const,
  );
  t.same(codes, Object.fromEntries(inHeader), "the addon exports the header's list");
  const refusals = inHeader.map(([name]) => name).filter((name) => name !== "ok");
  t.same(Object.keys(problemOfStoreCode).sort(), [...refusals].sort());
  for (const name of refusals) {
    t.ok(problemKinds[problemOfStoreCode[name]!], name);
    t.ok(sentences[name], name);
    // A code that is a problem's own name must become that problem.
    const own = name.replaceAll("_", "-");
    if (own in problemKinds) t.equal(problemOfStoreCode[name], own);
  }
});

t.test("the document has exactly these problems", async (t) => {
  const rows = [...readFileSync(pathOf("problems.md"), "utf8").matchAll(/^\| (\d{3}) \| `([a-z-]+)` \| (.+?) \|/gm)];
  t.same(
    rows.map(([, status, code, title]) => ({ status: Number(status), code, title })),
    problemCodes.map((code) => ({ status: problemKinds[code].status, code, title: problemKinds[code].title })),
  );
});

t.test("a problem's body", async (t) => {
  const body = problemBody(new Problem("region-not-found", "no region of this name"), "/v1/regions/demo", "r-1");
  t.same(body, {
    type: "/problems/region-not-found",
    title: "No region of this name",
    status: 404,
    detail: "no region of this name",
    instance: "/v1/regions/demo",
    code: "region-not-found",
    requestId: "r-1",
    retryable: false,
    committed: false,
    failures: [],
  });
  for (const code of problemCodes) {
    const { headers, kind } = new Problem(code);
    const ends = code === "idempotency-in-progress" || code === "snapshot-in-progress";
    t.equal(headers["retry-after"] !== undefined, kind.status === 503 || ends, code);
    if (kind.status === 503) t.equal(kind.retryable, true, code);
  }
});

t.test("what is thrown becomes a problem, or is nobody's", async (t) => {
  const problem = new Problem("forbidden");
  t.equal(toProblem(problem), problem);
  t.match(toProblem(new StoreError("region_exists", "demo exists")), { code: "region-exists", detail: "demo exists" });
  t.match(toProblem(new StoreError("durability_unavailable", "")), {
    code: "validation-failed",
    failures: [{ pointer: "/durability", code: "durability-unavailable" }],
  });
  t.match(toProblem(new Refused("flush_failed", "no", [], true)), { code: "flush-failed", committed: true });
  for (const error of [
    new Error("x"),
    undefined,
    new StoreError("io_error", "/secret/path"),
    new StoreError("from_the_future", ""),
    new Refused("malformed_batch", "", [], false),
  ]) {
    t.equal(toProblem(error), undefined);
  }
});
