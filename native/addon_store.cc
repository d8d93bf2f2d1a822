// addon_store.cc - the addon's store table: converts, and moves what may wait to another thread. No decisions.
//
// native/index.ts has checked every argument; here wrong ones are not expected and only converted. No pointer into a
// mapping passes through: bytes are copied in and out by the core.
#include <string.h>

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "addon_parts.h"
#include "crc32c.h"
#include "fault_guard.h"
#include "store.h"

namespace holdfast {
namespace {

using Info = const Napi::CallbackInfo&;

// ---- conversions ----

Napi::Value number(Napi::Env env, uint64_t value) { return Napi::Number::New(env, static_cast<double>(value)); }
uint64_t whole(const Napi::Value& value) { return static_cast<uint64_t>(value.As<Napi::Number>().Int64Value()); }
uint64_t whole(const Napi::Object& object, const char* key) { return whole(object.Get(key)); }
std::string text(const Napi::Value& value) { return value.As<Napi::String>().Utf8Value(); }
bool has(const Napi::Object& object, const char* key) { return !object.Get(key).IsUndefined(); }

Durability durability_of(const Napi::Value& value) {
  return static_cast<Durability>(value.As<Napi::Number>().Uint32Value());
}

std::vector<Etag> etags_of(const Napi::Value& value) {
  std::vector<Etag> etags;
  Napi::Array array = value.As<Napi::Array>();
  for (uint32_t i = 0; i < array.Length(); i++) {
    Napi::Object o = array.Get(i).As<Napi::Object>();
    etags.push_back({whole(o, "incarnation"), whole(o, "metaGeneration"), whole(o, "generation")});
  }
  return etags;
}

Conditions conditions_of(const Napi::Object& o) {
  Conditions c;
  if (has(o, "ifMatch")) {
    c.if_match = true;
    c.if_match_any = o.Get("ifMatch").IsString();
    if (!c.if_match_any) c.match = etags_of(o.Get("ifMatch"));
  }
  if (has(o, "ifNoneMatch")) {
    c.if_none_match = true;
    c.if_none_match_any = o.Get("ifNoneMatch").IsString();
    if (!c.if_none_match_any) c.none_match = etags_of(o.Get("ifNoneMatch"));
  }
  if (has(o, "ifGeneration")) c.if_generation = whole(o, "ifGeneration");
  if (has(o, "key")) {
    c.has_key = true;
    memcpy(c.key, o.Get("key").As<Napi::Uint8Array>().Data(), sizeof c.key);
    memcpy(c.fingerprint, o.Get("fingerprint").As<Napi::Uint8Array>().Data(), sizeof c.fingerprint);
  }
  return c;
}

RegionMeta meta_of(const Napi::Object& o) {
  RegionMeta meta;
  meta.name = text(o.Get("name"));
  meta.labels = text(o.Get("labels"));
  meta.durability = durability_of(o.Get("durability"));
  if (has(o, "size")) meta.size = whole(o, "size");
  if (has(o, "sparse") && o.Get("sparse").As<Napi::Boolean>().Value()) meta.flags |= kMetaSparse;
  if (has(o, "adoptPath")) {
    meta.flags |= kMetaAdopted;
    meta.path = text(o.Get("adoptPath"));
  }
  return meta;
}

Napi::Object info_object(Napi::Env env, const RegionInfo& info) {
  Napi::Object o = Napi::Object::New(env);
  o["name"] = Napi::String::New(env, info.meta.name);
  o["incarnation"] = number(env, info.meta.incarnation);
  o["size"] = number(env, info.meta.size);
  o["durability"] = number(env, static_cast<uint64_t>(info.meta.durability));
  o["sparse"] = Napi::Boolean::New(env, info.meta.flags & kMetaSparse);
  o["readOnly"] = Napi::Boolean::New(env, info.meta.flags & kMetaReadOnly);
  o["unverified"] = Napi::Boolean::New(env, info.meta.flags & kMetaUnverified);
  o["labels"] = Napi::String::New(env, info.meta.labels);
  o["createdAtMs"] = number(env, info.meta.created_us / 1000);
  o["modifiedAtMs"] = number(env, info.meta.modified_us / 1000);
  o["generation"] = number(env, info.generation);
  o["durableGeneration"] = number(env, info.durable_generation);
  o["metaGeneration"] = number(env, info.meta.meta_generation);
  o["fault"] = info.fault.empty() ? env.Null() : Napi::String::New(env, info.fault);
  o["adoptedPath"] = info.meta.path.empty() ? env.Null() : Napi::String::New(env, info.meta.path);
  return o;
}

Napi::Object failure_object(Napi::Env env, Code code, const std::string& detail) {
  Napi::Object o = Napi::Object::New(env);
  o["code"] = Napi::String::New(env, code_name(code));
  o["detail"] = Napi::String::New(env, detail.empty() ? code_text(code) : detail);
  return o;
}

// ---- work that may wait ----

// Runs `work` on a thread of the pool and settles a promise with what `finish` makes of it, or rejects it with
// {code, detail}.
class Task : public Napi::AsyncWorker {
 public:
  using Work = std::function<Code(std::string* detail)>;
  using Finish = std::function<Napi::Value(Napi::Env)>;

