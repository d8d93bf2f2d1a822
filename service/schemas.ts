// schemas.ts - the nouns of the API as JSON Schema: one source for validation, types and the OpenAPI document.
//
// They are literals whose TypeScript types TypeBox derives at compile time. Building the same objects with TypeBox's own
// functions would load 700 modules at every start, 125 ms of the 300 ms that a start may take.
import type { XStatic } from "typebox/schema";
import { problemCodes } from "./errors.js";
import { encodings } from "./store/batch-encoder.js";
import { valueTypes } from "./store/cells.js";
import { changeKinds } from "./store/change-feed.js";
import { changeRangesMax } from "./store/changed-ranges.js";
import { algorithms, compares, mismatches, overflows, patternBytesMax } from "./store/frame.js";
import { regionNamePattern } from "./store/region-name.js";
import { labelsMax } from "./store/regions.js";
import { snapshotIdPattern } from "./store/snapshots.js";
import { textViews } from "./store/views.js";

type Schema = Readonly<Record<string, unknown>>;

export const durabilities = ["fast", "ordered", "durable"] as const;
const integerTypes = valueTypes.filter((type) => !type.startsWith("f"));
const unsignedTypes = valueTypes.filter((type) => type.startsWith("u"));
const safeMax = Number.MAX_SAFE_INTEGER;

/** A component of the document. */
const ref = (id: string) => ({ $ref: `${id}#` }) as const;

function object(properties: Schema, required: readonly string[] = Object.keys(properties)): Schema {
  return { type: "object", additionalProperties: false, required, properties };
}

const generation = {
  type: "integer",
  minimum: 0,
  maximum: safeMax,
  description: "Batches that the region has taken. A new region is at 0.",
  examples: [42],
} as const;
const durableGeneration = {
  type: "integer",
  minimum: 0,
  maximum: safeMax,
  description: "The last generation that survives a power cut.",
  examples: [42],
} as const;
const position = (description: string, example = 64) =>
  ({ type: "integer", minimum: 0, maximum: safeMax, description, examples: [example] }) as const;

// ---- regions -------------------------------------------------------------------------------------------------------

const regionName = {
  type: "string",
  minLength: 1,
  maxLength: 64,
  pattern: regionNamePattern,
  description: "Name of the region. Never contains `..`.",
  examples: ["demo"],
} as const;

const durability = {
  type: "string",
  enum: durabilities,
  description:
    "What an acknowledged batch survives. `fast`: any kill of the service. `ordered`: that, and whole after a power cut, which may lose the last flush interval. `durable`: both.",
  examples: ["durable"],
} as const;

const labelName = { type: "string", minLength: 1, maxLength: 64, pattern: "^[A-Za-z0-9][A-Za-z0-9._/-]*$" } as const;
const labelValue = { type: "string", maxLength: 256 } as const;

const labels = {
  type: "object",
  maxProperties: labelsMax,
  propertyNames: labelName,
  additionalProperties: labelValue,
  description: "Your own notes about the region.",
  examples: [{ team: "blue" }],
} as const;

const sparse = {
  type: "boolean",
  description: "No space is reserved: a batch may find the file system full (507).",
  examples: [false],
} as const;

const size = {
  type: "integer",
  minimum: 1,
  maximum: safeMax,
  description: "Bytes. At most `regionBytesMax` of GET /v1/limits.",
  examples: [4096],
} as const;

export const regionCreate = {
  $id: "RegionCreate",
  type: "object",
  additionalProperties: false,
  required: ["name", "size"],
  description: "A region to create. Its bytes are zero.",
  properties: {
    name: regionName,
    size,
    durability: { ...durability, default: "durable" },
    labels,
    sparse: { ...sparse, default: false },
  },
  examples: [{ name: "demo", size: 4096, durability: "durable", labels: { team: "blue" } }],
} as const;
export type RegionCreate = XStatic<typeof regionCreate>;

export const regionPatch = {
  $id: "RegionPatch",
  type: "object",
  additionalProperties: false,
  description: "A merge patch (RFC 7396): what is left out stays.",
  properties: {
    size: { ...size, description: "New size in bytes. Shrinking needs If-Match: it can't be undone." },
    labels: {
      type: ["object", "null"],
      maxProperties: labelsMax,
      propertyNames: labelName,
      additionalProperties: { anyOf: [labelValue, { type: "null" }] },
      description: "Labels to set; null takes one away, or all of them.",
      examples: [{ team: "green", old: null }],
    },
    durability,
    readOnly: { type: "boolean", description: "Writes are refused while it is true.", examples: [true] },
    integrity: {
      type: "string",
      enum: ["verified"],
      description: "Says that somebody has looked at an `unverified` region and found it good.",
      examples: ["verified"],
    },
  },
  examples: [{ labels: { team: "green" } }],
} as const;
export type RegionPatch = XStatic<typeof regionPatch>;

