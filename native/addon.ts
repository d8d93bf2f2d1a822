// native/addon.ts - loads the compiled addon. Nothing else: whoever imports it has it in a millisecond.
//
// HOLDFAST_NATIVE=debug takes the build with assertions and fail points, which tests run against. It is read here and not
// with the other settings because the addon is loaded before any of them.
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const built = new URL("../../build/Release/", import.meta.url);
const file = process.env.HOLDFAST_NATIVE === "debug" ? "holdfast_debug.node" : "holdfast.node";

/** Every function of the addon, untyped; index.ts and lifecycle.ts give them their types. */
export const addon = createRequire(import.meta.url)(fileURLToPath(new URL(file, built)));
