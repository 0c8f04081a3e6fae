# What every program has in common: its skeleton, checked numbers, progress.
file(GLOB cli_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/cli/*.cpp)
add_library(dsa_cli ${cli_sources})
target_link_libraries(dsa_cli PUBLIC dsa_core CLI11::CLI11 PRIVATE dsa_exact Threads::Threads)
target_compile_options(dsa_cli PRIVATE ${DSA_READS})