const region: Schema = {
  $id: "Region",
  ...object({
    name: regionName,
    size,
    durability,
    sparse,
    readOnly: { type: "boolean", description: "Writes are refused.", examples: [false] },
    labels,
    generation,
    durableGeneration,
    metaGeneration: {
      type: "integer",
      minimum: 0,
      maximum: safeMax,
      description: "Changes of the region itself.",
      examples: [1],
    },
    etag: {
      type: "string",
      maxLength: 64,
      pattern: '^"[0-9]+\\.[0-9]+\\.[0-9]+"$',
      description: "The region's entity tag, for If-Match.",
      examples: ['"7.1.42"'],
    },
    state: {
      type: "string",
      enum: ["ok", "faulted"],
      description: "A faulted region refuses writes; reads may work.",
      examples: ["ok"],
    },
    fault: { type: ["string", "null"], maxLength: 2000, description: "Why it is faulted.", examples: [null] },
    integrity: {
      type: "string",
      enum: ["verified", "unverified"],
      description:
        "`unverified`: a `fast` region that lived through an unclean restart of the machine, or could not be synced.",
      examples: ["verified"],
    },
    adopted: { type: "boolean", description: "An operator's own file, mapped in place.", examples: [false] },
    createdAt: {
      type: "string",
      format: "date-time",
      maxLength: 24,
      description: "When it was created.",
      examples: ["2026-01-31T12:00:00.000Z"],
    },
    modifiedAt: {
      type: "string",
      format: "date-time",
      maxLength: 24,
      description: "When the region itself was last changed.",
      examples: ["2026-01-31T12:00:00.000Z"],
    },
  }),
  description: "A named mapped file.",
};

const regionPage: Schema = {
  $id: "RegionPage",
  ...object({
    items: { type: "array", maxItems: 1000, items: ref("Region"), description: "By name." },
    nextCursor: {
      type: ["string", "null"],
      maxLength: 200,
      description: "The next page's `cursor`; null at the end.",
      examples: [null],
    },
  }),
  description: "A page of regions.",
};

export const regionParams = {
  type: "object",
  required: ["region"],
  properties: { region: regionName },
} as const;

export const listQuery = {
  type: "object",
  additionalProperties: false,
  properties: {
    limit: { type: "integer", minimum: 1, maximum: 1000, default: 50, description: "Regions a page.", examples: [50] },
    cursor: {
      type: "string",
      maxLength: 200,
      description: "`nextCursor` of the page before.",
      examples: ["YWZ0ZXI6ZGVtbw"],
    },
    prefix: { type: "string", maxLength: 64, default: "", description: "Only names that begin with this." },
  },
} as const;

// ---- batches -------------------------------------------------------------------------------------------------------

const cellValue: Schema = {
  $id: "CellValue",
  type: ["number", "string"],
  maxLength: 400,
  pattern: "^(?:NaN|-?Infinity|-?[0-9]+(?:\\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)$",
  description:
    "A number of the cell's type. 64-bit integers are strings in answers; in requests strings or integers up to 2^53 - 1. NaN and infinities are strings.",
  examples: ["1"],
};

const value = ref("CellValue");
const text = (description: string, example: string) => ({
  type: "string",
  maxLength: 1 << 25,
  description,
  examples: [example],
});
const choice = (choices: readonly string[], description: string, fallback?: string) => ({
  type: "string",
  enum: choices,
  description,
  ...(fallback === undefined ? { examples: [choices[0]] } : { default: fallback, examples: [fallback] }),
});

const offset = position("Position in bytes.");
const length = position("Bytes.", 16);
const encoding = choice(encodings, "How bytes are written in JSON.", "base64");
const endian = choice(["little", "big"], "Byte order of the cell.", "little");
const type = choice(valueTypes, "Type of the cell.");
const integerType = choice(integerTypes, "Type of the cell.");
const data = text("Bytes, in `encoding`.", "SGVsbG8=");
const cell = { offset, type, endian };

interface Operation {
  about: string;
  required: string[];
  properties: Schema;
  more?: Schema;
}

const guards: Record<string, Operation> = {
  generation: {
    about: "Compares the region's generation.",
    required: ["op", "value"],
    properties: { op: choice(compares, "How."), value: position("The generation to compare with.", 41) },
  },
  value: {
    about: "Compares a cell: true when `cell op value`.",
    required: ["offset", "type", "op", "value"],
    properties: { ...cell, op: choice(compares, "How."), value },
  },
  bytes: {
    about: "Compares bytes.",
    required: ["offset", "equals"],
    properties: { offset, encoding, equals: text("The bytes, in `encoding`.", "3q2+7w==") },
  },
  digest: {
    about: "Compares the digest of a range.",
    required: ["offset", "length", "algorithm", "equals"],
    properties: {
      offset,
      length,
      algorithm: choice(algorithms, "Of the digest."),
      encoding: choice(encodings, "How `equals` is written.", "hex"),
      equals: text("The digest; CRC-32C with its most significant byte first.", "e3069283"),
    },
  },
};

