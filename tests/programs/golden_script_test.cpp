// data/make_golden.py makes of HuggingFace what lies in data/gradients, which other scripts made.
#include <cmath>

#include "core/safetensors.hpp"
#include "tests/catch.hpp"
#include "tests/paths.hpp"
#include "tests/programs/programs.hpp"
#include "tests/skip.hpp"

using namespace dsa;
using namespace dsa::test;

namespace {

/// Runs make_golden.py on a checkpoint of data/gradients; false where this machine cannot.
bool made(const std::string& family, const std::string& options, const Scratch& out) {
  if (std::system("python3 -c 'import torch, transformers, safetensors' 2>/dev/null") != 0) {
    skip("python3 has no torch with transformers; pip install -r data/requirements.txt first");
    return false;
  }
  const std::string gradients = source_dir() + "/data/gradients/" + family,
                    said = (out / "said").string();
  const int status = std::system(("python3 " + source_dir() + "/data/make_golden.py checkpoint " +
                                  gradients + "/checkpoint " + out.path().string() +
                                  " --dtypes fp64 " + options + " > " + said + " 2>&1")
                                     .c_str());
  INFO(read_text(said));
  REQUIRE(status == 0);
  return true;
}

std::vector<double> numbers(const StoredTensor& t) {
  std::vector<double> values(static_cast<std::size_t>(t.size()));
  decode(t.dtype, t.data, t.size(), values.data());
  return values;
}

/// Every tensor of `bundled` is there, but for names that begin with `but`, and is the same to
/// within the rounding of long sums in another order, or of what F32 holds.
void check_same(const std::filesystem::path& made, const std::string& bundled,
                const std::string& but = "-") {
  const SafetensorsFile mine = SafetensorsFile::open(made), theirs = SafetensorsFile::open(bundled);
  for (const StoredTensor& t : theirs.tensors()) {
    if (t.name.starts_with(but)) continue;
    INFO(t.name);
    const StoredTensor* own = mine.find(t.name);
    REQUIRE(own != nullptr);
    REQUIRE(own->shape == t.shape);
    const std::vector<double> a = numbers(*own), b = numbers(t);
    double difference = 0, size = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      difference += (a[i] - b[i]) * (a[i] - b[i]);
      size += b[i] * b[i];
    }
    const double unit = t.dtype == Dtype::f32 ? 0x1p-24 : 1e-12;
    CHECK(std::sqrt(difference) <= unit * std::sqrt(size));
  }
}

std::string file_of(const std::string& name) {
  return source_dir() + "/data/gradients/" + name + ".safetensors";
}

}  // namespace

TEST_CASE("the script's gradients are the bundled ones, in every family", "[data][slow]") {
  for (const std::string family : {"v2lite", "v3", "glm"}) {
    const Scratch out;
    const std::string bundled = file_of(family + "/gradients.sparse");
    if (!made(family, "--gradients --tokens " + bundled, out)) return;
    check_same(out / "gradients.sparse.safetensors", bundled);
  }
}

TEST_CASE("the script reads the indexer's loss as trainers do, and traces the backward pass",
          "[data][slow]") {
  const Scratch out;
  if (!made("v32calm",
            "--gradients sparse,dense --semantics maxtext --semantics megatron --ragged 150,119 "
            "--backward-trace "
            "--tokens " +
                file_of("v32calm/gradients.sparse"),
            out))
    return;
  for (const std::string name :
       {"sparse", "dense", "padded", "sparse.maxtext", "padded.maxtext", "sparse.megatron"})
    check_same(out / ("gradients." + name + ".safetensors"), file_of("v32calm/gradients." + name),
               "loss.kl.per_token");
  check_same(out / "backward-trace.fp64.safetensors", file_of("v32calm/backward-trace"));
}

TEST_CASE("the script's steps of AdamW are the bundled ones", "[data][slow]") {
  const Scratch out;
  if (!made("v32calm",
            "--length 24 --trajectory 20 --recipe " + source_dir() +
                "/data/gradients/recipes/warmup.cosine.json --batches " +
                file_of("v32calm/trajectory.warmup.cosine"),
            out))
    return;
  check_same(out / "trajectory.warmup.safetensors", file_of("v32calm/trajectory.warmup.cosine"),
             "index_gap");
}
