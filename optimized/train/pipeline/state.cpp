#include "optimized/train/pipeline/state.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <system_error>

#include "core/check.hpp"
#include "core/checkpoint_writer.hpp"
#include "core/outputs.hpp"
#include "core/safetensors.hpp"

namespace dsa::train {
namespace {

namespace fs = std::filesystem;
using Declaration = SafetensorsWriter::Declaration;

constexpr const char* version = "1";
constexpr Index any_size = Index{1} << 62;  // one file, whatever the size

std::span<const std::byte> bytes_of(const Leaf& x) {
  return std::as_bytes(std::span(x.data(), static_cast<std::size_t>(x.size())));
}

std::vector<Index> shape_of(const Leaf& x) { return {x.shape()[0], x.shape()[1]}; }

/// Adapters of the state, as f(name, tensor).
template <class F>
void for_each_of_adapters(const Snapshot& s, F&& f) {
  if (s.adapters == nullptr) return;
  for (const Adapter& x : s.adapters->all()) {
    f(x.name + ".lora_A", x.a);
    f(x.name + ".lora_B", x.b);
  }
}

/// Calls f(moment of the whole parameter) for all; at ranks other than 0 that is empty.
template <class F>
void for_each_moment(const Optimizer& optimizer, F&& f) {
  for (const auto& [name, moments] : optimizer.moments()) {
    f(optimizer.whole(name, &Moments::m));
    f(optimizer.whole(name, &Moments::v));
  }
}

void write_state(const fs::path& file, const State& state, const Snapshot& s) {
  std::vector<Declaration> tensors;
  Json counts = Json::object();
  for (const auto& [name, moments] : s.optimizer.moments()) {
    const std::vector<Index> shape(moments.shape.begin(), moments.shape.end());
    tensors.push_back({name + ".m", Dtype::f32, shape});
    tensors.push_back({name + ".v", Dtype::f32, shape});
    counts[name] = moments.steps;
  }
  for_each_of_adapters(s, [&](const std::string& name, const Leaf& x) {
    tensors.push_back({name, Dtype::f32, shape_of(x)});
  });
  std::map<std::string, std::string> metadata = {
      {"version", version}, {"state", to_json(state).dump()}, {"moment_steps", counts.dump()}};
  if (s.adapters != nullptr) metadata["lora_alpha"] = Json(s.adapters->lora().alpha).dump();
  SafetensorsWriter out(file, tensors, metadata);
  for_each_moment(s.optimizer,
                  [&](const std::vector<float>& x) { out.append(std::as_bytes(std::span(x))); });
  for_each_of_adapters(s, [&](const std::string&, const Leaf& x) { out.append(bytes_of(x)); });
  out.commit();
}

void sync_path(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const bool ok = fd >= 0 && ::fsync(fd) == 0;
  const int reason = errno;
  if (fd >= 0) ::close(fd);
  require(ok, "cannot write " + path.string() +
                  " to the disk: " + std::generic_category().message(reason));
}

void sync_directory(const fs::path& directory) {
  for (const auto& entry : fs::directory_iterator(directory)) sync_path(entry.path());
  sync_path(directory);
}

void copy_tokenizer(const fs::path& from, const fs::path& to) {
  if (from.empty()) return;
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
                           "generation_config.json", "special_tokens_map.json"})
    if (fs::exists(from / name)) fs::copy_file(from / name, to / name);
}

SafetensorsFile open_state(const fs::path& checkpoint) {
  require(fs::exists(checkpoint / "state.safetensors"),
          checkpoint.string() +
              " has no state.safetensors: it is no checkpoint of dsa-train to be resumed; begin "
              "with it by model.init");
  SafetensorsFile file = SafetensorsFile::open(checkpoint / "state.safetensors");
  const auto& metadata = file.metadata();
  for (const char* key : {"version", "state", "moment_steps"})
    require(metadata.contains(key), file.path().string() + " has no " + key + " in its metadata");
  require(metadata.at("version") == version, file.path().string() + " is of version " +
                                                 metadata.at("version") + ", expected " + version);
  return file;
}

/// Numbers [begin, end) of a tensor of this shape.
void read_into(const SafetensorsFile& file, const std::string& name,
               const std::vector<Index>& shape, const Share& numbers, float* out) {
  const StoredTensor& tensor = file.at(name);
  require(tensor.dtype == Dtype::f32 && tensor.shape == shape,
          file.path().string() + ": " + name + " has shape " + shape_text(tensor.shape) +
              ", expected " + shape_text(shape) + " in F32");
  const auto offset = static_cast<std::ptrdiff_t>(numbers.begin) * 4;
  decode(tensor.dtype, tensor.data + offset, numbers.size(), out);
}

