# The addon twice: `holdfast` is what ships, `holdfast_debug` adds assertions and fail points (-DHOLDFAST_DEBUG=1).
# Sources are every .cc of this folder; no processor flags here: functions that need SSE4.2 or the ARM CRC extension say
# so themselves (target attributes) and are chosen at run time, so one binary runs on every x64 and arm64 machine.
{
  "target_defaults": {
    "type": "loadable_module",
    "sources": ["<!@(node -p \"require('fs').readdirSync('.').filter(f => f.endsWith('.cc')).sort().join(' ')\")"],
    # As a system directory: warnings are asked of our code, not of the Node-API headers.
    "cflags": ["<!@(node -p \"'-isystem ' + require('node-addon-api').include.slice(1, -1)\")"],
    "defines": ["NAPI_VERSION=9", "NAPI_DISABLE_CPP_EXCEPTIONS", "NODE_ADDON_API_DISABLE_DEPRECATED"],
    "cflags_cc!": ["-std=gnu++17"],
    "cflags_cc": ["-std=gnu++20", "-Wall", "-Wextra", "-fvisibility=hidden"],
    "ldflags": ["-pthread"],
  },
  "targets": [
    {
      "target_name": "holdfast",
      "defines": ["NDEBUG"],
      "cflags!": ["-O3"],
      "cflags": ["-O2", "-g1"],
    },
    {
      "target_name": "holdfast_debug",
      "defines": ["HOLDFAST_DEBUG=1"],
      "cflags!": ["-O3"],
      "cflags": ["-O1", "-g"],
    },
  ],
}