  static Napi::Value start(Napi::Env env, Work work, Finish finish) {
    auto* task = new Task(env, std::move(work), std::move(finish));
    Napi::Promise promise = task->deferred_.Promise();
    task->Queue();
    return promise;
  }

 private:
  Task(Napi::Env env, Work work, Finish finish)
      : Napi::AsyncWorker(env),
        work_(std::move(work)),
        finish_(std::move(finish)),
        deferred_(Napi::Promise::Deferred::New(env)) {}
  void Execute() override { code_ = work_(&detail_); }
  void OnOK() override {
    if (code_ == Code::ok)
      deferred_.Resolve(finish_(Env()));
    else
      deferred_.Reject(failure_object(Env(), code_, detail_));
  }

  Work work_;
  Finish finish_;
  Napi::Promise::Deferred deferred_;
  Code code_ = Code::ok;
  std::string detail_;
};

// A way from other threads into the event loop, which the environment may take down while they go on.
class Caller {
 public:
  using CallJs = napi_threadsafe_function_call_js;
  static std::shared_ptr<Caller> make(Napi::Env env, const Napi::Value& function, const char* name, CallJs call) {
    auto caller = std::make_shared<Caller>();
    napi_create_threadsafe_function(
        env, function, nullptr, Napi::String::New(env, name), 0, 1, new std::shared_ptr<Caller>(caller),
        [](napi_env, void* data, void*) {
          std::unique_ptr<std::shared_ptr<Caller>> held(static_cast<std::shared_ptr<Caller>*>(data));
          std::lock_guard<std::mutex> lock((*held)->lock_);
          (*held)->function_ = nullptr;
        },
        nullptr, call, &caller->function_);
    napi_unref_threadsafe_function(env, caller->function_);
    return caller;
  }
  // Any thread. False: nobody will be called, `data` stays the caller's.
  bool call(void* data) {
    std::lock_guard<std::mutex> lock(lock_);
    return function_ && napi_call_threadsafe_function(function_, data, napi_tsfn_nonblocking) == napi_ok;
  }
  // The event loop's thread: while anybody waits for a call, the process is kept alive.
  void expect(Napi::Env env, int64_t more) {
    bool before = expected_ > 0;
    expected_ += more;
    if (!function_ || before == (expected_ > 0)) return;
    before ? napi_unref_threadsafe_function(env, function_) : napi_ref_threadsafe_function(env, function_);
  }
  void release() {
    napi_threadsafe_function function;
    {
      std::lock_guard<std::mutex> lock(lock_);
      function = function_;
      function_ = nullptr;
    }
    if (function) napi_release_threadsafe_function(function, napi_tsfn_abort);
  }

 private:
  std::mutex lock_;
  napi_threadsafe_function function_ = nullptr;  // guarded by lock_; written by the event loop's thread only
  int64_t expected_ = 0;
};

// A store and its way back into the event loop. Shared by the JavaScript handle and by work under way.
struct Handle {
  std::unique_ptr<Store> store;
  // Where answers and facts that are there at once are put for JavaScript. Handed over once: to look into a typed array
  // at every call costs more than a small commit.
  std::span<uint8_t> scratch;
  std::span<double> facts;
  std::shared_ptr<Caller> settled;  // one call for a whole group of answers
  std::shared_ptr<Caller> standby;