void read_into(const SafetensorsFile& file, const std::string& name, Leaf& x) {
  read_into(file, name, shape_of(x), {0, x.size()}, x.data());
}

}  // namespace

Json to_json(const State& s) {
  return {{"step", s.step},
          {"stage", s.stage},
          {"stage_step", s.stage_step},
          {"level", s.level},
          {"level_step", s.level_step},
          {"tokens", s.tokens},
          {"cursor", to_json(s.cursor)},
          {"settings", s.settings}};
}

void save_checkpoint(const fs::path& directory, const State& state, const Snapshot& s,
                     bool writes) {
  if (!writes) return for_each_moment(s.optimizer, [](const std::vector<float>&) {});
  std::vector<Declaration> tensors;
  for_each_tensor(s.parameters, s.parsed,
                  [&](const std::string& name, const Leaf&, const std::vector<Index>& shape) {
                    tensors.push_back({name, Dtype::f32, shape});
                  });
  CheckpointWriter out(directory, tensors, any_size);
  for_each_tensor(s.parameters, s.parsed,
                  [&](const std::string& name, const Leaf& x, const std::vector<Index>&) {
                    const Leaf* kept = &x;  // under an adapter lies the base's
                    if (s.adapters != nullptr)
                      for (const Adapter& adapter : s.adapters->all())
                        if (adapter.name == name) kept = &adapter.base;
                    out.append(bytes_of(*kept));
                  });
  out.finish_tensors();
  write_state(out.directory() / "state.safetensors", state, s);
  write_text(out.directory() / "config.json", json_text(s.config));
  copy_tokenizer(s.tokenizer, out.directory());
  sync_directory(out.directory());
  out.commit();
  sync_path(directory.has_parent_path() ? directory.parent_path() : fs::path("."));
}

State read_state(const fs::path& checkpoint) {
  const SafetensorsFile file = open_state(checkpoint);
  const std::string what = file.path().string() + ", state";
  const Json json = parse_json(file.metadata().at("state"), what);
  try {
    State s;
    json.at("step").get_to(s.step);
    json.at("stage").get_to(s.stage);
    json.at("stage_step").get_to(s.stage_step);
    json.at("level").get_to(s.level);
    json.at("level_step").get_to(s.level_step);
    json.at("tokens").get_to(s.tokens);
    s.cursor = cursor_of(json.at("cursor"));
    s.settings = json.at("settings");
    return s;
  } catch (const Json::exception& error) {
    throw Error(what + " is not what dsa-train writes: " + error.what());
  }
}

void read_moments(const fs::path& checkpoint, const std::vector<Trained>& trained,
                  Optimizer& optimizer) {
  const SafetensorsFile file = open_state(checkpoint);
  const Json counts = parse_json(file.metadata().at("moment_steps"), file.path().string());
  optimizer.keep(trained);
  for (const Trained& one : trained) {
    Moments& moments = optimizer.moments().at(one.name);
    if (!counts.contains(one.name)) continue;  // trained from this stage on
    const std::vector<Index> shape = shape_of(*one.value);
    read_into(file, one.name + ".m", shape, moments.share, moments.m.data());
    read_into(file, one.name + ".v", shape, moments.share, moments.v.data());
    moments.steps = counts[one.name].get<Index>();
  }
}

void read_adapters(const fs::path& checkpoint, Adapters& adapters) {
  const SafetensorsFile file = open_state(checkpoint);
  for (Adapter& x : adapters.all()) {
    read_into(file, x.name + ".lora_A", x.a);
    read_into(file, x.name + ".lora_B", x.b);
  }
}

std::map<Index, fs::path> checkpoints_of(const fs::path& directory) {
  std::map<Index, fs::path> found;
  if (!fs::is_directory(directory)) return found;
  for (const auto& entry : fs::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    Index step = 0;
    constexpr std::string_view begin = "step-";
    if (!name.starts_with(begin)) continue;
    const char* end = name.data() + name.size();
    const auto read = std::from_chars(name.data() + begin.size(), end, step);
    if (read.ec == std::errc{} && read.ptr == end) found[step] = entry.path();
  }
  return found;
}

void remove_old_checkpoints(const fs::path& directory, Index keep_last, Index major_every) {
  const auto found = checkpoints_of(directory);
  auto left = static_cast<Index>(found.size());
  for (const auto& [step, path] : found) {
    if (left-- <= keep_last) break;
    if (major_every > 0 && step % major_every == 0) continue;
    // Under another name first: what a kill leaves half removed must not look like a checkpoint.
    const fs::path gone = path.string() + ".removed";
    fs::rename(path, gone);
    fs::remove_all(gone);
  }
}

}  // namespace dsa::train