const operations: Record<string, Operation> = {
  read: { about: "Reads bytes.", required: ["offset", "length"], properties: { offset, length, encoding } },
  write: { about: "Writes bytes.", required: ["offset", "data"], properties: { offset, data, encoding } },
  fill: {
    about: "Repeats a pattern.",
    required: ["offset", "length", "pattern"],
    properties: {
      offset,
      length,
      pattern: {
        type: "string",
        minLength: 2,
        maxLength: 2 * patternBytesMax,
        pattern: "^(?:[0-9A-Fa-f]{2})+$",
        description: "Bytes in hex.",
        examples: ["00"],
      },
    },
  },
  copy: {
    about: "Copies bytes, as memmove does where they overlap.",
    required: ["from", "to", "length"],
    properties: {
      from: position("Where they come from.", 0),
      to: position("Where they go.", 64),
      length,
      fromRegion: { ...regionName, description: "The region that they come from, if it is another one." },
    },
  },
  load: {
    about: "Reads cells.",
    required: ["offset", "type"],
    properties: {
      ...cell,
      count: {
        type: "integer",
        minimum: 1,
        maximum: safeMax,
        description: "How many; without it one, as `value`.",
        examples: [4],
      },
    },
  },
  store: {
    about: "Writes one cell, or several in a row.",
    required: ["offset", "type"],
    properties: {
      ...cell,
      value,
      values: {
        type: "array",
        minItems: 1,
        maxItems: 1 << 20,
        items: value,
        description: "Cells in a row.",
        examples: [["1", "2"]],
      },
    },
    more: {
      oneOf: [
        { required: ["value"], properties: { value } },
        { required: ["values"], properties: { values: { type: "array", maxItems: 1 << 20, items: value } } },
      ],
    },
  },
  exchange: {
    about: "Writes a cell and tells what it held.",
    required: ["offset", "type", "value"],
    properties: { ...cell, value },
  },
  add: {
    about: "Adds to a cell.",
    required: ["offset", "type", "value"],
    properties: {
      ...cell,
      value,
      overflow: choice(overflows, "What happens beyond the type's range. `fail` changes nothing (409).", "fail"),
    },
  },
  and: {
    about: "Bitwise and.",
    required: ["offset", "type", "value"],
    properties: { ...cell, type: integerType, value },
  },
  or: {
    about: "Bitwise or.",
    required: ["offset", "type", "value"],
    properties: { ...cell, type: integerType, value },
  },
  xor: {
    about: "Bitwise exclusive or.",
    required: ["offset", "type", "value"],
    properties: { ...cell, type: integerType, value },
  },
  min: { about: "Keeps the lesser value.", required: ["offset", "type", "value"], properties: { ...cell, value } },
  max: { about: "Keeps the greater value.", required: ["offset", "type", "value"], properties: { ...cell, value } },
  cas: {
    about: "Writes a cell only if it holds what is expected.",
    required: ["offset", "type", "expected", "value"],
    properties: {
      ...cell,
      expected: value,
      value,
      onMismatch: choice(mismatches, "`abort` changes nothing (409).", "abort"),
    },
  },
  append: {
    about: "Writes at the offset that a cell holds, and advances it.",
    required: ["cursorOffset", "data"],
    properties: {
      cursorOffset: position("Position of the cursor's cell.", 0),
      cursorType: choice(unsignedTypes, "Type of the cursor.", "u64"),
      endian,
      data,
      encoding,
    },
  },
};

const name = (word: string) => word[0]!.toUpperCase() + word.slice(1);

/** Schemas of every guard and op, and of a batch of them. `multi`: each names its region. */
function batchSchemas(multi: boolean): Schema[] {
  const prefix = multi ? "Multi" : "";
  const own = multi ? { region: regionName } : {};
  const ownRequired = multi ? ["region"] : [];
  const guardSchemas = Object.entries(guards).map(([kind, { about, required, properties }]) => ({
    $id: `${prefix}Guard${name(kind)}`,
    description: about,
    ...object(
      { kind: { type: "string", const: kind, description: "The guard.", examples: [kind] }, ...own, ...properties },
      ["kind", ...ownRequired, ...required],
    ),
  }));
  const opSchemas = Object.entries(operations).map(([op, { about, required, properties, more }]) => ({
    $id: `${prefix}Op${name(op)}`,
    description: about,
    ...object(
      { op: { type: "string", const: op, description: "The operation.", examples: [op] }, ...own, ...properties },
      ["op", ...ownRequired, ...required],
    ),
    ...more,
  }));
  const assertSchema = {
    $id: `${prefix}OpAssert`,
    description: "A guard that is evaluated at this point of the sequence; false changes nothing (412).",
    ...object({
      op: { type: "string", const: "assert", description: "The operation.", examples: ["assert"] },
      guard: ref(`${prefix}Guard`),
    }),
  };
  const union = (
    id: string,
    description: string,
    property: string,
    members: readonly { $id: string; properties?: unknown }[],
  ) => ({
    $id: id,
    description,
    type: "object",
    discriminator: { propertyName: property },
    oneOf: members.map((member) => ref(member.$id)),
    required: [property],
  });
  const ops = [...opSchemas, assertSchema];
  const list = (item: string, minItems: number, description: string) => ({
    type: "array",
    minItems,
    maxItems: 65535,
    items: ref(`${prefix}${item}`),
    description,
  });
  return [
    ...guardSchemas,
    union(
      `${prefix}Guard`,
      "A condition on the bytes as they are before the batch. All guards see one consistent view.",
      "kind",
      guardSchemas,
    ),
    ...ops,
    union(`${prefix}Op`, "One operation. They run in order and see each other; all land or none.", "op", ops),
    {
      $id: `${prefix}Batch`,
      description: multi
        ? "Operations over several regions that land together or not at all."
        : "Operations that land together or not at all.",
      ...object(
        {
          guards: list("Guard", 0, "All must hold, or `elseOps` run; without those nothing does (412)."),
          ops: list("Op", 0, "What is done."),
          elseOps: list("Op", 1, "What is done when a guard is false."),
          durability: {
            ...durability,
            description: "Wait for more than the region's own durability before answering. Less is refused.",
          },
          dryRun: {
            type: "boolean",
            default: false,
            description: "Answer as if, and change nothing.",
            examples: [false],
          },
        },
        ["ops"],
      ),
    },
  ];
}