  ~Handle() {
    store.reset();  // its flusher calls `settled`
    settled->release();
    standby->release();
  }
};
using Shared = std::shared_ptr<Handle>;

Shared& handle(Info info) { return *info[0].As<Napi::External<Shared>>().Data(); }

struct Group {
  std::shared_ptr<Caller> caller;
  std::vector<Settled> settled;
};

void call_settled(napi_env raw, napi_value function, void*, void* data) {
  std::unique_ptr<Group> group(static_cast<Group*>(data));
  if (!raw) return;  // the environment is going away
  Napi::Env env(raw);
  Napi::HandleScope scope(env);
  const std::vector<Settled>& settled = group->settled;
  Napi::Float64Array tickets = Napi::Float64Array::New(env, settled.size());
  Napi::Float64Array ends = Napi::Float64Array::New(env, settled.size());
  const std::span<double> ticket_of(tickets.Data(), settled.size()), end_of(ends.Data(), settled.size());
  std::vector<uint8_t> answers;
  for (size_t i = 0; i < settled.size(); i++) {
    answers.insert(answers.end(), settled[i].answer.begin(), settled[i].answer.end());
    ticket_of[i] = static_cast<double>(settled[i].ticket);
    end_of[i] = static_cast<double>(answers.size());
  }
  auto bytes = Napi::Buffer<uint8_t>::Copy(env, answers.data(), answers.size());
  group->caller->expect(env, -static_cast<int64_t>(settled.size()));
  Napi::Function(env, function).Call({bytes, tickets, ends});
}

// ---- the table ----

// For ever: a process opens one store, and JavaScript holds both as long as that.
template <typename Array>
auto held(Napi::Value value) {
  Array array = value.As<Array>();
  Napi::Reference<Array> reference = Napi::Persistent(array);
  reference.SuppressDestruct();
  return std::span(array.Data(), array.ElementLength());
}

// (options, onStandby, onSettled, scratch: Uint8Array, facts: Float64Array(5)) -> Promise<handle>
Napi::Value open(Info info) {
  Napi::Env env = info.Env();
  Napi::Object o = info[0].As<Napi::Object>();
  StoreOptions options;
  options.directory = text(o.Get("dir"));
  options.journal_bytes = whole(o, "journalBytes");
  options.regions_max = static_cast<uint32_t>(whole(o, "regionsMax"));
  options.snapshots_max = static_cast<uint32_t>(whole(o, "snapshotsMax"));
  options.flush_interval_ms = static_cast<uint32_t>(whole(o, "flushIntervalMs"));
  options.checkpoint_interval_ms = static_cast<uint32_t>(whole(o, "checkpointIntervalMs"));
  options.full_wait_ms_max = static_cast<uint32_t>(whole(o, "fullWaitMsMax"));
  options.idempotency_keys_min = whole(o, "idempotencyKeysMin");
  options.idempotency_seconds_min = whole(o, "idempotencySecondsMin");
  options.batch.ops_max = static_cast<uint32_t>(whole(o, "batchOpsMax"));
  options.batch.guards_max = static_cast<uint32_t>(whole(o, "batchGuardsMax"));
  options.batch.batch_bytes_max = whole(o, "batchBytesMax");
  options.allow_any_file_system = o.Get("allowAnyFileSystem").As<Napi::Boolean>().Value();
  options.standby = o.Get("standby").As<Napi::Boolean>().Value();

  auto shared = std::make_shared<Handle>();
  shared->standby = Caller::make(env, info[1], "holdfast standby", nullptr);
  shared->settled = Caller::make(env, info[2], "holdfast settled", call_settled);
  shared->scratch = held<Napi::Uint8Array>(info[3]);
  shared->facts = held<Napi::Float64Array>(info[4]);
  options.on_standby = [standby = shared->standby] { standby->call(nullptr); };
  options.on_settled = [settled = shared->settled](std::vector<Settled>&& answers) {
    auto* group = new Group{settled, std::move(answers)};
    if (!settled->call(group)) delete group;
  };
  return Task::start(
      env, [shared, options](std::string* detail) { return Store::open(options, &shared->store, detail); },
      [shared](Napi::Env env) -> Napi::Value {
        return Napi::External<Shared>::New(env, new Shared(shared), [](Napi::Env, Shared* held) { delete held; });
      });
}

// Copies the answer into the scratch buffer if it fits, else returns it.
Napi::Value give(Napi::Env env, const std::vector<uint8_t>& answer, std::span<uint8_t> scratch) {
  if (answer.size() > scratch.size()) return Napi::Buffer<uint8_t>::Copy(env, answer.data(), answer.size());
  memcpy(scratch.data(), answer.data(), answer.size());
  return number(env, answer.size());
}

// (handle, frame, ticket) -> bytes in scratch | Buffer | undefined: onSettled will bring it | Promise<Buffer | undefined>
Napi::Value commit(Info info) {
  Napi::Env env = info.Env();
  const Shared& shared = handle(info);
  Napi::Uint8Array frame = info[1].As<Napi::Uint8Array>();
  uint64_t ticket = whole(info[2]);
  thread_local std::vector<uint8_t> answer;
  switch (shared->store->commit({frame.Data(), frame.ByteLength()}, Store::Patience::never_block, ticket, &answer)) {
    case Store::Progress::done:
      return give(env, answer, shared->scratch);
    case Store::Progress::waiting:
      shared->settled->expect(env, 1);
      return env.Undefined();
    case Store::Progress::would_block:
      break;
  }
  // The caller may reuse its frame as soon as this returns.
  struct Deferred {
    std::vector<uint8_t> frame, answer;
    Store::Progress progress = Store::Progress::done;
  };
  auto deferred = std::make_shared<Deferred>();
  deferred->frame.assign(frame.Data(), frame.Data() + frame.ByteLength());
  return Task::start(
      env,
      [shared, deferred, ticket](std::string*) {
        deferred->progress =
            shared->store->commit(deferred->frame, Store::Patience::may_block, ticket, &deferred->answer);
        return Code::ok;
      },
      [shared, deferred](Napi::Env env) -> Napi::Value {
        if (deferred->progress == Store::Progress::waiting) {
          shared->settled->expect(env, 1);
          return env.Undefined();
        }
        return Napi::Buffer<uint8_t>::Copy(env, deferred->answer.data(), deferred->answer.size());
      });
}

void put_facts(std::span<double> into, const Store::ReadFacts& facts) {
  into[0] = static_cast<double>(facts.region.incarnation);
  into[1] = static_cast<double>(facts.region.meta_generation);
  into[2] = static_cast<double>(facts.region.generation);
  into[3] = static_cast<double>(facts.region.durable_generation);
  into[4] = static_cast<double>(facts.region.size);
}

// (handle, name, offset, into: Uint8Array) -> code: facts are filled | Promise<Float64Array(5)>
Napi::Value read(Info info) {
  Napi::Env env = info.Env();
  const Shared& shared = handle(info);
  std::string name = text(info[1]);
  uint64_t offset = whole(info[2]);
  Napi::Uint8Array into = info[3].As<Napi::Uint8Array>();
  uint8_t* bytes = into.Data();
  const size_t length = into.ByteLength();
  Code code = Code::ok;
  Store::ReadFacts facts = {};
  if (shared->store->read(name, offset, length, Store::Patience::never_block, bytes, &code, &facts) ==
      Store::Progress::done) {
    put_facts(shared->facts, facts);
    return number(env, static_cast<uint64_t>(code));
  }
  // The buffer is kept alive by the reference, and index.ts hands it to nobody before the promise settles.
  struct Deferred {
    Napi::Reference<Napi::Uint8Array> into;
    Store::ReadFacts facts = {};
  };
  auto deferred = std::make_shared<Deferred>();
  deferred->into = Napi::Persistent(into);
  return Task::start(
      env,
      [shared, deferred, name, offset, bytes, length](std::string*) {
        Code code = Code::ok;
        shared->store->read(name, offset, length, Store::Patience::may_block, bytes, &code, &deferred->facts);
        return code;
      },
      [deferred](Napi::Env env) -> Napi::Value {
        Napi::Float64Array facts = Napi::Float64Array::New(env, 5);
        put_facts({facts.Data(), facts.ElementLength()}, deferred->facts);
        return facts;
      });
}

// (handle, name, offset, length, most) -> Promise<Float64Array>: five facts, then offset, length, 1 for data for each extent
Napi::Value extents(Info info) {
  Shared shared = handle(info);
  std::string name = text(info[1]);
  uint64_t offset = whole(info[2]), length = whole(info[3]), most = whole(info[4]);
  struct Found {
    std::vector<Extent> extents;
    Store::ReadFacts facts = {};
  };
  auto found = std::make_shared<Found>();
  return Task::start(
      info.Env(),
      [shared, found, name, offset, length, most](std::string*) {
        return shared->store->extents(name, offset, length, most, &found->extents, &found->facts);
      },
      [found](Napi::Env env) -> Napi::Value {
        Napi::Float64Array numbers = Napi::Float64Array::New(env, 5 + 3 * found->extents.size());
        put_facts({numbers.Data(), 5}, found->facts);
        double* to = numbers.Data() + 5;
        for (const Extent& extent : found->extents) {
          *to++ = static_cast<double>(extent.offset);
          *to++ = static_cast<double>(extent.length);
          *to++ = extent.data ? 1 : 0;
        }
        return numbers;
      });
}

// (handle, name, offset, granularity, most) -> Promise<Float64Array>: five facts, then the four numbers of each slice
Napi::Value slices(Info info) {
  Shared shared = handle(info);
  std::string name = text(info[1]);
  uint64_t offset = whole(info[2]), granularity = whole(info[3]), most = whole(info[4]);
  struct Found {
    std::vector<Store::Slice> slices;
    Store::ReadFacts facts = {};
  };
  auto found = std::make_shared<Found>();
  return Task::start(
      info.Env(),
      [shared, found, name, offset, granularity, most](std::string*) {
        return shared->store->slices(name, offset, granularity, most, &found->slices, &found->facts);
      },
      [found](Napi::Env env) -> Napi::Value {
        Napi::Float64Array numbers = Napi::Float64Array::New(env, 5 + 4 * found->slices.size());
        put_facts({numbers.Data(), 5}, found->facts);
        double* to = numbers.Data() + 5;
        for (const Store::Slice& slice : found->slices)
          for (uint64_t number : {slice.offset, slice.length, slice.data_bytes, slice.resident_bytes})
            *to++ = static_cast<double>(number);
        return numbers;
      });
}

Napi::Value names(Info info) {
  std::vector<std::string> names = handle(info)->store->names();
  Napi::Array array = Napi::Array::New(info.Env(), names.size());
  for (uint32_t i = 0; i < names.size(); i++) array[i] = Napi::String::New(info.Env(), names[i]);
  return array;
}

Napi::Value region_info(Info info) {
  auto found = handle(info)->store->info(text(info[1]));
  if (!found) return info.Env().Undefined();
  return info_object(info.Env(), *found);
}

// Runs a change of a region; resolves to {replayed, created, removed, info}.
Napi::Value change(Info info, std::function<Code(Store&, MetaResult*, std::string*)> work) {
  Shared shared = handle(info);
  auto result = std::make_shared<MetaResult>();
  return Task::start(
      info.Env(), [shared, result, work](std::string* detail) { return work(*shared->store, result.get(), detail); },
      [result](Napi::Env env) -> Napi::Value {
        Napi::Object o = Napi::Object::New(env);
        o["replayed"] = Napi::Boolean::New(env, result->replayed);
        o["created"] = Napi::Boolean::New(env, result->created);
        o["info"] = result->removed ? env.Null() : Napi::Value(info_object(env, result->info));
        return o;
      });
}

Napi::Value create(Info info) {
  RegionMeta meta = meta_of(info[1].As<Napi::Object>());
  Conditions conditions = conditions_of(info[1].As<Napi::Object>());
  return change(info, [meta, conditions](Store& store, MetaResult* result, std::string* detail) {
    return store.create(meta, conditions, result, detail);
  });
}

Napi::Value update(Info info) {
  std::string name = text(info[1]);
  Napi::Object o = info[2].As<Napi::Object>();
  MetaChange wanted;
  if (has(o, "size")) wanted.size = whole(o, "size");
  if (has(o, "labels")) wanted.labels = text(o.Get("labels"));
  if (has(o, "durability")) wanted.durability = durability_of(o.Get("durability"));
  if (has(o, "readOnly")) wanted.read_only = o.Get("readOnly").As<Napi::Boolean>().Value();
  wanted.verified = has(o, "integrity");
  Conditions conditions = conditions_of(o);
  return change(info, [name, wanted, conditions](Store& store, MetaResult* result, std::string* detail) {
    return store.update(name, wanted, conditions, result, detail);
  });
}

Napi::Value remove(Info info) {
  std::string name = text(info[1]);
  Conditions conditions = conditions_of(info[2].As<Napi::Object>());
  return change(info, [name, conditions](Store& store, MetaResult* result, std::string* detail) {
    return store.remove(name, conditions, result, detail);
  });
}

Napi::Object snapshot_object(Napi::Env env, const Snapshot& snapshot) {
  Napi::Object o = Napi::Object::New(env);
  o["id"] = number(env, snapshot.id);
  o["generation"] = number(env, snapshot.generation);
  o["size"] = number(env, snapshot.region.size);
  o["createdAtMs"] = number(env, snapshot.created_us / 1000);
  return o;
}

// Runs a change of snapshots; resolves to {replayed, snapshot}.
Napi::Value change_snapshots(Info info, std::function<Code(Store&, MetaResult*, std::string*)> work) {
  Shared shared = handle(info);
  auto result = std::make_shared<MetaResult>();
  return Task::start(
      info.Env(), [shared, result, work](std::string* detail) { return work(*shared->store, result.get(), detail); },
      [result](Napi::Env env) -> Napi::Value {
        Napi::Object o = Napi::Object::New(env);
        o["replayed"] = Napi::Boolean::New(env, result->replayed);
        o["snapshot"] = snapshot_object(env, result->snapshot);
        return o;
      });
}

Napi::Value make_snapshot(Info info) {
  std::string name = text(info[1]);
  Conditions conditions = conditions_of(info[2].As<Napi::Object>());
  return change_snapshots(info, [name, conditions](Store& store, MetaResult* result, std::string* detail) {
    return store.make_snapshot(name, conditions, result, detail);
  });
}

Napi::Value remove_snapshot(Info info) {
  std::string name = text(info[1]);
  uint64_t id = whole(info[2]);
  Conditions conditions = conditions_of(info[3].As<Napi::Object>());
  return change_snapshots(info, [name, id, conditions](Store& store, MetaResult* result, std::string* detail) {
    return store.remove_snapshot(name, id, conditions, result, detail);
  });
}

Napi::Value restore(Info info) {
  std::string name = text(info[1]);
  uint64_t id = whole(info[2]);
  Conditions conditions = conditions_of(info[3].As<Napi::Object>());
  return change(info, [name, id, conditions](Store& store, MetaResult* result, std::string* detail) {
    return store.restore(name, id, conditions, result, detail);
  });
}

// (handle, name) -> array by age | undefined: no such region
Napi::Value snapshots(Info info) {
  std::vector<Snapshot> list;
  if (handle(info)->store->snapshots(text(info[1]), &list) != Code::ok) return info.Env().Undefined();
  Napi::Array array = Napi::Array::New(info.Env(), list.size());
  for (uint32_t i = 0; i < list.size(); i++) array[i] = snapshot_object(info.Env(), list[i]);
  return array;
}

Napi::Value snapshot(Info info) {
  auto found = handle(info)->store->snapshot(text(info[1]), whole(info[2]));
  if (!found) return info.Env().Undefined();
  return snapshot_object(info.Env(), *found);
}

// (handle, name, id, offset, into: Uint8Array) -> Promise<undefined>; nobody may look into the array before it settles.
Napi::Value read_snapshot(Info info) {
  Shared shared = handle(info);
  std::string name = text(info[1]);
  uint64_t id = whole(info[2]), offset = whole(info[3]);
  Napi::Uint8Array into = info[4].As<Napi::Uint8Array>();
  auto kept = std::make_shared<Napi::Reference<Napi::Uint8Array>>(Napi::Persistent(into));
  std::span<uint8_t> bytes(into.Data(), into.ByteLength());
  return Task::start(
      info.Env(),
      [shared, name, id, offset, bytes](std::string*) {
        return shared->store->read_snapshot(name, id, offset, bytes.size(), bytes.data());
      },
      [kept](Napi::Env env) -> Napi::Value { return env.Undefined(); });
}

// (handle, name, id, offset, most) -> Promise<Float64Array>: five facts, where to go on, then offset and length of each range
Napi::Value compare(Info info) {
  Shared shared = handle(info);
  std::string name = text(info[1]);
  uint64_t id = whole(info[2]), offset = whole(info[3]), most = whole(info[4]);
  struct Found {
    std::vector<Span64> ranges;
    uint64_t next = 0;
    Store::ReadFacts facts = {};
  };
  auto found = std::make_shared<Found>();
  return Task::start(
      info.Env(),
      [shared, found, name, id, offset, most](std::string*) {
        return shared->store->compare(name, id, offset, most, &found->ranges, &found->next, &found->facts);
      },
      [found](Napi::Env env) -> Napi::Value {
        Napi::Float64Array numbers = Napi::Float64Array::New(env, 6 + 2 * found->ranges.size());
        put_facts({numbers.Data(), 5}, found->facts);
        double* to = numbers.Data() + 5;
        *to++ = static_cast<double>(found->next);
        for (const Span64& range : found->ranges) {
          *to++ = static_cast<double>(range.offset);
          *to++ = static_cast<double>(range.length);
        }
        return numbers;
      });
}

// A streamed region and what its publication depends on.
struct Uploading {
  std::unique_ptr<NewRegion> made;
  Conditions conditions;
  MetaResult earlier;
};

Napi::Value upload_begin(Info info) {
  Shared shared = handle(info);
  auto upload = std::make_shared<Uploading>();
  RegionMeta meta = meta_of(info[1].As<Napi::Object>());
  upload->conditions = conditions_of(info[1].As<Napi::Object>());
  return Task::start(
      info.Env(),
      [shared, upload, meta](std::string* detail) {
        return shared->store->begin_upload(meta, upload->conditions, &upload->made, &upload->earlier, detail);
      },
      [upload](Napi::Env env) -> Napi::Value {
        using Held = std::shared_ptr<Uploading>;
        return Napi::External<Held>::New(env, new Held(upload), [](Napi::Env, Held* held) { delete held; });
      });
}

std::shared_ptr<Uploading>& uploading(const Napi::Value& value) {
  return *value.As<Napi::External<std::shared_ptr<Uploading>>>().Data();
}

// (upload, chunk) -> Promise<undefined>; the chunk must not change before it settles.
Napi::Value upload_write(Info info) {
  auto upload = uploading(info[0]);
  auto chunk = std::make_shared<Napi::Reference<Napi::Uint8Array>>(Napi::Persistent(info[1].As<Napi::Uint8Array>()));
  std::span<const uint8_t> bytes(info[1].As<Napi::Uint8Array>().Data(), info[1].As<Napi::Uint8Array>().ByteLength());
  return Task::start(
      info.Env(),
      [upload, bytes](std::string* detail) {
        // Answered by an earlier request with the same key, or aborted: the bytes go nowhere.
        if (!upload->made) return Code::ok;
        int error = upload->made->append(bytes);
        if (error) *detail = strerror(error);
        return file_code(error);
      },
      [chunk](Napi::Env env) -> Napi::Value { return env.Undefined(); });
}

Napi::Value upload_commit(Info info) {
  auto upload = uploading(info[1]);
  return change(info, [upload](Store& store, MetaResult* result, std::string* detail) {
    if (upload->made) return store.publish(std::move(upload->made), upload->conditions, result, detail);
    *result = upload->earlier;
    return result->replayed ? Code::ok : Code::cancelled;
  });
}

Napi::Value upload_abort(Info info) {
  auto upload = uploading(info[0]);
  return Task::start(
      info.Env(),
      [upload](std::string*) {
        upload->made.reset();
        return Code::ok;
      },
      [](Napi::Env env) -> Napi::Value { return env.Undefined(); });
}

Napi::Value flush(Info info) {
  Shared shared = handle(info);
  std::string name = text(info[1]);
  return Task::start(
      info.Env(), [shared, name](std::string*) { return shared->store->flush(name); },
      [](Napi::Env env) -> Napi::Value { return env.Undefined(); });
}

Napi::Array text_array(Napi::Env env, const std::vector<std::string>& texts) {
  Napi::Array array = Napi::Array::New(env, texts.size());
  for (uint32_t i = 0; i < texts.size(); i++) array[i] = Napi::String::New(env, texts[i]);
  return array;
}

Napi::Value status(Info info) {
  Napi::Env env = info.Env();
  StoreStatus s = handle(info)->store->status();
  Napi::Object recovery = Napi::Object::New(env);
  recovery["row"] = Napi::String::New(env, std::string(1, static_cast<char>(s.recovery.row)));
  recovery["sameBoot"] = Napi::Boolean::New(env, s.recovery.same_boot);
  recovery["clean"] = Napi::Boolean::New(env, s.recovery.clean);
  recovery["redone"] = number(env, s.recovery.redone);
  recovery["ms"] = Napi::Number::New(env, s.recovery.ms);
  recovery["unverified"] = text_array(env, s.recovery.unverified);
  recovery["faulted"] = text_array(env, s.recovery.faulted);
  recovery["detail"] = Napi::String::New(env, s.recovery.detail);
  Napi::Object o = Napi::Object::New(env);
  o["committed"] = number(env, s.committed);
  o["applied"] = number(env, s.applied);
  o["durable"] = number(env, s.durable);
  o["checkpoint"] = number(env, s.checkpoint);
  o["journalBytes"] = number(env, s.journal_bytes);
  o["journalUsedBytes"] = number(env, s.journal_used_bytes);
  o["commits"] = number(env, s.commits);
  o["flushes"] = number(env, s.flushes);
  o["checkpoints"] = number(env, s.checkpoints);
  o["faultsCaught"] = number(env, s.faults_caught);
  o["idempotencyKeys"] = number(env, s.idempotency_keys);
  o["fileSystem"] = Napi::String::New(env, s.file_system);
  o["leaseSinceMs"] = number(env, s.lease_since_ms);
  o["recovery"] = recovery;
  return o;
}

Napi::Value close(Info info) {
  Shared shared = handle(info);
  return Task::start(
      info.Env(),
      [shared](std::string*) {
        shared->store->close();
        return Code::ok;
      },
      [](Napi::Env env) -> Napi::Value { return env.Undefined(); });
}

// (bytes, crc32c of what comes before them) -> crc32c, for digests of bytes that were read.
Napi::Value checksum(Info info) {
  Napi::Uint8Array bytes = info[0].As<Napi::Uint8Array>();
  return number(info.Env(), crc32c(static_cast<uint32_t>(whole(info[1])), bytes.Data(), bytes.ByteLength()));
}

Napi::Object constants(Napi::Env env) {
  Napi::Object o = Napi::Object::New(env);
  Napi::Object codes = Napi::Object::New(env);
#define X(name, value, sentence) codes[#name] = number(env, value);
  HOLDFAST_CODES(X)
#undef X
  Napi::Object sentences = Napi::Object::New(env);
#define X(name, value, sentence) sentences[#name] = Napi::String::New(env, sentence);
  HOLDFAST_CODES(X)
#undef X
  Napi::Object kinds = Napi::Object::New(env);
#define X(name, value) kinds[#name] = number(env, value);
  HOLDFAST_OP_KINDS(X)
#undef X
  Napi::Object types = Napi::Object::New(env);
#define X(name, value) types[#name] = number(env, value);
  HOLDFAST_VALUE_TYPES(X)
#undef X
  Napi::Object limits = Napi::Object::New(env);
  limits["frameMagic"] = number(env, kFrameMagic);
  limits["answerMagic"] = number(env, kAnswerMagic);
  limits["frameVersion"] = number(env, kFrameVersion);
  limits["frameHeaderBytes"] = number(env, sizeof(FrameHeader));
  limits["frameRegionBytes"] = number(env, sizeof(FrameRegion));
  limits["frameOpBytes"] = number(env, sizeof(FrameOp));
  limits["answerHeaderBytes"] = number(env, sizeof(AnswerHeader));
  limits["answerRegionBytes"] = number(env, sizeof(AnswerRegion));
  limits["answerResultBytes"] = number(env, sizeof(AnswerResult));
  limits["answerFailureBytes"] = number(env, sizeof(AnswerFailure));
  limits["regionNameBytesMax"] = number(env, kRegionNameBytesMax);
  limits["regionBytesMax"] = number(env, kRegionBytesMax);
  limits["regionsPerBatchMax"] = number(env, kRegionsPerBatchMax);
  limits["generationMax"] = number(env, kGenerationMax);
  o["codes"] = codes;
  o["sentences"] = sentences;
  o["opKinds"] = kinds;
  o["valueTypes"] = types;
  o["limits"] = limits;
  return o;
}

}  // namespace

void export_store(Napi::Env env, Napi::Object exports) {
  Napi::Object table = Napi::Object::New(env);
  auto add = [&](const char* name, Napi::Value (*function)(Info)) {
    table[name] = Napi::Function::New(env, function, name);
  };
  add("open", open);
  add("commit", commit);
  add("read", read);
  add("extents", extents);
  add("slices", slices);
  add("names", names);
  add("info", region_info);
  add("create", create);
  add("update", update);
  add("remove", remove);
  add("makeSnapshot", make_snapshot);
  add("removeSnapshot", remove_snapshot);
  add("restore", restore);
  add("snapshots", snapshots);
  add("snapshot", snapshot);
  add("readSnapshot", read_snapshot);
  add("compare", compare);
  add("uploadBegin", upload_begin);
  add("uploadWrite", upload_write);
  add("uploadCommit", upload_commit);
  add("uploadAbort", upload_abort);
  add("flush", flush);
  add("status", status);
  add("close", close);
  add("crc32c", checksum);
  exports["store"] = table;
  exports["constants"] = constants(env);
}

}  // namespace holdfast
