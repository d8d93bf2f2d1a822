// structured-fields.ts - what this service needs of structured fields (RFC 9651): items with parameters, and dictionaries
// of them. Inner lists, dates and display strings are in none of its headers and do not parse.

export type BareItem =
  | { kind: "integer"; value: number }
  | { kind: "decimal"; value: number }
  | { kind: "string"; value: string }
  | { kind: "token"; value: string }
  | { kind: "bytes"; value: Buffer }
  | { kind: "boolean"; value: boolean };

export interface Item {
  item: BareItem;
  parameters: ReadonlyMap<string, BareItem>;
}

/** Undefined: it does not parse. */
export function parseItem(text: string): Item | undefined {
  const scanner = new Scanner(text.trim());
  const item = scanner.item();
  return item !== undefined && scanner.atEnd ? item : undefined;
}

/** Undefined: it does not parse. Of members with the same key the last one counts. */
export function parseDictionary(text: string): ReadonlyMap<string, Item> | undefined {
  const scanner = new Scanner(text.trim());
  const members = new Map<string, Item>();
  while (!scanner.atEnd) {
    const key = scanner.key();
    if (key === undefined) return undefined;
    const member = scanner.skip("=") ? scanner.item() : scanner.parameters(truth);
    if (member === undefined) return undefined;
    members.set(key, member);
    scanner.space();
    if (scanner.atEnd) break;
    if (!scanner.skip(",")) return undefined;
    scanner.space();
    // A comma that nothing follows is not allowed.
    if (scanner.atEnd) return undefined;
  }
  return members;
}

const truth: BareItem = { kind: "boolean", value: true };

// Sticky, and each alternative decided by its first character: no text makes them go back and forth.
const keys = /[a-z*][a-z0-9_.*-]*/y;
const spaces = /[ \t]*/y;
const decimals = /-?\d{1,12}\.\d{1,3}(?![\d.])/y;
const integers = /-?\d{1,15}(?![\d.])/y;
const strings = /"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"/y;
const sequences = /:([A-Za-z0-9+/=]*):/y;
const booleans = /\?([01])/y;
const tokens = /[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*/y;

class Scanner {
  private position = 0;

  constructor(private readonly text: string) {}

  get atEnd(): boolean {
    return this.position === this.text.length;
  }

  skip(character: string): boolean {
    if (this.text[this.position] !== character) return false;
    this.position++;
    return true;
  }

  space(): void {
    this.match(spaces);
  }

  key(): string | undefined {
    return this.match(keys)?.[0];
  }

  item(): Item | undefined {
    const item = this.bareItem();
    return item === undefined ? undefined : this.parameters(item);
  }

  parameters(of: BareItem): Item | undefined {
    const parameters = new Map<string, BareItem>();
    while (this.skip(";")) {
      while (this.skip(" "));
      const key = this.key();
      if (key === undefined) return undefined;
      const value = this.skip("=") ? this.bareItem() : truth;
      if (value === undefined) return undefined;
      parameters.set(key, value);
    }
    return { item: of, parameters };
  }

  private bareItem(): BareItem | undefined {
    let match = this.match(integers);
    if (match !== null) return { kind: "integer", value: Number(match[0]) };
    match = this.match(decimals);
    if (match !== null) return { kind: "decimal", value: Number(match[0]) };
    match = this.match(strings);
    if (match !== null) return { kind: "string", value: match[1]!.replace(/\\(["\\])/g, "$1") };
    match = this.match(sequences);
    if (match !== null) return { kind: "bytes", value: Buffer.from(match[1]!, "base64") };
    match = this.match(booleans);
    if (match !== null) return { kind: "boolean", value: match[1] === "1" };
    match = this.match(tokens);
    return match === null ? undefined : { kind: "token", value: match[0] };
  }

  private match(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = this.position;
    const match = pattern.exec(this.text);
    if (match !== null) this.position = pattern.lastIndex;
    return match;
  }
}
