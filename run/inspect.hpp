// run/inspect.hpp — what a checkpoint holds, what is wrong with it, what a token costs.
//
// Cost of decoding one token whose query sees S keys, in the absorbed form of attention
// (docs: R+P numbers a key), per layer, summed over the layers:
//   weights    2 FLOPs a matrix element touched; of the routed experts num_experts_per_tok / E.
//              kv_b_proj counts once: its halves W_UK and W_UV are applied to the query and to
//              the output. Of embed_tokens one row is read.
//   attention  N heads x min(K,S) keys x 2 ((R+P) + R) FLOPs; reads min(K,S) (R+P) cached numbers
//              (S keys where there is no indexer, or use_sparse_attention is false).
//   indexer    layers with their own: S keys x 2 H (D+1) FLOPs; reads S D cached numbers.
//   cache      R+P numbers a token and layer, and D where the layer has its own indexer.
// Cached numbers take the bytes of the config's dtype; weights those of the file, scales included.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/checkpoint.hpp"
#include "core/json_fwd.hpp"

namespace dsa::run {

struct Cost {
  double bytes = 0, flops = 0;
};

struct Inspection {
  std::filesystem::path directory;
  Config config;
  bool has_weights = true;
  Index context = 0;  // S
  Index mtp_blocks = 0;
  Index parameters = 0, routed_parameters = 0, indexer_parameters = 0, mtp_parameters = 0;
  double active_parameters = 0;
  struct Stored {
    Index tensors = 0, bytes = 0;
  };
  std::map<std::string, Stored> dtypes;  // of all stored tensors
  Cost weights, attention, indexer;      // to decode one token
  Index cache_bytes_per_token = 0;
  CheckpointProblems problems;
  std::vector<std::string> not_finite, bad_scales;  // one sentence a tensor
  std::vector<std::string>
      warnings;  // what no trained model has, or nobody reads; one sentence each

  bool ok() const { return problems.none() && not_finite.empty() && bad_scales.empty(); }
};

/// Reads every number of the checkpoint, row by row. What keeps it from being opened at all
/// (config.json, the index, a damaged file) is an Error. Where no weights lie beside config.json,
/// or the path is that of a config, everything is counted from the config, in the dtypes of
/// releases.
Inspection inspect(const std::filesystem::path& checkpoint_or_config, Index context);

/// Keys of config.json that nothing depends on, in one sentence; none where there are none.
std::vector<std::string> warnings_of(const Config&);

/// What deserves a line although the checkpoint can be read: constant tensors where training leaves
/// none, a block scale of 1 beside ones a thousand times smaller, promised multi-token-prediction
/// blocks that are not there, files that no index lists, indexers of layers that share a selection,
/// names with a wrapper's prefix, heads of their own.
std::vector<std::string> warnings_of(const StoredCheckpoint&, const CheckpointProblems&,
                                     const Config&, const Weights&);

/// Aligned text for people; problems one line each at the end.
std::string as_text(const Inspection&);

Json as_json(const Inspection&);

}  // namespace dsa::run
