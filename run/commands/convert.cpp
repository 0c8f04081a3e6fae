#include "run/convert.hpp"

#include <iostream>
#include <memory>

#include "core/checkpoint_writer.hpp"
#include "run/commands/command.hpp"

namespace dsa::run {
namespace {

constexpr const char* about = R"(
Writes the checkpoint IN as OUT in another format. Every value of OUT is read back and compared
with the rounding that was meant; only then does OUT get its name. An existing OUT is refused, and
a failure leaves nothing behind.

  fp32  every tensor F32
  bf16  every tensor BF16, except e_score_correction_bias and the indexer's weights_proj, which
        stay F32: DeepSeek's own code computes with them in fp32. What transformers leaves in F32
        under dtype=bfloat16 differs by version: 5.23 nothing, 5.24 mlp.gate.weight and
        e_score_correction_bias; both cast weights_proj
  fp8   the matrices of attention, indexer (wq_b, wk), dense networks, experts and shared experts
        become F8_E4M3 with one F32 scale a 128 x 128 block (weight_scale_inv): the block's largest
        magnitude / 448, rounded up to a power of two where the config's scale_fmt is ue8m0.
        Norms, embeddings, lm_head, the router, weights_proj and biases stay as they are. Matrices
        that are FP8 already keep their codes.

config.json is rewritten accordingly (dtype, quantization_config, num_nextn_predict_layers), its
other keys are kept. Files other than weights, such as the tokenizer's, are copied up to 64 MiB
each. Left out: a head stored beside tied embeddings, rotary frequency tables, and MTP blocks that
num_nextn_predict_layers does not ask for.

Example: dsa-run convert models/v32-fp8 models/v32-bf16 --dtype bf16 --experts packed)";

struct Arguments {
  Conversion job;
  std::string dtype, experts, mtp = "keep", shard_size = "5GB";
};

int run(const Arguments& a) {
  Conversion job = a.job;
  job.dtype = a.dtype == "fp32" ? Dtype::f32 : a.dtype == "bf16" ? Dtype::bf16 : Dtype::f8_e4m3;
  if (!a.experts.empty()) job.packed_experts = a.experts == "packed";
  job.keep_mtp = a.mtp == "keep";
  job.shard_bytes = parse_bytes(a.shard_size, "--shard-size");
  job.progress = cli::progress();
  const std::string said = convert(job);
  cli::end_progress();
  std::cout << said << '\n';
  return 0;
}

}  // namespace

Command convert_command(CLI::App& program) {
  const auto a = std::make_shared<Arguments>();
  CLI::App* app = program.add_subcommand("convert", about);
  app->add_option("in", a->job.in, "Checkpoint to read")->required()->type_name("IN");
  app->add_option("out", a->job.out, "Directory to create")->required()->type_name("OUT");
  app->add_option("--dtype", a->dtype, "fp32, bf16 or fp8")
      ->required()
      ->check(CLI::IsMember({"fp32", "bf16", "fp8"}).description(""))
      ->type_name("TYPE");
  app->add_option("--experts", a->experts,
                  "packed: gate_up_proj (E, 2F, C) and down_proj (E, C, F) a layer; separate: "
                  "three matrices an expert (fp8 always). Default: as they are")
      ->check(CLI::IsMember({"packed", "separate"}).description(""))
      ->type_name("HOW");
  app->add_option("--shard-size", a->shard_size, "Largest file, e.g. 5GB or 500MB")
      ->type_name("SIZE")
      ->capture_default_str();
  app->add_option("--mtp", a->mtp, "keep or drop multi-token-prediction blocks")
      ->check(CLI::IsMember({"keep", "drop"}).description(""))
      ->type_name("HOW")
      ->capture_default_str();
  return {app, [=](const std::string&) { return run(*a); }};
}

}  // namespace dsa::run
