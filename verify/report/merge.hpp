// verify/report/merge.hpp — verdicts on spans of layers, joined into that on the whole model.
//
// A span begins at the hidden states that the judged side recorded, and the span before it has
// compared these: so spans that cover all layers once judge all that one run would.
#pragma once

#include <string>
#include <vector>

#include "core/json.hpp"

namespace dsa::verify {

/// A document of `dsa-verify golden --json`, and the file it was read from.
struct SpanReport {
  std::string file;
  Json json;
};

/// A document of the same form (docs/report.md) with one field more, "spans": the parts, in order.
/// Errors: a layer that no report judges, or that two do; reports of different checkpoints,
/// goldens, candidates, precisions, limits or programs; a border that was not compared; no report.
Json merged(std::vector<SpanReport>, const std::string& command_line);

/// A line a span, and the verdict.
std::string table_of_merged(const Json&, bool colour);

}  // namespace dsa::verify
