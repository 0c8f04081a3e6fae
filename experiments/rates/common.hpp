// experiments/rates/common.hpp — what the experiments share: results that grow a row at a time.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "core/json.hpp"
#include "core/recording.hpp"
#include "verify/judge/against_definition.hpp"

namespace dsa::experiments {

/// One sample at one precision.
struct Setting {
  std::filesystem::path checkpoint, golden;
  std::string family;
  reference::Precision precision = reference::Precision::fp64;
  std::string name() const;  // "v32:hf-bf16"
};

/// "v32:hf-bf16" -> that file of the sample of that name under `samples`. Error: malformed, or not
/// there.
Setting setting_named(const std::filesystem::path& samples, const std::string& name,
                      const std::string& golden = "logits.safetensors");

/// Tokens of a golden without its logits.
Recording without_logits(const Setting&);

/// What an implementation at this precision computes for the golden's tokens, its roundings drawn
/// by `seed` and its decisions its own. Traces are kept of tensors that `keep` asks for.
std::vector<verify::Run> correct_runs(const verify::ModelPair&, const std::vector<Sequence>&,
                                      std::uint64_t seed,
                                      const std::function<bool(const std::string&)>& keep = {});

/// Writes `rows` to `file`; rows of the same "setting" in it are replaced, others kept. Each row
/// gets the receipt of its setting.
void write_rows(const std::filesystem::path& file, const std::string& what, const Json& rows);

/// The receipt of one setting's rows.
Json receipt_of(const Setting&, const verify::Draws&, const std::string& command_line,
                double seconds);

/// Measures one setting after the other; each one's row goes with its receipt into `json`, if that
/// is named. Returns the rows.
Json measure_each(const std::vector<Setting>&, const std::function<Json(const Setting&)>& measure,
                  const std::filesystem::path& json, const std::string& what, const verify::Draws&,
                  const std::string& command_line);

/// The sum of an integer of all rows.
int sum_of(const Json& rows, const char* key);

}  // namespace dsa::experiments
