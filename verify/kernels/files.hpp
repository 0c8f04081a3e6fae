// verify/kernels/files.hpp — cases as files, and outputs that another program wrote.
//
// OP.CASE.safetensors holds in.NAME, want.NAME and allowed.NAME; its metadata, and an entry of
// index.json, hold the scalars and the types and shapes of the outputs. The judged files have the
// same names, and tensors named as the outputs. docs/ops.md is the format. With the layout of
// somebody's kernel, inputs and outputs have the names, types and shapes that it is called with.
#pragma once

#include <filesystem>

#include "verify/kernels/peers/peer_layouts.hpp"
#include "verify/kernels/suite.hpp"

namespace dsa::verify::kernels {

/// Writes the cases that the options name, but for those that a kernel must refuse, or that the
/// layout does. Returns a sentence on what was written.
std::string dump_cases(const std::filesystem::path& dir, const OpsOptions&,
                       const PeerLayout* = nullptr);

/// Judges the files of `dir`, a row an op and dtype. Cases without a file are counted as not taken.
/// Error: `dir` has no file of any case.
OpsReport check_files(const std::filesystem::path& dir, const OpsOptions&,
                      const PeerLayout* = nullptr);

}  // namespace dsa::verify::kernels
