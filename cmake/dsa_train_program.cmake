# dsa-train: the pipeline around the trained model (cmake/train.cmake), and the program. Its numbers are data,
# moments and sums of losses: exact flags, as core's.
file(GLOB ranks_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/optimized/ranks/*.cpp)
add_library(dsa_ranks ${ranks_sources})
target_link_libraries(dsa_ranks PUBLIC dsa_core PRIVATE dsa_exact)

file(GLOB pipeline_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/optimized/train/data/*.cpp
     ${PROJECT_SOURCE_DIR}/optimized/train/pipeline/*.cpp
     ${PROJECT_SOURCE_DIR}/optimized/train/commands/overrides.cpp)
add_library(dsa_train_pipeline ${pipeline_sources})
target_link_libraries(dsa_train_pipeline PUBLIC dsa_train dsa_ranks dsa_text PRIVATE dsa_exact)
target_compile_options(dsa_train_pipeline PRIVATE ${DSA_READS})
target_precompile_headers(dsa_train_pipeline PRIVATE <nlohmann/json.hpp> <fmt/format.h> <algorithm> <filesystem>
                                                     <functional> <map> <string> <vector>)
set_source_files_properties(${PROJECT_SOURCE_DIR}/optimized/train/pipeline/optimizer.cpp  # they step over every parameter
                            ${PROJECT_SOURCE_DIR}/optimized/train/pipeline/gradient_sum.cpp PROPERTIES
                            COMPILE_OPTIONS -O3 SKIP_PRECOMPILE_HEADERS ON)

file(GLOB train_commands CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/optimized/train/commands/*.cpp)
list(FILTER train_commands EXCLUDE REGEX "/overrides[.]cpp$")
add_executable(dsa-train ${PROJECT_SOURCE_DIR}/optimized/train/main.cpp ${train_commands})
target_link_libraries(dsa-train PRIVATE dsa_train_pipeline dsa_cli dsa_exact)
target_compile_options(dsa-train PRIVATE ${DSA_READS})
target_precompile_headers(dsa-train PRIVATE <CLI/CLI.hpp>)
