// verify/names/dataflow.hpp — which traced tensor is made from which.
//
// What reference/model/forward.cpp, attention.cpp and moe.cpp do, as a graph of trace names: a
// tensor that differs although all that it is made from is right, is wrong by itself.
#pragma once

#include <string>
#include <vector>

#include "core/config.hpp"

namespace dsa::verify {

/// The tensors and decisions that `name` is made from, by trace name. Some do not exist in every
/// model ("mlp.shared_experts" without shared experts); empty for model.embed_tokens and for names
/// that the reference does not know.
std::vector<std::string> inputs_of(const std::string& name, const Config&);

/// Whether the reference traces a tensor or a decision of this name in some model. The inside of
/// a routed expert does not count: its rows are the tokens that chose it, not those of the
/// sequence.
bool is_traced(const std::string& name);

/// Every name that is_traced() knows within a layer, in alphabetical order; no model has them all.
std::vector<std::string> traced_within_layer();

/// The layer whose selection layer l reads: l itself, or where selections are shared one before it.
Index selecting_layer(const Config&, Index l);

}  // namespace dsa::verify
