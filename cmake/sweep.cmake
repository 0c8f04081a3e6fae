# dsa-sweep: runs dsa-train over and over, and reports what the runs say.
find_package(tomlplusplus REQUIRED)
file(GLOB_RECURSE sweep_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/experiments/sweep/*.cpp)
list(FILTER sweep_sources EXCLUDE REGEX "experiments/sweep/(main.cpp|commands/)")
add_library(dsa_sweep ${sweep_sources})
target_compile_options(dsa_sweep PRIVATE ${DSA_READS})
target_precompile_headers(dsa_sweep PRIVATE <nlohmann/json.hpp> <fmt/format.h> <algorithm> <filesystem> <map> <string> <vector>)
target_link_libraries(dsa_sweep PUBLIC dsa_verify dsa_train_pipeline dsa_cli
                                PRIVATE dsa_exact Boost::headers tomlplusplus::tomlplusplus)

file(GLOB sweep_commands CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/experiments/sweep/commands/*.cpp)
add_executable(dsa-sweep ${PROJECT_SOURCE_DIR}/experiments/sweep/main.cpp ${sweep_commands})
target_compile_options(dsa-sweep PRIVATE ${DSA_READS})
target_link_libraries(dsa-sweep PRIVATE dsa_sweep dsa_exact)
target_precompile_headers(dsa-sweep PRIVATE <CLI/CLI.hpp> <nlohmann/json.hpp> <fmt/format.h>)
