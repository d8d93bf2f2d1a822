// docker/kubernetes.yaml against the schemas of Kubernetes: what an API server would refuse, and what it would pass over.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as apps from "kubernetes-models/apps/v1";
import * as core from "kubernetes-models/v1";
import t from "tap";
import { parseAllDocuments } from "yaml";

const root = join(import.meta.dirname, "../../..");
const compiler = join(root, "node_modules/typescript/lib/tsc.js");
const kinds = { Service: core.Service, StatefulSet: apps.StatefulSet };
const modules = { Service: "kubernetes-models/v1", StatefulSet: "kubernetes-models/apps/v1" };

interface Resource {
  kind: keyof typeof kinds;
  apiVersion: string;
  spec: Record<string, unknown>;
}

function resourcesOf(path: string): Resource[] {
  return parseAllDocuments(readFileSync(join(root, path), "utf8")).map((document) => {
    if (document.errors.length > 0) throw document.errors[0];
    return document.toJS() as Resource;
  });
}

/** By the schema: types, formats, what is required. @throws with what is wrong */
function validate(resource: Resource): void {
  const Kind = kinds[resource.kind] as new (resource: Resource) => { validate(): void };
  new Kind(resource).validate();
}

/** The schemas allow members that they don't know, the types don't. Returns the compiler's lines. */
function unknownMembers(resources: readonly Resource[]): string[] {
  // Below the repository, so that the packages are found from there.
  const dir = mkdtempSync(join(root, "build/kubernetes-"));
  try {
    const literals = resources.map((resource, at) => {
      const type = `I${resource.kind}`;
      const from = modules[resource.kind];
      return `export const resource${at}: import("${from}").${type} = ${JSON.stringify(resource, null, 1)};\n`;
    });
    const file = join(dir, "resources.ts");
    writeFileSync(file, literals.join(""));
    const flags = "--ignoreConfig --noEmit --strict --skipLibCheck --target es2023 --module nodenext".split(" ");
    const { status, stdout, stderr } = spawnSync(process.execPath, [compiler, ...flags, "--types", "", file], {
      encoding: "utf8",
    });
    const errors = stdout.split("\n").filter((line) => /error TS\d+/.test(line));
    if (status !== 0 && errors.length === 0) throw new Error(`the compiler ended with ${status}: ${stderr}`);
    return errors;
  } finally {
    rmSync(dir, { recursive: true });
  }
}

t.test("kubernetes.yaml is valid", async (t) => {
  const resources = resourcesOf("docker/kubernetes.yaml");
  t.same(
    resources.map(({ kind }) => kind),
    ["Service", "StatefulSet"],
  );
  for (const resource of resources) t.doesNotThrow(() => validate(resource), resource.kind);
  t.same(unknownMembers(resources), []);
});

t.test("and the check finds what isn't", async (t) => {
  const [, set] = resourcesOf("docker/kubernetes.yaml") as [Resource, Resource];
  t.throws(() => validate({ ...set, spec: { ...set.spec, replicas: "1" } }), /replicas must be integer/);
  t.throws(() => validate({ ...set, apiVersion: "v1" }), /apiVersion/);
  const { selector: _, ...rest } = set.spec;
  t.throws(() => validate({ ...set, spec: rest }), /required property selector/);
  t.match(unknownMembers([{ ...set, spec: { ...set.spec, replica: 1 } }]), [/'replica'|"replica"/]);
});
