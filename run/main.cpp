// run/main.cpp — dsa-run: run checkpoints, look into them, and change their format.
#include <CLI/CLI.hpp>
#include <iostream>

#include "core/check.hpp"
#include "core/checkpoint_writer.hpp"
#include "core/outputs.hpp"
#include "core/recording.hpp"
#include "optimized/engine/arguments.hpp"
#include "run/convert.hpp"
#include "run/inspect.hpp"
#include "run/logits.hpp"
#include "run/text_commands.hpp"

namespace {

constexpr const char* about = R"(
Runs HuggingFace checkpoints of DeepSeek-V2, V3, V3.2 and GLM-5, looks into them, and changes their
format. A checkpoint is a directory with config.json and model.safetensors, or with
model.safetensors.index.json and its shards. inspect and convert map and stream the files: a model
larger than memory is no obstacle to them.

Exit status: 0 success, 1 `inspect` found something wrong, 2 bad usage or unusable input.
`dsa-run COMMAND --help` lists the options of logits, generate, tokenize, inspect,
convert and jsonl.)";

constexpr const char* about_inspect = R"(
Lists what a checkpoint holds (family, parameters in all, active per token and in the indexer,
layers and how they share indices, dtypes), what decoding one token costs at a context length, and
everything wrong with it: missing, extra, misshaped and unreadable tensors, numbers that are not
finite, block scales that are not positive (or no powers of two where scale_fmt is ue8m0). Every
number in the files is read.

Exit status 0: nothing is wrong. 1: the problems are listed, one line each. 2: the directory cannot
be read as a checkpoint at all.

Cost of a token that sees S keys, per layer, with R = kv_lora_rank, P = qk_rope_head_dim, N heads,
and an indexer of H heads x D and top-k K:
  weights    2 FLOP a matrix element touched; of the routed experts num_experts_per_tok of them
  attention  2 N ((R+P) + R) FLOP and R+P cached numbers for each of min(K,S) keys
  indexer    2 H (D+1) FLOP and D cached numbers for each of S keys
Cached numbers are taken to have the config's dtype, weights that of the files.

Example: dsa-run inspect models/v32 --context 131072 --json v32.json)";

constexpr const char* about_convert = R"(
Writes the checkpoint IN as OUT in another format. Every value of OUT is read back and compared
with the rounding that was meant; only then does OUT get its name. An existing OUT is refused, and
a failure leaves nothing behind.

  fp32  every tensor F32
  bf16  every tensor BF16, except e_score_correction_bias and the indexer's weights_proj, which
        stay F32 as in HuggingFace
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

constexpr const char* about_jsonl = R"(
Writes tokens and logits of GOLDEN (safetensors) to OUT as MaxText's logit checker reads them: a
line a sequence, {"prompt": "", "tokens": [S ids], "logits": [S lists of V numbers, as fp32]}.
Padding is left out. Packed documents, NaN and infinities, which the format cannot express, are
refused.

Example: dsa-run jsonl logits.safetensors golden.jsonl --dtype fp32)";

constexpr const char* about_logits = R"(
Computes the logits of every token of FILE and writes them to OUT, with the tokens:
safetensors (tokens, attention_mask, logits (B, S, V) in F32; shorter sequences are padded on the
right), or MaxText's JSON lines where OUT ends in .jsonl (which are held in memory until written).

FILE holds token ids: JSON ([[1, 2, 3], [4, 5]]), JSON lines ({"tokens": [1, 2, 3]} a line; other
keys are ignored), or safetensors (tokens (B, S), attention_mask).

  fp32  F32 weights, activations and caches
  bf16  BF16 weights, inputs of products and caches; sums, residual stream and norms in F32
  fp8   as bf16, with the official code's FP8 caches: latents of 656 bytes a token at V3.2's sizes,
        index keys rotated by a Hadamard matrix, of 132

The model is loaded once, wholly; tokens go through in passes of --chunk, whose memory does not
depend on how many came before. --plan says what all of it takes, and loads nothing.

Example: dsa-run logits models/v32 --tokens prompts.json -o out.safetensors --format bf16)";

struct Options {
  std::string directory, json, in, out, dtype, experts, mtp = "keep", shard_size = "5GB";
  std::string tokens;
  dsa::run::EngineArguments engine;
  dsa::Index context = 4096;
  dsa::run::LogitsJob logits;
};

int inspect(const Options& o) {
  dsa::check_outputs({o.json}, {o.directory});
  const auto report = dsa::run::inspect(o.directory, o.context);
  if (!o.json.empty()) dsa::write_text(o.json, dsa::run::as_json(report).dump(2) + "\n");
  std::cout << dsa::run::as_text(report);
  return report.ok() ? 0 : 1;
}

int convert(const Options& o) {
  dsa::run::Conversion job;
  job.in = o.in;
  job.out = o.out;
  job.dtype = o.dtype == "fp32"   ? dsa::Dtype::f32
              : o.dtype == "bf16" ? dsa::Dtype::bf16
                                  : dsa::Dtype::f8_e4m3;
  if (!o.experts.empty()) job.packed_experts = o.experts == "packed";
  job.keep_mtp = o.mtp == "keep";
  job.shard_bytes = dsa::parse_bytes(o.shard_size, "--shard-size");
  std::cout << dsa::run::convert(job) << '\n';
  return 0;
}