const result = (title: string, properties: Schema): Schema => ({ title, ...object(properties) });
const cellList = {
  type: "array",
  maxItems: 1 << 24,
  items: value,
  description: "Cells in a row.",
  examples: [["1", "2"]],
};

const opResult: Schema = {
  $id: "OpResult",
  description: "What one operation did; its members depend on the operation.",
  type: "object",
  anyOf: [
    result("ReadResult", { data: text("The bytes, in the operation's encoding.", "SGVsbG8=") }),
    result("WriteResult", { bytes: position("Bytes that were written.", 5) }),
    result("LoadResult", { value }),
    result("LoadManyResult", { values: cellList }),
    result("StoreResult", { old: { anyOf: [value, cellList], description: "What was there.", examples: ["0"] } }),
    result("ExchangeResult", { old: value, new: value }),
    result("AddResult", {
      old: value,
      new: value,
      overflowed: { type: "boolean", description: "The sum left the type's range.", examples: [false] },
    }),
    result("CasResult", {
      swapped: { type: "boolean", description: "The cell was written.", examples: [true] },
      actual: value,
    }),
    result("AppendResult", { at: position("Where the bytes went."), next: position("The cursor after them.", 69) }),
    result("AssertResult", {}),
  ],
};

const committed = {
  type: "boolean",
  description: "Something was written, and it will survive. False for a dry run and for a batch that only reads.",
  examples: [true],
};
const branch = { type: "string", enum: ["ops", "elseOps"], description: "Which operations ran.", examples: ["ops"] };
const results = {
  type: "array",
  maxItems: 65535,
  items: ref("OpResult"),
  description: "One for each operation that ran, in order.",
};
const byRegion = (of: Schema) => ({
  type: "object",
  propertyNames: regionName,
  additionalProperties: of,
  description: "By region.",
});

const batchAnswer: Schema = {
  $id: "BatchAnswer",
  ...object({ committed, branch, generation, durableGeneration, results }),
  description: "What a batch did.",
};
const multiBatchAnswer: Schema = {
  $id: "MultiBatchAnswer",
  ...object({
    committed,
    branch,
    generations: byRegion(generation),
    durableGenerations: byRegion(durableGeneration),
    results,
  }),
  description: "What a batch over several regions did.",
};

// ---- cells, views, flushes -----------------------------------------------------------------------------------------

export const cellParams = {
  type: "object",
  required: ["region", "offset"],
  properties: {
    region: regionName,
    offset: {
      type: "integer",
      minimum: 0,
      maximum: safeMax,
      description: "Position of the cell in bytes.",
      examples: [8],
    },
  },
} as const;

export const cellQuery = {
  type: "object",
  additionalProperties: false,
  properties: {
    type: { type: "string", enum: valueTypes, default: "u64", description: "Type of the cell.", examples: ["u64"] },
    endian: {
      type: "string",
      enum: ["little", "big"],
      default: "little",
      description: "Its byte order.",
      examples: ["little"],
    },
  },
} as const;
export type CellQuery = XStatic<typeof cellQuery>;

const cellStore: Schema = {
  $id: "CellStore",
  ...object({ value, durability: { ...durability, description: "Wait for more than the region's own durability." } }, [
    "value",
  ]),
  description: "What a cell shall hold.",
  examples: [{ value: "7" }],
};

const cellOp: Schema = {
  $id: "CellOp",
  description: "One operation on a cell, as in a batch, without its place.",
  ...object(
    {
      op: choice(["exchange", "add", "and", "or", "xor", "min", "max", "cas"], "The operation."),
      value,
      overflow: choice(overflows, "Of `add`.", "fail"),
      expected: value,
      onMismatch: choice(mismatches, "Of `cas`.", "abort"),
      durability: { ...durability, description: "Wait for more than the region's own durability." },
    },
    ["op", "value"],
  ),
  examples: [{ op: "add", value: "1" }],
};

const cellAnswer: Schema = {
  $id: "Cell",
  ...object({ value, generation, durableGeneration }),
  description: "A cell's value, and the generation that it is of.",
};

const cellChange: Schema = {
  $id: "CellChange",
  ...object({ committed, generation, durableGeneration, result: ref("OpResult") }),
  description: "What an operation on a cell did.",
};

const queryOffset = {
  type: "integer",
  minimum: 0,
  maximum: safeMax,
  default: 0,
  description: "Where to begin.",
  examples: [0],
} as const;

/** `left`: what it is if left out. */
const queryLength = <const T extends string>(left: T) =>
  ({
    type: "integer",
    minimum: 0,
    maximum: safeMax,
    description: `Bytes; ${left} if left out.`,
    examples: [64],
  }) as const;

