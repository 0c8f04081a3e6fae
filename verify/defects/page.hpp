// verify/defects/page.hpp — the catalogue as Markdown: docs/defects.md.
#pragma once

#include <string>

namespace dsa::verify {

std::string catalogue_page();

}  // namespace dsa::verify
