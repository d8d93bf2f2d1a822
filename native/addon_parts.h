// addon_parts.h - what the files that make up the addon's surface export. Only addon*.cc include napi.h.
#pragma once

#include <napi.h>

namespace holdfast {

// Signals, deadlines, the gate, the listening socket, and the pattern library, as one table of functions on `exports`.
// Called once for each environment (main thread, workers); what it touches is the process's.
void export_lifecycle(Napi::Env env, Napi::Object exports);

// The store's functions and every constant that TypeScript must agree on, likewise.
void export_store(Napi::Env env, Napi::Object exports);

}  // namespace holdfast