export const viewQuery = {
  type: "object",
  additionalProperties: false,
  properties: {
    offset: queryOffset,
    length: queryLength("256, or what there is,"),
    as: {
      type: "string",
      enum: [...textViews, ...valueTypes],
      default: "hexdump",
      description: "How to show them.",
      examples: ["hexdump"],
    },
    endian: {
      type: "string",
      enum: ["little", "big"],
      default: "little",
      description: "Byte order of cells.",
      examples: ["little"],
    },
  },
} as const;
export type ViewQuery = XStatic<typeof viewQuery>;

const cellsView: Schema = {
  $id: "CellsView",
  ...object({ offset, type, endian, values: cellList, generation }),
  description: "Cells in a row.",
};

const flush: Schema = {
  $id: "Flush",
  ...object({ durableGeneration }),
  description: "How much survives a power cut now.",
};

// ---- changes -------------------------------------------------------------------------------------------------------

/** Longer than proxies wait for an answer. */
const waitSecondsMax = 60;

export const changesQuery = {
  type: "object",
  additionalProperties: false,
  properties: {
    since: {
      type: "integer",
      minimum: 0,
      maximum: safeMax,
      description:
        "Changes after this generation. Left out: from the oldest that is remembered; in an event stream from now on.",
      examples: [0],
    },
    limit: { type: "integer", minimum: 1, maximum: 1000, default: 100, description: "Changes a page.", examples: [10] },
    wait: {
      type: "integer",
      minimum: 0,
      maximum: waitSecondsMax,
      default: 0,
      description: "Seconds to wait for a change when there is none yet.",
      examples: [0],
    },
  },
} as const;
export type ChangesQuery = XStatic<typeof changesQuery>;

const change: Schema = {
  $id: "Change",
  ...object({
    generation: { ...generation, description: "The generation that it made." },
    at: {
      type: "string",
      format: "date-time",
      maxLength: 24,
      description: "When it was answered.",
      examples: ["2026-01-31T12:00:00.000Z"],
    },
    kind: { type: "string", enum: changeKinds, description: "What it was.", examples: ["batch"] },
    ranges: {
      type: "array",
      maxItems: changeRangesMax,
      items: { ...object({ offset, length }), description: "Bytes in a row." },
      description:
        "Bytes that were written, that a resize added or took away, or that a restore may have changed: by offset and apart from each other. Of a batch of more ranges, fewer that cover them.",
      examples: [[{ offset: 64, length: 5 }]],
    },
    durable: { type: "boolean", description: "It survives a power cut by now.", examples: [true] },
  }),
  description: "A change of a region.",
};

const changePage: Schema = {
  $id: "ChangePage",
  ...object({
    items: { type: "array", maxItems: 1000, items: ref("Change"), description: "In order, without a gap." },
    next: { ...generation, description: "`since` of the next request." },
    oldest: { ...generation, description: "The least `since` that is not 410." },
  }),
  description: "Changes of a region.",
};

// ---- snapshots ----------------------------------------------------------------------------------------------------

const snapshotId = {
  type: "string",
  maxLength: 16,
  pattern: snapshotIdPattern,
  description: "Id of the snapshot; of two, the greater one is the later.",
  examples: ["1769860800000000"],
} as const;

/** In front of an id, where a generation may stand as well. */
export const snapshotPrefix = "snapshot:";
const sinceSnapshotPattern = "^snapshot:[0-9]{16}$";

export const snapshotParams = {
  type: "object",
  required: ["region", "snapshot"],
  properties: { region: regionName, snapshot: snapshotId },
} as const;

const snapshot: Schema = {
  $id: "Snapshot",
  ...object({
    id: snapshotId,
    generation: { ...generation, description: "The region's generation that it is of." },
    size,
    etag: {
      type: "string",
      maxLength: 64,
      pattern: '^"[0-9]+\\.[0-9]+\\.[0-9]+"$',
      description: "Entity tag of its bytes. They never change.",
      examples: ['"1769860800000000.0.42"'],
    },
    createdAt: {
      type: "string",
      format: "date-time",
      maxLength: 24,
      description: "When its bytes were the region's.",
      examples: ["2026-01-31T12:00:00.000Z"],
    },
  }),
  description: "The bytes of a region as they were at one generation.",
};

const snapshotList: Schema = {
  $id: "SnapshotList",
  ...object({
    items: { type: "array", maxItems: 1024, items: ref("Snapshot"), description: "By age, the oldest first." },
  }),
  description: "The snapshots of a region.",
};

// ---- content -------------------------------------------------------------------------------------------------------

export const contentQuery = {
  type: "object",
  additionalProperties: false,
  properties: {
    snapshot: { ...snapshotId, description: "Of a snapshot of the region, in place of what it holds now." },
    download: { type: "string", enum: ["1"], description: "Suggest to save the bytes as a file.", examples: ["1"] },
  },
} as const;
export type ContentQuery = XStatic<typeof contentQuery>;

export const uploadQuery = {
  type: "object",
  additionalProperties: false,
  properties: {
    durability: {
      ...durability,
      description:
        "Of a region that is created (`durable` if left out); for one that exists, wait for more than its own.",
    },
  },
} as const;
export type UploadQuery = XStatic<typeof uploadQuery>;

export const patchQuery = {
  type: "object",
  additionalProperties: false,
  properties: {
    durability: { ...durability, description: "Wait for more than the region's own." },
  },
} as const;
export type PatchQuery = XStatic<typeof patchQuery>;

