// addon_lifecycle.cc - the addon's lifecycle table: one line a function, no decisions.
//
// native/lifecycle.ts has checked every argument; here wrong ones are not expected and only converted.
#include <netinet/in.h>
#include <string.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "addon_parts.h"
#include "critical_section.h"
#include "listener.h"
#include "pattern.h"
#include "signals.h"

namespace holdfast {
namespace {

using Info = const Napi::CallbackInfo&;

std::string text(Info info, size_t i) { return info[i].As<Napi::String>().Utf8Value(); }
int32_t number(Info info, size_t i) { return info[i].As<Napi::Number>().Int32Value(); }
bool flag(Info info, size_t i) { return info[i].As<Napi::Boolean>().Value(); }
uint64_t word(Info info, size_t i) {
  bool lossless;
  return info[i].As<Napi::BigInt>().Uint64Value(&lossless);
}
// Offsets are safe integers, which an int64 holds exactly.
uint64_t offset(Info info, size_t i) { return static_cast<uint64_t>(info[i].As<Napi::Number>().Int64Value()); }

// ---- signals ----

// The watchdog's way into the main thread's event loop. One for the process: the first environment that asks has it.
std::atomic<napi_threadsafe_function> teller{nullptr};

void tell() {
  if (napi_threadsafe_function function = teller.load())
    napi_call_threadsafe_function(function, nullptr, napi_tsfn_nonblocking);
}

void on_stop(Info info) {
  napi_threadsafe_function made = nullptr;
  const Napi::Env env = info.Env();
  const napi_status status = napi_create_threadsafe_function(
      env, info[0], nullptr, Napi::String::New(env, "holdfast stop"), 0, 1, nullptr,
      [](napi_env, void*, void*) {
        signals_on_stop(nullptr);
        teller.store(nullptr);
      },
      nullptr, nullptr, &made);
  if (status != napi_ok) return;
  // Waiting for a signal keeps no process alive.
  napi_unref_threadsafe_function(env, made);
  teller.store(made);
  signals_on_stop(tell);
}

void configure(Info info) {
  StopOptions options;
  options.soft_ms = static_cast<uint32_t>(number(info, 0));
  options.hard_ms = static_cast<uint32_t>(number(info, 1));
  options.blocked_ms = static_cast<uint32_t>(number(info, 2));
  options.least = static_cast<LogLevel>(number(info, 3));
  signals_configure(options);
}

Napi::Value view(Info info) {
  const StopView now = signals_view();
  Napi::Object out = Napi::Object::New(info.Env());
  out["signals"] = now.signals;
  out["firstSignal"] = now.first_signal;
  out["sender"] = static_cast<double>(now.sender);
  out["elapsedMs"] = now.elapsed_ms;
  out["frozenMs"] = now.frozen_ms;
  out["toldAtMs"] = now.told_at_ms;
  out["emptyAtMs"] = now.empty_at_ms;
  out["hurry"] = Napi::Boolean::New(info.Env(), now.hurry);
  return out;
}

Napi::Value dispositions(Info info) {
  const Dispositions now = signals_dispositions();
  Napi::Object out = Napi::Object::New(info.Env());
  out["term"] = Napi::Boolean::New(info.Env(), now.term);
  out["interrupt"] = Napi::Boolean::New(info.Env(), now.interrupt);
  out["bus"] = Napi::Boolean::New(info.Env(), now.bus);
  out["repaired"] = now.repaired;
  return out;
}

// ---- listener: an errno as a number, or what was asked for as an object ----

Napi::Value opened(Info info, int error, int fd, const std::string& detail) {
  Napi::Object out = Napi::Object::New(info.Env());
  out["errno"] = error;
  out["fd"] = fd;
  out["detail"] = detail.empty() && error != 0 ? strerror(error) : detail;
  return out;
}

Napi::Value listen_tcp(Info info) {
  int fd = -1;
  std::string detail;
  const int error =
      listener_open_tcp(text(info, 0), static_cast<uint16_t>(number(info, 1)), number(info, 2), &fd, &detail);
  return opened(info, error, fd, detail);
}

Napi::Value listen_unix(Info info) {
  int fd = -1;
  const int error = listener_open_unix(text(info, 0), number(info, 1), &fd);
  return opened(info, error, fd, "");
}

Napi::Value descriptors(Info info, const std::vector<int>& fds) {
  Napi::Array out = Napi::Array::New(info.Env(), fds.size());
  for (size_t i = 0; i < fds.size(); ++i) out[static_cast<uint32_t>(i)] = fds[i];
  return out;
}

Napi::Value close_listener(Info info) {
  std::vector<int> connections;
  const int error = listener_close(number(info, 0), flag(info, 1), &connections);
  Napi::Object out = Napi::Object::New(info.Env());
  out["errno"] = error;
  out["connections"] = descriptors(info, connections);
  return out;
}

Napi::Value accept_all(Info info) {
  std::vector<int> connections;
  // An error here shows again when the listener is closed.
  listener_accept_all(number(info, 0), &connections);
  return descriptors(info, connections);
}

// ---- the pattern library's words ----

MappedWords& words(Info info) { return *info[0].As<Napi::External<MappedWords>>().Data(); }

Napi::Value words_open(Info info) {
  std::unique_ptr<MappedWords> made;
  if (const int error = MappedWords::open(text(info, 0), offset(info, 1), &made)) {
    return opened(info, error, -1, "");
  }
  return Napi::External<MappedWords>::New(info.Env(), made.release(),
                                          [](Napi::Env, MappedWords* gone) { delete gone; });
}

// The value, or the name of what is wrong.
Napi::Value result(Info info, WordResult outcome, uint64_t value) {
  switch (outcome) {
    case WordResult::ok:
      return Napi::BigInt::New(info.Env(), value);
    case WordResult::out_of_bounds:
      return Napi::String::New(info.Env(), "out_of_bounds");
    case WordResult::misaligned:
      return Napi::String::New(info.Env(), "misaligned");
    case WordResult::faulted:
      break;
  }
  return Napi::String::New(info.Env(), "faulted");
}

Napi::Value words_load(Info info) {
  uint64_t value = 0;
  const WordResult outcome = words(info).load(offset(info, 1), &value);
  return result(info, outcome, value);
}

Napi::Value words_store(Info info) {
  const uint64_t value = word(info, 2);
  return result(info, words(info).store(offset(info, 1), value), value);
}

Napi::Value words_add(Info info) {
  uint64_t before = 0;
  const WordResult outcome = words(info).add(offset(info, 1), word(info, 2), &before);
  return result(info, outcome, before);
}

Napi::Value words_compare_exchange(Info info) {
  uint64_t before = 0;
  const WordResult outcome = words(info).compare_exchange(offset(info, 1), word(info, 2), word(info, 3), &before);
  return result(info, outcome, before);
}

}  // namespace

void export_lifecycle(Napi::Env env, Napi::Object exports) {
  Napi::Object table = Napi::Object::New(env);
  const auto add = [&](const char* name, auto function) { table.Set(name, Napi::Function::New(env, function, name)); };

  add("install", [](Info) { signals_install(); });
  add("watchBus", [](Info) { signals_watch_bus(); });
  add("configure", configure);
  add("onStop", on_stop);
  add("requestStop", [](Info info) { signals_request_stop(number(info, 0)); });
  add("acknowledge", [](Info) { signals_acknowledge(); });
  add("hurry", [](Info) { signals_hurry(); });
  add("codeAtSoft", [](Info info) { signals_code_at_soft(number(info, 0)); });
  add("recordPath", [](Info info) { signals_record_path(text(info, 0)); });
  add("repair", [](Info) { signals_repair(); });
  add("view", view);
  add("dispositions", dispositions);
  add("exit", [](Info info) { signals_exit(number(info, 0)); });
  add("exitAtOnce", [](Info info) { signals_exit_at_once(number(info, 0)); });

  add("criticalBegin", [](Info info) -> Napi::Value { return Napi::Boolean::New(info.Env(), critical_begin()); });
  add("criticalEnd", [](Info) { critical_end(); });
  add("criticalDepth",
      [](Info info) -> Napi::Value { return Napi::Number::New(info.Env(), static_cast<double>(critical_depth())); });

  add("listenTcp", listen_tcp);
  add("listenUnix", listen_unix);
  add("inheritedListeners",
      [](Info info) -> Napi::Value { return Napi::Number::New(info.Env(), listener_inherited_count()); });
  add("dropNew", [](Info info) { listener_drop_new(number(info, 0)); });
  add("acceptAll", accept_all);
  add("closeListener", close_listener);

  add("wordsOpen", words_open);
  add("wordsBytes",
      [](Info info) -> Napi::Value { return Napi::Number::New(info.Env(), static_cast<double>(words(info).bytes())); });
  add("wordsLoad", words_load);
  add("wordsStore", words_store);
  add("wordsAdd", words_add);
  add("wordsCompareExchange", words_compare_exchange);
  add("wordsSync", [](Info info) -> Napi::Value { return Napi::Number::New(info.Env(), words(info).sync()); });

  Napi::Object codes = Napi::Object::New(env);
  codes["clean"] = kExitClean;
  codes["hard"] = kExitHard;
  codes["cut"] = kExitCut;
  codes["pattern"] = kExitPattern;
  table["exitCodes"] = codes;
  exports["lifecycle"] = table;
}

}  // namespace holdfast
