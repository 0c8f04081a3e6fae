# Tokenizers, chat formats and sampling: PCRE2 for the pre-tokenisers' expressions, utf8proc for NFC.
find_package(PkgConfig REQUIRED)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
file(GLOB text_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/text/*.cpp)
list(REMOVE_ITEM text_sources ${PROJECT_SOURCE_DIR}/text/generation.cpp)  # cmake/engine.cmake
add_library(dsa_text ${text_sources})
target_link_libraries(dsa_text PUBLIC dsa_core PRIVATE dsa_exact PkgConfig::PCRE2 PkgConfig::UTF8PROC)