export const digestQuery = {
  type: "object",
  additionalProperties: false,
  properties: {
    offset: queryOffset,
    length: queryLength("up to the region's end"),
    algorithm: {
      type: "string",
      enum: algorithms,
      default: "sha-256",
      description: "Of the digest.",
      examples: ["sha-256"],
    },
  },
} as const;
export type DigestQuery = XStatic<typeof digestQuery>;

/** What the kernel has in memory or has not. */
const pageBytes = 4096;

export const extentsQuery = {
  type: "object",
  additionalProperties: false,
  properties: {
    offset: queryOffset,
    limit: {
      type: "integer",
      minimum: 1,
      maximum: 1000,
      default: 100,
      description: "Extents a page.",
      examples: [100],
    },
    since: {
      anyOf: [
        { type: "integer", minimum: 0, maximum: safeMax },
        { type: "string", maxLength: 25, pattern: sinceSnapshotPattern },
      ],
      description:
        "Ranges that changed after this generation, or that differ from a snapshot (`snapshot:ID`), in place of data and holes.",
      examples: [0],
    },
    granularity: {
      type: "integer",
      minimum: pageBytes,
      maximum: 1 << 30,
      multipleOf: pageBytes,
      description:
        "Slices of so many bytes, and how much of each holds data and is in memory, in place of data and holes.",
      examples: [pageBytes],
    },
  },
} as const;
export type ExtentsQuery = XStatic<typeof extentsQuery>;

const extent: Schema = {
  $id: "Extent",
  ...object(
    {
      offset: position("Position of the first byte.", 0),
      length: position("Bytes.", 4096),
      kind: choice(["data", "hole", "changed", "slice"], "A hole reads as zeros."),
      dataBytes: position("Of a slice: how many of its bytes hold data.", 4096),
      residentBytes: position("Of a slice: how many of its bytes are in memory, in the kernel's page cache.", 4096),
    },
    ["offset", "length", "kind"],
  ),
  description: "A range that is all data, all hole, or has changed; or a slice of the region with both and its shares.",
};

const extentPage: Schema = {
  $id: "ExtentPage",
  ...object({
    items: { type: "array", maxItems: 1000, items: ref("Extent"), description: "By offset." },
    nextOffset: {
      type: ["integer", "null"],
      minimum: 0,
      maximum: safeMax,
      description: "The next page's `offset`; null at the end.",
      examples: [null],
    },
    size,
    generation,
    durableGeneration,
  }),
  description: "A page of extents.",
};

const digest: Schema = {
  $id: "Digest",
  ...object({
    algorithm: choice(algorithms, "Of the digest."),
    offset: position("Position of the first byte.", 0),
    length: position("Bytes.", 64),
    digest: {
      type: "string",
      maxLength: 64,
      pattern: "^(?:[0-9a-f]{2})+$",
      description:
        "In hex; CRC-32C with its most significant byte first. A guard of the kind `digest` takes it as it is.",
      examples: ["e3069283"],
    },
    generation,
    durableGeneration,
  }),
  description: "The digest of a range, and the generation that it is of.",
};

// ---- service -------------------------------------------------------------------------------------------------------

const code = {
  type: "string",
  enum: problemCodes,
  description: "What went wrong, as a stable word.",
  examples: ["region-not-found"],
};

const failure: Schema = {
  $id: "Failure",
  description: "One culprit of a refused request.",
  ...object(
    {
      index: {
        type: "integer",
        minimum: 0,
        maximum: 65535,
        description: "Position in `guards`, `ops` or `elseOps`, or among the parts of a patch.",
        examples: [3],
      },
      op: { type: "string", maxLength: 16, description: "The operation.", examples: ["add"] },
      pointer: {
        type: "string",
        maxLength: 2000,
        description: "JSON pointer into the request's body.",
        examples: ["/ops/3/value"],
      },
      code: { type: "string", maxLength: 64, description: "What is wrong with it.", examples: ["overflow"] },
      detail: {
        type: "string",
        maxLength: 2000,
        description: "The same in words.",
        examples: ["must be a whole number"],
      },
      limit: {
        type: ["number", "string"],
        maxLength: 400,
        description: "What was allowed or expected.",
        examples: ["255"],
      },
      actual: { type: ["number", "string"], maxLength: 400, description: "What was found.", examples: ["256"] },
    },
    ["code"],
  ),
};

const problem: Schema = {
  $id: "Problem",
  description: "What went wrong (RFC 9457).",
  ...object({
    type: {
      type: "string",
      format: "uri-reference",
      maxLength: 100,
      description: "A page about the code, on this server.",
      examples: ["/problems/region-not-found"],
    },
    title: { type: "string", maxLength: 200, description: "The code in words.", examples: ["No region of this name"] },
    status: { type: "integer", minimum: 400, maximum: 599, description: "HTTP status.", examples: [404] },
    detail: {
      type: "string",
      maxLength: 2000,
      description: "About this very request.",
      examples: ["no region of this name"],
    },
    instance: {
      type: "string",
      format: "uri-reference",
      maxLength: 16384,
      description: "The request's path.",
      examples: ["/v1/regions/demo"],
    },
    code,
    requestId: {
      type: "string",
      maxLength: 64,
      description: "As in the header Request-Id and in the log.",
      examples: ["k3v9-1z"],
    },
    retryable: { type: "boolean", description: "The same request may succeed later.", examples: [false] },
    committed: { type: "boolean", description: "The request took effect all the same.", examples: [false] },
    failures: { type: "array", maxItems: 131072, items: ref("Failure"), description: "Every culprit, in order." },
  }),
};