int jsonl(const Options& o) {
  dsa::check_outputs({o.out}, {o.in});
  const dsa::Recording golden = dsa::read_recording(o.in, o.dtype, 0);
  dsa::require(!golden.logits.empty(), o.in + " has no logits, expected a golden of logits");
  dsa::write_jsonl(o.out, golden);
  std::cout << o.out << ": " << golden.sequences.size() << " lines, logits in " << golden.dtype
            << '\n';
  return 0;
}

int logits(const Options& o) {
  dsa::run::LogitsJob job = o.logits;
  job.checkpoint = o.directory;
  job.tokens = o.tokens;
  job.out = o.out;
  dsa::require(job.plan_only || !o.out.empty(), "--out is required; name the file to write");
  dsa::check_outputs({o.out}, {o.directory, o.tokens});
  std::cout << dsa::run::logits(job, o.engine.parsed());
  return 0;
}

void describe_logits(CLI::App& app, Options& o) {
  app.add_option("checkpoint", o.directory, "Checkpoint directory")
      ->required()
      ->type_name("CHECKPOINT");
  app.add_option("--tokens", o.tokens, "Token ids")->required()->type_name("FILE");
  app.add_option("-o,--out", o.out, "File to write: *.safetensors or *.jsonl")->type_name("OUT");
  o.engine.describe(app);
  app.add_flag("--trace", o.logits.trace,
               "Also write tensors and decisions of the first sequence, by HuggingFace's names");
  app.add_flag("--plan", o.logits.plan_only, "Say what it takes of memory, and do nothing");
}

void describe(CLI::App& inspect, CLI::App& convert, CLI::App& jsonl, Options& o) {
  inspect.add_option("dir", o.directory, "Checkpoint directory")->required()->type_name("DIR");
  inspect.add_option("--context", o.context, "Keys that the token sees, S")
      ->check(CLI::Range(dsa::Index{1}, dsa::Index{1} << 40).description(""))
      ->type_name("N")
      ->capture_default_str();
  inspect.add_option("--json", o.json, "Write the same as JSON to this file")->type_name("FILE");

  convert.add_option("in", o.in, "Checkpoint to read")->required()->type_name("IN");
  convert.add_option("out", o.out, "Directory to create")->required()->type_name("OUT");
  convert.add_option("--dtype", o.dtype, "fp32, bf16 or fp8")
      ->required()
      ->check(CLI::IsMember({"fp32", "bf16", "fp8"}).description(""))
      ->type_name("TYPE");
  convert
      .add_option("--experts", o.experts,
                  "packed: gate_up_proj (E, 2F, C) and down_proj (E, C, F) a layer; separate: "
                  "three matrices an expert (fp8 always). Default: as they are")
      ->check(CLI::IsMember({"packed", "separate"}).description(""))
      ->type_name("HOW");
  convert.add_option("--shard-size", o.shard_size, "Largest file, e.g. 5GB or 500MB")
      ->type_name("SIZE")
      ->capture_default_str();
  convert.add_option("--mtp", o.mtp, "keep or drop multi-token-prediction blocks")
      ->check(CLI::IsMember({"keep", "drop"}).description(""))
      ->type_name("HOW")
      ->capture_default_str();

  jsonl.add_option("in", o.in, "Golden to read")->required()->type_name("GOLDEN");
  jsonl.add_option("out", o.out, "File to write")->required()->type_name("OUT");
  jsonl.add_option("--dtype", o.dtype, "Column: fp64, fp32 or bf16. Default: the most precise")
      ->check(CLI::IsMember({"fp64", "fp32", "bf16"}).description(""))
      ->type_name("TYPE");
}

/// One line, whatever the message holds.
std::string one_line(std::string text) {
  for (char& c : text)
    if (c == '\n' || c == '\r') c = ' ';
  return text;
}

/// The program, with the command that was named: whose --help has the options.
std::string help_of(const CLI::App& app) {
  std::string words = "see dsa-run ";
  for (const CLI::App* command : app.get_subcommands()) words += command->get_name() + " ";
  return words + "--help";
}

bool has_command(const CLI::App& app, const std::string& name) {
  return !app.get_subcommands([&](const CLI::App* c) { return c->get_name() == name; }).empty();
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  CLI::App app(about, "dsa-run");
  app.require_subcommand(1);
  CLI::App* running = app.add_subcommand("logits", about_logits);
  dsa::run::TextCommands text(app);
  CLI::App* inspecting = app.add_subcommand("inspect", about_inspect);
  CLI::App* converting = app.add_subcommand("convert", about_convert);
  CLI::App* lines = app.add_subcommand("jsonl", about_jsonl);
  describe_logits(*running, o);
  describe(*inspecting, *converting, *lines, o);
  if (argc > 1 && argv[1][0] != '-' && !has_command(app, argv[1])) {
    std::cerr << "dsa-run: there is no command \"" << one_line(argv[1])
              << "\"; see dsa-run --help\n";
    return 2;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    std::cerr << "dsa-run: " << one_line(error.what()) << "; " << help_of(app) << '\n';
    return 2;
  }
  try {
    if (running->parsed()) return logits(o);
    if (const auto status = text.run()) return *status;
    if (inspecting->parsed()) return inspect(o);
    return lines->parsed() ? jsonl(o) : convert(o);
  } catch (const std::exception& error) {
    std::cerr << "dsa-run: " << one_line(error.what()) << '\n';
    return 2;
  }
}
