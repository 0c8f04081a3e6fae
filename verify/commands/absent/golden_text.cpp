// Tokens beside their text in a build of the judge alone (DSA_BACKENDS=OFF): it has no tokenizer.
#include "verify/commands/golden_text.hpp"

namespace dsa::verify {

std::vector<std::string> remarks_on_text(const std::filesystem::path& checkpoint,
                                         const Recording& golden) {
  if (golden.texts.empty() || !std::filesystem::exists(checkpoint / "tokenizer.json")) return {};
  return {
      "the tokens were not compared with the text: this build has no tokenizer, one of `make "
      "build` "
      "has"};
}

}  // namespace dsa::verify