const link = (to: string) => ({ type: "string", maxLength: 200, description: "Path.", examples: [to] });
const word = (description: string, example: string) => ({
  type: "string",
  maxLength: 200,
  description,
  examples: [example],
});

const serviceDocument: Schema = {
  $id: "Service",
  description: "What this is and where everything is.",
  ...object({
    name: word("The service.", "holdfast"),
    version: word("Its version.", "0.1.0"),
    description: word("What it does.", "Memory-mapped files over HTTP."),
    links: object({
      regions: link("/v1/regions"),
      batches: link("/v1/batches"),
      limits: link("/v1/limits"),
      status: link("/v1/status"),
      docs: link("/docs"),
      console: link("/ui"),
      openapi: link("/openapi.json"),
      problems: link("/problems"),
      health: link("/readyz"),
      metrics: link("/metrics"),
    }),
  }),
};

const versionDocument: Schema = {
  $id: "Version",
  description: "What is running.",
  ...object({
    name: word("The service.", "holdfast"),
    version: word("Its version.", "0.1.0"),
    node: word("Version of Node.js.", "v24.21.0"),
  }),
};

const lifecycleState = {
  type: "string",
  enum: ["starting", "standby", "ready", "lameduck", "draining", "forced", "stopped"],
  description: "Where the process is in its life.",
  examples: ["ready"],
};

const health: Schema = {
  $id: "Health",
  description: "It answers.",
  ...object({
    state: lifecycleState,
  }),
};

const count = (description: string, example: number) => ({
  type: "integer",
  minimum: 0,
  maximum: safeMax,
  description,
  examples: [example],
});

const limitsDocument: Schema = {
  $id: "Limits",
  description: "Every limit and capability of this server.",
  ...object({
    regionsMax: count("Regions.", 1024),
    snapshotsMax: count("Snapshots of a region.", 64),
    regionBytesMax: count("Size of a region.", 64 * 2 ** 30),
    regionNameBytesMax: count("Length of a region's name.", 64),
    regionLabelsMax: count("Labels of a region.", labelsMax),
    batchOpsMax: count("Operations of a batch, and as many in `elseOps`.", 4096),
    batchGuardsMax: count("Guards of a batch, conditions of headers among them.", 256),
    batchRegionsMax: count("Regions of a batch.", 64),
    batchBytesMax: count("Bytes that a batch writes, and as many that it returns.", 8 << 20),
    batchBodyBytesMax: count("Length of a batch's JSON.", 17 << 20),
    patchBodyBytesMax: count("Length of a byte-range patch that lands at once.", 9 << 20),
    patternBytesMax: count("Pattern of a fill.", 4096),
    rangesMax: count("Ranges of a GET.", 64),
    readBytesMax: count("Bytes that are read at one point in time.", 8 << 20),
    viewBytesMax: count("Bytes of a view.", 64 << 10),
    changesKeptMax: count("Changes of a region that are remembered.", 1024),
    changeRangesMax: count("Ranges of a change; more are told as fewer that cover them.", changeRangesMax),
    eventStreamsMax: count("Event streams that are open at once.", 256),
    idempotencyKeysMin: count("Idempotency keys that are remembered at least.", 10000),
    idempotencySecondsMin: count("For how many seconds at least.", 600),
    rateLimit: count("Requests a second of a client; 0: as many as it likes.", 100),
    rateLimitBurst: count("Requests of a client at once.", 200),
    durabilities: {
      type: "array",
      maxItems: 3,
      items: { type: "string", enum: durabilities },
      description: "Durabilities that regions may have.",
      examples: [durabilities],
    },
    types: {
      type: "array",
      maxItems: 16,
      items: { type: "string", maxLength: 8 },
      description: "Types of cells.",
      examples: [valueTypes],
    },
    ops: {
      type: "array",
      maxItems: 32,
      items: { type: "string", maxLength: 16 },
      description: "Operations.",
      examples: [Object.keys(operations)],
    },
    guards: {
      type: "array",
      maxItems: 16,
      items: { type: "string", maxLength: 16 },
      description: "Guards.",
      examples: [Object.keys(guards)],
    },
  }),
};

export const opNames = [...Object.keys(operations), "assert"];
export const guardNames = Object.keys(guards);

const flag = (description: string, example: boolean) => ({ type: "boolean", description, examples: [example] });
const time = (description: string) => ({
  type: "string",
  format: "date-time",
  maxLength: 24,
  description,
  examples: ["2026-01-31T12:00:00.000Z"],
});
const amount = (description: string, example: number) => ({
  type: "number",
  minimum: 0,
  description,
  examples: [example],
});
const regionNames = (description: string) => ({
  type: "array",
  maxItems: 65536,
  items: regionName,
  description,
  examples: [[]],
});
const outcomes = {
  answered: count("Requests that were answered.", 12),
  refused: count("Requests that were answered 503.", 3),
  cut: count("Connections that were ended with a request open on them.", 0),
  aborted: count("Requests whose client went away.", 0),
};

