// The CPU backend takes the memory that was planned.
#include "optimized/cpu/model/engine.hpp"
#include "optimized/cpu/model/forward.hpp"
#include "tests/catch.hpp"
#include "tests/models.hpp"
#include "tests/resident.hpp"

using namespace dsa;
using namespace dsa::test;
using Catch::Contains;

TEST_CASE("a cache grows by pages and moves nothing", "[cpu-model]") {
  const Config config = sample_model("glm").config;
  for (const Format format : {Format::fp32, Format::bf16, Format::fp8}) {
    cpu::Cache cache(config, format);
    cache.reserve(1);
    const auto address = [&]() -> const void* {
      if (format == Format::fp32) return cache.latent<float>(1, 1).row(0);
      if (format == Format::bf16) return cache.latent<bf16>(1, 1).row(0);
      return cache.latent<e4m3>(1, 1).row(0);
    };
    const void* before = address();
    cache.reserve(5 * cpu::Cache::page_rows + 1);
    CHECK(address() == before);
    const Index one = cpu::cache_bytes(config, format, 1);
    CHECK(cpu::cache_bytes(config, format, cpu::Cache::page_rows) == one);
    CHECK(cpu::cache_bytes(config, format, cpu::Cache::page_rows + 1) == 2 * one);
  }
  // 17 + 10 latent numbers in 5 layers, 16 of the index in the 2 layers that run one.
  CHECK(cpu::cache_bytes(config, Format::fp32, 256) == 256 * 4 * (5 * 27 + 2 * 16));
}

TEST_CASE("the plan says what fits", "[cpu-model]") {
  const Model model = sample_model("v32");
  const auto planned = [&](Index S, Index memory) {
    EngineOptions options;
    options.format = name_of(Format::bf16);
    options.chunk = 64;
    options.threads = 1;
    options.memory = memory;
    return cpu::plan(model.config, options, S, 64);
  };
  const Index without_cache = planned(1, 1).total() - planned(1, 1).cache;
  const Index page = cpu::cache_bytes(model.config, Format::bf16, 1);
  const Plan three_pages = planned(768, without_cache + 3 * page);
  CHECK(three_pages.largest_S == 768);
  CHECK(three_pages.total() == three_pages.memory);
  require_fits(three_pages);
  CHECK_THROWS_WITH(require_fits(planned(769, without_cache + 3 * page)),
                    Contains("769 tokens take") && Contains("at most 768 tokens fit"));
  CHECK_THROWS_WITH(require_fits(planned(1, without_cache + page - 1)),
                    Contains("no room for a cache"));
  const cpu::PackedModel packed = cpu::pack(model, Format::bf16, {});
  CHECK(cpu::weight_bytes(model.config, Format::bf16) <= packed.bytes());
  CHECK(cpu::Workspace(model.config, Format::bf16, 64, 1).bytes() == three_pages.workspace);
}

TEST_CASE("what was packed is not kept in memory twice", "[cpu-model]") {
  const auto directory = sample("v32") / "checkpoint";
  const Model model = open_checkpoint(directory);
  const auto before = read_all<float>(model.weights.lm_head.weight);
  CHECK(resident_bytes(directory / "model.safetensors") > 0);
  cpu::pack(model, Format::bf16, {});
  CHECK(resident_bytes(directory / "model.safetensors") == 0);
  CHECK(read_all<float>(model.weights.lm_head.weight) == before);
}
