#include "experiments/rates/common.hpp"

#include <chrono>

#include "core/file.hpp"
#include "core/random.hpp"
#include "verify/receipt.hpp"
#include "verify/report/report.hpp"

namespace dsa::experiments {

namespace fs = std::filesystem;

std::string Setting::name() const {
  return family + ":" + std::string(reference::name_of(precision));
}

Setting setting_named(const fs::path& samples, const std::string& name, const std::string& golden) {
  const std::size_t colon = name.find(':');
  require(colon != std::string::npos,
          "\"" + name + "\" is no setting; give SAMPLE:PRECISION, e.g. v32:hf-bf16");
  Setting setting;
  setting.family = name.substr(0, colon);
  setting.precision = reference::precision_named(name.substr(colon + 1));
  setting.checkpoint = samples / setting.family / "checkpoint";
  setting.golden = samples / setting.family / golden;
  require(fs::exists(setting.golden), setting.golden.string() +
                                          " is not there; give --samples the "
                                          "directory of the bundled samples");
  return setting;
}

Recording without_logits(const Setting& setting) {
  Recording golden = read_recording(setting.golden, "fp64", 0);
  golden.logits.clear();
  return golden;
}

std::vector<verify::Run> correct_runs(const verify::ModelPair& models,
                                      const std::vector<Sequence>& sequences, std::uint64_t seed,
                                      const std::function<bool(const std::string&)>& keep) {
  std::vector<verify::Run> runs;
  for (std::size_t b = 0; b < sequences.size(); ++b) {
    const verify::Variant draw =
        models.rounded({reference::Rounding::Mode::random, random_bits(seed, b)});
    verify::RunOptions options;
    options.span = {0, draw.model.config.num_hidden_layers};
    options.keep = keep;
    runs.push_back(verify::run_reference(draw.model, sequences[b], draw.ops, options));
  }
  return runs;
}

Json receipt_of(const Setting& setting, const verify::Draws& options,
                const std::string& command_line, double seconds) {
  verify::Receipt receipt = verify::make_receipt(setting.checkpoint, setting.golden, std::nullopt);
  receipt.command = command_line;
  receipt.draws = options;
  receipt.seconds = seconds;
  return verify::receipt_json(receipt);
}

void write_rows(const fs::path& file, const std::string& what, const Json& rows) {
  Json all = {{"what", what}, {"rows", Json::array()}};
  if (fs::exists(file)) all = read_json(file);
  Json kept = Json::array();
  for (const Json& old : all.at("rows")) {
    bool replaced = false;
    for (const Json& row : rows) replaced |= row.at("setting") == old.at("setting");
    if (!replaced) kept.push_back(old);
  }
  for (const Json& row : rows) kept.push_back(row);
  all["what"] = what;
  all["rows"] = kept;
  write_text(file, all.dump(1) + "\n");
}

Json measure_each(const std::vector<Setting>& settings,
                  const std::function<Json(const Setting&)>& measure, const fs::path& json,
                  const std::string& what, const verify::Draws& draws,
                  const std::string& command_line) {
  Json rows = Json::array();
  for (const Setting& setting : settings) {
    const auto start = std::chrono::steady_clock::now();
    Json row = measure(setting);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    row["receipt"] = receipt_of(setting, draws, command_line, seconds.count());
    if (!json.empty()) write_rows(json, what, Json::array({row}));
    rows.push_back(std::move(row));
  }
  return rows;
}

int sum_of(const Json& rows, const char* key) {
  int sum = 0;
  for (const Json& row : rows) sum += row.at(key).get<int>();
  return sum;
}

}  // namespace dsa::experiments