const lifecycleDetail: Schema = {
  ...object(
    {
      connections: {
        ...object({ open: count("All.", 3), active: count("Those with a request on them.", 1) }),
        description: "Connections.",
      },
      signals: {
        ...object({
          caught: count("TERM and INT so far.", 0),
          dispositions: {
            ...object({
              term: flag("TERM is handled here.", true),
              interrupt: flag("INT is handled here.", true),
              bus: flag("BUS is handled here.", true),
              repaired: count("Handlers that were displaced and put back.", 0),
            }),
            description: "Who handles the signals.",
          },
        }),
        description: "Signals.",
      },
      drain: {
        ...object({ elapsedMs: amount("Since the first signal.", 42.5), ...outcomes }),
        type: ["object", "null"],
        description: "The stop that is under way.",
        examples: [null],
      },
      previousRun: {
        ...object(
          {
            state: {
              type: "string",
              enum: ["ended", "killed"],
              description: "`killed`: it could not say more.",
              examples: ["ended"],
            },
            startedAtMs: count("When it started, in milliseconds since 1970, if it was killed.", 1769860800000),
            endedAtMs: count("When it ended, in milliseconds since 1970.", 1769860800000),
            signal: {
              type: ["string", "null"],
              enum: ["SIGTERM", "SIGINT", null],
              description: "What ended it.",
              examples: ["SIGTERM"],
            },
            code: { type: "integer", minimum: 0, maximum: 255, description: "Its exit code.", examples: [0] },
            reason: word("How it came to that.", "drained"),
            drainMs: amount("From the first signal to the end.", 143.2),
            outcomes: { ...object(outcomes), description: "What became of the last requests." },
          },
          ["state"],
        ),
        type: ["object", "null"],
        description: "How the last run ended; null for the first one.",
        examples: [null],
      },
    },
    [],
  ),
  description: "Connections, signals, the drain under way, how the last run ended.",
};

const recoveryReport: Schema = {
  ...object({
    row: { type: "string", maxLength: 1, pattern: "^[A-Z]$", description: "What was found.", examples: ["A"] },
    sameBoot: flag("The machine was not restarted since.", true),
    clean: flag("The last run closed the store.", true),
    redone: count("Records of the journal that were applied again.", 0),
    ms: amount("How long it took.", 1.5),
    unverified: regionNames("Regions that are unverified since."),
    faulted: regionNames("Regions that could not be mended."),
    detail: { type: "string", maxLength: 2000, description: "The same in words.", examples: ["closed in order"] },
  }),
  description: "What the last start found, and did about it.",
};

const statusDocument: Schema = {
  $id: "Status",
  description: "How the process and its store are.",
  ...object({
    state: lifecycleState,
    since: time("Since when."),
    inFlight: count("Requests that were let in and are not answered to the end.", 1),
    gateDepth: count("Batches inside a critical section.", 0),
    lifecycle: lifecycleDetail,
    store: {
      ...object(
        {
          regions: count("Regions.", 3),
          journal: object({
            bytes: count("Size of the journal.", 64 << 20),
            usedBytes: count("Of those not yet freed by a checkpoint.", 4096),
            committed: count("Last committed record.", 42),
            applied: count("Last applied record.", 42),
            durable: count("Last record that survives a power cut.", 42),
            checkpoint: count("Last record that has left the journal.", 40),
          }),
          counters: object({
            commits: count("Batches since the start.", 42),
            flushes: count("Flushes since the start.", 7),
            checkpoints: count("Checkpoints since the start.", 1),
            faultsCaught: count("Faults that became errors since the start.", 0),
            idempotencyKeys: count("Outcomes that are remembered.", 3),
          }),
          lease: object({
            since: time("Since when this process is the writer."),
            fileSystem: { type: "string", maxLength: 64, description: "Where the store is.", examples: ["ext4"] },
          }),
          recovery: recoveryReport,
        },
        [],
      ),
      description: "The store; empty until it is open.",
    },
  }),
};

const problemKind: Schema = {
  $id: "ProblemKind",
  description: "A problem that a request can meet.",
  ...object({
    code,
    status: { type: "integer", minimum: 400, maximum: 599, description: "HTTP status.", examples: [404] },
    title: { type: "string", maxLength: 200, description: "In words.", examples: ["No region of this name"] },
    retryable: { type: "boolean", description: "The same request may succeed later.", examples: [false] },
    description: {
      type: "string",
      maxLength: 1000,
      description: "What to do about it.",
      examples: ["It was never created, or was deleted."],
    },
  }),
};

const problemList: Schema = {
  $id: "ProblemList",
  description: "Every problem that a request can meet.",
  ...object({ items: { type: "array", maxItems: 100, items: ref("ProblemKind"), description: "By status." } }),
};

/** Components of the document, each before those that refer to it. */
export const components: readonly Schema[] = [
  failure,
  problem,
  problemKind,
  problemList,
  serviceDocument,
  versionDocument,
  health,
  limitsDocument,
  statusDocument,
  region,
  regionPage,
  regionCreate,
  regionPatch,
  cellValue,
  ...batchSchemas(false),
  ...batchSchemas(true),
  opResult,
  batchAnswer,
  multiBatchAnswer,
  cellStore,
  cellOp,
  cellAnswer,
  cellChange,
  cellsView,
  flush,
  change,
  changePage,
  digest,
  extent,
  extentPage,
  snapshot,
  snapshotList,
];
