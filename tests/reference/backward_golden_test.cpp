// Gradients and losses against torch's autograd in fp64 (data/gradients).
#include "core/safetensors.hpp"
#include "tests/catch.hpp"
#include "tests/reference/backward_support.hpp"

using namespace dsa;
using namespace dsa::test;

namespace {

std::filesystem::path golden_dir(const std::string& name) {
  return std::filesystem::path(source_dir()) / "data" / "gradients" / name;
}

std::vector<double> values_of(const StoredTensor& t) {
  std::vector<double> values(static_cast<std::size_t>(t.size()));
  decode(t.dtype, t.data, t.size(), values.data());
  return values;
}

/// The sequences of a golden as a reading sees them, one after the other; padding where `valid` is
/// 0.
Sequence sequence_of(const SafetensorsFile& file, const KlSemantics& semantics = {}) {
  const StoredTensor& tokens = file.at("tokens");
  const Index B = tokens.shape[0], S = tokens.shape[1];
  const std::vector<double> ids = values_of(tokens);
  const StoredTensor* valid = file.find("valid");
  const std::vector<double> mask = valid ? values_of(*valid) : std::vector<double>(ids.size(), 1.0);
  std::vector<Sequence> sequences;
  for (Index b = 0; b < B; ++b) {
    const std::vector<Token> row(ids.begin() + b * S, ids.begin() + (b + 1) * S);
    const std::vector<Index> real(mask.begin() + b * S, mask.begin() + (b + 1) * S);
    sequences.push_back(seen_by(semantics, masked_sequence(row, real)));
  }
  return reference::join(sequences);
}

/// Our gradient under the golden's name: packed experts are gathered.
std::vector<double> ours(const std::map<std::string, Tensor<double, 2>>& gradients,
                         const Config& config, const std::string& name) {
  std::vector<double> values;
  const auto add = [&](const std::string& part) {
    const Tensor<double, 2>& g = gradients.at(part);
    values.insert(values.end(), g.begin(), g.end());
  };
  const bool gate_up = name.ends_with(".experts.gate_up_proj"),
             down = name.ends_with(".experts.down_proj");
  if (!gate_up && !down) {
    add(name);
    return values;
  }
  const std::string at = name.substr(0, name.rfind('.') + 1);
  for (Index e = 0; e < config.n_routed_experts; ++e)
    for (const char* part : {"gate_proj", "up_proj", "down_proj"})
      if ((std::string(part) == "down_proj") == down)
        add(at + std::to_string(e) + "." + part + ".weight");
  return values;
}

/// The largest distance in units of what is allowed: 1e-10 of the tensor's largest entry, and half
/// a unit in the last place where the golden stores F32.
double worst_over_allowed(const std::vector<double>& got, const StoredTensor& golden) {
  const std::vector<double> want = values_of(golden);
  if (got.size() != want.size()) return infinity;
  double largest = 0, worst = 0;
  for (double w : want) largest = std::max(largest, std::abs(w));
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double rounding = golden.dtype == Dtype::f32 ? std::ldexp(std::abs(want[i]), -24) : 0;
    const double ratio = std::abs(got[i] - want[i]) / (1e-10 * largest + rounding);
    if (!(ratio <= worst)) worst = ratio;
  }
  return worst;
}

/// Compares every tensor of the golden that begins with `loss` and a dot.
void compare(const Answers<double>& answers, const Config& config, const SafetensorsFile& golden,
             const std::string& loss) {
  int compared = 0;
  for (const StoredTensor& t : golden.tensors()) {
    if (!t.name.starts_with(loss + ".")) continue;
    const std::string name = t.name.substr(loss.size() + 1);
    INFO(golden.path().filename() << ": " << t.name);
    CHECK(worst_over_allowed(ours(answers.gradients, config, name), t) <= 1);
    ++compared;
  }
  CHECK(compared > 5);
}

void check_loss(double got, const SafetensorsFile& golden, const std::string& name,
                std::size_t i = 0) {
  INFO(golden.path().filename() << ": " << name << " " << i);
  const double want = values_of(golden.at(name)).at(i);
  CHECK(std::abs(got - want) <= 1e-12 * std::abs(want));
}

struct Case {
  std::string model, file;
  KlSemantics semantics = {};
  bool dense = false;  // index_topk = S
  bool has_lm = true, has_kl = true;
};

