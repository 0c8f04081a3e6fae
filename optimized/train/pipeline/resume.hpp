// optimized/train/pipeline/resume.hpp — where a run goes on.
#pragma once

#include <filesystem>
#include <optional>

#include "optimized/train/pipeline/run_directory.hpp"
#include "optimized/train/pipeline/settings.hpp"

namespace dsa::train {

/// The checkpoint that run.resume means; nothing: begin anew. Errors: there is none of this name,
/// or the directory holds later ones.
std::optional<std::filesystem::path> checkpoint_to_resume(const Settings&, const RunDirectory&);

}  // namespace dsa::train
