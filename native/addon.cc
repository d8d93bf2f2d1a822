// addon.cc - the module's entry: the two tables that it consists of.
#include "addon_parts.h"

namespace {

Napi::Object init(Napi::Env env, Napi::Object exports) {
  holdfast::export_lifecycle(env, exports);
  holdfast::export_store(env, exports);
  return exports;
}

}  // namespace

NODE_API_MODULE(holdfast, init)