void check_case(const Case& c) {
  Model model = resident(open_checkpoint(golden_dir(c.model) / "checkpoint"), Index{1} << 30);
  const SafetensorsFile golden =
      SafetensorsFile::open(golden_dir(c.model) / ("gradients." + c.file + ".safetensors"));
  const Sequence sequence = sequence_of(golden);
  if (c.dense) model.config.indexer->topk = sequence.size();
  if (c.has_lm) {
    const auto answers = gradients_of(model, sequence, reference::lm_objective<double>(sequence));
    check_loss(answers.losses.lm, golden, "loss.lm");
    compare(answers, model.config, golden, "lm");
    for (const auto& [name, gradient] : answers.gradients)
      if (of_indexer(name)) CHECK(all_zero(gradient));
  }
  if (!c.has_kl) return;
  const Sequence seen = sequence_of(golden, c.semantics);
  const auto answers =
      gradients_of(model, seen, reference::kl_objective<double>(seen, c.semantics));
  check_loss(answers.losses.kl, golden, "loss.kl");
  if (golden.find("loss.kl.layers"))
    for (std::size_t i = 0; i < answers.losses.kl_layers.size(); ++i)
      check_loss(answers.losses.kl_layers[i], golden, "loss.kl.layers", i);
  compare(answers, model.config, golden, "kl");
  for (const auto& [name, gradient] : answers.gradients)
    if (!of_indexer(name)) CHECK(all_zero(gradient));
}

KlSemantics dense_teacher() {
  KlSemantics semantics;
  semantics.teacher_softmax = KlSemantics::Keys::visible;
  return semantics;
}

}  // namespace

TEST_CASE("gradients are torch's in fp64: V3.2, sparse", "[backward][golden]") {
  check_case({"v32calm", "sparse"});
}

TEST_CASE("gradients are torch's in fp64: V3.2, dense", "[backward][golden]") {
  check_case({"v32calm", "dense", {}, true});
}

TEST_CASE("gradients are torch's in fp64: V3.2, padded", "[backward][golden]") {
  check_case({"v32calm", "padded"});
}

TEST_CASE("gradients are torch's in fp64: V2, V3 and GLM", "[backward][golden]") {
  check_case({"v2lite", "sparse", {}, false, true, false});
  check_case({"v3", "sparse", {}, false, true, false});
  check_case({"glm", "sparse"});
}

TEST_CASE("each trainer's KL is its own", "[backward][golden]") {
  const KlSemantics maxtext = semantics_named("maxtext"),
                    megatron = semantics_named("megatron");
  check_case({"v32calm", "sparse.maxtext", maxtext, false, false});
  check_case({"v32calm", "padded.maxtext", maxtext, false, false});
  check_case({"v32calm", "dense.maxtext", in_warmup(maxtext), false, false});
  check_case({"v32calm", "sparse.megatron", megatron, false, false});
  check_case({"v32calm", "sparse.dense-teacher", dense_teacher(), false, false});
}

TEST_CASE("a backward trace is torch's", "[backward][golden]") {
  const Model model = resident(open_checkpoint(golden_dir("v32calm") / "checkpoint"), 1 << 30);
  const SafetensorsFile golden =
      SafetensorsFile::open(golden_dir("v32calm") / "backward-trace.safetensors");
  const Sequence sequence = sequence_of(golden);
  const auto answers = gradients_of(model, sequence, reference::lm_objective<double>(sequence),
                                    {MlaForm::expanded, true});
  check_loss(answers.losses.lm, golden, "loss.lm");
  int compared = 0;
  for (const StoredTensor& t : golden.tensors()) {
    if (!t.name.starts_with("d.")) continue;
    INFO(t.name);
    const auto found = answers.outputs.find(t.name);
    REQUIRE(found != answers.outputs.end());
    std::vector<double> got(found->second.begin(), found->second.end());
    if (t.name.ends_with("gate.weights")) {  // torch's experts of a token are in another order
      const auto k = static_cast<std::ptrdiff_t>(found->second.shape()[1]);
      Tensor<double, 2> sorted = trace_values(t);
      double worst = 0;
      for (std::ptrdiff_t row = 0; row < static_cast<std::ptrdiff_t>(got.size()); row += k) {
        std::sort(got.begin() + row, got.begin() + row + k);
        std::sort(sorted.begin() + row, sorted.begin() + row + k);
      }
      for (std::size_t i = 0; i < got.size(); ++i)
        worst = std::max(worst, std::abs(got[i] - sorted.data()[i]));
      CHECK(worst <= 1e-10 * range(sorted));
    } else {
      CHECK(worst_over_allowed(got, t) <= 1);
    }
    ++compared;
  }
  CHECK(compared > 10);
}
